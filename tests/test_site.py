"""The copy step of the book: what a page keeps of its notebook and of the README."""

import copy
import re

import pytest

from mpteach import editions, site
from mpteach.course import ROOT, chapters
from mpteach.errors import InputError

FILES = {one.name[:2]: one.path.name for one in chapters()}
README = (ROOT / "README.md").read_text(encoding="utf-8")
TITLES = {one.name: one.name for one in chapters()}


def text(name: str, source: str, **metadata) -> dict:
    return {"cell_type": "markdown", "id": name, "metadata": metadata, "source": source}


def code(name: str, source: str, *outputs: dict, **metadata) -> dict:
    return text(name, source, **metadata) | {
        "cell_type": "code",
        "outputs": list(outputs),
        "execution_count": 1,
    }


def picture(alt: str | None) -> dict:
    metadata = {"image/png": {"alt": alt}} if alt is not None else {}
    data = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def notebook(*cells: dict) -> dict:
    cells = [text("title", "# A title\n\nWords."), *cells]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def page_of(*cells: dict) -> list[dict]:
    """Return the cells of the page after those of the title."""
    nb = notebook(*cells)
    before = copy.deepcopy(nb)
    page = site.page(nb, "04", FILES)
    assert nb == before, "the notebook was changed"
    assert [cell["source"] for cell in page["cells"][:2]] == [
        "(cell-04-title)=",
        "# A title\n\nWords.",
    ]
    return page["cells"][2:]


def sources(*cells: dict) -> list[str]:
    return [cell["source"] for cell in page_of(*cells)]


def test_every_cell_can_be_linked_to_and_speaker_notes_go():
    notes = text("said", "Say this.", slideshow={"slide_type": "notes"})
    assert sources(text("a", "A."), notes, code("b", "1 + 1")) == [
        "(cell-04-a)=",
        "A.",
        "(cell-04-b)=",
        "1 + 1",
    ]


def test_a_solution_is_folded_and_has_lost_its_marks():
    answer = code(
        "answer",
        "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION",
        nbgrader={"solution": True},
    )
    target, fold, kept, end = sources(answer)
    assert fold == '<details class="solution">\n<summary>Show solution</summary>'
    assert (kept, end) == ("def f(x):\n    return x\n", "</details>")


def test_a_stub_goes_where_the_solution_follows_it():
    stub = "n = ...\n### BEGIN SOLUTION\nn = 7\n### END SOLUTION"
    other = "m = ...\nk = 1\n### BEGIN SOLUTION\nk = 2\n### END SOLUTION"
    assert sources(code("a", stub), code("b", other))[1::2] == [
        "n = 7\n",
        "m = ...\nk = 1\nk = 2\n",
    ]


@pytest.mark.parametrize(
    ("shown", "stays"),
    [
        ("VBox(children=(Text(value='conv'), HTML(value='<pre>", False),
        ("GPT(children=[1])", True),
        ("16", True),
    ],
)
def test_a_widget_that_needs_a_kernel_is_left_out(shown, stays):
    data = {"text/plain": shown}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    (_, cell) = page_of(code("a", "display(box)", output))
    assert len(cell["outputs"]) == stays


def test_a_written_answer_is_folded_too():
    answer = text("answer", "It depends.", nbgrader={"solution": True, "grade": True})
    assert sources(answer)[1:] == [site._FOLD, "It depends.", "</details>"]


def test_hidden_tests_go_and_so_does_a_cell_of_nothing_else():
    hidden = "### BEGIN HIDDEN TESTS\nassert f(3) == 3\n### END HIDDEN TESTS"
    mixed = f"check(1, f)\n{hidden}\nprint(1)"
    assert sources(code("a", hidden), code("b", mixed))[1:] == [
        "check(1, f)\nprint(1)"
    ]


def test_a_picture_carries_its_text():
    (_, cell) = page_of(code("a", "show()", picture("A line that falls.")))
    assert cell["metadata"]["mystnb"] == {"image": {"alt": "A line that falls."}}


@pytest.mark.parametrize(
    "outputs", [[picture(None)], [picture("")], [picture("A.")] * 2]
)
def test_a_picture_without_a_text_of_its_own_is_refused(outputs):
    with pytest.raises(InputError, match=r"cell a of chapter 04 shows \d pictures"):
        page_of(code("a", "show()", *outputs))


@pytest.mark.parametrize("extra", ["# Another title", "# Another\n\nAnd words."])
def test_a_chapter_has_one_title_and_begins_with_it(extra):
    with pytest.raises(InputError, match="chapter 04 has 2 titles"):
        site.page(notebook(text("a", extra)), "04", FILES)
    late = notebook(text("a", "Words."))
    late["cells"].reverse()
    with pytest.raises(InputError, match="begin its first cell"):
        site.page(late, "04", FILES)
    late["cells"].pop()
    with pytest.raises(InputError, match="chapter 04 has 0 titles"):
        site.page(late, "04", FILES)


