"""Examine this machine and this copy of the course: can it run, and what runs live?

`examine()` returns what `mpteach doctor --json` prints. Its keys, which stay:

- `schema`: 1. `ready`: whether the course can run; `problems`: what keeps it from
  running, one sentence each, with the remedy; empty where it is ready.
- `versions`: name -> version of Python, mpteach and the packages, null if missing.
- `cpu`: `name`, `cores`. `gpu`: `name`, `memory_bytes`, `driver`, `cuda`, `capability`,
  all null without a usable GPU, and `problem`, which then says why there is none.
- both have `native`: format -> whether products of it run in hardware; and
  `product_ratio`: format -> time of a product over that in float32, measured now.
  Values are null where unknown or impossible.
- `free_memory_bytes` (null where unknown) and `free_disk_bytes`.
- `chapters`: a list of `name`, `question`, `minutes` and `runs`: "live" where all of
  it is computed here, "records" where the GPU's part is read from records, "no" where
  a record that the chapter reads is missing or damaged.
"""

import importlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
import textwrap
import tomllib
from typing import Any

from mpteach import course, hardware
from mpteach.errors import InputError

SCHEMA = 1
GIB = 2**30
# JupyterLab and one chapter with torch stay below this, with room for a browser tab.
NEEDED_MEMORY_BYTES = GIB
# The working copy, records of one's own, and the caches of matplotlib and Jupyter.
NEEDED_DISK_BYTES = GIB // 2
TIMED = ("tfloat32", "bfloat16", "float16")
INSTALL = "run make lab, or pip install -e '.[course]' -c constraints.txt"


def examine() -> dict[str, Any]:
    """Return the report that the module's docstring describes.

    Raises InputError where the package does not lie in a sound clone of the course.
    """
    python_problems, needed = _needs()
    torch_problem = _torch_problem()
    gpu = _gpu(not torch_problem)
    listed, chapter_problems = _chapters(has_gpu=not gpu["problem"])
    memory, disk = hardware.free_memory_bytes(), shutil.disk_usage(course.ROOT).free
    problems = [
        *python_problems,
        *_package_problems(needed, torch_problem),
        *_space_problems(memory, disk),
        *chapter_problems,
    ]
    return {
        "schema": SCHEMA,
        "ready": not problems,
        "problems": problems,
        "versions": _versions(needed),
        "cpu": _cpu(not torch_problem),
        "gpu": gpu,
        "free_memory_bytes": memory,
        "free_disk_bytes": disk,
        "chapters": listed,
    }


def describe(report: dict[str, Any]) -> str:
    """Return `report` in lines for a reader."""
    found = report["versions"].items()
    # A no-break space keeps a name and its version on one line.
    versions = ", ".join(
        f"{name}\N{NBSP}{version or 'missing'}" for name, version in found
    )
    cpu, gpu = report["cpu"], report["gpu"]
    lines = [
        *textwrap.wrap(f"Versions  {versions}", 80, subsequent_indent=" " * 10),
        f"CPU       {cpu['name']}, {cpu['cores']} cores",
        f"GPU       {_gpu_words(gpu)}",
        f"Free      {_gib(report['free_memory_bytes'])} of memory, "
        f"{_gib(report['free_disk_bytes'])} of disk",
        "",
        *_format_lines("CPU", cpu),
        *([] if gpu["problem"] else _format_lines("GPU", gpu)),
        "",
        *[f"{about['name']:<24}{_RUNS[about['runs']]}" for about in report["chapters"]],
        "",
        *(report["problems"] or ["The course can run here."]),
    ]
    return "\n".join(lines).replace("\N{NBSP}", " ")


_RUNS = {
    "live": "runs live",
    "records": "runs live; what needs a GPU is read from records",
    "no": "cannot run: a record is missing or damaged",
}


def _needs() -> tuple[list[str], dict[str, str]]:
    """Return what is wrong with this Python, and the least version of each package.

    Both stand in pyproject.toml; raises InputError where that is missing or damaged.
    """
    try:
        text = (course.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            "there is no pyproject.toml beside the package: run mpteach from a clone "
            "of the course, installed with 'pip install -e'."
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(error) from None
    try:
        project = tomllib.loads(text)["project"]
        course_needs = project["optional-dependencies"]["course"]
        needed = dict(map(_name_and_floor, [*project["dependencies"], *course_needs]))
        return _python_problems(project["requires-python"]), needed
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> InputError:
    return InputError(
        f"pyproject.toml is damaged ({type(error).__name__}: {error}): restore it with "
        "'git checkout HEAD -- pyproject.toml'."
    )


def _name_and_floor(requirement: str) -> tuple[str, str]:
    name, _, floor = requirement.partition(">=")
    return name, floor


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(needed: dict[str, str]) -> dict[str, str | None]:
    packages = {name: _version(name) for name in ("mpteach", *needed)}
    return {"python": platform.python_version(), **packages}


def _release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) of "2.13.0+cpu"."""
    return tuple(map(int, re.findall(r"\d+", re.match(r"[\d.]*", version)[0])))


def _python_problems(allowed: str) -> list[str]:
    """Compare this Python with a range such as ">=3.11,<3.14"."""
    lowest, end = (_release(bound.lstrip("<>=")) for bound in allowed.split(","))
    if lowest <= sys.version_info[:2] < end:
        return []
    found = platform.python_version()
    this = f"This is Python {found}, the course needs {allowed}"
    return [f"{this}: install one and {INSTALL}."]


def _package_problems(needed: dict[str, str], torch_problem: str) -> list[str]:
    problems = []
    for name, floor in needed.items():
        version = _version(name)
        if version is None:
            problems.append(f"{name} is not installed: {INSTALL}.")
        elif _release(version) < _release(floor):
            this = f"{name} is {version}, the course needs {floor} or later"
            problems.append(f"{this}: {INSTALL}.")
        elif name == "torch" and torch_problem:
            reason = f"torch {version} does not load ({torch_problem})"
            problems.append(f"{reason}: install it again, or {INSTALL}.")
        elif not _has_files(name):
            problems.append(
                f"{name} {version} is listed as installed and its files are gone: run "
                f"pip install --force-reinstall --no-deps -c constraints.txt {name}."
            )
    return problems


def _has_files(package: str) -> bool:
    """Return whether Python finds the package's code; every one here is a module."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    # A folder that lost its files is found too, without an origin.
    return spec is not None and spec.origin is not None


