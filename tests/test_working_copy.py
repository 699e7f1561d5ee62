"""A student's byte is never lost, and an untouched copy follows the course."""

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from mpteach import files, working_copy
from mpteach.course import NOTEBOOKS, chapters
from mpteach.errors import InputError
from mpteach.working_copy import HANDED_OUT, refresh
from tests.pretend_course import MINE, NAME, NEW, Course, full_disk, notebook


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
    assert list(course.files()) == [NAME]


def test_a_deleted_copy_comes_back(course):
    course.refresh()
    course.copy.unlink()
    course.refresh()
    assert "edition 1" in course.copy.read_text()


def test_a_touched_copy_stays_and_the_new_edition_is_put_beside_it_once(course):
    course.refresh()
    course.copy.write_bytes(MINE)
    assert course.refresh() == []
    course.publish("edition 2")
    (sentence,) = course.refresh()
    assert NAME in sentence and NEW in sentence
    assert course.copy.read_bytes() == MINE and "edition 2" in course.new.read_text()
    course.new.unlink()
    assert course.refresh() == [] and not course.new.exists()


def test_an_untouched_new_edition_gives_way_to_a_newer_one(course):
    course.refresh()
    course.copy.write_bytes(MINE)
    for edition in ("edition 2", "edition 3"):
        course.publish(edition)
        course.refresh()
    assert course.copy.read_bytes() == MINE and "edition 3" in course.new.read_text()


def test_a_touched_new_edition_stays_too(course):
    course.refresh()
    course.copy.write_bytes(MINE)
    course.publish("edition 2")
    course.refresh()
    course.new.write_bytes(MINE + b" ")
    course.publish("edition 3")
    (sentence,) = course.refresh()
    assert "rename or delete" in sentence
    assert course.files() == {NAME: MINE, NEW: MINE + b" "}
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


def test_a_copy_that_is_not_json_stays_and_a_whole_one_is_put_beside_it(course):
    course.refresh()
    torn = course.copy.read_bytes()[:-9] + b"mine"
    course.copy.write_bytes(torn)
    for _ in range(2):
        (sentence,) = course.refresh()
        assert sentence == (
            f"{NAME} cannot be opened (it is not JSON) and stays; instead take {NEW}."
        )
        assert course.copy.read_bytes() == torn
        assert "edition 1" in course.new.read_text()
    course.new.write_bytes(MINE)
    course.refresh()
    assert course.files() == {NAME: torn, NEW: MINE}


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(course, when):
    course.refresh()
    course.publish("edition 2")
    before = course.files()
    with full_disk(when), pytest.raises(InputError, match=r"work \(No space left on"):
        course.refresh()
    after = course.files()
    assert after == before or (when == 3 and "edition 2" in after[NAME].decode())
    course.refresh()
    assert "edition 2" in course.copy.read_text() and list(course.files()) == [NAME]


@contextlib.contextmanager
def nobody():
    """Be a user without rights: to root no folder is read-only."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


def test_a_read_only_folder_is_one_sentence():
    with tempfile.TemporaryDirectory() as name:
        course = Course(Path(name))
        course.refresh()
        course.publish("edition 2")
        before = course.files()
        Path(name).chmod(0o755)
        course.folder.chmod(0o555)
        try:
            with nobody(), pytest.raises(InputError, match=r"\(Permission denied\)"):
                course.refresh()
            with nobody(), pytest.raises(InputError, match=r"\(Permission denied\)"):
                refresh(course.source, course.folder / "mine")
        finally:
            course.folder.chmod(0o755)
        assert course.files() == before


def test_a_second_refresh_at_the_same_time_waits_and_says_so(course, monkeypatch):
    monkeypatch.setattr(working_copy, "_PATIENCE_S", 0.1)
    course.folder.mkdir()
    with (
        FileLock(course.folder / f"{HANDED_OUT}.lock"),
        pytest.raises(InputError, match="another 'mpteach lab' is bringing .* wait"),
    ):
        course.refresh()
    assert course.refresh() == [] and list(course.files()) == [NAME]


def test_without_links_between_files_it_works_as_well(course, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    course.refresh()
    course.publish("edition 2")
    assert course.refresh() == [] and "edition 2" in course.copy.read_text()
    course.copy.write_bytes(MINE)
    course.publish("edition 3")
    course.refresh()
    assert course.copy.read_bytes() == MINE and "edition 3" in course.new.read_text()


def test_a_copy_that_is_a_link_stays_one(course):
    course.refresh()
    real = course.source.parent / "elsewhere.ipynb"
    course.copy.rename(real)
    course.copy.symlink_to(real)
    course.publish("edition 2")
    course.refresh()
    assert course.copy.is_symlink() and "edition 2" in real.read_text()
    assert list(course.files()) == [NAME]


def test_a_copy_keeps_its_mode(course):
    course.refresh()
    course.copy.chmod(0o640)
    course.publish("edition 2")
    course.refresh()
    assert course.copy.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["Übung", "授業", "a b\u2028c", "e\u0301", "\udcff"])
def test_unicode_names_are_names(course, name):
    course.folder = course.folder / name
    path = course.source / f"01_{name}.ipynb"
    path.write_text(notebook("edition 1"))
    course.refresh()
    path.write_text(notebook("edition 2"))
    assert course.refresh() == []
    (course.folder / path.name).write_bytes(MINE)
    path.write_text(notebook("edition 3"))
    (sentence,) = course.refresh()
    assert f"01_{name}.new.ipynb" in sentence
    assert (course.folder / path.name).read_bytes() == MINE
    assert "edition 3" in (course.folder / f"01_{name}.new.ipynb").read_text()


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
    course.copy.write_bytes(MINE)
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


def test_a_link_to_itself_in_the_place_of_a_copy_is_one_sentence(course):
    course.refresh()
    course.copy.unlink()
    course.copy.symlink_to(course.copy.name)
    with pytest.raises(InputError, match="leads back to itself: delete it"):
        course.refresh()
