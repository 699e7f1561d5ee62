"""Writing files so that no reader, crash or second writer ever meets half of one."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from mpteach.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Make `path` hold `content` in one step; an existing file keeps its mode.

    A link stays a link: what it points to is written. Raises OSError where that cannot be
    done; the old file is then as it was.
    """
    path = path.resolve()
    part = _part_of(path)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            part.chmod(path.stat().st_mode)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def discard_parts(path: Path) -> None:
    """Delete the halves of files that killed writers of `path` left beside it.

    No other process may be writing `path`.
    """
    path = path.resolve()
    part = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.part")
    for file in path.parent.iterdir():
        if part.fullmatch(file.name):
            file.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise InputError, naming the reason, unless `path` is or can become a file of ours."""
    try:
        if path.is_dir():
            raise InputError(f"{str(path)!r} is a folder: give the name of a file.")
        if path.exists() and not path.is_file():
            raise InputError(f"{str(path)!r} is no ordinary file: give another name.")
        folder = path.resolve().parent
        if not folder.is_dir():
            raise InputError(f"there is no folder {str(folder)!r}: make it first.")
        if path.exists():
            path.open("ab").close()
        part = _part_of(path.resolve())
        part.open("xb").close()
        part.unlink()
    except OSError as error:
        reason = f"{str(path)!r} cannot be written ({error.strerror})"
        raise InputError(f"{reason}: give another name.") from error


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold `path`, which must be writable, for this process; discard its parts.

    The lock is a file beside `path`, which the system frees however the process ends.
    Raises InputError where another process holds it, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    require_writable(path)
    file = path.resolve()  # a link and what it points to are one file, with one lock
    try:
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=0):
            discard_parts(file)
            yield
    except Timeout as error:
        raise InputError(
            f"{str(path)!r} is being written by another process: wait for it, or give "
            "another name."
        ) from error


def _part_of(path: Path) -> Path:
    # Not the process's number: in containers each has the same.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
