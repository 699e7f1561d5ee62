"""Texts: what is read, how it is split, and what bad ones get."""

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", ">i4", "uint32", "int64"]
)
def test_ids_are_read_as_they_are(tmp_path, dtype):
    ids = np.array([3, 0, 127, 5] * 50, dtype)
    if np.dtype(dtype).itemsize > 2:
        ids[7] = 2**31 - 1
    np.save(tmp_path / "ids.npy", ids)
    corpus = data.read_tokens(tmp_path / "ids.npy")
    assert corpus.name == "ids.npy" and corpus.size_bytes == ids.nbytes
    assert corpus.sha256 == hashlib.sha256(ids.tobytes()).hexdigest()
    train, held_out = corpus.split("cpu", sequence=8)
    assert torch.cat([train, held_out]).tolist() == ids.tolist() and len(held_out) == 20
    inputs, targets = data.windows(train, torch.tensor([6]), sequence=2)
    assert inputs.tolist() == [ids[6:8].tolist()] and inputs.dtype == torch.int64
    assert targets.tolist() == [ids[7:9].tolist()]


def test_bytes_in_an_array_are_the_text_of_these_bytes(tmp_path):
    np.save(tmp_path / "ids.npy", np.frombuffer(b"the fox " * 30, np.uint8))
    corpus = data.read_tokens(tmp_path / "ids.npy")
    text = data.Corpus("fox", b"the fox " * 30)
    assert corpus.sha256 == text.sha256
    pairs = zip(corpus.split("cpu", 8), text.split("cpu", 8), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


class Trap:
    """Leaves a mark where unpickling it ran code."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def whole(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    np.savez(file, np.arange(9))
    return file.getvalue()


LONG = np.arange(1000)
HUGE = whole(LONG).replace(b"(1000,), ", b"(10**9,),").replace(b"10**9", b"99999")
UNREADABLE = {
    "text": b"the quick brown fox",
    "empty": b"",
    "pickle": pickle.dumps([1, 2]),
    "objects": whole(np.array([Trap()], dtype=object)),
    "npz": zipped(),
    "cut": whole(LONG)[:-8],
    "header cut": whole(LONG)[:40],
    "more than there is": HUGE,
}
UNFIT = {
    "two-dimensional": (LONG.reshape(10, 100), r"int64 of shape \[10, 100\]"),
    "one number": (np.array(3), r"of shape \[\]"),
    "floats": (LONG.astype(float), "float64 of shape"),
    "booleans": (LONG > 3, "bool of shape"),
    "negative": (LONG - 1, "ids from -1 to 998"),
    "too large": (LONG + 2**31, "to below 2.31"),
    "unsigned": (
        np.array([2**64 - 1] * 200, np.uint64),
        "ids from 18446744073709551615",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_array_of_numbers_is_refused_and_not_run(
    tmp_path, name, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.npy").write_bytes(UNREADABLE[name])
    with pytest.raises(
        InputError, match="is no whole .npy file.*numpy.save"
    ) as refused:
        data.read_tokens(tmp_path / "ids.npy")
    assert "\n" not in str(refused.value) and os.listdir(tmp_path) == ["ids.npy"]


@pytest.mark.parametrize("name", UNFIT)
def test_arrays_that_are_no_ids_are_refused(tmp_path, name):
    array, said = UNFIT[name]
    np.save(tmp_path / "ids.npy", array)
    with pytest.raises(InputError, match=said):
        data.read_tokens(tmp_path / "ids.npy")


def test_a_path_without_an_array_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist; give a .npy file"):
        data.read_tokens(tmp_path / "none.npy")
    with pytest.raises(InputError, match="is no ordinary file"):
        data.read_tokens(tmp_path)


@pytest.mark.parametrize("count", [0, 89])
def test_ids_too_few_say_how_many_it_takes(tmp_path, count):
    np.save(tmp_path / "ids.npy", np.ones(count, np.int32))
    corpus = data.read_tokens(tmp_path / "ids.npy")
    with pytest.raises(InputError, match=f"has {count} ids: at least 90"):
        corpus.split("cpu", sequence=8)
