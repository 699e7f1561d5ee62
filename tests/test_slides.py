"""What of a chapter is in its deck; how it looks is for `test_slides_chromium`."""

import subprocess
import sys

import pytest
from bs4 import BeautifulSoup

from mpteach import editions, slides
from mpteach.course import chapters
from mpteach.errors import InputError
from mpteach.slides import __main__ as door
from mpteach.slides import pages

PATHS = [chapter.path for chapter in chapters()]


def cell(source: str, kind: str | None = "slide", **more) -> dict:
    """Return a cell of slide type `kind`; with outputs it is a code cell."""
    metadata = more.pop("metadata", {})
    if kind is not None:
        metadata = metadata | {"slideshow": {"slide_type": kind}}
    made = {"cell_type": "markdown", "id": "a", "metadata": metadata, "source": source}
    return made | ({"cell_type": "code"} if "outputs" in more else {}) | more


def page(*cells: dict) -> BeautifulSoup:
    nb = {"cells": [one | {"id": f"c{n}"} for n, one in enumerate(cells)]}
    nb |= {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return BeautifulSoup(slides.deck(nb), "html.parser")


def words(tree) -> list[str]:
    return tree.get_text(" ").split()


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def chapter(request):
    nb = editions.read(request.param)
    return nb, BeautifulSoup(slides.deck(nb), "html.parser")


def test_a_chapters_cells_are_in_its_deck_in_order(chapter):
    nb, tree = chapter
    kinds = [one["metadata"]["slideshow"]["slide_type"] for one in nb["cells"]]
    wanted = [
        one["id"]
        for one, kind in zip(nb["cells"], kinds, strict=True)
        if kind not in ("skip", "notes") and "nbgrader" not in one["metadata"]
    ]
    assert [found["id"] for found in tree.select("main .cell")] == wanted


def test_no_line_of_code_and_no_output_is_lost(chapter):
    nb, tree = chapter
    by_id = {one["id"]: one for one in nb["cells"]}
    for found in tree.select("main .cell"):
        source = by_id[found["id"]]
        hides = "hide-input" in source["metadata"].get("tags", [])
        if source["cell_type"] == "code":
            codes = found.select(":scope > .highlight pre")
            shown = [one.get_text().strip("\n") for one in codes]
            assert shown == ([] if hides else [source["source"].strip("\n")])
        for output in source.get("outputs", []):
            if "text" in output:
                texts = [one.get_text() for one in found.select("pre.output")]
                assert output["text"] in texts
            if "image/png" in output.get("data", {}):
                alts = [image["alt"] for image in found.select("img")]
                assert output["metadata"]["image/png"]["alt"] in alts


def test_code_is_hidden_only_where_there_is_something_to_show():
    tags = {"slideshow": {"slide_type": "slide"}, "tags": ["hide-input"]}
    cell = {"cell_type": "code", "source": "x = 1", "metadata": tags, "outputs": []}
    assert "x = 1" in page(cell).select_one("main").get_text().replace("\xa0", " ")
    said = {"output_type": "stream", "name": "stdout", "text": "one\n"}
    tree = page(cell | {"outputs": [said]}).select_one("main")
    # It comes with its slide, not at a click on nothing.
    assert words(tree) == ["one"] and not tree.select(".fragment")


def test_a_deck_has_no_solution_and_no_hidden_test(chapter):
    text = chapter[1].get_text()
    assert "BEGIN SOLUTION" not in text and "BEGIN HIDDEN" not in text


def test_a_deck_has_notes_for_the_speaker(chapter):
    notes = [words(one) for one in chapter[1].select("main aside.notes")]
    assert len(notes) >= 3 and all(notes)


def test_a_deck_asks_nothing_of_the_network(chapter):
    for node in chapter[1].select("[src], link[href]"):
        address = node.get("src") or node["href"]
        assert address.startswith(("data:", "assets/")), address[:80]
    assert "@import" not in str(chapter[1])


def test_slides_begin_where_a_cell_says_so():
    tree = page(
        cell("# T"), cell("a", "fragment"), cell("b", "subslide"), cell("c", None)
    )
    groups = [words(one) for one in tree.select("main > section")]
    assert groups == [["T", "a"], ["b", "c"]]
    (fragment,) = tree.select(".fragment")
    assert words(fragment) == ["a"] and tree.title.string == "T"


def test_notes_are_for_the_speaker_alone_and_skipped_cells_for_nobody():
    tree = page(cell("a"), cell("said", "notes"), cell("gone", "skip"))
    (notes,) = tree.select("main aside.notes")
    assert words(notes) == ["said"] and "gone" not in tree.get_text()


def test_the_answer_of_an_exercise_is_left_out_whatever_its_slide_type():
    marks = {"nbgrader": {"solution": True}}
    tree = page(cell("a"), cell("x = 1", outputs=[], metadata=marks))
    assert words(tree.main) == ["a"]


def test_of_a_sections_opening_the_talk_becomes_notes():
    opening = (
        "## Round\n\n**Two sums differ.**\n\nThis is said.\n\nThey are:\n\n- one\n\n"
        "So it is said too.\n\n$$a = b$$\n\nWhy? Predict: which?\n"
    )
    tree = page(cell(opening))
    (notes,) = tree.select("main aside.notes")
    assert words(notes) == "This is said. So it is said too.".split()
    shown = "Round Two sums differ. They are: one $$a = b$$ Why? Predict: which?"
    notes.extract()
    assert words(tree.main) == shown.split()


@pytest.mark.parametrize(
    "text", ["## Round\n\nA.\n\nB.", "**Bold.**\n\nA.", "A.\n\nB."]
)
def test_any_other_cell_stays_whole(text):
    assert page(cell(text)).main.select("aside") == []


@pytest.mark.parametrize(
    ("output", "selector", "text"),
    [
        ({"output_type": "stream", "text": "1 < 2 & 3\n"}, "pre.output", "1 < 2 & 3"),
        (
            {"output_type": "execute_result", "data": {"text/plain": "<a>"}},
            "pre.output",
            "<a>",
        ),
        (
            {
                "output_type": "display_data",
                "data": {"text/plain": "x", "text/markdown": "| a |\n|---|\n| b |"},
            },
            "td",
            "b",
        ),
        (
            {
                "output_type": "display_data",
                "data": {"text/plain": "x", "text/html": "<b>rich</b>"},
            },
            ".rich b",
            "rich",
        ),
        (
            {"output_type": "error", "ename": "E", "evalue": "<no>"},
            "pre.output",
            "<no>",
        ),
    ],
)
def test_an_output_is_shown_in_its_richest_form_after_its_code(output, selector, text):
    tree = page(cell("x", outputs=[output]))
    assert tree.select_one(f".out {selector}").get_text().strip() == text
    assert tree.select_one(".highlight").get_text().strip() == "x"


def test_a_picture_keeps_its_words_for_who_cannot_see_it():
    output = {
        "output_type": "display_data",
        "data": {"image/png": "QUJD\n", "text/plain": "Figure"},
        "metadata": {"image/png": {"alt": 'Bars "from" 1'}},
    }
    (image,) = page(cell("x", outputs=[output])).select("img")
    assert image["alt"] == 'Bars "from" 1'
    assert image["src"] == "data:image/png;base64,QUJD"


def test_links_between_chapters_lead_to_decks():
    tree = page(cell("[a](02_b.ipynb#c) [d](https://e.org/f.ipynb)"))
    links = [link["href"] for link in tree.main.select("a")]
    assert links == ["02_b.html#c", "https://e.org/f.ipynb"]


def test_an_unknown_slide_type_names_its_cell():
    with pytest.raises(InputError, match="cell c0 has the slide type 'silde': choose"):
        page(cell("a", "silde"))


def test_a_notebook_without_slides_is_refused():
    with pytest.raises(InputError, match="no cell is a slide"):
        page(cell("a", "skip"))


def test_without_its_packages_it_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "_ASSETS", {"x.js": ("no-such-package", "x.js")})
    with pytest.raises(InputError, match=r"no-such-package .* -e '\.\[slides\]'"):
        slides.build(PATHS[:1], tmp_path / "decks")
    assert not list(tmp_path.iterdir())


