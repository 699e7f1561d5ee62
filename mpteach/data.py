"""Text as bytes: a corpus that every Python carries, or one's own, with its hash."""

import hashlib
import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mpteach.errors import InputError

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Corpus:
    """A text of bytes, one token a byte; its last tenth is held out for validation."""

    name: str
    text: bytes

    @property
    def sha256(self) -> str:
        """Hash of the whole text."""
        return hashlib.sha256(self.text).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Length of the whole text in bytes."""
        return len(self.text)

    def split(self, device: str, sequence: int) -> tuple[Tensor, Tensor]:
        """Return (train, validation) as uint8 on `device`.

        Raises InputError where a part is shorter than one window of `sequence` + 1 bytes.
        """
        cut = self.size_bytes - int(self.size_bytes * VALIDATION_SHARE)
        if self.size_bytes - cut < sequence + 1:
            needed = int((sequence + 1) / VALIDATION_SHARE)
            raise InputError(
                f"the text {self.name!r} has {self.size_bytes} bytes: at least {needed} are "
                f"needed, so that the held-out tenth holds one window; give a longer text."
            )
        tokens = torch.frombuffer(bytearray(self.text), dtype=torch.uint8).to(device)
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


def windows(tokens: Tensor, starts: Tensor, sequence: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), int64 [B, T] each: the windows of `tokens` at `starts` [B]."""
    places = starts[:, None] + torch.arange(sequence + 1)  # [B, T + 1]
    taken = tokens[places.to(tokens.device)].long()
    return taken[:, :-1], taken[:, 1:]


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
