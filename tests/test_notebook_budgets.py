"""The table of budgets is right: of made-up notebooks, by hand, and in a real run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mpteach import editions
from mpteach.course import ROOT
from tests import notebook_budgets as budgets
from tests.notebook_budgets import table

PADDING = "x" * budgets.LARGEST_BYTES


def made_up(path: Path, *sources: str, words: str = "Words.") -> Path:
    """Write a notebook of a text cell and code cells with `sources`, as if they ran."""
    text = {"cell_type": "markdown", "id": "words", "metadata": {}, "source": words}
    code = [
        {
            "cell_type": "code",
            "id": f"code-{place}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": place,
        }
        for place, source in enumerate(sources, start=1)
    ]
    nb = {"cells": [text, *code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    editions.write(path, editions.canonicalise(nb))
    return path


def rows(lines: list[str]) -> dict[str, list[str]]:
    """Return the figures of each row by its name, without what keeps the columns."""
    cut = [re.split(r"  +", line.strip()) for line in lines]
    return {name: figures for name, *figures in cut}


def test_what_a_notebook_took_stands_beside_its_budgets(tmp_path):
    path = made_up(tmp_path / "small.ipynb", "a = 1", "\n".join(["b = 2"] * 25))
    kilobytes = path.stat().st_size // 1000
    lines = list(table({path: 12.34}))
    found = rows(lines)
    assert found["budget of each"] == ["at most 30", "under 1,000", "at most 25"]
    assert found["small"] == ["12.3", str(kilobytes), "25"]
    assert found["together"] == ["12.3"] and found["budget of all"] == ["at most 240"]
    assert max(map(len, lines)) <= 80 and budgets.OVER not in "".join(lines)


@pytest.mark.parametrize(
    ("seconds", "lines", "words", "place"),
    [(30.1, 25, "", 0), (30.0, 25, PADDING, 1), (30.0, 26, "", 2)],
)
def test_each_breach_is_marked_in_its_place(tmp_path, seconds, lines, words, place):
    source = "\n".join(["a = 1"] * lines)
    path = made_up(tmp_path / "large.ipynb", source, words=words)
    figures = rows(list(table({path: seconds})))["large"]
    assert [text.startswith("OVER ") for text in figures] == [
        place == other for other in range(3)
    ]


def test_notebooks_can_take_too_long_together(tmp_path):
    paths = [made_up(tmp_path / f"{name}.ipynb", "a = 1") for name in range(9)]
    assert rows(list(table(dict.fromkeys(paths[:8], 30.0))))["together"] == ["240.0"]
    found = rows(list(table(dict.fromkeys(paths, 27.0))))
    assert found["together"] == ["OVER 243.0"] and found["8"][0] == "27.0"


def test_a_notebook_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    torn = tmp_path / "torn.ipynb"
    torn.write_text("{")
    found = rows(list(table({torn: 1.0, made_up(tmp_path / "whole.ipynb"): 2.0})))
    assert found["torn"] == ["1.0", "unreadable", "unreadable"]
    assert found["whole"][::2] == ["2.0", "0"]


BURN = """import pathlib, time
while time.process_time() < {seconds}:
    sum(range(1000))
_ = pathlib.Path("{name}").write_text(str(time.process_time()))"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run pytest with the plugin in `folder`."""
    plugins = ["-p", "no:cacheprovider", "-p", "tests.notebook_budgets"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_run_on_two_workers_ends_in_the_table(tmp_path):
    long = "\n".join(["a = 1"] * 26)
    made_up(tmp_path / "a.ipynb", BURN.format(seconds=1.5, name="a"), "b = 2")
    made_up(tmp_path / "b.ipynb", "c = 3", BURN.format(seconds=0, name="b"), long)
    nbval = "--nbval", "--nbval-current-env"
    done = run(tmp_path, *nbval, "-n", "2", "--dist", "loadfile")
    assert done.returncode == 0, done.stdout
    printed = done.stdout.split("budgets of the notebooks")[1].splitlines()[1:]
    found = rows([line for line in printed if line and "=" not in line])
    assert [found[name][2] for name in "ab"] == ["4", "OVER 26"]
    for name in "ab":
        kilobytes = (tmp_path / f"{name}.ipynb").stat().st_size // 1000
        assert found[name][1] == str(kilobytes)
        # The kernel's own clock, read in it, is what the row must hold at the least.
        own = float((tmp_path / name).read_text())
        assert float(found[name][0]) >= own - 0.1
    assert float(found["together"][0]) >= 1.4


def test_a_run_without_notebooks_prints_no_table(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one(): pass")
    done = run(tmp_path)
    assert "1 passed" in done.stdout and "budgets" not in done.stdout


def test_contributing_names_the_budgets():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert f"at most {budgets.MOST_SECONDS} seconds of processor time" in text
    assert f"smaller than {budgets.LARGEST_BYTES // 10**6} MB" in text
    assert f"at most {budgets.MOST_LINES} lines" in text
    assert f"code lines up to {budgets.LONGEST_LINE} characters" in text
