"""Measure how fast the course's own code is on this machine.

`mpteach bench rounding` times rounding beside a copy and beside other libraries;
`mpteach bench training` times each recipe's training step beside autocast to bfloat16.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from mpteach import files
from mpteach.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of each kind of `mpteach bench`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    summary = "Time rounding to each format beside a copy and other libraries."
    rounding = kinds.add_parser("rounding", help=summary, description=summary)
    _add_rounding_arguments(rounding)
    summary = "Time each recipe's training step beside autocast to bfloat16."
    training = kinds.add_parser("training", help=summary, description=summary)
    _add_training_arguments(training)
    for kind in (rounding, training):
        kind.add_argument("--out", type=Path, metavar="FILE", help="keep a record")
        kind.add_argument(
            "--json", action="store_true", help="print the record, not a table"
        )


def _add_rounding_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--elements",
        type=int,
        default=10_000_000,
        metavar="N",
        help="numbers to round (10,000,000)",
    )
    parser.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="timings of each (7)"
    )
    parser.add_argument(
        "--formats", nargs="+", metavar="NAME", help="default: all up to 16 bits"
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes", nargs="+", default=["124M"], metavar="SIZE", help="shapes (124M)"
    )
    parser.add_argument(
        "--batches",
        nargs="+",
        type=int,
        default=[32],
        metavar="N",
        help="windows of text a step (32)",
    )
    parser.add_argument(
        "--recipes", nargs="+", metavar="NAME", help="default: all of them"
    )
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--compile",
        default="",
        choices=("blocks", "whole"),
        help="what torch.compile gets (nothing)",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="pairs of timings (7)"
    )
    parser.add_argument(
        "--no-profile",
        action="store_true",
        help="do not ask where the time of a step goes",
    )


def run(args: argparse.Namespace) -> int:
    """Time what was asked for and print it; return 0."""
    with files.only_writer(args.out) if args.out else contextlib.nullcontext():
        if args.out and args.out.exists():
            raise InputError(
                f"{str(args.out)!r} exists: give another --out, timings are not added."
            )
        kinds = {"rounding": _time_rounding, "training": _time_training}
        kinds[args.kind](args)
    return 0


def _time_rounding(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from mpteach import benchmarks

    names = args.formats or list(benchmarks.NARROW)
    record, cases = benchmarks.begin(
        names, args.elements, args.repeats, args.command_line
    )
    with tqdm(total=len(cases), unit="case") as bar:
        record = benchmarks.run(record, cases, bar.update)
    saved = args.out is None or _saved_as_new(record, args.out)
    print(record.text() if args.json else benchmarks.table(record))
    if not saved:
        raise _appeared(args.out)


def _time_training(args: argparse.Namespace) -> None:
    """Print and keep each row as it comes: a run that is cut off leaves them."""
    # Else some versions of torch's profiler print two lines at each start.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch

    from mpteach import recipes, training_speed

    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    record = training_speed.begin(
        args.sizes,
        args.batches,
        args.recipes or list(recipes.RECIPES),
        device,
        args.command_line,
        args.compile,
        args.rounds,
        not args.no_profile,
    )
    rows = sys.stderr if args.json else sys.stdout
    print(training_speed.HEAD, file=rows, flush=True)

    def keep(record) -> None:
        if len(record.data["rows"]) > 1:
            record.save(args.out)
        elif not _saved_as_new(record, args.out):
            raise _appeared(args.out)

    record = training_speed.run(
        record,
        keep if args.out else lambda record: None,
        lambda row: print(training_speed.line(row), file=rows, flush=True),
    )
    if args.json:
        print(record.text())


def _appeared(out: Path) -> InputError:
    return InputError(
        f"{str(out)!r} appeared meanwhile and is left as it is: what is "
        "printed is kept nowhere, so copy it, or give another --out."
    )


def _saved_as_new(record, out: Path) -> bool:
    """Save `record` unless something is there by now; say whether it was saved."""
    try:
        out.resolve().open("xb").close()
    except FileExistsError:
        return False
    try:
        record.save(out)
    except BaseException:
        out.unlink()
        raise
    return True
