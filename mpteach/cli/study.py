"""Train one small GPT in several variants to settle one question, kept in a record.

A record holds every finished run: after Ctrl-C or a crash the same command goes on.
"""

import argparse
import sys
from pathlib import Path

from mpteach import files
from mpteach.cli import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach study`."""
    parser.add_argument(
        "study",
        metavar="NAME",
        help="gradients, updates, epsilon, logits, collapse or scales",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the record"
    )
    compare.add_training_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run what the record lacks; return 0 when it is complete, 130 when interrupted."""
    from tqdm import tqdm

    from mpteach import records, studies

    size, settings, corpus, device = compare.asked(args)
    fresh = studies.begin(args.study, size, settings, corpus, device, args.command_line)
    with files.only_writer(args.out):
        record = records.resume(fresh, args.out)
        todo = studies.missing(record, range(args.seeds))
        steps = fresh.settings["training"]["steps"]
        bar = tqdm(total=len(todo) * steps, unit="step", disable=not todo)

        def on_step(variant: str, seed: int, step: int) -> None:
            bar.set_postfix_str(f"{variant}, seed {seed}", refresh=False)
            bar.update(1)

        try:
            with bar:
                record = studies.run(
                    record, range(args.seeds), corpus, args.out, on_step
                )
        except KeyboardInterrupt:
            print(
                f"Stopped; the same command goes on with {args.out}.", file=sys.stderr
            )
            return 130
    print(record.text() if args.json else studies.table(record))
    return 0
