"""What a student gets: it runs as handed out, and lacks the solutions alone."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from mpteach import editions, working_copy
from mpteach.course import NOTEBOOKS

SOURCES = [*sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), editions.TEMPLATE]
STUB = re.compile(r"^ *# YOUR CODE HERE\n *\.\.\.$", re.MULTILINE)
SOLUTION = re.compile(r"^ *### BEGIN SOLUTION\n.*?^ *### END SOLUTION$", re.M | re.S)
HIDDEN = re.compile(
    r"\n *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS$", re.M | re.S
)
WRITTEN = "*Your answer here.*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The working copy of a new student."""
    made = tmp_path_factory.mktemp("student") / "work"
    assert working_copy.refresh(NOTEBOOKS, made) == []
    return made


def handed_out(path: Path, folder: Path) -> dict[str, Any]:
    """Return the student's notebook of the one in `path`; the template has no copy."""
    if path == editions.TEMPLATE:
        return editions.student_edition(editions.read(path))
    return editions.read(folder / path.name)


def texts(cell: dict[str, Any]) -> list[str]:
    """Return the texts that a cell shows; a figure's size follows the screen."""
    outputs = cell.get("outputs", [])
    found = [out.get("text") or out["data"].get("text/plain", "") for out in outputs]
    return [re.sub(r"<Figure size \d+x\d+", "<Figure", text) for text in found]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_runs_as_handed_out_and_shows_what_the_source_shows(path, folder):
    """In the student's folder; all but live cells and answers print as stored."""
    ran = editions.execute(handed_out(path, folder), folder, path.name)
    for cell, stored in zip(ran["cells"], editions.read(path)["cells"], strict=True):
        marks = cell["metadata"].get("nbgrader", {})
        tags = cell["metadata"].get("tags", [])
        if marks.get("locked"):
            (said,) = texts(cell)
            assert said.endswith(": not attempted\n") and said.count("\n") == 1
        elif marks.get("solution"):
            # A stub that is the last line shows what stands in it.
            assert texts(cell) in ([], ["Ellipsis"]), cell["id"]
        elif editions.LIVE_TAG not in tags:
            assert texts(cell) == texts(stored), cell["id"]


def with_solutions(nb: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Return `nb` with the stubs filled in from `source`, and marked as that is."""
    nb = copy.deepcopy(nb)
    for cell, whole in zip(nb["cells"], source["cells"], strict=True):
        solutions = iter(SOLUTION.findall(whole["source"]))
        cell["source"] = STUB.sub(lambda _, of=solutions: next(of), cell["source"])
        assert next(solutions, None) is None, whole["id"]
        if cell["cell_type"] == "markdown" and cell["source"] == WRITTEN:
            assert whole["metadata"]["nbgrader"]["solution"]
            cell["source"] = whole["source"]
        if whole["metadata"].get("nbgrader", {}).get("locked"):
            assert cell["metadata"].pop("editable") is False
            assert cell["metadata"].pop("deletable") is False
    return nb


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_with_the_solutions_put_back_it_is_the_source_cell_for_cell(path, folder):
    """So what strict nbval executes is this, and neither is executed twice."""
    source = editions.read(path)
    put_back = with_solutions(handed_out(path, folder), source)
    for cell in source["cells"]:
        cell["source"] = HIDDEN.sub("", cell["source"])
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    source["metadata"].pop("widgets", None)
    assert put_back == source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_line_of_a_solution_is_handed_out(path, folder):
    given = {cell["id"]: cell["source"] for cell in handed_out(path, folder)["cells"]}
    for cell in editions.read(path)["cells"]:
        for solution in SOLUTION.findall(cell["source"]):
            assert solution not in given[cell["id"]]
            for line in solution.split("\n")[1:-1]:
                kept = cell["source"].replace(solution, "")
                assert line in kept or line not in given[cell["id"]].split("\n")


def test_a_stub_that_lacks_its_solution_is_found():
    source = editions.read(editions.TEMPLATE)
    spoilt = editions.student_edition(source)
    answer = next(cell for cell in spoilt["cells"] if STUB.search(cell["source"]))
    answer["source"] = STUB.sub("pass", answer["source"])
    with pytest.raises(AssertionError):
        with_solutions(spoilt, source)
