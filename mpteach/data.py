"""Text as bytes, or as a tokenizer's ids: a corpus of tokens, with its hash.

One corpus comes with every Python; others are read from files.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpteach.errors import InputError

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Corpus:
    """Tokens in a row, one a byte of `text`; the last tenth is held out for validation.

    Where `dtype`, numpy's name of an integer type, is another, `text` holds such ids.
    """

    name: str
    text: bytes
    dtype: str = "uint8"

    @property
    def sha256(self) -> str:
        """Hash of the whole text."""
        return hashlib.sha256(self.text).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Length of the whole text in bytes."""
        return len(self.text)

    @property
    def ids(self) -> np.ndarray:
        """The tokens, [size], read-only."""
        return np.frombuffer(self.text, self.dtype)

    def split(self, device: str, sequence: int) -> tuple[Tensor, Tensor]:
        """Return (train, validation) on `device`: bytes as uint8, other ids as int32.

        Raises InputError where a part is shorter than one window of `sequence` + 1 tokens.
        """
        size = len(self.ids)
        cut = size - int(size * VALIDATION_SHARE)
        if size - cut < sequence + 1:
            needed = int((sequence + 1) / VALIDATION_SHARE)
            unit = "bytes" if self.dtype == "uint8" else "ids"
            raise InputError(
                f"the text {self.name!r} has {size} {unit}: at least {needed} are "
                f"needed, so that the held-out tenth holds one window; give a longer text."
            )
        own = np.uint8 if self.dtype == "uint8" else np.int32
        tokens = torch.from_numpy(self.ids.astype(own)).to(device)
        return tokens[:cut], tokens[cut:]


def standard_library() -> Corpus:
    """Return the top-level .py files of the running interpreter's standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    return Corpus("Python's standard library", _join(folder.glob("*.py")))


def read_text(path: str | Path) -> Corpus:
    """Return the file at `path`, or every file below the folder at `path`, as one corpus.

    Raises InputError where there is nothing to read, or it may not be read.
    """
    if not str(path):
        raise InputError("the text's path was empty: give a file or a folder.")
    path = Path(path)
    try:
        text = _join(_files_at(path))
    except OSError as error:
        reason = f"{str(error.filename or path)!r} cannot be read ({error.strerror})"
        raise InputError(f"{reason}: give a text that you may read.") from error
    if not text:
        raise InputError(f"the text at {str(path)!r} is empty: give one with content.")
    return Corpus(path.name, text)


def read_tokens(path: str | Path) -> Corpus:
    """Return the token ids in the .npy file at `path`, as they are.

    It holds one integer array, [size], of ids from 0 up to less than 2^31. Raises
    InputError for another file. Nothing in it is executed: pickled objects are refused.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is no ordinary file" if path.exists() else "does not exist"
            raise InputError(f"the tokens {str(path)!r}: {what}; give a .npy file.")
        # Mapped, so that a file is not believed about its size.
        ids = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        reason = f"{str(path)!r} cannot be read ({error.strerror})"
        raise InputError(f"{reason}: give a .npy file that you may read.") from error
    except InputError:
        raise
    except Exception as error:  # numpy raises many kinds for what it cannot parse
        raise InputError(
            f"{str(path)!r} is no whole .npy file of numbers: save the ids with "
            "numpy.save(file, ids), a one-dimensional array of integers."
        ) from error
    _require_ids(ids, path)
    return Corpus(path.name, ids.tobytes(), ids.dtype.str)


def _require_ids(ids: np.ndarray, path: Path) -> None:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        shape = list(ids.shape)
        raise InputError(
            f"{str(path)!r} holds {ids.dtype} of shape {shape}: give a one-dimensional "
            "array of integers."
        )
    if ids.size and (ids.min() < 0 or ids.max() > np.iinfo(np.int32).max):
        raise InputError(
            f"{str(path)!r} holds ids from {ids.min()} to {ids.max()}: give ids from 0 "
            "to below 2^31."
        )


def windows(tokens: Tensor, starts: Tensor, sequence: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), int64 [B, T] each: the windows of `tokens` at `starts` [B]."""
    places = starts[:, None] + torch.arange(sequence + 1)  # [B, T + 1]
    taken = tokens[places.to(tokens.device)].long()
    return taken[:, :-1], taken[:, 1:]


class Batches:
    """Windows of `tokens` drawn at random by `seed`: the same for every recipe and device."""

    def __init__(self, tokens: Tensor, sequence: int, batch: int, seed: int) -> None:
        self.tokens, self.sequence, self.batch = tokens, sequence, batch
        # On the CPU, so that every device draws the same.
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return the next (inputs, targets), int64 [B, T] each."""
        last = len(self.tokens) - self.sequence
        starts = torch.randint(last, (self.batch,), generator=self.generator)
        return windows(self.tokens, starts, self.sequence)


def _files_at(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        what = "is no ordinary file" if path.exists() else "does not exist"
        raise InputError(f"the text {str(path)!r} {what}: give a file or a folder.")

    def stop(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that may not be entered

    found = os.walk(path, onerror=stop)
    every = (Path(folder, name) for folder, _, names in found for name in names)
    return [file for file in every if file.is_file()]


def _join(files: Iterable[Path]) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(files))
