"""Build the course's environment in `.venv`: `make` runs this before anything is there.

It needs the standard library alone. One line a step goes to the screen, pip's own words
to `build/install.log`. The environment counts as built once `.venv/built` exists; it
holds the folder it was built in, so that a moved folder is set up again.

`python -m mpteach.install EXTRA` adds what an extra of pyproject.toml needs to an
environment that is built, and notes that in `.venv/extra-EXTRA`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

from mpteach.errors import InputError

ENVIRONMENT = Path(".venv")
STAMP = ENVIRONMENT / "built"
LOG = Path("build", "install.log")
REQUIREMENT = ["-c", "constraints.txt", "-e", ".[course,test]"]

_QUIET = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_USER": "0",
    "PYTHONUNBUFFERED": "1",
}
# pip prints e.g. "  Downloading torch-2.13.0-cp311-...whl (190.3 MB)".
_DOWNLOAD = re.compile(r"Downloading (\S+) \((\d+)(?:\.\d+)? ([MG])B\)")
_WORTH_A_LINE_MB = 20
_REASONS = [
    (r"No space left on device", "the disk is full; free some space"),
    (
        r"NewConnectionError|NameResolution|Failed to establish|timed out|ProxyError"
        r"|unreachable|Connection (?:refused|reset)",
        "the package index cannot be reached; check the network connection",
    ),
    (
        r"No matching distribution found for (\S+)",
        "there is no {0} for this machine; try another Python with 'make PYTHON=...'",
    ),
    (
        r"ResolutionImpossible",
        "no index that pip knows has the versions of constraints.txt; read the log",
    ),
    (r"ERROR: (.+)", "{0}"),
]


def build() -> None:
    """Create or update `.venv` in the working directory and stamp it as built.

    Raises InputError with pip's reason when it fails; the stamp is gone then, so that
    nothing half-built counts.
    """
    # Without a stamp an installation was broken off, perhaps in the middle of a package.
    kept = STAMP.exists() and _works()
    STAMP.unlink(missing_ok=True)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    _say(f"Setting up the course in {ENVIRONMENT}: this happens once.")
    if kept:
        _say(f"1/3 Keeping the environment that is in {ENVIRONMENT}.")
    else:
        _create()
    _say("2/3 Installing the build tool.")
    _pip("-c", "constraints.txt", "setuptools")
    if kept:
        _say("3/3 Installing what has changed in constraints.txt.")
    else:
        _say(f"3/3 Installing {_packages()} packages: {_download()}.")
    _pip("--no-build-isolation", *REQUIREMENT)
    STAMP.write_text(f"{Path.cwd()}\n")
    _say("Done.")


def add(extra: str) -> None:
    """Install what the extra `extra` needs into the environment that `build` made.

    Raises InputError with pip's reason when it fails.
    """
    LOG.parent.mkdir(exist_ok=True)
    _say(f"Installing what make {extra} needs: this happens once.")
    _pip("--no-build-isolation", "-c", "constraints.txt", "-e", f".[{extra}]")
    (ENVIRONMENT / f"extra-{extra}").touch()


def _create() -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    _say(f"1/3 Creating the environment with Python {version}.")
    _run("creating it", sys.executable, "-m", "venv", "--clear", ENVIRONMENT)


def _works() -> bool:
    """Return whether an environment is there whose Python runs and has pip."""
    try:
        tried = subprocess.run(
            [_python(), "-m", "pip", "--version"], capture_output=True
        )
    except OSError:
        return False
    return tried.returncode == 0


def _python() -> Path:
    # Not resolved: the link itself is what makes Python look into the environment.
    return Path.cwd() / ENVIRONMENT / "bin" / "python"


def _pip(*arguments: str) -> None:
    # Two retries, not five: without a network the sentence comes within seconds.
    command = [_python(), "-m", "pip", "install", "--retries", "2", *arguments]
    _run("pip", *command)


def _run(what: str, *command: str | Path) -> None:
    """Run `command` with its output in the log; raise InputError with its reason."""
    printed = []
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, **_QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process, LOG.open("a", encoding="utf-8") as log:
        for line in process.stdout:
            log.write(line)
            printed.append(line)
            _show_progress(line)
    if process.returncode:
        reason = _reason("".join(printed))
        raise InputError(f"{what} failed: {reason}, then run make again (log: {LOG}).")


def _show_progress(line: str) -> None:
    found = _DOWNLOAD.search(line)
    if found:
        name, size, unit = found.groups()
        if unit == "G" or int(size) >= _WORTH_A_LINE_MB:
            package = "-".join(unquote(name).rsplit("/", 1)[-1].split("-")[:2])
            _say(f"    downloading {package} ({size} {unit}B)")
    elif line.startswith("Installing collected packages") and "torch" in line:
        _say("    unpacking; this takes a minute or two")


def _reason(printed: str) -> str:
    for pattern, sentence in _REASONS:
        found = re.findall(pattern, printed)
        if found:
            return sentence.format(found[-1].strip().rstrip("."))
    return "it gave no reason; read the log"


def _packages() -> int:
    return sum(
        "==" in line for line in Path("constraints.txt").read_text().splitlines()
    )


def _download() -> str:
    """Return in words how much comes over the network on this system."""
    if sys.platform == "darwin":
        return "about 0.2 GB"
    return "about 0.3 GB where pip is offered torch for CPUs, 3 GB with CUDA"


def _say(line: str) -> None:
    print(line, flush=True)


def main(extras: list[str]) -> int:
    """Build the environment or add extras; return 0, 2 on a failure, 130 on Ctrl-C."""
    try:
        for extra in extras:
            add(extra)
        if not extras:
            build()
    except InputError as error:
        print(f"mpteach: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"mpteach: cannot write {error.filename} ({error.strerror}).",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(
            "Stopped: the next make begins again; pip keeps its downloads.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
