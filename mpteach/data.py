"""Text as bytes: a corpus that every Python carries, or one's own, with its hash."""

import hashlib
import sysconfig
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
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no text at {str(path)!r}: give a file or a folder.")
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    try:
        text = _join(files)
    except OSError as error:
        reason = f"{error.filename!r} cannot be read ({error.strerror})"
        raise InputError(f"{reason}: give a text that you may read.") from error
    if not text:
        raise InputError(f"the text at {str(path)!r} is empty: give one with content.")
    return Corpus(path.name, text)


def windows(tokens: Tensor, starts: Tensor, sequence: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), int64 [B, T] each: the windows of `tokens` at `starts` [B]."""
    places = starts[:, None] + torch.arange(sequence + 1)  # [B, T + 1]
    taken = tokens[places.to(tokens.device)].long()
    return taken[:, :-1], taken[:, 1:]


def _join(files) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(files))