BITS, ROUND = "01_read_the_bits.ipynb", "02_round_and_lose.ipynb"


@pytest.mark.parametrize(
    ("prose", "linked"),
    [
        ("as chapter 01 shows", f"as chapter [01]({BITS}) shows"),
        ("Chapter\n01's eps", f"Chapter\n[01]({BITS})'s eps"),
        (
            "chapters 01, 02 and 04: eps",
            f"chapters [01]({BITS}), [02]({ROUND}) and 04: eps",
        ),
        ("chapters 01 to 02.", f"chapters [01]({BITS}) to [02]({ROUND})."),
        ("in chapter 04 itself", "in chapter 04 itself"),
        ("a chapter 77 that is not there", "a chapter 77 that is not there"),
        ("`chapter 01` is code", "`chapter 01` is code"),
        ("```\nchapter 01\n```", "```\nchapter 01\n```"),
        ("exercise 01-2, chapter 0123", "exercise 01-2, chapter 0123"),
        (f"[x]({BITS}#cell-id=a-b)", "[x](#cell-01-a-b)"),
    ],
)
def test_the_name_of_another_chapter_is_a_link(prose, linked):
    assert sources(text("a", prose))[1] == linked


def test_links_in_a_printed_table_lead_to_cells():
    table = {
        "output_type": "display_data",
        "data": {"text/markdown": f"| [01, x]({BITS}#cell-id=x) |"},
        "metadata": {},
    }
    (_, cell) = page_of(code("a", "display(table)", table))
    assert cell["outputs"][0]["data"]["text/markdown"] == "| [01, x](#cell-01-x) |"


@pytest.mark.parametrize("chapter", chapters(), ids=lambda one: one.name)
def test_a_chapter_makes_a_page(chapter):
    nb = editions.read(chapter.path)
    page = site.page(nb, chapter.name[:2], FILES)
    first = nb["cells"][0]["source"].splitlines()[0]
    assert site.title(page) == first.removeprefix("# ")
    marks = [cell["metadata"].get("nbgrader", {}) for cell in nb["cells"]]
    answers = [one for one in marks if one.get("solution")]
    shown = [cell["source"] for cell in page["cells"]]
    assert shown.count(site._FOLD) == shown.count("</details>") == len(answers) > 3
    assert not re.search("### (BEGIN|END)", "\n".join(shown))


def test_the_readme_becomes_two_pages_with_links_of_their_own():
    pages = site.readme_pages(README, chapters(), TITLES)
    index, run = pages["index.md"], pages["run.md"]
    whole = index + run
    for one in chapters():
        assert f"({one.path.name}) | {one.question} | {one.minutes} |" in index
        assert f"{one.name[:2]} {one.name} <{one.name}>" in index
    # All of its sections, each once.
    titles = re.findall(r"^## .+$", README, re.M)
    assert [whole.count(f"\n{title}\n") for title in titles] == [1] * len(titles)
    targets = re.findall(r"\]\(([^)\s]+)\)", whole)
    pictures = [target for target in targets if target == "static/readme.png"]
    assert pictures == ["static/readme.png"]
    allowed = r"static/readme\.png|\d\d_\w+\.ipynb|(run|index)\.md#[\w-]+|https://.*"
    assert [one for one in targets if not re.fullmatch(allowed, one)] == []
    for target in targets:
        page, _, slug = target.partition("#")
        if slug:
            headings = re.findall(r"^#+ (.+)$", pages[page], re.M)
            assert slug in map(site._slug, headings), target


@pytest.mark.parametrize("name", ["Chapters", "Syllabus", "Licence"])
def test_a_readme_without_a_section_of_the_first_page_is_refused(name):
    with pytest.raises(InputError, match=f"no section '{name}'"):
        site.readme_pages(README.replace(f"## {name}\n", ""), chapters(), TITLES)


def test_what_is_no_book_is_not_replaced(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert site.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"mpteach: {tmp_path} is no book: name a folder that is not there yet.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_package_that_is_not_installed_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(site.importlib.util, "find_spec", lambda name: None)
    assert site.main([str(tmp_path / "site")]) == 2
    err = capsys.readouterr().err
    assert err == (
        "mpteach: sphinx-mathjax-offline is not installed: "
        "run pip install -c constraints.txt -e '.[site]'.\n"
    )
    assert list(tmp_path.iterdir()) == []
