"""What a student has done: read off the checks that the working copy stores.

Nothing is run. The report is what `mpteach progress --json` prints:

    {"folder": "work", "total": 47, "attempted": 9, "correct": 6,
     "problems": ["05_keep_master_weights.ipynb is not in work: ..."],
     "chapters": [{"name": "01_read_the_bits", "total": 7, "attempted": 3, "correct": 2,
                   "exercises": {"01-1": "correct", "01-2": "attempted", ...}}, ...]}

An exercise is "correct" where its check said so, "attempted" where the check said "not
yet" or the answer cell is no longer as handed out, and else "not attempted".
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpteach import editions, working_copy
from mpteach.course import NOTEBOOKS, chapters
from mpteach.errors import InputError

STATES = ("not attempted", "attempted", "correct")
_CHECK = re.compile(r"""^check\(\s*["']([^"']+)["']""", re.MULTILINE)
_SAID = re.compile(r"^(\S+): (not attempted|not yet|correct)\b", re.MULTILINE)
_STATE_OF = dict(zip(("not attempted", "not yet", "correct"), STATES, strict=True))
_COUNTS = ("total", "attempted", "correct")
_BAR_WIDTH = 20


def examine(folder: Path, source: Path = NOTEBOOKS) -> dict[str, Any]:
    """Return the report on the copy in `folder` of the chapters in `source`.

    What cannot be read is named in its "problems". Raises InputError where there is no
    copy at all.
    """
    there = chapters(source)
    if not any(map(_is_there, (folder / one.path.name for one in there))):
        raise InputError(
            f"there is no copy of the course in {folder}: make one with 'mpteach lab', "
            "or name its folder with --folder."
        )
    problems: list[str] = []
    rows = [_chapter(one.path, folder, problems) for one in there]
    return {
        "folder": str(folder),
        **{key: sum(row[key] for row in rows) for key in _COUNTS},
        "problems": problems,
        "chapters": rows,
    }


def describe(report: dict[str, Any]) -> str:
    """Return the report as a table with a bar for each chapter."""
    rows = [*report["chapters"], {"name": "all chapters", **report}]
    width = max(len(row["name"]) for row in rows)
    lines = [
        f"{row['name']:{width}}  {_bar(row)}  {row['correct']:2} correct, "
        f"{row['attempted']:2} attempted of {row['total']:2}"
        for row in rows
    ]
    return "\n".join([*lines, "# correct, + attempted, . still to do"])


def _bar(row: dict[str, Any]) -> str:
    total = max(row["total"], 1)
    correct, attempted = (
        _BAR_WIDTH * row[key] // total for key in ("correct", "attempted")
    )
    marks = "#" * correct + "+" * (attempted - correct)
    return f"[{marks:.<{_BAR_WIDTH}}]"


def _chapter(path: Path, folder: Path, problems: list[str]) -> dict[str, Any]:
    """Return the row of the chapter in `path`; add what is wrong with its copy."""
    given = editions.student_edition(editions.read(path))["cells"]
    exercises = {name: STATES[0] for name, _ in _exercises(given)}
    copy = folder / path.name
    for file in (copy, working_copy.beside(copy)):
        if _is_there(file):
            try:
                states = _states(_cells(file), given)
            except ValueError as error:
                problems.append(
                    f"{file.name} cannot be read ({error}): run 'mpteach lab', which "
                    "repairs it or puts a whole one beside it."
                )
            else:
                for name, state in states:
                    exercises[name] = max(exercises[name], state, key=STATES.index)
        elif file == copy:
            problems.append(
                f"{file.name} is not in {folder}: run 'mpteach lab' to get it."
            )
    found = list(exercises.values())
    return {
        "name": path.stem,
        "total": len(found),
        "attempted": len(found) - found.count(STATES[0]),
        "correct": found.count(STATES[2]),
        "exercises": exercises,
    }


def _exercises(given: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each exercise of a chapter as handed out: its id and its answer cell."""
    for answer, cell in zip(given, given[1:], strict=False):
        found = _CHECK.search(cell["source"])
        if found and cell["metadata"].get("nbgrader", {}).get("grade"):
            yield found[1], answer


def _states(
    cells: list[dict[str, Any]], given: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Yield (exercise, state) for all that a copy's cells say, in whatever order."""
    asked = dict(_exercises(given))
    for cell in cells:
        for name, said in _SAID.findall(_printed(cell)):
            if name in asked:
                yield name, _STATE_OF[said]
    sources = {str(cell.get("id")): _text(cell.get("source")) for cell in cells}
    for name, answer in asked.items():
        written = sources.get(answer["id"], "").strip()
        if written not in ("", answer["source"].strip()):
            yield name, STATES[1]


def _printed(cell: dict[str, Any]) -> str:
    outputs = cell.get("outputs")
    if not isinstance(outputs, list):
        return ""
    return "\n".join(_text(out.get("text")) for out in outputs if isinstance(out, dict))


def _text(value: object) -> str:
    """Return what a notebook holds as a text or as its lines, "" for anything else."""
    lines = value if isinstance(value, list) else [value]
    return "".join(line for line in lines if isinstance(line, str))


def _cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells in `path`; raise ValueError with what keeps it from being read.

    Other editors write notebooks without cell ids, or in older forms: those are read.
    """
    if not path.is_file():
        raise ValueError("it is no ordinary file")
    try:
        nb = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror) from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    cells = nb.get("cells") if isinstance(nb, dict) else None
    if not isinstance(cells, list):
        raise ValueError("it has no cells")
    return [cell for cell in cells if isinstance(cell, dict)]


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True
