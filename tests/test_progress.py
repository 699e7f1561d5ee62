"""`mpteach progress`: what is attempted and correct, in whatever notebooks."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpteach import cli, editions, progress, working_copy
from mpteach.course import NOTEBOOKS
from mpteach.exercises import registry
from tests.commands import refused

FIRST = "01_read_the_bits"


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "work"
    working_copy.refresh(NOTEBOOKS, folder)
    return folder


@pytest.fixture
def folder(handed_out, tmp_path) -> Path:
    """A new student's copy."""
    return Path(shutil.copytree(handed_out, tmp_path / "work"))


def read(folder: Path, name: str = FIRST) -> dict:
    return editions.read(folder / f"{name}.ipynb")


def store(folder: Path, nb: dict, name: str = FIRST) -> None:
    editions.write(folder / f"{name}.ipynb", nb)


def cell_of(nb: dict, name: str) -> dict:
    return next(cell for cell in nb["cells"] if cell["id"] == name)


def say(nb: dict, number: int, verdict: str) -> None:
    """Store a line as the check of exercise `number` prints it."""
    text = f"{FIRST[:2]}-{number}: {verdict}\n"
    output = {"output_type": "stream", "name": "stdout", "text": text}
    cell_of(nb, f"check-{number}")["outputs"] = [output]


def row_of(folder: Path, name: str = FIRST) -> dict:
    rows = progress.examine(folder)["chapters"]
    return next(row for row in rows if row["name"] == name)


def test_a_new_copy_has_nothing_attempted_and_every_exercise_counts(folder):
    report = progress.examine(folder)
    names = [name for row in report["chapters"] for name in row["exercises"]]
    known = [one for one in registry.names() if not one.startswith("template-")]
    # 00-0 shows what a check says, and is no exercise.
    assert sorted(names) == [one for one in known if one != "00-0"]
    assert (report["attempted"], report["correct"]) == (0, 0)
    assert report["total"] == len(names) and report["problems"] == []


def test_the_chapters_themselves_with_their_solutions_are_all_correct(folder):
    report = progress.examine(NOTEBOOKS)
    assert report["correct"] == report["attempted"] == report["total"] > 40


def test_checks_and_changed_answers_count_as_they_are(folder):
    nb = read(folder)
    say(nb, 1, "correct")
    say(nb, 2, "not yet. The fraction of the largest value is not zero.")
    say(nb, 3, "not attempted")
    cell_of(nb, "answer-4")["source"] = "def finer(x):\n    return 'same'"
    cell_of(nb, "answer-5")["source"] = ""
    store(folder, nb)
    row = row_of(folder)
    states = ["correct", "attempted", "not attempted", "attempted"]
    states += ["not attempted"] * 3
    assert list(row["exercises"].values()) == states
    assert (row["total"], row["attempted"], row["correct"]) == (7, 3, 1)


def test_a_line_that_only_looks_like_a_verdict_counts_for_nothing(folder):
    nb = read(folder)
    say(nb, 1, "correctly done")
    cell_of(nb, "check-1")["outputs"][0]["text"] += "I say 01-2: correct\n99-1: correct"
    store(folder, nb)
    assert row_of(folder)["attempted"] == 0


def test_the_order_of_cells_does_not_matter_nor_what_was_deleted(folder):
    nb = read(folder)
    for number in (1, 2, 3):
        say(nb, number, "correct")
    random.Random(0).shuffle(nb["cells"])
    lost = ("check-3", "answer-2", "check-5", "answer-6")
    nb["cells"] = [cell for cell in nb["cells"] if cell["id"] not in lost]
    store(folder, nb)
    assert (row_of(folder)["correct"], row_of(folder)["total"]) == (2, 7)


def test_work_in_the_edition_beside_counts_too(folder):
    nb = read(folder)
    say(nb, 1, "correct")
    store(folder, nb)
    other = read(folder)
    say(other, 1, "not yet. Mark the fields.")
    say(other, 2, "correct")
    store(folder, other, f"{FIRST}.new")
    assert row_of(folder)["correct"] == 2


