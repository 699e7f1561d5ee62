"""The targets, and the sentence each failed installation ends with."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mpteach import install
from mpteach.course import ROOT
from mpteach.errors import InputError

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.search(r"^\.PHONY: (help .*)$", MAKEFILE, re.M)[1].split()
REAL = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")


@pytest.fixture
def clone(tmp_path) -> Path:
    """Return what a clone needs to be set up, in a folder with a space in its name."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "mpteach", folder / "mpteach")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(
    folder: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess:
    """Run make as a user would: none of the variables of a make around this test."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "PIP_", "PYTHON"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def said(done: subprocess.CompletedProcess) -> list[str]:
    """Return what stands on stderr without make's own last line."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


def built(folder: Path) -> None:
    """Pretend that an environment was built in `folder`."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    script(folder / ".venv" / "bin" / "python", "exit 0")
    (folder / ".venv" / "built").write_text(f"{folder}\n")


def test_a_bare_make_lists_every_target(clone):
    done = make(clone)
    assert done.returncode == 0 and done.stdout == make(clone, "help").stdout
    assert [line.split()[1] for line in done.stdout.splitlines()] == TARGETS
    assert all(len(line.split()) > 4 for line in done.stdout.splitlines())


def test_the_makefile_keeps_to_what_make_3_81_knows():
    # macOS still ships 3.81: these came later and would be ignored or fail there.
    for later in (".ONESHELL", "!=", "$(file", ".SHELLSTATUS", "::=", ".EXTRA_PREREQS"):
        assert later not in MAKEFILE


@pytest.fixture
def ci(tmp_path):
    """Return a function that runs `.ci/run` with nothing but `tools` on the PATH.

    It gives the ended process and what was called, a line a call.
    """

    def run(**tools: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
        (tmp_path / "bin").mkdir()
        log = tmp_path / "calls"
        for name, text in {"make": ":", **tools}.items():
            name = name.replace("_", "-")
            called = f'echo "{name} $*" >>"{log}"' if name != "id" else ":"
            script(tmp_path / "bin" / name, f"{called}; {text}")
        os.symlink(shutil.which("dirname"), tmp_path / "bin" / "dirname")
        done = subprocess.run(
            [tmp_path / ".ci" / "run"],
            env={"PATH": str(tmp_path / "bin")},
            capture_output=True,
            text=True,
        )
        return done, log.read_text().splitlines()

    return run


ROOT_USER = {"id": "echo 0"}
UPDATE = "apt-get -q update"
INSTALL = "apt-get -q install -y --no-install-recommends chromium"


@pytest.mark.parametrize(
    ("tools", "asked"),
    [
        ({**ROOT_USER, "apt_get": "echo much"}, [UPDATE, INSTALL]),
        ({"id": "echo 1000", "apt_get": ":"}, []),
        (ROOT_USER, []),
        ({**ROOT_USER, "apt_get": ":", "chromium": ":"}, []),
    ],
)
def test_ci_runs_the_gate_then_installs_the_browser_then_drives_it(ci, tools, asked):
    done, calls = ci(**tools)
    assert calls == ["make test", *asked, "make test-all"]
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("failing", "asked"), [("update", [UPDATE]), ("install", [UPDATE, INSTALL])]
)
def test_ci_says_why_no_browser_came_and_leaves_the_verdict_to_make(ci, failing, asked):
    apt = f'case "$*" in *{failing}*) echo no network >&2; exit 100; esac'
    done, calls = ci(id="echo 0", apt_get=apt, make='[ "$1" = test ] || exit 2')
    assert calls == ["make test", *asked, "make test-all"] and done.returncode == 2
    assert said(done) == ["no network", "Debian's Chromium could not be installed."]


@pytest.mark.parametrize(
    ("target", "calls"),
    [("test", ["make test"]), ("test-all", ["make test", "make test-all"])],
)
def test_ci_fails_where_either_part_fails(ci, target, calls):
    fails = f'[ "$1" != {target} ] || exit 3'
    done, called = ci(make=fails, chromium=":")
    assert done.returncode == 3 and called == calls


@pytest.mark.parametrize(
    "target", ["lab", "edit", "lecture", "test", "exhaustive", "notebooks", "bench"]
)
def test_each_door_builds_the_environment_first_and_only_once(clone, target):
    assert "-m mpteach.install" in make(clone, "-n", target).stdout
    built(clone)
    assert "mpteach.install" not in make(clone, "-n", target).stdout


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_pin_builds_it_again(clone, name):
    built(clone)
    later = (clone / ".venv" / "built").stat().st_mtime + 5
    os.utime(clone / name, (later, later))
    assert "-m mpteach.install" in make(clone, "-n", "lab").stdout


def test_an_environment_that_moved_or_broke_is_built_again(clone):
    built(clone)
    moved = clone.rename(clone.with_name("elsewhere"))
    assert "-m mpteach.install" in make(moved, "-n", "lab").stdout
    (moved / ".venv" / "built").write_text(f"{moved}\n")
    assert "-m mpteach.install" not in make(moved, "-n", "lab").stdout
    script(moved / ".venv" / "bin" / "python", "exit 1")
    assert "-m mpteach.install" in make(moved, "-n", "lab").stdout


def test_the_one_test_run_covers_units_and_every_notebook_strictly(clone):
    built(clone)
    text = make(clone, "-n", "test").stdout
    assert text.count("-m pytest") == 1
    for part in (
        " tests notebooks static/template.ipynb ",
        "--nbval ",
        "--dist loadfile",
    ):
        assert part in text.replace("\\\n\t", "")
    assert "CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1" in text
    assert "--nbval-lax" not in text


@pytest.mark.parametrize("version", ["(3, 9)", "(3, 10)", "(3, 14)"])
def test_a_wrong_python_is_one_sentence(clone, version):
    fake = (
        f"exec {REAL} -c \"import sys; sys.version_info = {version}; exec('''$2''')\""
    )
    done = make(clone, "lab", f"PYTHON={script(clone / 'python', fake)}")
    (sentence,) = said(done)
    assert done.returncode == 2 and not (clone / ".venv").exists()
    assert sentence.startswith("The course needs Python 3.11, 3.12 or 3.13 and ")
    assert str(clone / "python") in sentence and "PYTHON=" in sentence


def test_without_any_python_it_says_so(clone):
    tools = clone / "bin"
    tools.mkdir()
    # As pyenv does: the name is there and fails when it is run.
    script(tools / "python3.13", "echo command not found >&2; exit 127")
    os.symlink(shutil.which("make"), tools / "make")
    (sentence,) = said(make(clone, "lab", PATH=str(tools)))
    assert "what this machine has on its PATH is none" in sentence


def test_a_python_without_venv_is_one_sentence(clone):
    hidden = "import importlib.util as u; u.find_spec = lambda name: None"
    fake = f"exec {REAL} -c \"{hidden}; exec('''$2''')\""
    done = make(clone, "lab", f"PYTHON={script(clone / 'python', fake)}")
    (sentence,) = said(done)
    assert done.returncode == 2 and "install its venv module" in sentence


def test_without_a_network_it_fails_in_one_sentence_and_counts_as_not_built(clone):
    # What an installation left that was broken off: a Python that runs, and no stamp.
    built(clone)
    (clone / ".venv" / "built").rename(clone / ".venv" / "half-built")
    with socket.socket() as closed:
        # Bound and not listening: every connection is refused.
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        done = make(
            clone,
            "lab",
            f"PYTHON={REAL}",
            PIP_INDEX_URL=index,
            PIP_CONFIG_FILE=os.devnull,
        )
    (sentence,) = said(done)
    assert done.returncode == 2 and "the package index cannot be reached" in sentence
    assert re.findall(r"^\d/3", done.stdout, re.M) == ["1/3", "2/3"]
    left = {path.name for path in (clone / ".venv").iterdir()}
    assert "bin" in left and not left & {"built", "half-built"}
    assert "refused" in (clone / "build" / "install.log").read_text()
    assert "-m mpteach.install" in make(clone, "-n", "lab").stdout


@pytest.fixture
def fake_pip(clone, monkeypatch):
    """Let the environment's Python be a script with the given text."""
    monkeypatch.chdir(clone)

    def put(text: str) -> None:
        (clone / ".venv" / "bin").mkdir(parents=True)
        script(
            clone / ".venv" / "bin" / "python",
            f'[ "$3" = --version ] && exit 0\n{text}',
        )
        install.STAMP.write_text("an earlier time")

    return put


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: Retrying after NewConnectionError(...)", "index cannot be reached"),
        ("WARNING: ReadTimeoutError: Read timed out.", "index cannot be reached"),
        (
            "ERROR: No matching distribution found for torch",
            "no torch for this machine",
        ),
        (
            "ERROR: ResolutionImpossible: for help visit",
            "no index that pip knows",
        ),
        ("ERROR: something new.", "pip failed: something new, then"),
        ("", "it gave no reason"),
    ],
)
def test_a_failing_pip_is_told_in_short_and_the_old_stamp_goes(
    fake_pip, printed, reason
):
    fake_pip(f"echo '{printed}'; exit 1")
    with pytest.raises(InputError, match=re.escape(reason)):
        install.build()
    assert not install.STAMP.exists() and printed in install.LOG.read_text()


