"""Whatever happens between two lines of a refresh, no byte of a student's is lost."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpteach import files, working_copy
from mpteach.course import ROOT
from mpteach.errors import InputError
from mpteach.working_copy import HANDED_OUT, refresh
from tests.pretend_course import MINE, NAME, NEW, SAVED, Course, full_disk


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Wait for no disk: processes are killed here, the power stays on."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_no_kill_between_two_lines_loses_a_byte_or_needs_a_hand():
    ran = subprocess.run(
        [sys.executable, "-m", "tests.killed_copies"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    *wrongs, kills = ran.stdout.splitlines() or ["0"]
    assert ran.returncode == 0 and not wrongs and not ran.stderr, ran.stderr or wrongs
    assert int(kills) > 100


class Saves:
    """Saves to `path`, as an editor does, before the line counted as `moment`."""

    def __init__(self, path: Path, moment: int):
        self.path, self.moment, self.count = path, moment, 0

    def __call__(self, frame, event, _argument):
        if frame.f_code.co_filename not in (working_copy.__file__, files.__file__):
            return None
        self.count += event == "line"
        if event == "line" and self.count == self.moment:
            part = self.path.parent.parent / "part"
            part.write_bytes(MINE)
            os.replace(part, self.path)
        return self


def refresh_while(course: Course, saves: Saves) -> int:
    """Refresh while a student saves; return how many lines there were."""
    before = sys.gettrace()
    sys.settrace(saves)
    try:
        course.refresh()
    finally:
        sys.settrace(before)
    return saves.count


@pytest.mark.parametrize("name", [NAME, NEW])
def test_no_save_between_two_lines_is_lost(tmp_path, name):
    # In its own process: where torch has compiled before, python's tracing never ends.
    words = [sys.executable, "-m", "tests.test_working_copy_solid", str(tmp_path), name]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def save_between_all_lines(tmp_path: Path, name: str) -> None:
    os.fsync = lambda descriptor: None
    last = 1
    for moment in range(1, 10_000):
        if moment > last:
            break
        root = tmp_path / f"{moment}"
        root.mkdir()
        course = Course(root)
        course.refresh()
        if name == NEW:
            course.copy.write_bytes(MINE + b" ")
        course.publish("edition 2")
        course.refresh()
        course.publish("edition 3")
        last = refresh_while(course, Saves(course.folder / name, moment))
        found = course.files()
        assert found[name] == MINE and set(found) <= {NAME, NEW}, moment
        course.refresh()
        assert course.files()[name] == MINE, moment
    assert last > 100


def test_of_two_saves_within_a_moment_both_stay(tmp_path, monkeypatch):
    course = Course(tmp_path)
    course.refresh()
    course.publish("edition 2")
    replace = os.replace

    def meets_saves(source, target):
        steps_aside = str(target).endswith(".aside")
        if steps_aside:
            course.copy.write_bytes(MINE)
        replace(source, target)
        if steps_aside:
            course.copy.write_bytes(MINE + b" ")

    monkeypatch.setattr(os, "replace", meets_saves)
    course.refresh()
    assert course.files() == {NAME: MINE + b" ", SAVED: MINE}


# A course's life: what the course, the student and the machine may do next.
EDITIONS = st.sampled_from("1234").map(lambda one: f"edition {one}")
CONTENTS = st.one_of(
    st.binary(min_size=1, max_size=9).map(lambda tail: b"*" + tail),
    st.integers(0, 99).map(lambda one: json.dumps({"cells": [one]}).encode()),
)
MOVES = st.one_of(
    st.tuples(st.just("publish"), EDITIONS),
    st.tuples(st.just("edit"), st.sampled_from([NAME, NEW]), CONTENTS),
    st.tuples(st.just("damage"), st.binary(max_size=9)),
    st.tuples(st.just("delete"), st.sampled_from([NAME, NEW, HANDED_OUT])),
    st.tuples(st.just("take the new one")),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("fail"), st.integers(1, 12)),
    st.tuples(st.just("refresh")),
)


@given(st.lists(MOVES, max_size=12))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_sequence_of_edits_and_updates_loses_a_students_byte(moves):
    with tempfile.TemporaryDirectory() as name:
        life = Life(Course(Path(name)))
        for move, *values in moves:
            getattr(life, move.replace(" ", "_"))(*values)
            life.check()
        life.refresh()


class Life:
    """A course, and what of its folder is the student's."""

    def __init__(self, course: Course):
        self.course, self.mine = course, {}
        course.refresh()

    def check(self) -> None:
        found = self.course.files()
        assert self.mine.items() <= found.items()
        assert set(found) <= {NAME, NEW}

    def publish(self, text: str) -> None:
        self.course.publish(text)

    def edit(self, name: str, content: bytes) -> None:
        (self.course.folder / name).write_bytes(content)
        self.mine[name] = content

    def damage(self, content: bytes) -> None:
        (self.course.folder / HANDED_OUT).write_bytes(content)

    def delete(self, name: str) -> None:
        (self.course.folder / name).unlink(missing_ok=True)
        self.mine.pop(name, None)

    def take_the_new_one(self) -> None:
        if self.course.new.exists():
            os.replace(self.course.new, self.course.copy)
            self.mine.pop(NAME, None)
            self.mine |= {NAME: self.mine.pop(NEW)} if NEW in self.mine else {}

    def cut(self, share: float) -> None:
        """Cut short the present edition, as a torn copy of the folder would."""
        self.refresh()
        if NAME not in self.mine:
            whole = self.course.copy.read_bytes()
            # With a damaged record an older edition may stand there and count as touched.
            if presents(self.course, whole):
                self.course.copy.write_bytes(whole[: int(share * len(whole))])
                self.course.refresh()
                assert self.course.copy.read_bytes() == whole

    def fail(self, when: int) -> None:
        """Refresh on a disk that is full from the `when`-th write on."""
        with full_disk(when), contextlib.suppress(InputError):
            self.course.refresh()

    def refresh(self) -> None:
        """A refresh leaves no chapter missing, and the next one changes nothing."""
        self.course.refresh()
        found = self.course.files()
        assert NAME in found
        self.course.refresh()
        assert self.course.files() == found


def presents(course: Course, content: bytes) -> bool:
    """Return whether `content` is what a new student would get."""
    with tempfile.TemporaryDirectory() as name:
        refresh(course.source, Path(name))
        return (Path(name) / NAME).read_bytes() == content


if __name__ == "__main__":
    save_between_all_lines(Path(sys.argv[1]), sys.argv[2])
