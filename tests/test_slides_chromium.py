"""Every slide of every deck in Chromium, without a network (see `slide_faults.js`)."""

import base64
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from mpteach import editions, slides
from mpteach.course import chapters
from tests.chromium import SLOW_MS, browser

pytestmark = pytest.mark.browser

PATHS = [chapter.path for chapter in chapters()]
FAULTS = Path(__file__).with_name("slide_faults.js").read_text(encoding="utf-8")
FAULTS = FAULTS[FAULTS.index("() =>") :]
SLIDES = "Reveal.getSlides().map(one => Reveal.getIndices(one)).map(at => [at.h, at.v])"
PLACE = "JSON.stringify([Reveal.getIndices().h, Reveal.getIndices().v])"


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def decks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("decks")
    slides.build(PATHS, folder)
    return folder


@contextlib.contextmanager
def shown(chromium: Browser, deck: Path, complaints: list[str]) -> Iterator[Page]:
    """Yield the deck, laid out; what it asked of a network or a console is added."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 720}, offline=True
    )
    try:
        tab = context.new_page()
        tab.set_default_timeout(SLOW_MS)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.on("request", lambda request: complaints.extend(_elsewhere(request.url)))
        tab.on("console", lambda said: complaints.extend(_complaint(said)))
        tab.goto(deck.as_uri())
        tab.wait_for_function("window.Reveal && Reveal.isReady()")
        yield tab
    finally:
        context.close()


def _complaint(said: ConsoleMessage) -> list[str]:
    return [said.text] if said.type in ("error", "warning") else []


def _elsewhere(address: str) -> list[str]:
    return [] if address.startswith(("file:", "data:", "blob:")) else [address]


def faults(tab: Page) -> list[str]:
    """Return what is wrong with any slide, with the slide's number."""
    found = []
    for number, (across, down) in enumerate(tab.evaluate(SLIDES), 1):
        tab.evaluate(f"Reveal.slide({across}, {down})")
        found += [f"slide {number}: {fault}" for fault in tab.evaluate(FAULTS)]
    return found


def lines_of_code(tree: BeautifulSoup, places: str) -> list[str]:
    texts = "\n".join(pre.get_text() for pre in tree.select(f"{places} pre"))
    return [line for line in texts.split("\n") if line.strip()]


def words(tree: BeautifulSoup, places: str) -> list[str]:
    """Return the words of prose, sorted, without formulas and running heads."""
    for gone in tree.select("pre, .running, mjx-container, style, script, .rich"):
        gone.extract()
    text = " ".join(one.get_text(" ") for one in tree.select(places))
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", " ", text, flags=re.S)
    return sorted(text.split())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_slide_is_legible_whole_and_offline(chromium, decks, path):
    complaints: list[str] = []
    deck = decks / f"{path.stem}.html"
    with shown(chromium, deck, complaints) as tab:
        after = BeautifulSoup(tab.locator(".slides").inner_html(), "html.parser")
        found = faults(tab)
        count = len(tab.evaluate(SLIDES))
    before = BeautifulSoup(deck.read_text(encoding="utf-8"), "html.parser")
    assert complaints == [] and found == []
    assert count >= len(before.select("main > section"))
    assert lines_of_code(after, ".body") == lines_of_code(before, "main")
    assert words(after, ".page") == words(before, "main")


