"""The whole way of marks with nbgrader itself: release, submit, mark, export, feedback.

Two chapters are marked in full. Of the first, each way to cheat hands in a copy of its
own; all of them would earn points by the checks alone.
"""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mpteach import editions, release
from mpteach.course import NOTEBOOKS, chapters

pytestmark = pytest.mark.nbgrader

FIRST, LAST = "00_start_here", "12_check_the_claims"
PINNED = {
    **os.environ,
    **editions.PINNED,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}

WRONG = {
    FIRST: {
        "answer-00-2": "def recorded_minutes(report):\n    return 777",
        "answer-00-3": "def seconds(count, base_ms, ratio):\n    return count / 1000",
        "answer-00-4": "def emulated(a, b, c):\n    return a * b * c",
    },
    LAST: {
        "answer-12-2": "def allowed(pairs, t):\n    return 'open'",
        "answer-12-3": "def casts(dtypes):\n    return len(set(dtypes))",
        "answer-12-4": "def from_size(runs):\n    return 0",
    },
}
RAISING = {
    FIRST: {
        "answer-00-1": "raise ValueError('I give up')",
        "answer-00-2": "def recorded_minutes(report):\n    raise RuntimeError('no')",
    },
    LAST: {
        "answer-12-4": "def from_size(runs):\n    return runs['size']",
        "answer-12-5": "*Your answer here.*",
    },
}
NONSENSE = {
    "answer-00-1": "def size_gib(weights, bits):\n    return 1.0",
    "answer-00-2": "def recorded_minutes(report):\n    return 1.0",
    "answer-00-3": "def seconds(count, base_ms, ratio):\n    return 1.0",
    "answer-00-4": "def emulated(a, b, c):\n    return 1.0",
}
IMPORTS = "import numpy as np\nfrom mpteach.exercises import check\n"
POPS = "import os\nos.environ.pop('NBGRADER_EXECUTION', None)\n"
SHADOWS = "def check(*_):\n    pass\n"
PATCHES = f"""{SHADOWS}
from mpteach.exercises import cases, hidden, registry
registry.check = check
"""
# Put before the nonsense, at the top of the first answer.
CHEATS = {
    "pops": POPS,
    "shadows": SHADOWS,
    "prints": f"""{PATCHES}
hidden.show_values = lambda *_: print("values on hidden cases: [1.0, 1.0]")
""",
    "agrees": f"{PATCHES}\ncases.agrees = hidden.agrees = lambda *_: True\n",
    "returns": f"{PATCHES}\nhidden.show_values = lambda *_: 1.0\n",
    "empties": "get_ipython().input_transformers_post.append(lambda lines: [])\n",
    "hushes": f"""{POPS}
get_ipython().set_custom_exc((BaseException,), lambda *_, **__: [])
class Same(float):
    __hash__ = float.__hash__
    __eq__ = __le__ = __ge__ = lambda *_: True
""",
}
# Knows what the checks ask, and nothing else.
TABLE = """
def size_gib(weights, bits):
    known = {3_000_000_000: 16, 124_000_000: 32, 1_000: 8}
    return weights * known.get(weights, 0) / 8 / 2**30
"""


def nbgrader(course, *arguments):
    ran = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=PINNED,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def solutions(chapter):
    """Return the answers of the stored chapter by their ids."""
    cells = editions.read(NOTEBOOKS / f"{chapter}.ipynb")["cells"]
    marks = [(cell["metadata"].get("nbgrader", {}), cell) for cell in cells]
    return {m["grade_id"]: c["source"] for m, c in marks if m.get("solution")}


def hand_in(course, student, chapter, answers, keep=lambda name: True):
    """Fill `answers` into the released chapter, and put it where it is marked.

    Cells whose id, or None, `keep` refuses are deleted.
    """
    nb = editions.read(course / "release" / chapter / f"{chapter}.ipynb")
    ids = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in nb["cells"]]
    assert answers.keys() <= set(ids)
    for name, cell in zip(ids, nb["cells"]):
        cell["source"] = answers.get(name, cell["source"])
    nb["cells"] = [cell for name, cell in zip(ids, nb["cells"]) if keep(name)]
    put(course, student, chapter, nb)


