"""The bit explorer in a real browser: in JupyterLab, and in a page without a kernel."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect

from mpteach import editions
from mpteach.formats import FORMATS
from mpteach.widgets import BitExplorer
from tests.chromium import SLOW_MS, browser, jupyterlab, page

pytestmark = pytest.mark.explorer

WIDTHS = (700, 1400)


@pytest.fixture(scope="module")
def chromium():
    expect.set_options(timeout=20_000)
    with browser() as started:
        yield started


class Panel:
    """What a reader sees of one explorer, and what they can do."""

    def __init__(self, inside: Page | Locator) -> None:
        self.inside = inside
        self.input = inside.get_by_label("Number or code")
        self.select = inside.get_by_label("Format")
        self.bits = inside.locator("button.bit")
        self.message = inside.locator(".message")

    def type(self, text: str) -> None:
        self.input.fill(text)
        self.input.press("Enter")

    def shows(self, code: str, value: str, kind: str) -> None:
        expect(self.inside.locator("dd.hex")).to_have_text(code)
        expect(self.inside.locator(".exact")).to_have_text(value)
        expect(self.inside.locator("dd.kind")).to_have_text(kind)

    def row(self, name: str) -> Locator:
        """Return the row of the table for the format `name`."""
        return self.inside.locator(f"tbody tr:has(th:text-is('{name}'))")


def notebook(path: Path, *sources: str) -> None:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell{place}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for place, source in enumerate(sources)
    ]
    nb = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    editions.write(path, editions.canonicalise(nb))


def run_python(*arguments: object, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def tab(chromium):
    """Return a page that holds one explorer and reaches nothing outside."""
    with page(chromium, viewport={"width": 1400, "height": 900}) as opened:
        opened.route("**/*", lambda route: route.abort())
        yield opened


def put(tab: Page, *explorers: BitExplorer) -> Panel:
    fragments = [one._repr_mimebundle_()[0]["text/html"] for one in explorers]
    tab.set_content("<!doctype html><html><body>" + "".join(fragments))
    return Panel(tab.locator(".mpteach-bit-explorer").first)


class TestWithoutAKernel:
    def test_a_stored_and_converted_notebook_works_twice_on_a_page(
        self, chromium, tmp_path
    ):
        show = "from mpteach.widgets import BitExplorer\nBitExplorer({})"
        notebook(tmp_path / "n.ipynb", show.format('"float16", 0.1'), show.format(""))
        run_python("-m", "mpteach.editions", "n.ipynb", cwd=tmp_path)
        run_python("-m", "nbconvert", "--to", "html", "n.ipynb", cwd=tmp_path)
        with page(chromium, offline=True) as tab:
            tab.route("http*://**", lambda route: route.abort())
            tab.goto((tmp_path / "n.html").as_uri())
            hosts = tab.locator(".mpteach-bit-explorer")
            expect(hosts).to_have_count(2)
            first, second = Panel(hosts.nth(0)), Panel(hosts.nth(1))
            first.bits.nth(0).click()
            first.shows("0xae66", "−0.0999755859375", "normal")
            second.shows("0x2e66", "0.0999755859375", "normal")
            second.type("2^-24")
            second.shows(
                "0x0001", "5.9604644775390625e−8", "subnormal · smallest positive value"
            )
            first.select.select_option("bfloat16")
            first.shows("0xbdcd", "−0.10009765625", "normal")

    def test_the_panel_says_everything_about_a_number(self, tab):
        panel = put(tab, BitExplorer("float16", 0.1))
        panel.shows("0x2e66", "0.0999755859375", "normal")
        inside = panel.inside
        expect(inside.locator("dd.binary")).to_have_text("0 01011 1001100110")
        expect(inside.locator(".integer")).to_have_text(["0", "11", "614"])
        expect(inside.locator(".formula p")).to_have_text(
            [
                "(−1)sign × (1 + fraction/1024) × 2exponent − 15",
                "(−1)0 × (1 + 614/1024) × 211 − 15 = 1.599609375 × 2−4",
            ]
        )
        expect(inside.locator("dd.up")).to_have_text("0.10003662109375")
        expect(inside.locator("dd.down")).to_have_text("0.09991455078125")
        expect(inside.locator("dd.gap")).to_have_text("2−14 = 0.00006103515625")
        expect(inside.locator(".note")).to_have_text(
            "You asked for 0.1: rounded, relative error 2.44e−4"
        )
        expect(inside.locator("tbody tr")).to_have_count(len(FORMATS) - 1)
        expect(panel.row("float32").locator("td")).to_have_text(
            ["≈ 0.100000001", "1.49e−8", "rounded"]
        )
        expect(panel.row("float4_e2m1fn").locator("td")).to_have_text(
            ["0", "1", "becomes zero"]
        )

    @pytest.mark.parametrize(
        ("name", "typed", "lines"),
        [
            (
                "float16",
                "2^-15",
                ["(−1)sign × (0 + fraction/1024) × 21 − 15"]
                + ["(−1)0 × (0 + 512/1024) × 21 − 15 = 0.5 × 2−14"],
            ),
            ("float16", "inf", ["Exponent all ones and fraction 0: this is infinity."]),
            (
                "float16",
                "nan",
                ["Exponent all ones and fraction not 0: this is not a number."],
            ),
            (
                "float8_e4m3fnuz",
                "nan",
                ["The code that −0 would have: this is not a number."],
            ),
            (
                "float8_e4m3fn",
                "0xff",
                ["All ones below the sign: this is not a number."],
            ),
            ("float8_e8m0fnu", "nan", ["All ones: this is not a number."]),
            ("float8_e8m0fnu", "4", ["2exponent − 127", "2129 − 127 = 22"]),
            (
                "float4_e2m1fn",
                "-0",
                ["Exponent 0 and fraction 0: this is zero."]
                + ["(−1)1 × (0 + 0/2) × 21 − 1 = 0"],
            ),
            (
                "float4_e2m1fn",
                "-3",
                ["(−1)sign × (1 + fraction/2) × 2exponent − 1"]
                + ["(−1)1 × (1 + 1/2) × 22 − 1 = −1.5 × 21"],
            ),
        ],
    )
    def test_each_kind_has_its_own_formula(self, tab, name, typed, lines):
        panel = put(tab, BitExplorer(name, 1.0))
        panel.type(typed)
        expect(panel.inside.locator(".formula p")).to_have_text(lines)

    @pytest.mark.parametrize(
        ("name", "typed", "up", "gap"),
        [
            ("float16", "65472", "65504", "25 = 32"),
            ("float16", "65504", "inf", "none"),
            ("float8_e4m3fn", "448", "none", "none"),
            ("float8_e4m3fn", "-448", "−416", "none"),
        ],
    )
    def test_no_gap_is_given_above_the_largest_number(self, tab, name, typed, up, gap):
        panel = put(tab, BitExplorer(name, 1.0))
        panel.type(typed)
        expect(panel.inside.locator("dd.up")).to_have_text(up)
        expect(panel.inside.locator("dd.gap")).to_have_text(gap)

    def test_bad_input_is_one_sentence_and_changes_nothing(self, tab):
        panel = put(tab, BitExplorer("float16", 0.1))
        panel.type("one half")
        expect(panel.message).to_have_text(
            "one half is no number: type one such as 0.1, 1e-7, -3/8, 2^-24, inf, nan, "
            "or a code such as 0x3c00."
        )
        expect(panel.input).to_have_attribute("aria-invalid", "true")
        panel.shows("0x2e66", "0.0999755859375", "normal")
        panel.type("0.5")
        expect(panel.message).to_have_text("")
        panel.type("nan")
        panel.select.select_option("float4_e2m1fn")
        expect(panel.message).to_contain_text("float4_e2m1fn has no NaN")
        expect(panel.select).to_have_value("float16")
        panel.shows("0x7e00", "NaN", "NaN, not a number (quiet)")

    def test_the_keyboard_reaches_everything(self, tab):
        panel = put(tab, BitExplorer("float16", 65504.0))
        panel.input.press("ArrowUp")
        panel.shows("0x7c00", "∞", "infinity")
        panel.input.press("ArrowUp")
        expect(panel.message).to_have_text("There is no value above this one.")
        panel.input.press("ArrowDown")
        panel.input.press("ArrowDown")
        panel.shows("0x7bfe", "65472", "normal")
        panel.input.press("Tab")
        expect(panel.bits.nth(0)).to_be_focused()
        tab.keyboard.press("Space")
        panel.shows("0xfbfe", "−65472", "normal")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("ArrowRight")
        expect(panel.bits.nth(1)).to_be_focused()
        outline = "node => getComputedStyle(node).outlineStyle"
        assert panel.bits.nth(1).evaluate(outline) == "solid"
        tab.keyboard.press("Enter")
        panel.shows("0xbbfe", "−0.9990234375", "normal")
        expect(panel.bits.nth(1)).to_have_attribute("aria-pressed", "false")
        expect(panel.bits.nth(1)).to_be_focused()
        tab.keyboard.press("End")
        expect(panel.bits.nth(15)).to_be_focused()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        panel.shows("0xbbfd", "−0.99853515625", "normal")
        tab.keyboard.press("Enter")
        panel.shows("0xbbfc", "−0.998046875", "normal")

    def test_every_control_has_a_name(self, tab):
        panel = put(tab, BitExplorer("float16", 1.0))
        expect(tab.get_by_role("group", name="The 16 bits of float16")).to_be_visible()
        for name in (
            "sign bit",
            "exponent bit 4, worth 16",
            "fraction bit 0, worth 2^-10",
        ):
            expect(tab.get_by_role("button", name=name, exact=True)).to_be_visible()
        expect(panel.inside.locator("[tabindex='0']")).to_have_count(1)

    def test_the_format_changes_and_the_number_that_was_asked_for_stays(self, tab):
        panel = put(tab, BitExplorer("float16", 1.0))
        panel.type("1/3")
        for name in ("float4_e2m1fn", "float64"):
            panel.select.select_option(name)
        panel.shows("0x3fd5555555555555", f"{1 / 3:.54f}", "normal")
        panel.bits.nth(63).click()
        panel.select.select_option("float8_e4m3fn")
        panel.select.select_option("float64")
        panel.shows("0x3fd5555555555554", f"{1 / 3 - 2**-54:.52f}", "normal")

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("name", FORMATS)
    def test_nothing_overlaps_or_is_cut_off(self, tab, name, width):
        tab.set_viewport_size({"width": width, "height": 900})
        panel = put(tab, BitExplorer(name, 0.1))
        for typed in ("0.1", "0x1", "-448"):
            panel.type(typed)
            assert tab.evaluate(OVERLAPS) == []

    def test_dark_follows_the_reader_and_the_page(self, chromium):
        background = "node => getComputedStyle(node).backgroundColor"
        for scheme, light in (("light", True), ("dark", False)):
            with page(chromium, color_scheme=scheme) as tab:
                panel = put(tab, BitExplorer())
                red = panel.inside.locator(".root").evaluate(background)
                assert (red == "rgb(255, 255, 255)") == light
        with page(chromium) as tab:
            panel = put(tab, BitExplorer())
            tab.add_style_tag(content=":root { --jp-layout-color1: rgb(17, 17, 17); }")
            found = panel.inside.locator(".root").evaluate(background)
            assert found == "rgb(17, 17, 17)"


# The boxes of what holds text: none reaches beyond the page, no two siblings overlap.
OVERLAPS = """
() => {
  const host = document.querySelector(".mpteach-bit-explorer");
  const found = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push("page scrolls sideways");
  const names = ".bit, .caption, .formula p, .exact, .note, dt, dd, th, td, caption, " +
    "label, .hint, .message";
  const nodes = [...host.shadowRoot.querySelectorAll(names)].filter(
    (node) => node.textContent.trim());
  const boxes = nodes.map((node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return [node, range.getBoundingClientRect()];
  });
  boxes.forEach(([node, box], place) => {
    const name = `${node.tagName}.${node.className} ${node.textContent.slice(0, 20)}`;
    if (box.right > width + 1 || box.left < 0) found.push(`beyond the page: ${name}`);
    if (node.scrollWidth > node.clientWidth + 1) found.push(`cut off: ${name}`);
    for (const [other, its] of boxes.slice(place + 1)) {
      if (node.contains(other)) continue;
      const across = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const along = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      if (across > 1 && along > 4) found.push(`${name} over ${other.textContent}`);
    }
  });
  return found;
}
"""


def test_in_jupyterlab_the_reader_and_python_share_the_code(chromium, tmp_path):
    notebook(
        tmp_path / "live.ipynb",
        "from mpteach.widgets import BitExplorer\nexplorer = BitExplorer()\nexplorer",
        "print(explorer, explorer.value)",
        "explorer.code = 0x7f",
    )
    with jupyterlab(tmp_path) as address, page(chromium) as tab:
        tab.set_viewport_size({"width": 1400, "height": 1000})
        tab.goto(f"{address}/lab/tree/live.ipynb?token=t")
        cells = tab.locator(".jp-Notebook .jp-CodeCell")
        expect(cells).to_have_count(3, timeout=SLOW_MS)
        tab.get_by_text("| Idle").wait_for(timeout=SLOW_MS)
        run_cell(cells.nth(0))
        output = cells.nth(0).locator(".jp-OutputArea-output")
        panel = Panel(output)
        panel.input.wait_for(timeout=SLOW_MS)
        panel.shows("0x2e66", "0.0999755859375", "normal")
        panel.bits.nth(15).click()
        panel.shows("0x2e67", "0.10003662109375", "normal")
        # Keys that JupyterLab would take for its own: a new cell above, a deleted one.
        panel.input.press("a")
        panel.type("-3/8")
        panel.select.select_option("float8_e4m3fn")
        panel.shows("0xac", "−0.375", "normal")
        panel.bits.nth(7).focus()
        for key in ("d", "d", "ArrowLeft", "Space"):
            tab.keyboard.press(key)
        panel.shows("0xae", "−0.4375", "normal")
        expect(cells).to_have_count(3)
        run_cell(cells.nth(1))
        expect(cells.nth(1).locator(".jp-OutputArea-output")).to_have_text(
            "BitExplorer(format='float8_e4m3fn', code=0xae) -0.4375\n"
        )
        run_cell(cells.nth(2))
        panel.shows("0x7f", "NaN", "NaN, not a number")


def run_cell(cell: Locator) -> None:
    """Run a cell and wait for its number; ask again where a kernel was not ready."""
    prompt = cell.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]"))
    for _ in range(6):
        cell.locator(".cm-content").click()
        cell.page.keyboard.press("Control+Enter")
        with contextlib.suppress(TimeoutError):
            prompt.wait_for(timeout=SLOW_MS / 3)
            return
    pytest.fail("JupyterLab did not run the cell.")
