"""A student's byte is never lost, and an untouched copy follows the course."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpteach import files
from mpteach.course import NOTEBOOKS, chapters
from mpteach.errors import InputError
from mpteach.working_copy import HANDED_OUT, refresh

NAME = "00_first.ipynb"
NEW = "00_first.new.ipynb"


def notebook(text: str) -> str:
    """Return a chapter whose answer cell says `text` around a solution."""
    source = f"# {text}\n### BEGIN SOLUTION\nsecret = 1\n### END SOLUTION"
    output = {"name": "stdout", "output_type": "stream", "text": "1"}
    about = {"question": "?", "minutes": 1, "live": "all", "gpu": "", "records": []}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": source}
    cell |= {"outputs": [output], "execution_count": 1}
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"mpteach": about},
            "cells": [cell],
        }
    )


class Course:
    """A course with one chapter and a student's folder."""

    def __init__(self, root: Path):
        self.source, self.folder = root / "notebooks", root / "work"
        self.source.mkdir()
        self.copy, self.new = self.folder / NAME, self.folder / NEW
        self.publish("edition 1")

    def publish(self, text: str) -> None:
        (self.source / NAME).write_text(notebook(text))

    def refresh(self) -> list[str]:
        return refresh(self.source, self.folder)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture
def course(tmp_path) -> Course:
    return Course(tmp_path)


def test_an_absent_copy_is_made_without_solutions_and_outputs(course):
    assert course.refresh() == []
    (cell,) = json.loads(course.copy.read_text())["cells"]
    assert cell["outputs"] == [] and cell["execution_count"] is None
    assert "secret" not in course.copy.read_text()


def test_a_second_time_changes_nothing(course):
    course.refresh()
    before, touched = course.files(), course.copy.stat().st_mtime_ns
    assert course.refresh() == []
    assert course.files() == before and course.copy.stat().st_mtime_ns == touched


def test_an_untouched_copy_follows_the_course(course):
    course.refresh()
    course.publish("edition 2")
    assert course.refresh() == []
    assert "edition 2" in course.copy.read_text()
    assert sorted(course.files()) == sorted([NAME, HANDED_OUT])


def test_a_deleted_copy_comes_back(course):
    course.refresh()
    course.copy.unlink()
    course.refresh()
    assert "edition 1" in course.copy.read_text()


def test_a_touched_copy_stays_and_the_new_edition_is_put_beside_it_once(course):
    course.refresh()
    course.copy.write_text("mine")
    assert course.refresh() == []
    course.publish("edition 2")
    (sentence,) = course.refresh()
    assert NAME in sentence and NEW in sentence
    assert course.copy.read_text() == "mine" and "edition 2" in course.new.read_text()
    course.new.unlink()
    assert course.refresh() == [] and not course.new.exists()


def test_an_untouched_new_edition_gives_way_to_a_newer_one(course):
    course.refresh()
    course.copy.write_text("mine")
    for edition in ("edition 2", "edition 3"):
        course.publish(edition)
        course.refresh()
    assert course.copy.read_text() == "mine" and "edition 3" in course.new.read_text()


def test_a_touched_new_edition_stays_too(course):
    course.refresh()
    course.copy.write_text("mine")
    course.publish("edition 2")
    course.refresh()
    course.new.write_text("mine as well")
    course.publish("edition 3")
    (sentence,) = course.refresh()
    assert "rename or delete" in sentence
    assert (
        course.copy.read_text() == "mine" and course.new.read_text() == "mine as well"
    )
    course.new.unlink()
    course.refresh()
    assert "edition 3" in course.new.read_text()


def test_a_copy_cut_short_is_repaired(course):
    course.refresh()
    whole = course.copy.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        course.copy.write_bytes(whole[:length])
        course.refresh()
        assert course.copy.read_bytes() == whole


