"""Texts: what is read, how it is split, and what bad ones get."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from mpteach import data
from mpteach.errors import InputError


def test_standard_library_is_the_interpreters_top_level_modules():
    corpus, folder = data.standard_library(), os.path.dirname(os.__file__)
    names = [name for name in sorted(os.listdir(folder)) if name.endswith(".py")]
    sizes = [os.path.getsize(os.path.join(folder, name)) for name in names]
    assert len(names) > 100 and corpus.size_bytes == sum(sizes)
    assert corpus.text.endswith(Path(folder, names[-1]).read_bytes())
    assert corpus.sha256 == hashlib.sha256(corpus.text).hexdigest()


def test_split_holds_out_the_last_tenth():
    corpus = data.Corpus("count", bytes(range(200)))
    train, held_out = corpus.split("cpu", sequence=8)
    assert train.tolist() == list(range(180)) and held_out.tolist() == list(
        range(180, 200)
    )


def test_windows_are_inputs_and_the_bytes_that_follow():
    tokens = torch.arange(100, dtype=torch.uint8)
    inputs, targets = data.windows(tokens, torch.tensor([0, 40]), sequence=3)
    assert inputs.tolist() == [[0, 1, 2], [40, 41, 42]]
    assert targets.tolist() == [[1, 2, 3], [41, 42, 43]]
    assert inputs.dtype == targets.dtype == torch.int64


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_bytes(b"two")
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "deep" / "c.bin").write_bytes(b"\x00\xff")
    assert data.read_text(tmp_path).text == b"onetwo\x00\xff"
    assert data.read_text(tmp_path / "b.txt").text == b"two"


def test_a_missing_text_is_named(tmp_path):
    with pytest.raises(
        InputError, match="nowhere.* does not exist: give a file or a folder"
    ):
        data.read_text(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_empty_text_is_refused(tmp_path, kind):
    path = tmp_path / "empty"
    path.touch() if kind == "file" else path.mkdir()
    with pytest.raises(InputError, match="is empty"):
        data.read_text(path)


def test_an_unreadable_text_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "secret.txt"
    path.write_bytes(b"x")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    # Root may read everything, so the refusal is staged rather than set by chmod.
    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(InputError, match="secret.txt.*Permission denied.*may read"):
        data.read_text(path)


@pytest.mark.parametrize("length", [1, 89])
def test_a_text_too_short_says_how_long_it_must_be(length):
    with pytest.raises(InputError, match=f"has {length} bytes: at least 90"):
        data.Corpus("short", b"x" * length).split("cpu", sequence=8)


def test_the_length_it_asks_for_is_enough():
    _, held_out = data.Corpus("enough", b"x" * 90).split("cpu", sequence=8)
    assert len(held_out) == 9
