"""Show what this machine's matrix products are summed in, and keep it in a record.

A record holds every finished exhibit: after Ctrl-C the same command goes on.
"""

import argparse
import contextlib
from pathlib import Path

from mpteach import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach accumulate`."""
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the record (none is kept)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the record, not a table"
    )


def run(args: argparse.Namespace) -> int:
    """Measure what the record lacks and print it; return 0."""
    import torch
    from tqdm import tqdm

    from mpteach import products, records

    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    writer = files.only_writer(args.out) if args.out else contextlib.nullcontext()
    with writer:
        record = products.begin(device, args.command_line)
        if args.out:
            record = records.resume(record, args.out)
        todo = sum(len(cases) for cases in products.missing(record).values())
        with tqdm(total=todo, unit="row", disable=not todo) as bar:
            record = products.run(record, args.out, bar.update)
    print(record.text() if args.json else products.table(record))
    if args.out and not args.json:
        print(f"The record is in {args.out}.")
    return 0
