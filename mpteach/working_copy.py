"""The student's working copy: chapters with stubs, never overwritten once touched.

`.handed_out.json` beside the copies keeps the SHA-256 of every edition of a chapter
that was handed out. A copy is still the course's own, and may be replaced, while it
hashes as one of those or is the beginning of the present edition (a copy that was cut
short). Everything else is the student's.
"""

import hashlib
import json
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
    if source.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"the folder was {folder}: choose one outside {source}.")
    texts = {
        path.name: _edition(path) for path in (one.path for one in chapters(source))
    }
    try:
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
    if not copy.exists():
        return False
    present = copy.read_bytes()
    return _digest(present) not in handed and not text.startswith(present)


def _edition(path: Path) -> bytes:
    return editions.dumps(editions.student_edition(editions.read(path))).encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _load(path: Path) -> tuple[Handed, list[str]]:
    """Return what was handed out; nothing and a sentence where the file is damaged."""
    if not path.exists():
        return {}, []
    try:
        handed = json.loads(path.read_bytes())
    except ValueError:
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
    if not path.exists() or path.read_bytes() != text:
        write_atomically(path, text)
