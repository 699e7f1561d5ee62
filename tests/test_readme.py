"""README.md is true: commands run, tables match the course, links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mpteach import cli, install
from mpteach.course import ROOT, Chapter, chapters

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.+?)\n(.*?)^```$", README, re.M | re.S)
PAGES = ["README.md", "CONTRIBUTING.md", "TEACHING.md"]


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCKS if found == kind]


def flat(text: str) -> str:
    """Return `text` with one space wherever there was space."""
    return " ".join(text.split())


def row(chapter: Chapter) -> str:
    """Return the chapter's row in the README."""
    number, title = chapter.name.split("_", 1)
    title = title.replace("_", " ").capitalize()
    cells = [
        f"[{number} {title}](notebooks/{chapter.path.name})",
        chapter.question,
        chapter.minutes,
        chapter.live,
        chapter.gpu or "nothing",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.M | re.S)[1]


def test_the_table_of_chapters_is_the_course():
    rows = [line for line in section("Chapters").splitlines() if line.startswith("|")]
    right = [row(chapter) for chapter in chapters()]
    assert rows[2:] == right, "the rows should be:\n" + "\n".join(right)


def test_the_hours_are_the_chapters_minutes():
    minutes = sum(chapter.minutes for chapter in chapters())
    assert f"take {minutes} minutes together" in flat(section("Syllabus"))


def test_the_lecture_fills_its_90_minutes_with_built_chapters():
    rows = re.findall(r"^\| (\d+) \| \[(\d\d)\]\((\S+)\)", section("Syllabus"), re.M)
    assert sum(int(minutes) for minutes, _, _ in rows) == 90
    built = {
        f"notebooks/{chapter.path.name}": chapter.name[:2] for chapter in chapters()
    }
    assert all(built.get(link) == number for _, number, link in rows) and len(rows) >= 3


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles
    }
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        else:
            assert (ROOT / link).exists(), link


def test_each_block_says_how_it_is_checked():
    kinds = {"sh", "sh gate", "sh window", "sh gpu", "sh conda", "powershell"}
    assert {kind for kind, _ in BLOCKS} == kinds
    # This very run is the gate, and test_makefile and test_cli_lab open the windows.
    assert blocks("sh gate") == ["make test\n"]
    assert blocks("sh window") == ["make lab\n"]


@pytest.fixture
def clone(tmp_path) -> Path:
    """Return a folder that looks like the clone; what a command builds stays in it."""
    for path in ROOT.iterdir():
        if path.name not in ("build", "work") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("block", blocks("sh"))
def test_a_command_runs(clone, block):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    if " build" in block:
        assert list((clone / "build").iterdir())


@pytest.mark.parametrize("kind", ["sh gpu", "sh conda", "powershell", "sh"])
def test_each_mpteach_line_has_arguments_that_exist(kind):
    lines = [line for text in blocks(kind) for line in text.splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("mpteach ")]
    assert commands
    for words in commands:
        cli.parser().parse_args(words)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_is_in_the_readme_and_explains_itself(name, capsys):
    assert f"mpteach {name}" in README
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0 and out.startswith(f"usage: mpteach {name}")
    assert flat(cli.COMMANDS[name].__doc__.splitlines()[0]) in flat(out)


def test_each_make_target_it_names_exists():
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"(?:`|^)make ([a-z]+)", README, re.M)
    assert {"lab", "edit", "test", "notebooks", "help"} <= set(named) <= set(targets)


def test_pip_and_conda_install_what_make_installs():
    (line,) = re.findall(r"^pip install (.*)$", blocks("powershell")[0], re.M)
    assert line.split() == install.REQUIREMENT
    assert "conda env create -f environment.yml" in blocks("sh conda")[0]


def test_the_download_sizes_are_those_that_make_says(monkeypatch):
    for platform in ("darwin", "linux"):
        monkeypatch.setattr(sys, "platform", platform)
        for size in re.findall(r"[\d.]+ GB", install._download()):
            assert size in flat(section("Start"))


def test_the_licence_names_both():
    text = (ROOT / "LICENSE").read_text()
    assert "MIT License" in text and "creativecommons.org/licenses/by/4.0/" in text
    assert "THE SOFTWARE IS PROVIDED" in text
