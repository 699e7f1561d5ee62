"""A chapter as a deck: the cells marked slide, fragment and notes, and nothing skipped.

This module turns cells into HTML; `deck.js` lays them out in the browser, where sizes
are known: what does not fit on one slide goes on to the next.
"""

import html
import re
from collections.abc import Iterable, Iterator
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

from mpteach import editions
from mpteach.course import ROOT
from mpteach.errors import InputError
from mpteach.files import write_atomically

FOLDER = ROOT / "build" / "slides"
# What the packages of the extra `slides` carry, by the name it gets beside the decks.
_ASSETS = {
    "reveal.js": ("sphinx-revealjs", "sphinx_revealjs/_static/revealjs/dist/reveal.js"),
    "reveal.css": (
        "sphinx-revealjs",
        "sphinx_revealjs/_static/revealjs/dist/reveal.css",
    ),
    "notes.js": (
        "sphinx-revealjs",
        "sphinx_revealjs/_static/revealjs/plugin/notes/notes.js",
    ),
    "tex-svg.js": (
        "sphinx-mathjax-offline",
        "sphinx-mathjax-offline/static/mathjax/tex-svg.js",
    ),
}
_OWN_ASSETS = ("deck.css", "deck.js")
_INSTALL = "run pip install -c constraints.txt -e '.[slides]'"
_DISPLAYED = ("$$", r"\begin", r"\[")
_STARTS = ("slide", "subslide")
_KINDS = (*_STARTS, "fragment", "notes", "skip", "-")
HIDDEN = "hide-input"