def _torch_problem() -> str:
    """Return why torch cannot be imported, or ""."""
    try:
        importlib.import_module("torch")
    except Exception as error:  # a library that is missing raises OSError, others vary
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def _space_problems(memory: int | None, disk: int) -> list[str]:
    problems = []
    if memory is not None and memory < NEEDED_MEMORY_BYTES:
        problems.append(
            f"Only {_gib(memory)} of memory is free, a chapter needs "
            f"{_gib(NEEDED_MEMORY_BYTES)}: close other programs."
        )
    if disk < NEEDED_DISK_BYTES:
        problems.append(
            f"Only {_gib(disk)} of disk is free, the course needs "
            f"{_gib(NEEDED_DISK_BYTES)}: delete what you no longer need."
        )
    return problems


def _chapters(has_gpu: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what runs where, and the problems of chapters and records."""
    try:
        chapters = course.chapters()
    except InputError as error:
        return [], [_sentence(error)]
    listed, problems = [], []
    for chapter in chapters:
        damaged = _record_problems(chapter)
        runs = "no" if damaged else "records" if chapter.gpu and not has_gpu else "live"
        about = {"question": chapter.question, "minutes": chapter.minutes, "runs": runs}
        listed.append({"name": chapter.name, **about})
        problems += damaged
    return listed, problems


def _record_problems(chapter: course.Chapter) -> list[str]:
    from mpteach import records

    problems = []
    for name in chapter.records:
        try:
            records.load(course.RECORDS / f"{name}.json")
        except InputError as error:
            problems.append(f"{chapter.name}: {error}")
    return problems


def _sentence(error: InputError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _cpu(torch_loads: bool) -> dict[str, Any]:
    about = {"name": hardware.cpu_name(), "cores": hardware.cores()}
    return about | _formats("cpu", torch_loads)


def _gpu(torch_loads: bool) -> dict[str, Any]:
    problem = hardware.cuda_problem() if torch_loads else "torch does not load"
    names = ("name", "memory_bytes", "driver", "cuda", "capability")
    about: dict[str, Any] = dict.fromkeys(names)
    if not problem:
        found = hardware.machine("cuda")
        keys = ("gpu", "gpu_memory_bytes", "driver", "cuda", "gpu_capability")
        about = {name: found[key] for name, key in zip(names, keys, strict=True)}
    return about | {"problem": problem} | _formats("cuda", not problem)


def _formats(device: str, usable: bool) -> dict[str, Any]:
    return {
        "native": {
            dtype: hardware.native(dtype, device) if usable else None
            for dtype in hardware.DTYPES
        },
        "product_ratio": {
            dtype: _ratio(dtype, device) if usable else None for dtype in TIMED
        },
    }


def _ratio(dtype: str, device: str) -> float | None:
    try:
        return hardware.product_ratio(dtype, device)
    except (InputError, RuntimeError):  # RuntimeError: the GPU has no such product
        return None


def _format_lines(title: str, about: dict[str, Any]) -> list[str]:
    return [
        f"{title + ' products' if place == 0 else '':<14}{dtype:<15}"
        f"{_native_words(native)}{_ratio_words(about['product_ratio'].get(dtype))}"
        for place, (dtype, native) in enumerate(about["native"].items())
    ]


def _native_words(native: bool | None) -> str:
    return {True: "in hardware", False: "not in hardware", None: "unknown"}[native]


def _ratio_words(ratio: float | None) -> str:
    if ratio is None:
        return ""
    if ratio > 1:
        return f", {ratio:.1f} times slower than float32 here"
    return f", {1 / ratio:.1f} times faster than float32 here"


def _gpu_words(gpu: dict[str, Any]) -> str:
    if gpu["problem"]:
        return f"none in use ({gpu['problem']})"
    versions = f"driver {gpu['driver'] or 'unknown'}, CUDA {gpu['cuda']}"
    return f"{gpu['name']}, {_gib(gpu['memory_bytes'])}, {versions}"


def _gib(size_bytes: int | None) -> str:
    return "an unknown amount" if size_bytes is None else f"{size_bytes / GIB:.1f} GiB"
