"""Every page of the book in a real browser, from a file and without a network."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Page, expect

from mpteach import site
from mpteach.course import ROOT, chapters
from tests.chromium import browser, page
from tests.page_rules import breaches

pytestmark = pytest.mark.browser

CHAPTERS = [chapter.name for chapter in chapters()]
PAGES = ["index", *CHAPTERS, "run", "search"]
# A desk and a phone; each theme is shown in both widths.
WINDOWS = {
    "desk": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}
TYPESET = "() => !window.MathJax || (window.MathJax.startup?.promise ?? false)"
STILL = "() => document.getAnimations().every((one) => one.playState !== 'running')"


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """Return the folder of a book that was just built."""
    out = tmp_path_factory.mktemp("book") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mpteach.site", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(CHAPTERS)} chapters: ")
    return out


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@contextlib.contextmanager
def opened(chromium, address: str, **settings) -> Iterator[Page]:
    """Yield the page, loaded; at the end nothing was asked for, nothing complained."""
    asked: list[str] = []
    said: list[str] = []
    with page(chromium, offline=True, **settings) as tab:
        tab.on("requestfailed", lambda one: asked.append(one.url))
        tab.on("request", lambda one: one.url[:4] == "http" and asked.append(one.url))
        tab.on(
            "console",
            lambda one: one.type in ("error", "warning") and said.append(one.text),
        )
        tab.goto(address)
        tab.wait_for_function(TYPESET)
        tab.wait_for_function(STILL)
        yield tab
    assert (asked, said) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(chromium, book, name, window, scheme):
    address = (book / f"{name}.html").as_uri()
    settings = {"viewport": WINDOWS[window], "color_scheme": scheme}
    with opened(chromium, address, **settings) as tab:
        assert tab.locator("html").get_attribute("data-theme") == scheme
        for fold in tab.locator("details.solution").all():
            assert not fold.locator(":scope > :not(summary)").first.is_visible()
        assert list(breaches(tab)) == []
        assert tab.get_by_role("heading", level=1).count() == 1
        # What was folded has to be sound as well.
        tab.evaluate(
            "document.querySelectorAll('details').forEach((one) => (one.open = true))"
        )
        assert list(breaches(tab)) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_each_solution_is_shown_by_a_click_and_no_other_way(chromium, book, name):
    with opened(chromium, (book / f"{name}.html").as_uri()) as tab:
        folds = tab.locator("details.solution")
        assert folds.count() >= 4
        for fold in folds.all():
            inside = fold.locator(":scope > :not(summary)").first
            expect(inside).to_be_hidden()
            fold.get_by_text(site.SHOW).click()
            expect(inside).to_be_visible()
        assert "BEGIN SOLUTION" not in tab.content()


def test_the_search_finds_a_word_and_leads_to_it(chromium, book):
    with opened(chromium, (book / "index.html").as_uri()) as tab:
        tab.keyboard.press("Control+k")
        tab.locator("input[type=search]:visible").fill("subnormal")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/search.html?q=subnormal")
        found = tab.locator("#search-results li a")
        bits = found.filter(has_text="What is in a float’s bits?")
        expect(bits.first).to_be_visible()
        found.first.click()
        expect(tab.locator("article h1")).to_be_visible()
    with opened(chromium, (book / "search.html").as_uri() + "?q=zebra") as tab:
        expect(tab.get_by_text("did not match any documents")).to_be_visible()


def test_a_widget_answers_and_follows_the_theme(chromium, book):
    address = (book / "01_read_the_bits.html").as_uri()
    with opened(chromium, address, color_scheme="light") as tab:
        explorer = tab.locator(".mpteach-bit-explorer").first
        explorer.get_by_label("Number or code").fill("65504")
        explorer.get_by_label("Number or code").press("Enter")
        expect(explorer.locator("dd.hex")).to_have_text("0x7bff")
        root = explorer.locator(".root")
        expect(root).to_have_css("background-color", "rgb(255, 255, 255)")
        tab.get_by_role("button", name="Color mode").click()
        tab.get_by_role("button", name="Dark").click()
        expect(root).to_have_css("background-color", "rgb(22, 24, 29)")
        # No pale frame of the theme's around it.
        holder = tab.locator(".text_html:has(.mpteach-bit-explorer)").first
        expect(holder).to_have_css("background-color", "rgba(0, 0, 0, 0)")


def test_on_a_phone_the_chapters_are_behind_a_button(chromium, book):
    address = (book / "index.html").as_uri()
    with opened(chromium, address, viewport=WINDOWS["phone"]) as tab:
        entry = tab.locator(".bd-sidebar-primary a", has_text="What do 16 bits buy?")
        expect(entry).not_to_be_in_viewport()
        tab.locator("button.primary-toggle:visible").click()
        entry.click()
        expect(tab.locator("article h1")).to_contain_text("What do 16 bits buy?")


def test_a_formula_keeps_the_sign_behind_it(chromium, book):
    address = (book / "01_read_the_bits.html").as_uri()
    with opened(chromium, address, viewport=WINDOWS["phone"]) as tab:
        held = tab.locator("span:has(> .math:first-child)")
        expect(held.first).to_have_css("white-space", "nowrap")
        gaps = held.evaluate_all(
            """all => all.map((one) => {
              const range = document.createRange();
              range.selectNode(one.lastChild);
              const formula = one.firstElementChild.getBoundingClientRect();
              return range.getBoundingClientRect().left - formula.right;
            })"""
        )
        assert len(gaps) > 5 and all(-1 < gap < 1 for gap in gaps)


class Addresses(HTMLParser):
    """The ids of a page, and what it links to or loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id":
                self.ids.add(value)
            elif key in ("href", "src") and value:
                self.links.append(value)


