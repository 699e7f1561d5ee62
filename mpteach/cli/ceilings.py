"""Measure how fast this machine multiplies, computes and copies; keep it in a record.

A record holds every finished row: after Ctrl-C the same command goes on.
"""

import argparse
import contextlib
from pathlib import Path

from mpteach import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach ceilings`."""
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the record (none is kept)"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="sizes of the matrices, multiples of 16 (256 to 16384 on a GPU, 64 to 1024"
        " on a CPU)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the record, not a table"
    )


def run(args: argparse.Namespace) -> int:
    """Measure what the record lacks and print it; return 0."""
    import torch
    from tqdm import tqdm

    from mpteach import ceilings, records

    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    writer = files.only_writer(args.out) if args.out else contextlib.nullcontext()
    with writer:
        record = ceilings.begin(device, args.sizes, args.command_line)
        if args.out:
            record = records.resume(record, args.out)
        todo = len(ceilings.missing(record))
        with tqdm(total=todo, unit="row", disable=not todo) as bar:
            record = ceilings.run(record, args.out, bar.update)
    print(record.text() if args.json else ceilings.table(record))
    if args.out and not args.json:
        print(f"The record is in {args.out}.")
    return 0
