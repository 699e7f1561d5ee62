"""The book of all chapters as web pages: `make site` builds it in `build/site`.

Each chapter becomes one page: speaker notes and hidden tests go, a solution waits
behind a click, pictures carry their texts. Nothing on a page needs a network.
"""

import copy
import importlib.util
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from mpteach import course, editions
from mpteach.course import ROOT, Chapter, chapters
from mpteach.errors import InputError

OUT = ROOT / "build" / "site"
SHOW = "Show solution"

_INSTALL = "run pip install -c constraints.txt -e '.[site]'"
_MATHJAX = "sphinx-mathjax-offline"
_FIRST = ("Chapters", "Syllabus", "Licence")
_RUN_TITLE = "Run it yourself"
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FOLD = f"<details class=\"solution\">\n<summary>{SHOW}</summary>"
# Numbers of chapters as prose gives them, e.g. "chapters 01, 02 and 04".
_CHAPTERS = re.compile(r"\b[Cc]hapters?\s+\d\d\b(?:(?:,|\s+and|\s+to)\s+\d\d\b)*")
_CODE = re.compile(r"(```.*?```|`[^`]*`)", re.DOTALL)
_CELL_LINK = re.compile(r"\((\d\d)_\w+\.ipynb#cell-id=([\w-]+)\)")
_HIDDEN_TESTS = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS\n.*?^[ \t]*### END HIDDEN TESTS(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
# With the edges goes a stub such as "answer = ..." that stands before a solution.
_SOLUTION_EDGE = re.compile(
    r"^(?:\w+ = \.\.\.\n(?=### BEGIN))?[ \t]*### (?:BEGIN|END) SOLUTION(?:\n|\Z)",
    re.MULTILINE,
)
# What Jupyter stores of a widget such as a VBox says nothing to who cannot run it.
_WIDGET = re.compile(r"[A-Z]\w+\(children=\(")
_SETTINGS = {
    "project": "mpteach",
    "author": "the authors of mpteach",
    "html_title": "Mixed-precision training, computed as you read",
    "language": "en",
    "extensions": ["sphinx.ext.mathjax", "myst_nb"],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_mime_priority_overrides": [("html", "text/html", 0)],
    "nb_render_markdown_format": "myst",
    "nb_merge_streams": True,
    "myst_enable_extensions": ["dollarmath", "amsmath", "colon_fence"],
    "myst_heading_anchors": 3,
    "mathjax_path": "mathjax.js",
    "mathjax3_config": {"options": {"enableMenu": False}},
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "navbar_persistent": [],
        "use_download_button": False,
        "use_fullscreen_button": False,
        "show_toc_level": 2,
    },
    "html_static_path": ["theme"],
    "html_css_files": ["site.css"],
    "html_js_files": ["site.js"],
    "html_context": {"default_mode": "auto"},
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_search_summary": False,
    "html_show_sphinx": False,
}