def code(source: str, *outputs: dict) -> dict:
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def prose(source: str) -> dict:
    return {"cell_type": "markdown", "source": source}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def display(**data: str) -> dict:
    alt = {"image/png": {"alt": "A picture."}}
    data = {key.replace("_", "/"): value for key, value in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": alt}


def picture(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def table(rows: int, columns: int) -> str:
    head = "|" + "head |" * columns + "\n|" + "---|" * columns + "\n"
    return head + "".join(
        "|" + "|".join(f"r{row}c{column}" for column in range(columns)) + "|\n"
        for row in range(rows)
    )


def monster(folder: Path, *cells: dict) -> Path:
    """Write the deck of these cells, each a slide of its own, and return it."""
    for number, cell in enumerate(cells):
        cell["id"] = f"c{number}"
        cell["metadata"] = {"slideshow": {"slide_type": "slide"}}
        if cell["cell_type"] == "code":
            cell["execution_count"] = 1
    nb = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    editions.write(folder / "00_monster.ipynb", nb)
    return slides.build([folder / "00_monster.ipynb"], folder)[0]


def test_whatever_is_too_long_goes_on_to_the_next_slide(chromium, tmp_path):
    program = "\n".join(f"value_{n} = {n}  # line {n}" for n in range(90))
    deck = monster(
        tmp_path,
        prose("# Monsters"),
        code(program, stream("".join(f"printed {n}\n" for n in range(120)))),
        code("x", stream("w" * 300 + "\n" + "many words " * 60 + "\n")),
        code("y", display(text_markdown=table(60, 4))),
        prose("## Wide\n\n" + table(40, 12)),
        prose("Points:\n\n" + "\n".join(f"{n}. point {n}" for n in range(1, 50))),
        prose("\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(20))),
        prose(r"$$ " + " + ".join(f"x_{{{n}}}" for n in range(60)) + " $$"),
        code("z = 1\n" * 20, display(image_png=picture(1540, 1760))),
        code("z = 2", stream("line\n" * 20), display(image_png=picture(892, 452))),
    )
    complaints: list[str] = []
    with shown(chromium, deck, complaints) as tab:
        after = BeautifulSoup(tab.locator(".slides").inner_html(), "html.parser")
        found = faults(tab)
    before = BeautifulSoup(deck.read_text(encoding="utf-8"), "html.parser")
    assert complaints == []
    # A picture of 16 inches fits by shrinking: that alone is reported.
    assert len(found) == 1 and "is shown at" in found[0], found
    assert lines_of_code(after, ".body") == lines_of_code(before, "main")
    cells = [[one.get_text() for one in tree.select("td")] for tree in (before, after)]
    assert cells[0] == cells[1] and len(cells[0]) == 60 * 4 + 40 * 12
    numbers = [one.get("start", "1") for one in after.select("ol")]
    assert len(numbers) > 1 and numbers == sorted(numbers, key=int)
    assert words(after, ".page p, .page li") == words(before, "main p, main li")
    heads = [one.select("th") for one in after.select("table")]
    assert len(heads) > 2 and all(heads)


def bodies(tab: Page) -> list[str]:
    texts = "all => all.map(one => one.innerText)"
    return tab.locator(".page .body").evaluate_all(texts)


def test_one_long_line_makes_nothing_else_small(chromium, tmp_path):
    long = "  said: " + "word " * 25 + "--option 3"
    lines = stream(f"short\n{long}\n")
    with shown(chromium, monster(tmp_path, code("x = 1", lines)), []) as tab:
        assert faults(tab) == []
        size = "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
        assert tab.locator(".body pre").evaluate_all(size) == [26, 18]
        # It goes on a little to the right of where it began, and words stay whole.
        boxes = tab.locator(".long .word").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map("
            "box => [box.top, box.left, box.height])"
        )
        first, *others = boxes
        lower = [left for top, left, _ in others if top > first[0] + 5]
        assert lower and first[1] + 15 < min(lower) < first[1] + 30
        assert all(height < 30 for _, _, height in boxes)


def test_a_sentence_that_ends_in_a_colon_is_not_left_behind(chromium, tmp_path):
    full = "\n\n".join(f"Paragraph {n}. " + "word " * 40 for n in range(3))
    deck = monster(tmp_path, prose(full), prose("This is how:"), code("x = 1\n" * 12))
    nb = editions.read(tmp_path / "00_monster.ipynb")
    for cell in nb["cells"][1:]:
        cell["metadata"]["slideshow"]["slide_type"] = "fragment"
    editions.write(tmp_path / "00_monster.ipynb", nb)
    slides.build([tmp_path / "00_monster.ipynb"], tmp_path)
    with shown(chromium, deck, []) as tab:
        assert faults(tab) == []
        (told,) = [one for one in bodies(tab) if "This is how:" in one]
        assert "x = 1" in told and "Paragraph" not in told


def test_what_is_printed_stays_with_its_code_and_the_picture_follows(
    chromium, tmp_path
):
    source = "\n".join(f"value_{n} = {n}" for n in range(14))
    shows = display(image_png=picture(892, 452))
    deck = monster(tmp_path, code(source, stream("two\nlines\n"), shows))
    with shown(chromium, deck, []) as tab:
        assert faults(tab) == []
        first, second = bodies(tab)
        assert "value_13" in first and "lines" in first and second.strip() == ""
        assert tab.locator(".page:first-child .out.fragment").count() == 1
        grown = tab.locator(".page img").evaluate("one => one.offsetWidth")
        assert grown == pytest.approx(1200, abs=3)


def test_a_table_breaks_no_word_that_has_room(chromium, tmp_path):
    wide = "| bytes | meaning |\n|---|---|\n| 8 | " + "many words " * 40 + "|"
    with shown(chromium, monster(tmp_path, prose(wide)), []) as tab:
        lines = "one => one.getClientRects().length"
        box = tab.locator("th").first.evaluate(
            "one => { const range = document.createRange();"
            " range.selectNodeContents(one); return range.getClientRects().length; }"
        )
        assert box == tab.locator("th").last.evaluate(lines) == 1


def test_a_formula_keeps_the_sign_behind_it(chromium, tmp_path):
    text = " ".join("word " * n + f"$(2048 + 1) + {n}$?" for n in range(1, 30))
    with shown(chromium, monster(tmp_path, prose(text)), []) as tab:
        assert tab.locator(".word").count() == 29
        below = tab.evaluate(
            """() => [...document.querySelectorAll(".word")].filter((one) => {
              const range = document.createRange();
              range.selectNode(one.lastChild);
              const formula = one.firstElementChild.getBoundingClientRect();
              return range.getBoundingClientRect().top > formula.bottom;
            }).length"""
        )
        assert below == 0


BREAK = {
    "has 12.0 px": "slide.querySelector('.body p').style.fontSize = '12px'",
    "beyond the slide": "slide.querySelector('.body p').style.marginLeft = '1100px'",
    "is cut off": "Object.assign(slide.querySelector('pre').style, "
    "{height: '30px', overflow: 'hidden'})",
    "is shown at 0.56": "Object.assign(slide.querySelector('img').style, "
    "{width: '500px', height: 'auto'})",
    "no alt text": "slide.querySelector('img').alt = ''",
    "is empty": "slide.querySelector('.body').replaceChildren()",
}


@pytest.mark.parametrize("sentence", BREAK)
def test_each_check_bites(chromium, tmp_path, sentence):
    everything = code(
        "x\ny\nz", stream("s\n"), display(text_markdown="A sentence of ten words.")
    )
    everything["outputs"].append(display(image_png=picture(892, 200)))
    with shown(chromium, monster(tmp_path, everything), []) as tab:
        assert faults(tab) == []
        break_it = f"const slide = Reveal.getCurrentSlide(); {BREAK[sentence]}"
        tab.evaluate(f"() => {{ {break_it} }}")
        assert any(sentence in fault for fault in faults(tab)), faults(tab)


def test_a_request_to_the_network_is_noticed(chromium, tmp_path):
    image = '<img alt="x" src="http://example.org/a.png">'
    rich = display(text_html=image, text_plain="")
    deck = monster(tmp_path, code("x", rich))
    complaints: list[str] = []
    context = chromium.new_context(offline=True)
    tab = context.new_page()
    tab.on("request", lambda request: complaints.extend(_elsewhere(request.url)))
    tab.goto(deck.as_uri())
    context.close()
    assert complaints == ["http://example.org/a.png"]


def test_an_output_comes_after_its_question(chromium, decks):
    deck = next(decks.glob("01_*.html"))
    with shown(chromium, deck, []) as tab:
        place = tab.evaluate(
            "Reveal.getSlides().findIndex(one => one.querySelector('.out.fragment'))"
        )
        across, down = tab.evaluate(SLIDES)[place]
        tab.evaluate(f"Reveal.slide({across}, {down})")
        output = tab.locator("section.present .out.fragment").first
        expect(output).to_be_hidden()
        for _ in range(tab.locator("section.present .page.present .fragment").count()):
            tab.keyboard.press("ArrowRight")
        expect(output).to_be_visible()


def test_the_arrow_reaches_every_slide(chromium, decks):
    with shown(chromium, next(decks.glob("00_*.html")), []) as tab:
        seen = set()
        for _ in range(400):
            seen.add(tab.evaluate(PLACE))
            if tab.evaluate("Reveal.isLastSlide()"):
                break
            tab.keyboard.press("ArrowRight")
        assert len(seen) == len(tab.evaluate(SLIDES))


def test_the_speaker_sees_the_notes(chromium, decks):
    with shown(chromium, next(decks.glob("01_*.html")), []) as tab:
        notes = "Reveal.getSlides().findIndex(one => one.querySelector('aside.notes'))"
        across, down = tab.evaluate(SLIDES)[tab.evaluate(notes)]
        tab.evaluate(f"Reveal.slide({across}, {down})")
        said = tab.locator("section.present aside.notes").first.text_content()
        with tab.expect_popup() as popup:
            tab.keyboard.press("s")
        value = popup.value.locator(".speaker-controls-notes .value")
        expect(value).to_contain_text(" ".join(said.split())[:40], timeout=SLOW_MS)


def test_the_explorer_is_alive_and_its_keys_are_its_own(chromium, decks):
    with shown(chromium, next(decks.glob("01_*.html")), []) as tab:
        find = (
            "Reveal.getSlides().findIndex(one => "
            "one.querySelector('.mpteach-bit-explorer'))"
        )
        across, down = tab.evaluate(SLIDES)[tab.evaluate(find)]
        tab.evaluate(f"Reveal.slide({across}, {down})")
        here = tab.evaluate(PLACE)
        explorer = tab.locator("section.present .mpteach-bit-explorer").first
        explorer.locator("button.bit").first.click()
        expect(explorer.locator("dd.hex")).to_have_text("0xae66")
        number = explorer.get_by_label("Number or code")
        number.fill("")
        number.press_sequentially("0.5 no")
        expect(number).to_have_value("0.5 no")
        for key in ("ArrowLeft", "Space", "o", "f", "Home"):
            number.press(key)
        assert tab.evaluate(PLACE) == here
        assert not tab.evaluate("Reveal.isOverview()")
