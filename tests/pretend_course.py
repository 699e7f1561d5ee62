"""A course of one chapter, and a student's folder, for tests of the working copy."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mpteach.working_copy import HANDED_OUT, refresh

NAME = "00_first.ipynb"
NEW = "00_first.new.ipynb"
SAVED = "00_first.saved.ipynb"
OWN = {HANDED_OUT, f"{HANDED_OUT}.lock"}
MINE = b'{"cells": ["mine"]}'


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
        self.publish("edition 1")

    @property
    def copy(self) -> Path:
        return self.folder / NAME

    @property
    def new(self) -> Path:
        return self.folder / NEW

    def publish(self, text: str) -> None:
        (self.source / NAME).write_text(notebook(text))

    def refresh(self) -> list[str]:
        return refresh(self.source, self.folder)

    def files(self) -> dict[str, bytes]:
        """Return what a student sees in the folder, and what a kill left there."""
        paths = self.folder.iterdir() if self.folder.exists() else []
        return {path.name: path.read_bytes() for path in paths if path.name not in OWN}


@contextlib.contextmanager
def full_disk(when: int) -> Iterator[None]:
    """Let the `when`-th file that is written, and all after it, meet a full disk."""
    real, count = os.fsync, 0

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count >= when:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    os.fsync = fsync
    try:
        yield
    finally:
        os.fsync = real
