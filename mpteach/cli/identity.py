"""Stop and resume every recipe, and swap scalers: do all bits stay the same?"""

import argparse
from pathlib import Path

from mpteach import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach identity`."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the record"
    )
    parser.add_argument(
        "--steps", type=int, default=60, metavar="N", help="steps a run (60)"
    )
    parser.add_argument("--size", default="tiny", help="shape of the model (tiny)")
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--json", action="store_true", help="print the record, not a summary"
    )


def run(args: argparse.Namespace) -> int:
    """Compare what the record lacks and print what differs; return 0."""
    import torch

    from mpteach import data, identity, records, runs

    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings, corpus = runs.Settings(steps=args.steps), data.standard_library()
    # Entered first: the record asks for the GPU's name, which starts CUDA.
    with identity.deterministic(device):
        fresh = identity.begin(args.size, settings, corpus, device, args.command_line)
        with files.only_writer(args.out):
            record = records.resume(fresh, args.out)
            record = _complete(record, corpus, args.out)
    print(record.text() if args.json else identity.table(record))
    return 0


def _complete(record, corpus, out: Path):
    from tqdm import tqdm

    from mpteach import identity

    todo = len(identity.missing(record))
    with tqdm(total=todo, unit="part", disable=not todo) as bar:
        return identity.run(record, corpus, out, bar.update)