def dead_links(folder: Path) -> Iterator[str]:
    pages = {path.resolve(): Addresses(path) for path in folder.glob("*.html")}
    for path, one in pages.items():
        for link in one.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)) if parts.path else path
            if parts.scheme in ("https", "data"):
                continue
            if parts.scheme or not target.resolve().is_file():
                yield f"{path.name}: {link}"
            elif parts.fragment and target.suffix == ".html":
                if unquote(parts.fragment) not in pages[target.resolve()].ids:
                    yield f"{path.name}: {link}"


def test_every_link_leads_to_a_file_and_a_place_in_it(book):
    assert list(dead_links(book)) == []
    claims = Addresses(book / "12_check_the_claims.html").links
    assert "01_read_the_bits.html#cell-01-bytes-count" in claims


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="x"><a href="#x">1</a><a href="#y">2</a><a href="b.html">3</a>'
        '<img src="http://there/4.png"><a href="https://there">5</a>'
    )
    assert list(dead_links(tmp_path)) == [
        "a.html: #y",
        "a.html: b.html",
        "a.html: http://there/4.png",
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<p style='width: 2000px'>wide", "px wide in a window"),
        ("<img src='data:,' alt=' '>", "a picture without a text"),
        ("<span class='math'>x^2</span>", "maths not typeset: x^2"),
        ("<p style='color: #999'>pale", "contrast 2.8"),
        ("<p style='background: black; color: #333'>dark", "contrast 1.6"),
        ("<button></button>", "a button without a name"),
        ("<input type='search'>", "a searchbox without a name"),
        ("<a href='#x'><i></i></a>", "a link without a name"),
    ],
)
def test_each_rule_bites(chromium, body, said):
    with page(chromium) as tab:
        tab.set_content(f"<!doctype html><main><p>Sound.</p>{body}</main>")
        assert said in next(breaches(tab))
        tab.set_content("<!doctype html><p>Sound. <img src='data:,' alt='A dot.'>")
        assert list(breaches(tab)) == []


def test_a_warning_of_sphinx_is_an_error_and_leaves_the_older_book(tmp_path):
    out = tmp_path / "site"
    out.mkdir()
    (out / "searchindex.js").write_text("older")
    broken = (
        "from pathlib import Path; import sys\n"
        "from mpteach import site\n"
        "write = site.write_sources\n"
        "def wrong(folder):\n"
        "    write(folder)\n"
        "    path = folder / 'run.md'\n"
        "    path.write_text(path.read_text() + '[gone](nowhere.md)')\n"
        "site.write_sources = wrong\n"
        "sys.exit(site.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2 and "Sphinx warns" in done.stderr
    assert "nowhere.md" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (out / "searchindex.js").read_text() == "older"
