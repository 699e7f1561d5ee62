"""The teachers' release: a course folder for nbgrader, one assignment a chapter.

`make release` builds it in `build/course`, and `python -m mpteach.release FOLDER` in a
folder of your choice. Its `source/` holds the chapters as they are, with a hidden call
behind each check, on which the points rest; nbgrader makes `release/` from it, for the
students. Submissions, marks and settings that are in the folder stay as they are.
"""

import copy
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mpteach import course, editions
from mpteach.course import ROOT, chapters
from mpteach.errors import InputError

OUT = ROOT / "build" / "course"
SETTINGS = ROOT / "static" / "nbgrader_config.py"

_CHECK = re.compile(r'check\(("[^"]+", \w+)\)')
_HIDDEN = """
### BEGIN HIDDEN TESTS
from mpteach.exercises.hidden import show_values
show_values({})
### END HIDDEN TESTS"""
_INSTALL = "run pip install -c constraints.txt -e '.[release]'"


def source_edition(nb: dict[str, Any]) -> dict[str, Any]:
    """Return notebook `nb` with a hidden call behind each check that has points."""
    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        found = _CHECK.fullmatch(cell["source"].strip())
        if found and cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["source"] += _HIDDEN.format(found[1])
    return nb


def build(folder: Path = OUT) -> list[str]:
    """Make or renew the course folder; return the names of its assignments.

    Raises InputError where nbgrader is not installed or refuses a chapter, and where
    `folder` holds something else than a course folder.
    """
    if importlib.util.find_spec("nbgrader") is None:
        raise InputError(f"nbgrader is not installed: {_INSTALL}.")
    settings = folder / SETTINGS.name
    if folder.exists() and any(folder.iterdir()) and not settings.exists():
        raise InputError(
            f"{folder} is no course folder: name a folder that is empty or not there."
        )
    names = []
    for one in chapters():
        (folder / "source" / one.name).mkdir(parents=True, exist_ok=True)
        nb = source_edition(editions.read(one.path))
        editions.write(folder / "source" / one.name / one.path.name, nb)
        names.append(one.name)
    if not settings.exists():
        shutil.copy(SETTINGS, settings)
    _generate(folder)
    return names


def _generate(folder: Path) -> None:
    """Let nbgrader make `release/` from `source/`, all assignments in one process."""
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "*", "--force"]
    # nbgrader calls alembic by its name, also where the environment is not active.
    folders = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    environment = {**os.environ, "PATH": os.pathsep.join(folders)}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    if ran.returncode:
        said = re.findall(r"ERROR\W+(.+)", ran.stderr) or ["it gave no reason"]
        raise InputError(f"nbgrader made no release in {folder}: {said[0]}")


def main(arguments: list[str]) -> int:
    """Build the course folder named, or build/course; return 2 if that failed."""
    return course.run_builder(_told, arguments, OUT)


def _told(folder: Path) -> str:
    count = len(build(folder))
    return f"{count} assignments: hand out {folder / 'release'}. See TEACHING.md."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
