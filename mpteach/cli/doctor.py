"""Say whether this machine can run the course, and what runs live or from records.

Exit status: 0 when the course can run, 2 with the remedies when it cannot.
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach doctor`."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the report as JSON; mpteach/doctor.py documents its keys",
    )


def run(args: argparse.Namespace) -> int:
    """Print the report; return 0 when the course can run and 2 when it cannot."""
    # Looking at the machine loads torch: `mpteach --help` should not.
    from mpteach import doctor

    report = doctor.examine()
    print(json.dumps(report, indent=2) if args.json else doctor.describe(report))
    return 0 if report["ready"] else 2