def build(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Write the deck of each notebook, its assets and an index into `folder`.

    Returns the decks' files. Raises InputError for a notebook that is not sound, or
    where the extra `slides` is not installed; OSError where `folder` cannot be written.
    """
    decks = {path: deck(editions.read(path)) for path in map(Path, paths)}
    assets = dict(_assets())
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    for name, content in assets.items():
        write_atomically(folder / "assets" / name, content)
    for path, text in decks.items():
        write_atomically(folder / f"{path.stem}.html", text.encode())
    built = sorted(folder.glob("[0-9][0-9]_*.html"))
    write_atomically(folder / "index.html", _index(built).encode())
    return [folder / f"{path.stem}.html" for path in decks]


def deck(nb: dict[str, Any]) -> str:
    """Return the page of the deck of notebook `nb`, as `editions.read` gives it.

    Answers and checks of exercises are left out, whatever their slide type; of a cell
    with the tag `HIDDEN` what it shows is there, and its code is not.
    Raises InputError for a slide type that is none, and where nothing is a slide.
    """
    sections: list[list[str]] = []
    for cell in nb["cells"]:
        kind = cell["metadata"].get("slideshow", {}).get("slide_type") or "-"
        if kind not in _KINDS:
            raise InputError(
                f"cell {cell['id']} has the slide type {kind!r}: choose one of "
                f"{', '.join(_KINDS)}."
            )
        if kind == "skip" or cell["metadata"].get("nbgrader"):
            continue
        if kind in _STARTS or not sections:
            sections.append([])
        sections[-1].append(_wrapped(cell, kind))
    if not sections:
        raise InputError("no cell is a slide: give one the slide type 'slide'.")
    return _page(_named(nb), sections)


def _page(name: str, sections: list[list[str]]) -> str:
    body = "\n".join(f"<section>\n{''.join(cells)}</section>" for cells in sections)
    template = _file("deck.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=html.escape(name), body=body)


def _named(nb: dict[str, Any]) -> str:
    """Return the text of the notebook's first heading."""
    texts = "\n".join(one["source"] for one in nb["cells"])
    found = re.search(r"^# (.+)$", texts, re.M)
    return found[1].strip() if found else "Slides"


def _wrapped(cell: dict[str, Any], kind: str) -> str:
    content = _cell(cell)
    if kind == "notes":
        return f'<aside class="notes">{content}</aside>\n'
    classes = "cell fragment" if kind == "fragment" else "cell"
    return f'<div class="{classes}" id="{html.escape(cell["id"])}">{content}</div>\n'


def _cell(cell: dict[str, Any]) -> Any:
    """Return the cell's content as a tree of HTML."""
    if cell["cell_type"] == "code":
        code, shown = _code(cell["source"]), "".join(map(_output, cell["outputs"]))
        if not shown:
            return _tree(code)
        if HIDDEN in cell["metadata"].get("tags", []):
            return _tree(f'<div class="out">{shown}</div>')
        return _tree(f'{code}<div class="fragment out">{shown}</div>')
    if cell["cell_type"] == "raw":
        return _tree(f"<pre>{html.escape(cell['source'])}</pre>")
    tree = _tree(_markdown(cell["source"]))
    spoken = list(_spoken(tree))
    if spoken:
        notes = _tree('<aside class="notes"></aside>')
        for paragraph in spoken:
            notes.aside.append(paragraph.extract())
        tree.append(notes.aside)
    return tree


def _spoken(tree: Any) -> Iterator[Any]:
    """Yield the paragraphs of a section's opening that the lecturer says.

    Its heading, its bold sentence, its question, lists, tables and formulas stay for
    all to see; other cells stay whole.
    """
    lead = tree.select_one("h2 ~ p > strong:first-child")
    if lead is None:
        return
    for paragraph in tree.find_all("p", recursive=False):
        text = paragraph.get_text().strip()
        after = paragraph.find_next_sibling()
        leads_on = text.endswith(":") and after is not None and after.name != "p"
        bold = paragraph.strong
        is_lead = bold is not None and text.startswith(bold.get_text().strip())
        is_formula = text.startswith(_DISPLAYED)
        if not (is_lead or leads_on or is_formula or "Predict" in text):
            yield paragraph


def _markdown(text: str) -> str:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return markdown2html_mistune(text)


def _code(source: str) -> str:
    from nbconvert.filters import Highlight2HTML

    return Highlight2HTML()(source)


def _output(output: dict[str, Any]) -> str:
    """Return one output as HTML: the richest form that needs no kernel."""
    data = output.get("data", {})
    if output["output_type"] == "error":
        return f'<pre class="output">{html.escape(output["evalue"])}</pre>'
    if "text/html" in data:
        return f'<div class="rich">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return f'<div class="rich">{_markdown(data["text/markdown"])}</div>'
    if "image/svg+xml" in data:
        return f'<div class="rich">{data["image/svg+xml"]}</div>'
    if "image/png" in data:
        alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
        encoded = "".join("".join(data["image/png"]).split())
        return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{encoded}">'
    text = output.get("text", data.get("text/plain", ""))
    return f'<pre class="output">{html.escape(text)}</pre>'


def _tree(text: str) -> Any:
    """Return `text` parsed, without anchors; links to chapters lead to their decks."""
    from bs4 import BeautifulSoup

    tree = BeautifulSoup(text, "html.parser")
    for anchor in tree.select("a.anchor-link"):
        anchor.decompose()
    for link in tree.select('a[href*=".ipynb"]'):
        link["href"] = re.sub(r"^([\w-]+)\.ipynb", r"\1.html", link["href"])
    return tree


def _assets() -> Iterator[tuple[str, bytes]]:
    for name, (package, inside) in _ASSETS.items():
        try:
            file = metadata.distribution(package).locate_file(inside)
            yield name, Path(file).read_bytes()
        except (metadata.PackageNotFoundError, FileNotFoundError):
            raise InputError(
                f"{package} is not installed or lacks {inside}: {_INSTALL}."
            ) from None
    for name in _OWN_ASSETS:
        yield name, _file(name).read_bytes()


def _file(name: str) -> Any:
    return resources.files("mpteach.slides").joinpath(name)


def _index(built: list[Path]) -> str:
    links = "\n".join(
        f'<li><a href="{path.name}">{path.stem.replace("_", " ")}</a></li>'
        for path in built
    )
    template = _file("index.html").read_text(encoding="utf-8")
    return Template(template).substitute(links=links)
