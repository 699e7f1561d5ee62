"""Where the course's files are, and what its chapters are: read off the notebooks themselves."""

import json
from dataclasses import dataclass
from pathlib import Path

from mpteach.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
RECORDS = ROOT / "static" / "records"


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
    """Return the chapters in `folder` in order; raise InputError where there are none."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise InputError(
            f"no chapters in {folder}: run mpteach from a clone of the course, "
            "installed with 'pip install -e'."
        )
    return [_chapter(path) for path in paths]


def _chapter(path: Path) -> Chapter:
    about = json.loads(path.read_text(encoding="utf-8"))["metadata"]["mpteach"]
    return Chapter(
        path=path,
        question=about["question"],
        minutes=about["minutes"],
        live=about["live"],
        gpu=about["gpu"],
        records=tuple(about["records"]),
    )
