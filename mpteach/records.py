"""One shape for every run that is kept: the data, and what is needed to believe them."""

import ast
import hashlib
import json
import math
import re
import subprocess
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mpteach import hardware
from mpteach.course import RECORDS, ROOT
from mpteach.errors import InputError
from mpteach.files import write_atomically

SCHEMA = 1


class RecordError(InputError):
    """A record that cannot be trusted or read."""


class DamagedRecord(RecordError):
    """Not JSON, or not shaped like a record."""


class TruncatedRecord(RecordError):
    """The end of the file is missing."""


class EditedRecord(RecordError):
    """The content does not match its checksum."""


class SchemaMismatch(RecordError):
    """Written in another version of this shape."""


class MissingProvenance(RecordError):
    """Where the data come from is not said."""


@dataclass(frozen=True)
class Record:
    """An experiment's data with its provenance.

    `machine` is `hardware.machine`'s dict; `date` is UTC, ISO 8601; `commit` and `clean` are
    None outside a git repository; `sources` is the SHA-256 of the package's source files.
    """

    experiment: str
    settings: dict
    seeds: list[int]
    command: str
    machine: dict
    date: str
    commit: str | None
    clean: bool | None
    sources: str
    data: dict

    def with_data(self, seeds: list[int], data: dict) -> "Record":
        """Return this record with other seeds and data, dated now."""
        return replace(self, seeds=seeds, data=data, date=_now())

    def text(self) -> str:
        """Return the record as its file holds it: JSON, with a checksum.

        Raises ValueError for numbers that are not finite, which JSON has not.
        """
        content = {"schema": SCHEMA, **asdict(self)}
        return json.dumps({**content, "checksum": _checksum(content)}, allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write the record to `path` at once: a reader sees the old file or the new one.

        Raises InputError where that cannot be done.
        """
        content = f"{self.text()}\n".encode()
        try:
            write_atomically(Path(path), content)
        except OSError as error:
            raise InputError(
                f"{str(path)!r} could not be written ({error.strerror}) and holds what "
                "it held before: make room or give another --out."
            ) from error


_TYPES = {
    "experiment": str,
    "settings": dict,
    "seeds": list,
    "command": str,
    "machine": dict,
    "date": str,
    "commit": str | None,
    "clean": bool | None,
    "sources": str,
    "data": dict,
}


def begin(
    experiment: str, settings: dict, command: str, device: str, *rooms: str
) -> Record:
    """Return an empty record of `experiment` on this machine, with its provenance.

    `rooms` are the modules of the package that decide its data, all unless given: a
    record may be gone on with while they and what they import are as they were.
    """
    commit, clean = _git_state()
    return Record(
        experiment=experiment,
        settings=settings,
        seeds=[],
        command=command,
        machine=hardware.machine(device),
        date=_now(),
        commit=commit,
        clean=clean,
        sources=source_digest(*rooms),
        data={},
    )


def resume(fresh: Record, path: Path) -> Record:
    """Return `fresh`, or the record at `path` where there is one to go on from.

    Raises InputError where `path` holds another thing, or a record that these settings,
    this machine or these sources would not have begun.
    """
    if not path.exists():
        return fresh
    old = load(path)
    for what, begun, now in _differences(old, fresh):
        raise InputError(
            f"{path.name} was begun with {what} {begun!r}, this run has {now!r}: "
            "give another --out, or the same settings."
        )
    if fresh.command in commands(old):
        return old
    return replace(old, command=f"{old.command} && {fresh.command}")


def commands(record: Record) -> list[str]:
    """Return the commands that made `record`; a name in one may hold "&&" too."""
    return re.split(r" && (?=mpteach )", record.command)


def committed(name: str) -> Record:
    """Return the record that the course carries as `static/records/NAME.json`."""
    return load(RECORDS / f"{name}.json")


def load(path: str | Path) -> Record:
    """Return the record at `path`; raise the RecordError that says what is wrong with it."""
    path = Path(path)
    content = _parse(path)
    schema = content.get("schema")
    if schema != SCHEMA:
        raise SchemaMismatch(
            f"{path.name} has record schema {schema!r}, this version reads {SCHEMA}: "
            "make the record again, or use the version that wrote it."
        )
    _require_provenance(path, content)
    checksum = content.pop("checksum")
    if checksum != _checksum(content):
        raise EditedRecord(
            f"{path.name} was changed after it was written (its checksum does not match): "
            "restore it, or make it again."
        )
    content.pop("schema")
    for name in content.keys() ^ _TYPES.keys():
        raise DamagedRecord(f"{path.name} lacks or adds {name!r}: make it again.")
    for name, kind in _TYPES.items():
        if not isinstance(content[name], kind):
            raise DamagedRecord(
                f"{path.name} has {content[name]!r:.40} as its {name}: make it again."
            )
    return Record(**content)


def source_digest(*rooms: str) -> str:
    """SHA-256 of the names and bytes of the package's source files, in order of name.

    With `rooms`, of these modules or subpackages and all of the package that they import.
    """
    files = sorted((ROOT / "mpteach").rglob("*.py"))
    if rooms:
        within = _imported(set(rooms))
        files = [path for path in files if _room(path) in within]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "mpteach").parts[0].removesuffix(".py")


def _imported(rooms: set[str]) -> set[str]:
    """Return `rooms` and the rooms they import, directly or through others."""
    found: set[str] = set()
    while todo := rooms - found:
        found |= todo
        for path in (ROOT / "mpteach").rglob("*.py"):
            if _room(path) in todo:
                rooms = rooms | _named(ast.parse(path.read_bytes()))
    return found


def _named(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "mpteach":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} if node.module.startswith("mpteach.") else set()
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith("mpteach.")}
    return {name.removeprefix("mpteach.").split(".")[0] for name in names}


def _differences(old: Record, fresh: Record) -> list[tuple[str, object, object]]:
    pairs = [
        ("experiment", old.experiment, fresh.experiment),
        *((key, old.settings.get(key), now) for key, now in fresh.settings.items()),
        *((key, old.machine.get(key), now) for key, now in fresh.machine.items()),
        ("package sources", old.sources, fresh.sources),
    ]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _parse(path: Path) -> dict:
    try:
        if path.exists() and not path.is_file():
            raise RecordError(
                f"{str(path)!r} is no ordinary file: name a record's file."
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecordError(
            f"there is no record at {str(path)!r}: check the name."
        ) from error
    except UnicodeDecodeError as error:
        raise DamagedRecord(
            f"{path.name} is not text: restore it or make it again."
        ) from error
    except OSError as error:
        message = (
            f"{str(path)!r} cannot be read ({error.strerror}): name a record's file."
        )
        raise RecordError(message) from error
    if not text.rstrip().endswith("}"):
        raise TruncatedRecord(
            f"{path.name} ends before its closing brace after {len(text)} characters: "
            "restore it or make it again."
        )
    try:
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        message = f"{path.name} is not JSON ({error}): restore it or make it again."
        raise DamagedRecord(message) from error
    if not isinstance(content, dict):
        raise DamagedRecord(f"{path.name} is not a record: its JSON is no object.")
    return content


def _require_provenance(path: Path, content: dict) -> None:
    needed = (
        "experiment",
        "settings",
        "seeds",
        "command",
        "machine",
        "date",
        "sources",
    )
    missing = [name for name in (*needed, "checksum") if not content.get(name)]
    if missing:
        raise MissingProvenance(
            f"{path.name} does not say its {', '.join(missing)}: only a record written by "
            "the course's own command is accepted."
        )


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _finite(word: str) -> float:
    return float(word) if math.isfinite(float(word)) else _refuse(word)


def _checksum(content: dict) -> str:
    canonical = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_state() -> tuple[str | None, bool | None]:
    def git(*words: str) -> str:
        command = ("git", "-C", str(ROOT), *words)
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout

    try:
        # A checkout around an installed copy says nothing about the package's sources.
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != ROOT:
            return None, None
        return git("rev-parse", "HEAD").strip(), not git(
            "status", "--porcelain"
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return None, None
