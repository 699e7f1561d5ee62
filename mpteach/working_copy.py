"""The student's working copy: chapters with stubs, never overwritten once touched.

`.handed_out.json` beside the copies keeps the SHA-256 of every edition of a chapter
that was handed out. A copy is still the course's own, and may be replaced, while it
hashes as one of those or is the beginning of the present edition (a copy that was cut
short). Everything else is the student's.

A process may be killed, and a student may save, between any two lines of this module.
So an edition is noted before it is written and again once it stands, and no file is
written over: the old one steps aside, is looked at there, and comes back if it changed.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpteach import editions
from mpteach.course import NOTEBOOKS, ROOT, chapters
from mpteach.errors import InputError
from mpteach.files import discard_parts, write_atomically

WORK = ROOT / "work"
HANDED_OUT = ".handed_out.json"
# Stands in the record among the chapters, for editions on their way to the folder.
_BEGUN = "begun"
_PATIENCE_S = 10


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
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            return _refresh(texts, folder)
    except OSError as error:
        raise InputError(
            f"cannot use {error.filename or folder} ({error.strerror}): free it or "
            "choose another folder with --folder."
        ) from None


def beside(copy: Path) -> Path:
    """Return where a new edition is put that must not replace `copy`."""
    return copy.with_suffix(".new.ipynb")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / f"{HANDED_OUT}.lock", timeout=_PATIENCE_S):
            yield
    except Timeout:
        raise InputError(
            f"another 'mpteach lab' is bringing {folder} up to date: wait for it."
        ) from None


def _refresh(texts: dict[str, bytes], folder: Path) -> list[str]:
    handed, sentences = _load(folder / HANDED_OUT)
    for name, text in texts.items():
        sentences += _hand_out(_Chapter(folder / name, text, handed))
    return sentences


@dataclass(frozen=True)
class _Handed:
    """The record: of each chapter's file name, the SHA-256 of its editions."""

    path: Path
    hashes: dict[str, list[str]]

    def holds(self, name: str, content: bytes) -> bool:
        """Return whether `content` is an edition that was handed out as `name`."""
        return _digest(content) in self.hashes.get(name, [])

    def begin(self, text: bytes) -> None:
        """Note that `text` is on its way: so a copy that a kill leaves is known."""
        if not self.holds(_BEGUN, text):
            self.hashes.setdefault(_BEGUN, []).append(_digest(text))
            self.save()

    def finish(self, name: str, text: bytes) -> None:
        """Note that `text` was handed out as an edition of chapter `name`."""
        if self.holds(name, text) and not self.holds(_BEGUN, text):
            return
        begun = self.hashes.get(_BEGUN, [])
        self.hashes[_BEGUN] = [one for one in begun if one != _digest(text)]
        if not self.holds(name, text):
            self.hashes.setdefault(name, []).append(_digest(text))
        self.save()

    def save(self) -> None:
        """Write the record to its file."""
        write_atomically(self.path, json.dumps(self.hashes, indent=1).encode())


@dataclass(frozen=True)
class _Chapter:
    """The copy of a chapter, the text of its present edition, and the record."""

    copy: Path
    text: bytes
    handed: _Handed

    @property
    def is_known(self) -> bool:
        """Whether the present edition was handed out before."""
        return self.handed.holds(self.copy.name, self.text)

    def is_ours(self, content: bytes | None) -> bool:
        """Return whether `content` holds nothing but what the course put there."""
        if content is None or self.text.startswith(content):
            return True
        names = (self.copy.name, _BEGUN)
        return any(self.handed.holds(name, content) for name in names)


def _hand_out(chapter: _Chapter) -> list[str]:
    """Bring the chapter's edition to its copy, or beside it; return what to tell."""
    copy, new = chapter.copy, beside(chapter.copy)
    for path in (copy, new):
        _settle(path, chapter)
    content = _content(copy)
    if chapter.is_ours(content):
        _deliver(chapter, copy)
        return []
    is_sound = _is_json(content)
    if is_sound and chapter.is_known:
        return []
    is_free = chapter.is_ours(_content(new))
    if is_free:
        _deliver(chapter, new)
    if not is_sound:
        return [
            f"{copy.name} cannot be opened (it is not JSON) and stays; instead take "
            f"{new.name}."
        ]
    if is_free:
        return [f"{copy.name} is yours now and stays; its new edition is {new.name}."]
    return [
        f"{copy.name} has a new edition, but you changed {new.name} too: rename or "
        "delete that one to get it."
    ]


def _deliver(chapter: _Chapter, path: Path) -> None:
    """Make `path` hold the edition, unless a student saves there at that moment."""
    if _content(path) != chapter.text:
        chapter.handed.begin(chapter.text)
        _replace(path, chapter)
    if _content(path) == chapter.text:
        chapter.handed.finish(chapter.copy.name, chapter.text)


def _replace(path: Path, chapter: _Chapter) -> None:
    path, stage, aside = _places(path)
    write_atomically(stage, chapter.text)
    if path.exists() and not aside.exists():
        stage.chmod(path.stat().st_mode)
        os.replace(path, aside)
    if chapter.is_ours(_content(aside)):
        _move(stage, path)
    _settle(path, chapter)


def _settle(path: Path, chapter: _Chapter) -> None:
    """Put back what stepped aside from `path`, or drop it where it is the course's own.

    Also clears away what a kill left half-written.
    """
    path, stage, aside = _places(path)
    stage.unlink(missing_ok=True)
    discard_parts(stage)
    if path.exists() and chapter.is_ours(_content(aside)):
        aside.unlink(missing_ok=True)
    if aside.exists():
        _move(aside, path)
    if aside.exists():
        # Saved twice within a moment: the later save has the name, this is the earlier.
        _move(aside, path.with_suffix(".saved.ipynb"))


def _places(path: Path) -> tuple[Path, Path, Path]:
    """Return the file behind any links, and the places to stage and step aside."""
    path = Path(os.path.realpath(path))
    hidden = f".{path.name}"
    return path, path.with_name(f"{hidden}.stage"), path.with_name(f"{hidden}.aside")


def _move(source: Path, target: Path) -> None:
    """Give `source` the name `target`, unless a file has that name by now."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        # A file system without links, such as a memory stick's.
        if not target.exists():
            os.replace(source, target)
        return
    source.unlink()


def _content(path: Path) -> bytes | None:
    """Return what the file `path` holds, None where there is none.

    Raises InputError for a folder, for a link that leads nowhere but back to itself,
    and for a pipe, which would be waited for.
    """
    if not path.exists():
        if os.path.islink(os.path.realpath(path)):
            raise InputError(f"{path} is a link that leads back to itself: delete it.")
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


def _load(path: Path) -> tuple[_Handed, list[str]]:
    """Return what was handed out; nothing and a sentence where the file is damaged."""
    discard_parts(path)
    present = _content(path)
    hashes = {} if present is None else _from_json(present)
    if _is_hashes(hashes):
        return _Handed(path, hashes), []
    handed = _Handed(path, {})
    handed.save()
    return handed, [
        f"{path.name} was damaged, so every chapter that differs counts as yours."
    ]


def _is_hashes(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(hashes, list) and all(isinstance(one, str) for one in hashes)
        for hashes in value.values()
    )


def _is_json(content: bytes) -> bool:
    return isinstance(_from_json(content), dict)


def _from_json(content: bytes) -> object:
    """Return what the JSON in `content` holds, None where it is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