def test_large_downloads_are_named_and_small_ones_are_not(fake_pip, capsys):
    fake_pip(
        "echo '  Downloading torch-2.13.0%2Bcpu-cp311-linux.whl (190.3 MB)'\n"
        "echo '  Downloading six-1.0-py3-none-any.whl (11 kB)'\n"
        "echo '  Downloading numpy-2.4.6-cp311-linux.whl (16.6 MB)'"
    )
    install.build()
    out = capsys.readouterr().out
    assert "downloading torch-2.13.0+cpu (190 MB)" in out
    assert "six" not in out and "numpy" not in out
    assert install.STAMP.read_text() == f"{Path.cwd()}\n"


def test_an_extra_is_added_once_and_again_after_a_new_environment(clone, fake_pip):
    fake_pip(f'echo "$*" >>"{clone}/pip.log"')
    assert install.main(["site"]) == 0
    (line,) = (clone / "pip.log").read_text().splitlines()
    assert line.endswith("--no-build-isolation -c constraints.txt -e .[site]")
    (clone / ".venv" / "built").write_text(f"{clone}\n")
    added = clone / ".venv" / "extra-site"
    os.utime(added, ns=(added.stat().st_mtime_ns + 10**10,) * 2)
    assert "mpteach.install" not in make(clone, "-n", "site").stdout
    added.unlink()
    assert "mpteach.install site" in make(clone, "-n", "site").stdout


def test_an_extra_that_pip_refuses_does_not_count_as_added(clone, fake_pip, capsys):
    fake_pip("echo 'ERROR: something new.'; exit 1")
    assert install.main(["site"]) == 2
    assert capsys.readouterr().err.startswith("mpteach: pip failed: something new, ")
    assert not (clone / ".venv" / "extra-site").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(clone):
    (clone / "build").write_text("a file in the place of a folder")
    (sentence,) = said(make(clone, "lab", f"PYTHON={REAL}"))
    assert sentence == "mpteach: cannot write build (File exists)."
