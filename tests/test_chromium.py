"""Without Chromium: `make test` skips what drives it, `make test-all` fails."""

import os
import re
import subprocess
import sys

import pytest

from mpteach.course import ROOT
from tests import chromium, conftest

TESTS = sorted((ROOT / "tests").glob("test_*.py"))
DRIVES = re.compile(r"^from tests\.chromium import .*\bbrowser\b", re.M)
# What `make test-all` chooses.
ALL = re.search(r"pytest tests -m '(.+)'$", (ROOT / "Makefile").read_text(), re.M)[1]


def run(path: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run two files of tests with `path` for a PATH."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments),
            *("tests/test_lecture.py", "tests/test_widgets_arithmetic.py"),
        ],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )


def test_make_test_all_fails_in_one_sentence(tmp_path):
    done = run(str(tmp_path), "-m", ALL)
    assert done.returncode != 0 and "passed" not in done.stdout
    assert "skipped" not in done.stdout
    assert done.stderr.splitlines() == [f"ERROR: {chromium.MISSING}", ""]
    assert "apt-get install chromium" in chromium.MISSING


def test_each_test_that_must_drive_it_fails_for_itself(tmp_path, monkeypatch, request):
    # On workers of xdist, where a run cannot be stopped.
    conftest.pytest_runtest_setup(request.node)
    request.node.add_marker("browser")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match=re.escape(chromium.MISSING)):
        conftest.pytest_runtest_setup(request.node)


def test_the_gate_skips_and_says_so_and_runs_the_rest(tmp_path):
    done = run(str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert re.search(r"SKIPPED \[\d+\] .*" + re.escape(chromium.MISSING), done.stdout)
    assert re.search(r"\d+ passed, \d+ skipped", done.stdout)


def test_it_is_found_under_each_of_its_names(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in reversed(chromium.NAMES):
        assert chromium.installed() != str(tmp_path / name)
        (tmp_path / name).touch(mode=0o755)
        assert chromium.installed() == str(tmp_path / name)


def test_a_file_that_drives_it_is_part_of_make_test_all():
    sources = [path.read_text(encoding="utf-8") for path in TESTS]
    driving = [text for text in sources if DRIVES.search(text)]
    marked = rf"pytest\.mark\.({ALL.replace(' or ', '|')})\b"
    assert len(driving) >= 2 and all(re.search(marked, text) for text in driving)
