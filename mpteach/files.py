"""Writing a file so that a reader, or a crash, never meets half of it."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Make `path` hold `content` in one step; an existing file keeps its mode.

    Raises OSError where that cannot be done; the old file is then as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            part.chmod(path.stat().st_mode)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