def page(nb: dict[str, Any], number: str, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the notebook whose page shows chapter `number`; `nb` stays as it is.

    `files` holds the file name of each chapter by its number, as text of two digits:
    where the prose names one of the others, it becomes a link, and links to cells keep
    working. Raises InputError where there is not one title, or a picture has no text.
    """
    nb = copy.deepcopy(nb)
    nb["cells"] = [
        kept for cell in nb["cells"] for kept in _shown(cell, number, files)
    ]
    texts = [cell["source"] for cell in nb["cells"] if cell["cell_type"] == "markdown"]
    titles = [text for text in texts if text.startswith("# ")]
    if len(titles) != 1 or texts[1] != titles[0]:
        raise InputError(
            f"chapter {number} has {len(titles)} titles: begin its first cell, and no "
            "other, with '# '."
        )
    return nb


def title(nb: dict[str, Any]) -> str:
    """Return the title of a page that `page` made: the first line of its first text."""
    return nb["cells"][1]["source"].splitlines()[0].removeprefix("# ")


def readme_pages(
    readme: str, course: Sequence[Chapter], titles: Mapping[str, str]
) -> dict[str, str]:
    """Return the pages in MyST that show the README, by file name.

    The first page has the opening, the chapters, the syllabus and the licence, the
    second all else: how to run the course. `titles` holds each chapter's by its name.
    Raises InputError where the README lacks a section of the first page.
    """
    opening, *sections = re.split(r"^(?=## )", readme, flags=re.MULTILINE)
    named = {text.splitlines()[0].removeprefix("## "): text for text in sections}
    lacking = [name for name in _FIRST if name not in named]
    if lacking:
        raise InputError(f"README.md has no section {lacking[0]!r}: add it back.")
    first = [opening, _table(course), *(named[name] for name in _FIRST[1:])]
    rest = [text for name, text in named.items() if name not in _FIRST]
    entries = [f"{one.name[:2]} {titles[one.name]} <{one.name}>" for one in course]
    tree = ["```{toctree}", ":hidden:", *entries, f"{_RUN_TITLE} <run>", "```\n"]
    elsewhere = {_slug(title) for title in _HEADING.findall("".join(rest))}
    return {
        "index.md": _relinked("".join(first), elsewhere) + "\n" + "\n".join(tree),
        "run.md": _relinked(f"# {_RUN_TITLE}\n\n{''.join(rest)}", elsewhere),
    }


def write_sources(folder: Path) -> int:
    """Write all that Sphinx reads into the empty `folder`; return how many chapters."""
    course = chapters()
    files = {one.name[:2]: one.path.name for one in course}
    titles = {}
    for one in course:
        nb = page(editions.read(one.path), one.name[:2], files)
        titles[one.name] = title(nb)
        editions.write(folder / one.path.name, nb)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in readme_pages(readme, course, titles).items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in ("static/readme.png", "theme/site.css", "theme/site.js"):
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "static" / Path(path).name, folder / path)
    shutil.copy(_mathjax(), folder / "theme" / "mathjax.js")
    return len(course)


def build(out: Path = OUT) -> int:
    """Build the book in `out`, in place of an older one; return how many chapters.

    Raises InputError, and leaves `out` as it was, at the first warning, where Sphinx is
    not installed, and where `out` holds something else than a book.
    """
    out = out.resolve()
    if out.exists() and not (out / "searchindex.js").exists():
        raise InputError(f"{out} is no book: name a folder that is not there yet.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site.") as name:
        scratch = Path(name)
        (scratch / "sources").mkdir()
        count = write_sources(scratch / "sources")
        _run_sphinx(scratch)
        if out.exists():
            out.rename(scratch / "old")
        (scratch / "html").rename(out)
    return count


def main(arguments: list[str]) -> int:
    """Build the book in the folder named, or in build/site; return 2 if it failed."""
    return course.run_builder(_told, arguments, OUT)


def _told(out: Path) -> str:
    return f"{build(out)} chapters: open {out / 'index.html'} in a browser."


def _shown(
    cell: dict[str, Any], number: str, files: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield what the page has for `cell`: nothing, or it and what folds it."""
    if cell["metadata"].get("slideshow", {}).get("slide_type") == "notes":
        return
    marks = cell["metadata"].get("nbgrader", {})
    own = "code" if cell["cell_type"] == "code" else "text"
    if own == "code":
        _prepare_code(cell, number)
        if not cell["source"].strip():
            return
    else:
        cell["source"] = _linked(cell["source"], number, files)
    yield _markdown(f"{cell['id']}-target", f"(cell-{number}-{cell['id']})=")
    if marks.get("solution"):
        yield _markdown(f"{cell['id']}-fold", _FOLD)
    yield cell
    if marks.get("solution"):
        yield _markdown(f"{cell['id']}-end", "</details>")


def _prepare_code(cell: dict[str, Any], number: str) -> None:
    cell["source"] = _SOLUTION_EDGE.sub("", _HIDDEN_TESTS.sub("", cell["source"]))
    cell["outputs"] = [one for one in cell["outputs"] if not _is_dead_widget(one)]
    alts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/markdown" in data:
            data["text/markdown"] = _cells_linked(data["text/markdown"])
        if "image/png" in data:
            alts.append(output["metadata"].get("image/png", {}).get("alt"))
    if alts:
        if len(alts) > 1 or not alts[0]:
            raise InputError(
                f"cell {cell['id']} of chapter {number} shows {len(alts)} pictures: "
                "show one a cell, with style.show and a text for who cannot see it."
            )
        cell["metadata"]["mystnb"] = {"image": {"alt": alts[0]}}


def _is_dead_widget(output: dict[str, Any]) -> bool:
    data = output.get("data", {})
    return list(data) == ["text/plain"] and bool(_WIDGET.match(data["text/plain"]))


def _linked(text: str, number: str, files: Mapping[str, str]) -> str:
    """Return `text` with a link wherever it names another chapter outside of code."""

    def link(found: re.Match) -> str:
        other = found[0]
        known = other in files and other != number
        return f"[{other}]({files[other]})" if known else other

    pieces = _CODE.split(_cells_linked(text))
    for place in range(0, len(pieces), 2):
        pieces[place] = _CHAPTERS.sub(
            lambda found: re.sub(r"\d\d", link, found[0]), pieces[place]
        )
    return "".join(pieces)


def _cells_linked(text: str) -> str:
    return _CELL_LINK.sub(r"(#cell-\1-\2)", text)


def _markdown(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _table(course: Sequence[Chapter]) -> str:
    head = ["## Chapters\n", "| chapter | the question | minutes |", "|---|---|---|"]
    names = [one.name.replace("_", " ") for one in course]
    rows = [
        f"| [{name[:3]}{name[3:].capitalize()}](notebooks/{one.path.name}) "
        f"| {one.question} | {one.minutes} |"
        for name, one in zip(names, course, strict=True)
    ]
    return "\n".join(head + rows) + "\n\n"


def _slug(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _relinked(text: str, elsewhere: Set[str]) -> str:
    """Return README text with its links led to pages of the book, or dropped."""

    def link(found: re.Match) -> str:
        words, target = found.groups()
        if target.startswith("notebooks/"):
            return f"[{words}]({target.removeprefix('notebooks/')})"
        if target.startswith("#"):
            page = "run.md" if target[1:] in elsewhere else "index.md"
            return f"[{words}]({page}{target})"
        return found[0] if "://" in target else words  # what the book does not hold

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, text)


def _mathjax() -> Path:
    found = importlib.util.find_spec(_MATHJAX)
    if found is None:
        raise InputError(f"{_MATHJAX} is not installed: {_INSTALL}.")
    return Path(found.origin).parent / "static" / "mathjax" / "tex-svg.js"


def _run_sphinx(scratch: Path) -> None:
    """Build `scratch/html` from `scratch/sources`, where every warning is an error."""
    try:
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
    except ImportError as error:
        raise InputError(f"Sphinx is not installed ({error}): {_INSTALL}.") from None
    warnings = io.StringIO()
    folders = scratch / "sources", None, scratch / "html", scratch / "doctrees"
    try:
        app = Sphinx(*folders, "html", _SETTINGS, status=None, warning=warnings)
        app.build()
    except SphinxError as error:
        raise InputError(f"the book cannot be built: {error}") from None
    if warnings.getvalue():
        said = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).strip()
        raise InputError(f"the book is not built, Sphinx warns:\n{said}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
