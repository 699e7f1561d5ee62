"""Say per chapter which exercises of your copy are attempted and which are correct."""

import argparse
import json
import sys
from pathlib import Path

from mpteach import progress, working_copy

_HOW = (
    "This reads what the checks said when they last ran, as your saved notebooks store "
    "it, and runs nothing. Running your answers again would take minutes, could never "
    "end, and would judge a state of the notebook that you have not seen. So: save "
    "first, and run a check again after changing its answer. Open exercises have no "
    "check and are not counted. Exit status: 0, or 2 where a chapter cannot be read."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach progress`."""
    parser.epilog = _HOW
    parser.add_argument(
        "--folder", type=Path, default=working_copy.WORK, help="your copy (work/)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the report as JSON; mpteach/progress.py documents its keys",
    )


def run(args: argparse.Namespace) -> int:
    """Print the report; return 0, or 2 with a sentence on each chapter left out."""
    report = progress.examine(args.folder)
    print(json.dumps(report, indent=2) if args.json else progress.describe(report))
    for problem in report["problems"]:
        print(f"mpteach: {problem}", file=sys.stderr)
    return 2 if report["problems"] else 0
