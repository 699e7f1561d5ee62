"""Measure how fast the course's own code is on this machine.

`mpteach bench rounding` times rounding beside a copy and beside other libraries.
"""

import argparse
import contextlib
from pathlib import Path

from mpteach import files
from mpteach.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of each kind of `mpteach bench`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    summary = "Time rounding to each format beside a copy and other libraries."
    rounding = kinds.add_parser("rounding", help=summary, description=summary)
    rounding.add_argument(
        "--elements",
        type=int,
        default=10_000_000,
        metavar="N",
        help="numbers to round (10,000,000)",
    )
    rounding.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="timings of each (7)"
    )
    rounding.add_argument(
        "--formats", nargs="+", metavar="NAME", help="default: all up to 16 bits"
    )
    rounding.add_argument("--out", type=Path, metavar="FILE", help="keep a record")
    rounding.add_argument(
        "--json", action="store_true", help="print the record, not a table"
    )


def run(args: argparse.Namespace) -> int:
    """Time what was asked for and print it; return 0."""
    from tqdm import tqdm

    from mpteach import benchmarks

    writer = files.only_writer(args.out) if args.out else contextlib.nullcontext()
    with writer:
        if args.out and args.out.exists():
            raise InputError(
                f"{str(args.out)!r} exists: give another --out, timings are not added."
            )
        names = args.formats or list(benchmarks.NARROW)
        record, cases = benchmarks.begin(
            names, args.elements, args.repeats, args.command_line
        )
        with tqdm(total=len(cases), unit="case") as bar:
            record = benchmarks.run(record, cases, bar.update)
        saved = args.out is None or _saved_as_new(record, args.out)
    print(record.text() if args.json else benchmarks.table(record))
    if not saved:
        raise InputError(
            f"{str(args.out)!r} appeared meanwhile and is left as it is: what is "
            "printed is kept nowhere, so copy it, or give another --out."
        )
    return 0


def _saved_as_new(record, out: Path) -> bool:
    """Save `record` unless something is there by now; say whether it was saved."""
    try:
        out.open("xb").close()
    except FileExistsError:
        return False
    try:
        record.save(out)
    except BaseException:
        out.unlink()
        raise
    return True