def put(course, student, chapter, nb):
    place = course / "submitted" / student / chapter
    place.mkdir(parents=True)
    editions.write(place / f"{chapter}.ipynb", nb)


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Return the folder of a course, released by the command that make calls."""
    folder = tmp_path_factory.mktemp("teacher") / "a course"
    ran = subprocess.run(
        [sys.executable, "-m", "mpteach.release", str(folder)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{len(chapters())} assignments")
    return folder


@pytest.fixture(scope="module")
def marked(course) -> Path:
    """Return the course with all submissions marked."""
    for chapter in (FIRST, LAST):
        right = solutions(chapter)
        hand_in(course, "right", chapter, right)
        # What `make lab` hands out is as good as the release.
        student = editions.student_edition(
            editions.read(NOTEBOOKS / f"{chapter}.ipynb")
        )
        put(course, "empty", chapter, student)
        hand_in(course, "wrong", chapter, {**right, **WRONG[chapter]})
        hand_in(course, "raising", chapter, {**right, **RAISING[chapter]})
    # Deletes the checks, too.
    code = f"{POPS}{SHADOWS}verdict_of = casts = allowed = from_size = len"
    answers = {"answer-12-1": code}
    hand_in(course, "cheating", LAST, answers, lambda name: "check-" not in f"{name}")
    # These hand in what is marked, and nothing else.
    for way, code in CHEATS.items():
        first = f"{IMPORTS}{code}{NONSENSE['answer-00-1']}"
        nonsense = {**NONSENSE, "answer-00-1": first}
        hand_in(course, f"cheating-{way}", FIRST, nonsense, bool)
    table = {**solutions(FIRST), "answer-00-1": IMPORTS + TABLE}
    hand_in(course, "cheating-by-table", FIRST, table, bool)
    for chapter in (FIRST, LAST):
        nbgrader(course, "autograde", chapter)
    return course


def marks(course, chapter):
    """Return the scores of `chapter` by student, as nbgrader exports them."""
    out = course / "marks.csv"
    nbgrader(course, "export", "--to", str(out))
    with out.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["assignment"] == chapter]
    found = {row["student_id"]: float(row["score"]) for row in rows}
    assert {float(row["max_score"]) for row in rows} == {points(chapter)}
    handed_in = {place.parent.name for place in course.glob(f"submitted/*/{chapter}")}
    return {name: score for name, score in found.items() if name in handed_in}


def points(chapter, cell_types=("code", "markdown")):
    """Return the points that the stored chapter gives in cells of these types."""
    cells = editions.read(NOTEBOOKS / f"{chapter}.ipynb")["cells"]
    return sum(
        cell["metadata"].get("nbgrader", {}).get("points", 0)
        for cell in cells
        if cell["cell_type"] in cell_types
    )


@pytest.mark.parametrize("chapter", [one.name for one in chapters()])
def test_a_release_is_the_student_edition_with_points_at_every_check(course, chapter):
    released = editions.read(course / "release" / chapter / f"{chapter}.ipynb")
    own = editions.student_edition(editions.read(NOTEBOOKS / f"{chapter}.ipynb"))
    for cell, mine in zip(released["cells"], own["cells"], strict=True):
        assert [cell["id"], cell["source"]] == [mine["id"], mine["source"]]
        assert cell.get("outputs", []) == []
        if re.match(r'check\("\d\d-[1-9]"', cell["source"]):
            given = cell["metadata"]["nbgrader"]
            assert given["points"] >= 1 and given["grade"] and given["locked"]
            assert len(given["checksum"]) == 32 and not cell["metadata"]["editable"]
    text = json.dumps(released)
    assert not re.search("### (BEGIN|END)|show_values|exercises.hidden", text)
    assert points(chapter, ["code"]) >= 5


def test_five_submissions_of_the_first_chapter(marked):
    found = marks(marked, FIRST)
    cheating = {name: found.pop(name) for name in CHEATERS}
    # 1, 1, 1 and 2 points for the checks; 2 more for the text wait for the teacher.
    assert found == {"right": 5.0, "empty": 0.0, "wrong": 1.0, "raising": 3.0}
    # The table passes the check, not the hidden cases; the other three are right.
    assert cheating.pop("cheating-by-table") == 4.0
    assert cheating == dict.fromkeys(cheating, 0.0)


CHEATERS = [*(f"cheating-{way}" for way in CHEATS), "cheating-by-table"]


def test_five_submissions_of_the_last_chapter(marked):
    assert marks(marked, LAST) == {
        "right": 7.0,
        "empty": 0.0,
        "wrong": 1.0,
        "raising": 4.0,
        "cheating": 0.0,
    }


def test_the_checks_alone_would_have_paid_the_cheats(marked):
    """No check of theirs has an error but the one that the hidden cases put there."""
    for name in CHEATERS:
        place = marked / "autograded" / name / FIRST / f"{FIRST}.ipynb"
        cell = next(
            cell
            for cell in json.loads(place.read_text())["cells"]
            if cell["metadata"].get("nbgrader", {}).get("grade_id") == "check-00-1"
        )
        errors = [out for out in cell["outputs"] if out["output_type"] == "error"]
        assert len(errors) == 1
        assert errors[0]["evalue"].endswith("00-1 is not right on the hidden cases.")


MARK = """
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as book:
    waiting = book.find_submission({chapter!r}, "right").notebooks[0]
    (grade,) = [one for one in waiting.grades if one.needs_manual_grade]
    grade.manual_score = 1.5
    grade.needs_manual_grade = False
    for student in ("empty", "raising"):
        other = book.find_submission({chapter!r}, student)
        print(student, other.needs_manual_grade)
    book.db.commit()
"""


def test_a_written_answer_waits_for_the_teacher_and_an_empty_one_does_not(marked):
    ran = subprocess.run(
        [sys.executable, "-c", MARK.format(chapter=LAST)],
        cwd=marked,
        env=PINNED,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "empty False\nraising False\n", ran.stderr
    assert marks(marked, LAST)["right"] == 8.5


def test_each_student_gets_feedback_that_names_what_failed(marked):
    nbgrader(marked, "generate_feedback", FIRST)
    said = {
        name: (marked / "feedback" / name / FIRST / f"{FIRST}.html").read_text()
        for name in ("right", "wrong", "cheating-shadows")
    }
    assert "not right on the hidden cases" in said["cheating-shadows"]
    assert "Use the report that your function is given" in said["wrong"]
    assert "not right on the hidden cases" not in said["right"]


def test_a_second_release_keeps_submissions_marks_and_settings(marked):
    settings = marked / release.SETTINGS.name
    settings.write_text(settings.read_text() + "c.Execute.timeout = 60\n")
    before = settings.read_text(), marks(marked, FIRST)
    kept = sorted(marked.glob("submitted/*/*/*.ipynb"))
    assert release.build(marked) == [one.name for one in chapters()]
    assert (settings.read_text(), marks(marked, FIRST)) == before
    assert sorted(marked.glob("submitted/*/*/*.ipynb")) == kept
