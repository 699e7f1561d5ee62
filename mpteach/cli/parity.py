"""Compare our loss scaler and autocast with torch's, bit by bit, on this machine."""

import argparse
from pathlib import Path

from mpteach import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach parity`."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the record"
    )
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--steps", type=int, default=10_000, metavar="N", help="of the scalers (10000)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the record, not a summary"
    )


def run(args: argparse.Namespace) -> int:
    """Compare what the record lacks and print what differs; return 0."""
    import torch
    from tqdm import tqdm

    from mpteach import proofs, records, runs

    runs.require_count("steps", args.steps)
    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    fresh = proofs.begin(device, args.steps, args.command_line)
    with files.only_writer(args.out):
        record = records.resume(fresh, args.out)
        todo = len(proofs.missing(record))
        with tqdm(total=todo, unit="part", disable=not todo) as bar:
            record = proofs.run(record, args.out, bar.update)
    print(record.text() if args.json else proofs.table(record))
    return 0
