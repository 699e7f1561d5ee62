"""The budgets of a notebook, and what each that ran took of them, as a table.

A plugin of pytest: the table stands at the end of every run that executed a notebook.
Lines and bytes are limits that `notebook_rules` holds; seconds are reported alone. They
are processor seconds, of the notebook's kernel and of all that it started. They are
known once the kernel has ended: when the last cell of its notebook is torn down.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpteach import editions
from mpteach.errors import InputError
from tests.notebook_cells import Notebook

MOST_SECONDS = 30
TOGETHER_SECONDS = 240
MOST_LINES = 25
MEDIAN_LINES = 8
LONGEST_LINE = 88
LARGEST_BYTES = 1_000_000

SPENT = "processor_seconds"
OVER = "OVER "


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Note the processor seconds of what ended with `item`, if it is a cell."""
    before = _seconds_of_the_ended()
    try:
        return (yield)
    finally:
        if item.path.suffix == ".ipynb":
            spent = _seconds_of_the_ended() - before
            item.user_properties.append((SPENT, spent))


def _seconds_of_the_ended() -> float:
    times = os.times()
    return times.children_user + times.children_system


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, where notebooks were executed."""
    root = terminalreporter.config.rootpath
    seconds: dict[Path, float] = {}
    for report in _reports(terminalreporter):
        path = root / report.nodeid.partition("::")[0]
        for key, spent in report.user_properties:
            if key == SPENT and report.when == "teardown":
                seconds[path] = seconds.get(path, 0.0) + spent
    if seconds:
        terminalreporter.write_sep("-", "budgets of the notebooks")
        for line in table(seconds):
            terminalreporter.write_line(line)


def _reports(reporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    for reports in reporter.stats.values():
        yield from (one for one in reports if isinstance(one, pytest.TestReport))


def table(seconds: dict[Path, float]) -> Iterator[str]:
    """Yield the lines of the table for notebooks and the processor seconds of each.

    A figure that breaks its budget has OVER before it.
    """
    yield _row("", "processor s", "stored kB", "longest cell")
    budgets = f"under {LARGEST_BYTES // 1000:,}", f"at most {MOST_LINES}"
    yield _row("budget of each", f"at most {MOST_SECONDS}", *budgets)
    for path, spent in sorted(seconds.items()):
        yield _row(path.stem, _timed(spent, MOST_SECONDS), *_measured(path))
    total = sum(seconds.values())
    yield _row("together", _timed(total, TOGETHER_SECONDS))
    yield _row("budget of all", f"at most {TOGETHER_SECONDS}")


def _timed(seconds: float, budget: float) -> str:
    return _marked(f"{seconds:.1f}", round(seconds, 1) > budget)


def _measured(path: Path) -> tuple[str, ...]:
    try:
        notebook = Notebook(path.name, editions.read(path))
    except InputError:
        return "unreadable", "unreadable"  # the rules say why
    size, lines = notebook.size_bytes, notebook.longest_lines
    return (
        _marked(f"{size // 1000:,}", size >= LARGEST_BYTES),
        _marked(f"{lines}", lines > MOST_LINES),
    )


def _marked(figure: str, is_over: bool) -> str:
    return OVER * is_over + figure


def _row(name: str, *figures: str) -> str:
    return f"{name:<28}{''.join(f'{figure:>16}' for figure in figures)}".rstrip()