def test_other_editors_forms_are_read(folder):
    """No ids, texts as lists of lines, a missing list of outputs, foreign cells."""
    nb = read(folder)
    say(nb, 1, "correct")
    for cell in nb["cells"]:
        del cell["id"]
        cell["source"] = cell["source"].splitlines(keepends=True)
        if cell.get("outputs") == []:
            del cell["outputs"]
    nb["cells"] += [None, [], {"id": [], "source": 3, "outputs": [None, {"text": 1}]}]
    (folder / f"{FIRST}.ipynb").write_text(json.dumps(nb))
    assert (row_of(folder)["attempted"], row_of(folder)["correct"]) == (1, 1)


def says(capsys, *arguments):
    status = cli.main(["progress", *map(str, arguments)])
    return status, capsys.readouterr()


def test_the_table_has_a_bar_for_each_chapter(folder, capsys):
    nb = read(folder)
    for number, verdict in enumerate(("correct", "not yet. Look.", "correct"), start=1):
        say(nb, number, verdict)
    store(folder, nb)
    status, said = says(capsys, "--folder", folder)
    assert status == 0 and said.err == ""
    (line,) = [one for one in said.out.splitlines() if one.startswith(FIRST)]
    # Of 20 places 2/7 are 5, and 3/7 are 8.
    assert "[#####+++............]   2 correct,  3 attempted of  7" in line
    assert said.out.isascii() and "all chapters" in said.out


def test_json_is_the_report(folder, capsys):
    status, said = says(capsys, "--json", "--folder", folder)
    assert status == 0 and json.loads(said.out) == progress.examine(folder)


def test_nothing_is_written_and_nothing_is_run(folder, capsys):
    nb = read(folder)
    wrote = f"open({str(folder / 'ran')!r}, 'w')"
    cell_of(nb, "answer-1")["source"] = f"{wrote}\nwhile True: pass"
    store(folder, nb)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert says(capsys, "--folder", folder)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("place", ["none", "file", "no/where", "übung \udcff"])
def test_without_a_copy_it_says_how_to_get_one(tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    result = says(capsys, "--folder", tmp_path / place)
    refused(result, "there is no copy of the course in", "make one with 'mpteach lab'")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"cells": [{"cell_type": "co', "it is not JSON"),
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 99999, "it is not JSON"),
        (b"[]", "it has no cells"),
        (b"{}", "it has no cells"),
        (b'{"cells": {}}', "it has no cells"),
    ],
)
def test_a_damaged_chapter_is_one_sentence_and_the_rest_is_told(
    folder, capsys, content, why
):
    path = folder / f"{FIRST}.ipynb"
    path.write_bytes(content)
    status, said = says(capsys, "--folder", folder)
    assert status == 2 and "00_start_here" in said.out
    assert said.err == (
        f"mpteach: {path.name} cannot be read ({why}): run 'mpteach lab', which "
        "repairs it or puts a whole one beside it.\n"
    )
    assert path.read_bytes() == content


def test_what_it_says_to_do_helps(folder, capsys):
    path = folder / f"{FIRST}.ipynb"
    path.write_bytes(path.read_bytes()[:1000])
    assert says(capsys, "--folder", folder)[0] == 2
    working_copy.refresh(NOTEBOOKS, folder)
    assert says(capsys, "--folder", folder)[0] == 0


def test_a_missing_chapter_is_one_sentence(folder, capsys):
    (folder / f"{FIRST}.ipynb").unlink()
    status, said = says(capsys, "--folder", folder)
    assert status == 2 and said.err == (
        f"mpteach: {FIRST}.ipynb is not in {folder}: run 'mpteach lab' to get it.\n"
    )


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere"])
def test_what_is_no_file_is_not_waited_for(folder, capsys, kind):
    path = folder / f"{FIRST}.ipynb"
    path.unlink()
    {
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "link to nowhere": lambda path: os.symlink("nowhere", path),
    }[kind](path)
    status, said = says(capsys, "--folder", folder)
    assert status == 2 and "cannot be read (it is no ordinary file)" in said.err


def test_it_loads_neither_torch_nor_jupyter():
    program = (
        "import sys; from mpteach import cli; cli.main(['progress', '--json']);"
        "print({'torch', 'IPython', 'nbformat'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"
