"""Writing in one step, and one writer at a time."""

import os
import stat
import subprocess
import sys

import pytest

from mpteach import files
from mpteach.errors import InputError


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("real")
    files.write_atomically(link, b"new")
    assert link.is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = {
        ".": "is a folder",
        "pipe": "is no ordinary file",
        "none/a": "make it first",
        "n" * 300: "cannot be written",
        "n" * 250: "cannot be written",
    }
    for name, sentence in cases.items():
        with pytest.raises(InputError, match=sentence):
            files.require_writable(tmp_path / name)


def test_asking_leaves_no_trace(tmp_path):
    files.require_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    path = tmp_path / "a"
    code = (
        "import sys, time; from pathlib import Path; from mpteach import files\n"
        "with files.only_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="another process"),
            files.only_writer(path),
        ):
            pass
        other.kill()
    with files.only_writer(path):
        pass


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    path, lock = tmp_path / "a", tmp_path / ".a.lock"
    code = (
        "import os, signal, sys; from pathlib import Path; from mpteach import files\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomically(Path(sys.argv[1]), b'new')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (part,) = tmp_path.iterdir()
    assert part.suffix == ".part"
    with files.only_writer(path):
        assert list(tmp_path.iterdir()) == [lock]


def test_a_link_and_what_it_points_to_have_one_lock(tmp_path):
    (tmp_path / "link").symlink_to("a")
    with (
        files.only_writer(tmp_path / "a"),
        pytest.raises(InputError, match="another process"),
        files.only_writer(tmp_path / "link"),
    ):
        pass