@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_a_crash_at_any_write_is_made_good_by_the_next_run(course, monkeypatch, when):
    course.refresh()
    course.publish("edition 2")
    replace, calls = os.replace, []

    def crash(*paths):
        calls.append(paths)
        if len(calls) == when:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(files.os, "replace", crash)
    try:
        course.refresh()
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(files.os, "replace", replace)
    course.refresh()
    course.publish("edition 3")
    assert course.refresh() == []
    assert "edition 3" in course.copy.read_text() and not course.new.exists()


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"a": 1}', '{"a": [1]}', "\xff\x00", "[" * 99999]
)
def test_with_a_damaged_record_everything_that_differs_counts_as_touched(
    course, damage
):
    course.refresh()
    (course.folder / HANDED_OUT).write_bytes(damage.encode("latin-1"))
    course.publish("edition 2")
    damaged, beside = course.refresh()
    assert "damaged" in damaged and NEW in beside
    assert (
        "edition 1" in course.copy.read_text() and "edition 2" in course.new.read_text()
    )
    assert course.refresh() == []


def test_with_a_damaged_record_an_equal_copy_is_known_again(course):
    course.refresh()
    (course.folder / HANDED_OUT).write_text("{")
    course.refresh()
    course.publish("edition 2")
    assert course.refresh() == []
    assert "edition 2" in course.copy.read_text()


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from("123")),
        st.tuples(
            st.sampled_from([NAME, NEW, HANDED_OUT]), st.binary(min_size=1, max_size=9)
        ),
        st.tuples(st.just("rename"), st.just(b"")),
        st.tuples(st.just("refresh"), st.just(b"")),
    ),
    max_size=12,
)


@given(MOVES)
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_edits_and_updates_loses_a_students_byte(moves):
    root = Path(tempfile.mkdtemp())
    try:
        _play(Course(root), moves)
    finally:
        shutil.rmtree(root)


def _play(course: Course, moves: list[tuple[str, object]]) -> None:
    course.refresh()
    mine = {}
    for move, value in moves:
        if move == "publish":
            course.publish(f"edition {value}")
        elif move == "rename" and course.new.exists():
            # The student takes the new edition as the copy.
            os.replace(course.new, course.copy)
            mine.pop(NAME, None)
            mine |= {NAME: mine.pop(NEW)} if NEW in mine else {}
        elif move in (NAME, NEW, HANDED_OUT):
            # Never the beginning of an edition: those start with a brace.
            (course.folder / move).write_bytes(b"*" + value)
            if move != HANDED_OUT:
                mine[move] = b"*" + value
        course.refresh()
        assert mine.items() <= course.files().items()
    json.loads((course.folder / HANDED_OUT).read_text())


def test_the_built_chapters_are_handed_out_without_solutions(tmp_path):
    assert refresh(NOTEBOOKS, tmp_path) == []
    for chapter in chapters():
        text = (tmp_path / chapter.path.name).read_text(encoding="utf-8")
        assert "BEGIN SOLUTION" not in text
        assert all(not cell.get("outputs") for cell in json.loads(text)["cells"])


@pytest.mark.parametrize("inside", ["", "sub"])
def test_the_chapters_themselves_are_never_the_copy(course, inside):
    with pytest.raises(InputError, match="choose one outside"):
        refresh(course.source, course.source / inside)


def test_a_folder_that_is_a_file_is_one_sentence(course):
    course.folder.write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot use .*work \(File exists\)"):
        course.refresh()


def test_a_folder_in_the_place_of_a_copy_is_one_sentence(course):
    course.copy.mkdir(parents=True)
    with pytest.raises(InputError, match="00_first.ipynb is no ordinary file: move"):
        course.refresh()


@pytest.mark.parametrize("name", [NAME, NEW, HANDED_OUT])
def test_a_pipe_in_the_place_of_a_file_is_refused_not_waited_for(course, name):
    course.refresh()
    course.copy.write_text("mine")
    course.publish("edition 2")
    (course.folder / name).unlink(missing_ok=True)
    os.mkfifo(course.folder / name)
    with pytest.raises(InputError, match=f"{name} is no ordinary file: move it away"):
        course.refresh()


def test_a_current_directory_that_is_gone_is_one_sentence(course, monkeypatch):
    gone = course.source.parent / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match=r"cannot use mine \(No such file"):
        refresh(course.source, Path("mine"))


def test_a_loop_of_links_is_one_sentence(course):
    course.folder.symlink_to(course.folder)
    with pytest.raises(InputError, match=r"cannot use .*work \("):
        course.refresh()