def test_the_index_lists_every_deck_that_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "_ASSETS", {})
    for paths in (PATHS[:2], PATHS[1:2]):
        built = slides.build(paths, tmp_path)
        assert built == [tmp_path / f"{path.stem}.html" for path in paths]
    index = BeautifulSoup((tmp_path / "index.html").read_text(), "html.parser")
    names = [link["href"] for link in index.select("a")]
    assert names == [f"{path.stem}.html" for path in PATHS[:2]]
    assert (tmp_path / "assets" / "deck.js").exists()


@pytest.mark.parametrize(
    ("named", "sentence"),
    [("none.ipynb", "none.ipynb"), ("not_json.ipynb", "it is not JSON")],
)
def test_bad_input_is_one_sentence_and_status_2(
    monkeypatch, tmp_path, capsys, named, sentence
):
    monkeypatch.setattr(door, "FOLDER", tmp_path / "decks")
    (tmp_path / "not_json.ipynb").write_text("{")
    assert door.main([str(tmp_path / named)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "decks").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pages, "_ASSETS", {})
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(door, "FOLDER", tmp_path / "file")
    assert door.main([str(PATHS[0])]) == 2
    err = capsys.readouterr().err
    assert "cannot be written" in err and err.count("\n") == 1


def test_importing_the_door_needs_no_converter():
    program = (
        "import sys, mpteach.slides; "
        "print([one for one in ('nbconvert', 'bs4', 'torch') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
