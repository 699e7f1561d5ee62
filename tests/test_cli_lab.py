"""`mpteach lab`: what it opens, what it says, and what bad input gets."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from mpteach import cli
from mpteach.cli import lab
from mpteach.course import NOTEBOOKS, ROOT, chapters

FIRST = chapters()[0].path.name


def lab_says(capsys, *arguments) -> tuple[int, str, str]:
    status = cli.main(["lab", *map(str, arguments)])
    return status, *capsys.readouterr()


@pytest.fixture
def served(monkeypatch):
    """Return the list of what was given to JupyterLab instead of starting it."""
    calls = []
    monkeypatch.setattr(lab, "_serve", lambda *given: calls.append(given))
    return calls


def test_copy_only_makes_the_copy_and_opens_nothing(tmp_path, served, capsys):
    status, out, err = lab_says(capsys, "--copy-only", "--folder", tmp_path / "mine")
    assert (status, err, served) == (0, "", [])
    assert out == f"The chapters are in {tmp_path / 'mine'}.\n"
    assert (tmp_path / "mine" / FIRST).exists()


def test_a_touched_chapter_is_named_when_its_new_edition_comes(
    tmp_path, served, capsys
):
    lab_says(capsys, "--copy-only", "--folder", tmp_path)
    (tmp_path / FIRST).write_text('{"cells": "mine"}')
    (tmp_path / ".handed_out.json").unlink()
    status, out, _ = lab_says(capsys, "--folder", tmp_path)
    assert status == 0 and f"{FIRST} is yours now and stays" in out
    assert served == [(tmp_path, 8888, False, "lab")]


def test_edit_opens_the_chapters_themselves(served, capsys):
    assert lab_says(capsys, "--edit", "--no-browser", "--port", 9000)[0] == 0
    assert served == [(NOTEBOOKS, 9000, True, "lab")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "0"], "--port was 0: give one from 1 to 65535."),
        (["--port", "65536"], "--port was 65536: give one from 1 to 65535."),
        (["--edit", "--copy-only"], "leave out --folder and --copy-only"),
        (["--edit", "--folder", "x"], "leave out --folder and --copy-only"),
        (["--folder", ""], "--folder: was '': name a folder"),
        (["--folder", " "], "--folder: was ' ': name a folder"),
        (["--folder", str(NOTEBOOKS)], "choose one outside"),
        (["--folder", str(ROOT / "Makefile")], "(File exists)"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, sentence, served, capsys):
    status, out, err = lab_says(capsys, *arguments)
    assert (status, out, served) == (2, "", [])
    assert sentence in err and err.count("\n") == 1


def test_without_jupyter_it_names_the_remedy(monkeypatch, tmp_path, served, capsys):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    status, _, err = lab_says(capsys, "--folder", tmp_path)
    assert status == 2
    assert err.endswith("run pip install -c constraints.txt -e '.[course]'\n")
    assert not list(tmp_path.iterdir())
    assert lab_says(capsys, "--folder", tmp_path, "--copy-only")[0] == 0


@pytest.mark.parametrize("cells", ['"none"', '[{"cell_type": "markdown"}]'])
def test_a_damaged_chapter_is_one_sentence(
    tmp_path, monkeypatch, served, capsys, cells
):
    path = tmp_path / "00_first.ipynb"
    path.write_text(f'{{"nbformat": 4, "metadata": {{}}, "cells": {cells}}}')
    monkeypatch.setattr(lab.course, "NOTEBOOKS", tmp_path)
    status, out, err = lab_says(capsys, "--copy-only", "--folder", tmp_path / "mine")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"mpteach: {path} is not a sound notebook (")
    assert not (tmp_path / "mine").exists()


@pytest.fixture
def server(tmp_path):
    """Serve a fresh copy with a fresh home; yield the address that is printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from mpteach.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["lab", "--no-browser", "--port", port, "--folder", tmp_path / "work"]
    with serving(code, arguments, tmp_path) as address:
        yield address


@contextlib.contextmanager
def serving(code, arguments, home, **environment):
    """Run `code` with `arguments` and a fresh `home`; give the address that it prints."""
    log = home / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=os.environ | {"HOME": str(home)} | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield address_in(log, process)
    finally:
        process.terminate()
        process.wait(20)


def address_in(log, process) -> str:
    """Wait for the address of the server, at most a minute."""
    for _ in range(600):
        found = re.search(r"http://127\.0\.0\.1\S+", log.read_text())
        if found:
            return found[0]
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no address in a minute: {log.read_text()}")


def test_it_serves_the_first_chapter_and_asks_nothing_of_the_network(server):
    page = fetch(server)
    config = json.loads(
        re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)[1]
    )
    assert config["treePath"] == FIRST
    # The question about news and the search for updates live in this one plugin.
    assert (
        "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]
    )
    assert config["extensionManager"]["name"] == "read-only"
    listed = json.loads(fetch(server.replace(f"/lab/tree/{FIRST}", "/api/contents")))
    assert {one["name"] for one in listed["content"]} == {
        one.path.name for one in chapters()
    }


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()
