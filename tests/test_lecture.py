"""`mpteach lab --lecture`: JupyterLab with type that a back row can read."""

import json
import os
from pathlib import Path

import pytest

from mpteach import cli
from mpteach.cli import lab
from tests.chromium import SLOW_MS, browser, page
from tests.test_cli_lab import serving

THEMES = Path("@jupyterlab", "apputils-extension", "themes.jupyterlab-settings")


@pytest.fixture
def settings(monkeypatch, tmp_path) -> Path:
    """Return where the settings of a lecture go; nothing is served."""
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", "everyday")
    monkeypatch.setattr(lab, "LECTURE_SETTINGS", tmp_path / "settings")
    monkeypatch.setattr(lab, "_serve", lambda *given: None)
    return tmp_path / "settings"


def test_a_lecture_has_settings_of_its_own(settings, tmp_path):
    assert cli.main(["lab", "--lecture", "--folder", str(tmp_path / "work")]) == 0
    assert os.environ["JUPYTERLAB_SETTINGS_DIR"] == str(settings)
    sizes = json.loads((settings / THEMES).read_text())["overrides"]
    assert all(int(size.removesuffix("px")) >= 18 for size in sizes.values())


def test_what_a_lecturer_has_set_stays(settings, tmp_path):
    (settings / THEMES).parent.mkdir(parents=True)
    (settings / THEMES).write_text('{"theme": "JupyterLab Dark"}')
    assert cli.main(["lab", "--lecture", "--folder", str(tmp_path / "work")]) == 0
    assert (settings / THEMES).read_text() == '{"theme": "JupyterLab Dark"}'


def test_everyday_settings_are_left_alone(settings, tmp_path):
    assert cli.main(["lab", "--folder", str(tmp_path / "work")]) == 0
    assert os.environ["JUPYTERLAB_SETTINGS_DIR"] == "everyday" and not settings.exists()


def test_bad_input_is_one_sentence_and_status_2(settings, capsys):
    assert cli.main(["lab", "--lecture", "--copy-only"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("leave out --copy-only.\n")
    assert err.count("\n") == 1 and not settings.exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(settings, tmp_path, capsys):
    settings.write_text("a file")
    assert cli.main(["lab", "--lecture", "--folder", str(tmp_path / "work")]) == 2
    assert "settings" in capsys.readouterr().err


@pytest.fixture
def lecture(tmp_path):
    """Serve a fresh copy for a lecture; yield the address that is printed."""
    code = (
        "import sys; from pathlib import Path; from mpteach.cli import lab, main; "
        "lab.LECTURE_SETTINGS = Path(sys.argv[1]); sys.exit(main(sys.argv[2:]))"
    )
    given = [tmp_path / "settings", "lab", "--lecture", "--no-browser"]
    given += ["--folder", tmp_path / "work"]
    own = {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with serving(code, given, tmp_path, **own) as address:
        yield address


SIZES = """
() => {
  const size = (node) => parseFloat(getComputedStyle(node).fontSize);
  const of = (places) => [...document.querySelectorAll(places)].map(size);
  return {
    code: of(".jp-CodeCell .cm-content"),
    prose: of(".jp-RenderedMarkdown p"),
    output: of(".jp-CodeCell .jp-OutputArea-output pre"),
  };
}
"""


@pytest.mark.browser
def test_a_cell_run_in_front_of_the_class_is_legible(lecture):
    with browser() as chromium, page(chromium) as tab:
        tab.set_viewport_size({"width": 1280, "height": 720})
        tab.goto(lecture)
        cell = tab.locator(".jp-CodeCell").first
        cell.locator(".cm-content").wait_for(timeout=SLOW_MS)
        tab.get_by_text("| Idle").wait_for(timeout=SLOW_MS)
        cell.locator(".cm-content").click()
        tab.keyboard.press("Control+A")
        tab.keyboard.type("print('seen from the back')".ljust(87, "#") + "|")
        tab.keyboard.press("Control+Enter")
        tab.get_by_text("seen from the back", exact=True).last.wait_for(timeout=SLOW_MS)
        sizes = tab.evaluate(SIZES)
        box = cell.locator(".cm-scroller")
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert all(found and min(found) >= 18 for found in sizes.values()), sizes


@pytest.mark.browser
def test_another_chapter_opens_from_the_folder_and_is_legible(lecture):
    with browser() as chromium, page(chromium) as tab:
        tab.set_viewport_size({"width": 1280, "height": 720})
        tab.goto(lecture)
        tab.locator(".jp-CodeCell .cm-content").first.wait_for(timeout=SLOW_MS)
        tab.locator(".jp-SideBar [data-id=filebrowser]").click()
        tab.locator(".jp-DirListing-item", has_text="02_round").dblclick()
        heading = tab.get_by_role("heading", name="What does rounding take away?")
        heading.wait_for(timeout=SLOW_MS)
        sizes = tab.evaluate(SIZES)["prose"]
    assert sizes and min(sizes) >= 18, sizes
