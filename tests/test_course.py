"""Reading a chapter: whatever is damaged is named with its file and the remedy."""

import copy
import json
import os

import pytest

from mpteach import cli, course, editions
from mpteach.errors import InputError

ABOUT = {"question": "?", "minutes": 1, "live": "all", "gpu": "", "records": ["a"]}
OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": ["a", "b"]},
    {"output_type": "display_data", "data": {"image/png": "", "a/x+json": {"a": 1}}},
    {"output_type": "execute_result", "data": {"text/plain": "1"}},
    {"output_type": "error", "ename": "E", "evalue": "e", "traceback": []},
]
SOUND = {
    "nbformat": 4,
    "metadata": {"mpteach": ABOUT},
    "cells": [
        {
            "cell_type": "code",
            "id": "live",
            "metadata": {"tags": [editions.LIVE_TAG], "nbgrader": {}},
            "source": ["1", "2"],
            "outputs": OUTPUTS,
        },
        {"cell_type": "markdown", "id": "text", "metadata": {}, "source": "a"},
    ],
}
GONE = object()


def damaged(place, value):
    """Return the sound notebook with `value` at `place`, or without it where GONE."""
    nb = copy.deepcopy(SOUND)
    *way, last = place
    inner = nb
    for step in way:
        inner = inner[step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return nb


def deep(levels):
    value = "a"
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "00_first.ipynb"


def refusal(path):
    """Return what both readers of a chapter say: one sentence with a remedy."""
    with pytest.raises(InputError) as first:
        course.chapters(path.parent)
    with pytest.raises(InputError) as second:
        editions.read(path)
    said = str(first.value)
    assert said == str(second.value) and "\n" not in said and str(path) in said
    assert f"restore it with 'git checkout HEAD -- {path}'" in said
    return said


def test_a_sound_chapter_is_read(path):
    path.write_text(json.dumps(SOUND))
    (chapter,) = course.chapters(path.parent)
    assert chapter == course.Chapter(path, "?", 1, "all", "", ("a",))
    assert editions.read(path)["cells"][0]["source"] == "12"


CELL = ("cells", 0)
OUTPUT = (*CELL, "outputs")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("nbformat",), 3, "its nbformat is not 4"),
        (("nbformat",), GONE, "its nbformat is not 4"),
        (("metadata",), GONE, "its metadata are no object"),
        (("metadata",), [], "its metadata are no object"),
        (("cells",), GONE, "its cells are no list"),
        (("cells",), "none", "its cells are no list"),
        (CELL, "a", "cell 0 has no metadata"),
        ((*CELL, "metadata"), GONE, "cell 0 has no metadata"),
        ((*CELL, "cell_type"), ["code"], "cell 0 is neither code nor"),
        (("cells", 1, "id"), GONE, "cell 1 has no id"),
        (("cells", 1, "id"), "", "cell 1 has no id"),
        (("cells", 1, "id"), ["live"], "cell 1 has no id"),
        (("cells", 1, "id"), "live", "cell 1 has the id 'live' that another"),
        ((*CELL, "source"), GONE, "cell 0 has no text as its source"),
        ((*CELL, "source"), 7, "cell 0 has no text as its source"),
        ((*CELL, "source"), ["a", 7], "cell 0 has no text as its source"),
        ((*CELL, "source"), "\ud800", "cell 0 holds half a character"),
        ((*CELL, "metadata", "tags"), 7, "cell 0 has tags that are no list"),
        ((*CELL, "metadata", "tags"), "live", "cell 0 has tags that are no list"),
        ((*CELL, "metadata", "nbgrader"), None, "cell 0 has nbgrader metadata"),
        ((*CELL, "metadata", "slideshow"), ["slide"], "cell 0 has slideshow metadata"),
        (OUTPUT, GONE, "cell 0 has outputs that are not"),
        (OUTPUT, None, "cell 0 has outputs that are not"),
        (("cells", 1, "outputs"), None, "cell 1 has outputs that are not"),
        ((*OUTPUT, 0), 7, "cell 0 has outputs that are not"),
        ((*OUTPUT, 0, "output_type"), ["stream"], "cell 0 has outputs that are not"),
        ((*OUTPUT, 0, "output_type"), "print", "cell 0 has outputs that are not"),
        ((*OUTPUT, 0, "name"), GONE, "cell 0 has outputs that are not"),
        ((*OUTPUT, 0, "text"), [7], "cell 0 has outputs that are not"),
        ((*OUTPUT, 1, "data"), None, "cell 0 has outputs that are not"),
        ((*OUTPUT, 1, "data", "image/png"), 7, "cell 0 has outputs that are not"),
        ((*OUTPUT, 1, "metadata"), 7, "cell 0 has outputs that are not"),
        ((*OUTPUT, 1, "metadata"), {"image/png": 7}, "cell 0 has outputs that are not"),
        ((*OUTPUT, 3, "ename"), GONE, "cell 0 has outputs that are not"),
        (("metadata", "a"), "\udc80", "its metadata hold half a character"),
        (("metadata", "a"), deep(200), "nested more than 100 levels"),
    ],
)
def test_what_is_damaged_is_named(path, place, value, said):
    path.write_text(json.dumps(damaged(place, value)))
    assert said in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"<<<<<<< HEAD\n{", b"[]", b"\xff", b"[" * 99999]
)
def test_what_is_no_notebook_is_named(path, content):
    path.write_bytes(content)
    assert "is not a sound notebook (" in refusal(path)


def test_a_folder_is_named(path):
    path.mkdir()
    assert "it is no ordinary file" in refusal(path)


def test_a_pipe_is_named_and_not_waited_for(path):
    os.mkfifo(path)
    assert "it is no ordinary file" in refusal(path)


def test_a_dangling_link_is_named(path):
    path.symlink_to("nowhere")
    assert "(No such file or directory)" in refusal(path)


@pytest.mark.parametrize("command", ["lab --no-browser", "doctor"])
def test_a_current_folder_that_is_gone_is_one_sentence(
    tmp_path, monkeypatch, capsys, command
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(command.split()) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("mpteach: the current folder is gone")


@pytest.mark.parametrize(
    ("about", "named"),
    [
        (None, "question, minutes, live, gpu, records"),
        ([], "question, minutes, live, gpu, records"),
        (ABOUT | {"minutes": "ten"}, "minutes"),
        (ABOUT | {"records": "a"}, "records"),
        (ABOUT | {"records": [1]}, "records"),
        ({key: ABOUT[key] for key in ABOUT if key != "gpu"}, "gpu"),
    ],
)
def test_what_a_chapter_does_not_say_of_itself_is_named(path, about, named):
    path.write_text(json.dumps(damaged(("metadata", "mpteach"), about)))
    with pytest.raises(InputError) as refused:
        course.chapters(path.parent)
    assert f"{path} does not say its {named} in metadata.mpteach" in str(refused.value)
    assert f"restore it with 'git checkout HEAD -- {path}'" in str(refused.value)
