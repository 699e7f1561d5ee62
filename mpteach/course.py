"""Where the course's files are, and what its chapters are: read off the notebooks."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpteach.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
RECORDS = ROOT / "static" / "records"

# Far more than a notebook has, far less than Python can copy.
_MOST_LEVELS = 100
_ABOUT = {"question": str, "minutes": int, "live": str, "gpu": str}
_OUTPUTS = {
    "stream": {"name": str, "text": str | list},
    "display_data": {"data": dict},
    "execute_result": {"data": dict},
    "error": {"ename": str, "evalue": str},
}


@dataclass(frozen=True)
class Chapter:
    """One notebook and what its metadata (`metadata.mpteach`) says of it."""

    path: Path
    question: str
    minutes: int
    live: str
    gpu: str
    records: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name without ending, e.g. `01_read_the_bits`."""
        return self.path.stem


def chapters(folder: Path = NOTEBOOKS) -> list[Chapter]:
    """Return the chapters in `folder` in order.

    Raises InputError where there are none, and names the file that is damaged.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise InputError(
            f"no chapters in {folder}: run mpteach from a clone of the course, "
            "installed with 'pip install -e'."
        )
    return [_chapter(path) for path in paths]


def read_notebook(path: Path) -> dict[str, Any]:
    """Return the notebook in `path` as JSON gives it, with nothing that `fault` names.

    Raises InputError naming the file, what is wrong and how to restore it.
    """
    remedy = f"{_restore(path)} or put a notebook saved by JupyterLab there."
    nb, wrong = {}, "it is no ordinary file"
    try:
        # A pipe would be waited for.
        if path.is_file() or not path.exists():
            nb = json.loads(path.read_bytes().decode())
            wrong = fault(nb)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): {remedy}") from None
    except (ValueError, RecursionError) as error:
        wrong = f"it is not JSON: {error}"
    if wrong:
        raise InputError(f"{path} is not a sound notebook ({wrong}): {remedy}")
    return nb


def run_builder(
    build: Callable[[Path], str], arguments: list[str], default: Path
) -> int:
    """Let `build` make the folder named in `arguments`, or `default`; print what it says.

    Returns 0, or 2 after a sentence where it failed.
    """
    out = Path(arguments[0]) if arguments else default
    try:
        said = build(out)
    except InputError as error:
        print(f"mpteach: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"mpteach: cannot write {out} ({error.strerror}).", file=sys.stderr)
        return 2
    print(said)
    return 0


def require_current_folder() -> None:
    """Raise InputError where the current folder is gone: torch and Jupyter need one."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(
            f"the current folder is gone ({error.strerror}): change to another with cd."
        ) from None


def fault(nb: object) -> str:
    """Return what keeps `nb` from being a notebook of format 4 with cell ids, or ""."""
    return next(_faults(nb), "")


def _chapter(path: Path) -> Chapter:
    about = read_notebook(path)["metadata"].get("mpteach")
    about = about if isinstance(about, dict) else {}
    wrong = [
        key for key, kind in _ABOUT.items() if not isinstance(about.get(key), kind)
    ]
    if not _are_strings(about.get("records")):
        wrong.append("records")
    if wrong:
        raise InputError(
            f"{path} does not say its {', '.join(wrong)} in metadata.mpteach: add "
            f"that or {_restore(path)}."
        )
    return Chapter(
        path=path,
        question=about["question"],
        minutes=about["minutes"],
        live=about["live"],
        gpu=about["gpu"],
        records=tuple(about["records"]),
    )


def _restore(path: Path) -> str:
    # HEAD, because a file in the middle of a merge has no other version to take.
    return f"restore it with 'git checkout HEAD -- {shlex.quote(str(path))}'"


def _faults(nb: object) -> Iterator[str]:
    """Yield what is wrong; each check relies on those before it."""
    if not isinstance(nb, dict) or nb.get("nbformat") != 4:
        yield "its nbformat is not 4"
    if not isinstance(nb.get("metadata"), dict):
        yield "its metadata are no object"
    if not isinstance(nb.get("cells"), list):
        yield "its cells are no list"
    if _levels(nb) > _MOST_LEVELS:
        yield f"it is nested more than {_MOST_LEVELS} levels deep"
    ids = set()
    for index, cell in enumerate(nb["cells"]):
        for wrong in _cell_faults(cell):
            yield f"cell {index} {wrong}"
        if cell["id"] in ids:
            yield f"cell {index} has the id {cell['id']!r} that another cell has"
        ids.add(cell["id"])
    if not _is_unicode({**nb, "cells": []}):
        yield "its metadata hold half a character (a lone surrogate)"


def _cell_faults(cell: object) -> Iterator[str]:
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata"), dict):
        yield "has no metadata"
    if cell.get("cell_type") not in ("code", "markdown", "raw"):
        yield "is neither code nor markdown nor raw"
    if not isinstance(cell.get("id"), str) or not cell["id"]:
        yield "has no id"
    if not _is_text(cell.get("source")):
        yield "has no text as its source"
    if not _are_strings(cell["metadata"].get("tags", [])):
        yield "has tags that are no list of words"
    for key in ("nbgrader", "slideshow"):
        if not isinstance(cell["metadata"].get(key, {}), dict):
            yield f"has {key} metadata that are no object"
    outputs = cell.get("outputs", None if cell["cell_type"] == "code" else [])
    if not isinstance(outputs, list) or not all(map(_is_output, outputs)):
        yield "has outputs that are not as format 4 has them"
    if not _is_unicode(cell):
        yield "holds half a character (a lone surrogate)"


def _is_output(output: object) -> bool:
    kind = output.get("output_type") if isinstance(output, dict) else None
    if not isinstance(kind, str) or kind not in _OUTPUTS:
        return False
    data, about = output.get("data", {}), output.get("metadata", {})
    return (
        all(isinstance(output.get(key), what) for key, what in _OUTPUTS[kind].items())
        and isinstance(about, dict)
        and isinstance(about.get("image/png", {}), dict)
        and _is_text(output.get("text", ""))
        and isinstance(data, dict)
        and all(_is_text(data[mime]) for mime in data if not mime.endswith("json"))
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) or _are_strings(value)


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _levels(value: object) -> int:
    """Return how deep lists and objects are nested, without recursion."""
    level, count = [value], 0
    while level := [inner for one in level for inner in _inner(one)]:
        count += 1
    return count


def _inner(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _is_unicode(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
