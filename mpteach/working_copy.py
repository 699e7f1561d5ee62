"""The student's working copy: chapters with stubs, never overwritten once touched.

`.handed_out.json` beside the copies keeps the SHA-256 of every edition of a chapter
that was handed out. A copy is still the course's own, and may be replaced, while it
hashes as one of those or is the beginning of the present edition (a copy that was cut
short). Everything else is the student's.
"""

import hashlib
import json
import os
from pathlib import Path

from mpteach import editions
from mpteach.course import NOTEBOOKS, ROOT, chapters
from mpteach.errors import InputError
from mpteach.files import write_atomically

WORK = ROOT / "work"
HANDED_OUT = ".handed_out.json"

# Of each chapter's file name: the SHA-256 of the editions handed out.
Handed = dict[str, list[str]]


def refresh(source: Path = NOTEBOOKS, folder: Path = WORK) -> list[str]:
    """Bring the chapters of `source` to `folder`; return sentences on what to know.

    A missing copy is made, an untouched one renewed. Beside a touched one the new
    edition is put once, as `NAME.new.ipynb`. Raises InputError where the folder cannot
    be used.
    """
    texts = {one.path.name: _edition(one.path) for one in chapters(source)}
    try:
        # Unlike Path.resolve, this takes a loop of links for what it is, a bad path.
        place = Path(os.path.realpath(folder))
        if source.resolve() in (place, *place.parents):
            raise InputError(f"the folder was {folder}: choose one outside {source}.")
        return _refresh(texts, folder)
    except OSError as error:
        raise InputError(
            f"cannot use {error.filename or folder} ({error.strerror}): free it or "
            "choose another folder with --folder."
        ) from None


def _refresh(texts: dict[str, bytes], folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    handed, sentences = _load(folder / HANDED_OUT)
    for name, text in texts.items():
        sentences += _hand_out(folder / name, text, handed.setdefault(name, []))
        # Saved chapter by chapter: a crash loses at most the one in hand, and that
        # copy still equals its edition.
        _put(folder / HANDED_OUT, json.dumps(handed, indent=1).encode())
    return sentences


def _hand_out(copy: Path, text: bytes, handed: list[str]) -> list[str]:
    """Bring one chapter to `copy`, note its hash in `handed`; return what to tell."""
    beside = copy.with_suffix(".new.ipynb")
    known = _digest(text) in handed
    if not _touched(copy, text, handed):
        goal, told = copy, []
    elif known:
        return []
    elif not _touched(beside, text, handed):
        goal = beside
        told = [f"{copy.name} is yours now and stays; its new edition is {goal.name}."]
    else:
        return [
            f"{copy.name} has a new edition, but you changed {beside.name} too: rename "
            "or delete that one to get it."
        ]
    _put(goal, text)
    if not known:
        handed.append(_digest(text))
    return told


def _touched(copy: Path, text: bytes, handed: list[str]) -> bool:
    """Return whether `copy` holds anything that the course did not put there."""
    present = _content(copy)
    if present is None:
        return False
    return _digest(present) not in handed and not text.startswith(present)


def _content(path: Path) -> bytes | None:
    """Return what the file `path` holds, None where there is none.

    Raises InputError for a folder, and for a pipe, which would be waited for.
    """
    if not path.exists():
        return None
    if not path.is_file():
        raise InputError(
            f"{path} is no ordinary file: move it away or choose another folder with "
            "--folder."
        )
    return path.read_bytes()


def _edition(path: Path) -> bytes:
    return editions.dumps(editions.student_edition(editions.read(path))).encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _load(path: Path) -> tuple[Handed, list[str]]:
    """Return what was handed out; nothing and a sentence where the file is damaged."""
    present = _content(path)
    if present is None:
        return {}, []
    try:
        handed = json.loads(present)
    except (ValueError, RecursionError):
        handed = None
    if _is_handed(handed):
        return handed, []
    return {}, [
        f"{path.name} was damaged, so every chapter that differs counts as yours."
    ]


def _is_handed(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(hashes, list) and all(isinstance(one, str) for one in hashes)
        for hashes in value.values()
    )


def _put(path: Path, text: bytes) -> None:
    """Make `path` hold `text`; leave a file that does as it is."""
    if _content(path) != text:
        write_atomically(path, text)
