"""Round all 2^32 float32 patterns as numpy, ml_dtypes and torch do: `make exhaustive`.

The formats are those of up to 16 bits. Left out are the inputs on which a library
differs by design, listed in `mpteach.libraries`. Where no formats are named, the steps
that a GPU measured are traced too (`memory_sweep`). Exit status 1 on any mismatch.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing import get_context

import numpy as np
from tqdm import tqdm

sys.path.insert(0, os.path.dirname(__file__))
import memory_sweep
import oracles

from mpteach import rounding
from mpteach.formats import FORMATS

CHUNK = 2**22
PATTERNS = 2**32
PAIRS = [pair for pair in oracles.PAIRS if FORMATS[pair[0]].bits <= 16]
NAMES = list(dict.fromkeys(name for name, _ in PAIRS))


Task = tuple[str, str, int, int]
Found = tuple[str, str, int, int]


def check(task: Task) -> Found:
    """Compare one chunk of patterns; return how many were, and how many differ."""
    name, library, start, count = task
    rounding.WARM = 0  # compile at once
    x = np.arange(start, start + count, dtype=np.uint64).astype(np.uint32)
    return name, library, *oracles.library_mismatches(name, library, x.view(np.float32))


def checked(tasks: list[Task], processes: int) -> Iterator[Found]:
    """Check all tasks, in as many processes, behind a progress bar."""

    def shown(found: Iterable[Found]) -> Iterator[Found]:
        yield from tqdm(found, total=len(tasks), unit="chunk", smoothing=0)

    if processes == 1:
        yield from shown(map(check, tasks))
    else:
        with get_context("spawn").Pool(processes) as pool:
            yield from shown(pool.imap(check, tasks))


def sweep(names: list[str], every: int, processes: int) -> bool:
    """Check each format with each library and print the counts; True if all agree."""
    tasks = [
        (name, library, start, CHUNK)
        for name, library in PAIRS
        if name in names
        for start in range(0, PATTERNS, CHUNK * every)
    ]
    compared: Counter[tuple[str, str]] = Counter()
    differing: Counter[tuple[str, str]] = Counter()
    for name, library, some, wrong in checked(tasks, processes):
        compared[name, library] += some
        differing[name, library] += wrong
    for (name, library), count in compared.items():
        wrong = differing[name, library]
        print(f"{name:16} {library:10} {count:>13,} compared, {wrong:,} differ")
    return not any(differing.values())


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and sweep; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.exhaustive",
        description=__doc__.split("\n\n")[0],
        epilog="All of it took 24 minutes on one core of the machine that wrote this.",
    )
    parser.add_argument(
        "--formats", nargs="+", choices=NAMES, metavar="NAME",
        help=f"the formats to check, and no memory (all: {', '.join(NAMES)})",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=int, default=1, metavar="N",
        help=f"check one in N chunks of {CHUNK:,} patterns, and steps (default: 1, all)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=2, metavar="N", help="default: 2"
    )
    asked = parser.parse_args(arguments)
    if asked.every < 1 or asked.processes < 1:
        parser.error("--every and --processes are numbers from 1 on.")
    agree = sweep(asked.formats or NAMES, asked.every, asked.processes)
    if not asked.formats:
        agree &= memory_sweep.sweep(memory_sweep.rows()[:: asked.every])
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
