"""What every notebook must keep to, each breach said in a sentence that names the cell.

`violations(nb, name)` takes a notebook as `editions.read` gives it and its file name.
"""

import ast
import io
import json
import re
import statistics
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

from mpteach import editions
from mpteach.course import ROOT
from mpteach.style import SMALLEST_TYPE
from tests.exercise_rules import answers_stay_local, exercises_complete
from tests.notebook_budgets import (
    LARGEST_BYTES,
    LONGEST_LINE,
    MEDIAN_LINES,
    MOST_LINES,
)
from tests.notebook_cells import Cell, Notebook, Section, called, top_calls
from tests.prose_numbers import is_fact, is_shown, numbers, typed_numbers

FACTS = ROOT / "static" / "facts.json"
CLOSING = ("Sum up", "Practise", "Sources")
# What the opening says, and the words of which one stands in bold where it says so.
OPENING = {
    "what the reader will do": ("do",),
    "what the reader will learn": ("learn",),
    "what the reader needs": ("need", "needs"),
    "how many minutes it takes": ("minutes", "time"),
    "where it runs": ("run", "runs"),
}
ABOUT = {"question": str, "minutes": int, "live": str, "gpu": str, "records": list}
SLIDE_TYPES = {"slide", "subslide", "fragment", "notes", "skip"}
REFUSED_TAGS = {
    "nbval-skip",
    "nbval-raises-exception",
    "raises-exception",
    "skip-execution",
}
REFUSED_WIDGETS = {
    "interact",
    "interact_manual",
    "interactive",
    "interactive_output",
    "Output",
}
SHOWS = {"print", "check", "show_source", "display", "show"}
ID = re.compile(r"(?![0-9a-f]{8}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}|\b0x(?:7f|5[5-6])[0-9a-f]{10}\b")
WARNING = re.compile(r"\b\w*Warning:")
PATH = re.compile(
    r"(?<![\w.~])/(?:home|Users|root|tmp|var|work|opt|usr|private|mnt|content)/[\w.]|\b[A-Z]:\\\w"
)
BARE_OBJECT = re.compile(r"\[?<|(?:Text|Annotation)\(")
BOLD_RESULT = re.compile(r"^\*\*[^*]*[.!?]\*\*", re.MULTILINE)
PREDICT = re.compile(r"^[*_]{0,3}Predict:", re.MULTILINE)


Rule = Callable[[Notebook], Iterator[str]]
RULES: list[Rule] = [exercises_complete, answers_stay_local]


def violations(nb: dict[str, Any], name: str) -> list[str]:
    """Return a sentence for each breach of a rule in `nb`, named `name`."""
    notebook = Notebook(name, nb)
    return [f"{name}, {sentence}" for rule in RULES for sentence in rule(notebook)]


def _rule(rule: Rule) -> Rule:
    RULES.append(rule)
    return rule


@_rule
def executed_in_order(nb: Notebook) -> Iterator[str]:
    """Every code cell has run, once, in order, and what it showed is stored."""
    for place, cell in enumerate(nb.code, start=1):
        count = cell.raw["execution_count"]
        if count is None:
            yield f"{cell.where} has not been executed: run make notebooks."
        elif count != place:
            yield (
                f"{cell.where} ran out of order ({count} instead of {place}): run make "
                "notebooks."
            )
        if not cell.outputs and any(
            called(call) in SHOWS for call in top_calls(cell.tree)
        ):
            yield (
                f"{cell.where} shows something but stores no output: run make "
                "notebooks."
            )


@_rule
def plain_python(nb: Notebook) -> Iterator[str]:
    """Code is Python without magics, and without `;`, which nbval does not honour."""
    for cell in nb.code:
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            yield (
                f"{cell.where} is not plain Python (line {error.lineno}: {error.msg})."
            )
            continue
        if not tree.body:
            yield f"{cell.where} holds no code: remove it."
        tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
        if any(token.type == tokenize.OP and token.string == ";" for token in tokens):
            yield f"{cell.where} has a semicolon: write '_ =' to drop a value."


@_rule
def clean_outputs(nb: Notebook) -> Iterator[str]:
    """No errors, stderr, warnings, addresses, bare objects or paths of a machine."""
    for cell in nb.code:
        for out in cell.outputs:
            if out["output_type"] == "error":
                yield (
                    f"{cell.where} stores an error ({out['ename']}): a chapter must "
                    "not fail."
                )
            if out.get("name") == "stderr":
                yield (
                    f"{cell.where} writes to stderr ({out['text'].strip():.60}): nbval "
                    "fails on it."
                )
            if out["output_type"] == "execute_result" and out not in cell.images:
                value = out["data"].get("text/plain", "")
                if BARE_OBJECT.match(value):
                    yield (
                        f"{cell.where} ends in a bare object ({value:.40}): write '_ "
                        "='."
                    )
        yield from _unwanted_text(cell)


def _unwanted_text(cell: Cell) -> Iterator[str]:
    text = "\n".join(
        [
            cell.printed,
            *(
                out["data"].get("text/html", "")
                for out in cell.outputs
                if "data" in out
            ),
        ]
    )
    if found := WARNING.search(text):
        yield f"{cell.where} prints a warning ({found.group()}): remove its cause."
    if found := ADDRESS.search(text):
        yield (
            f"{cell.where} prints a memory address ({found.group()}): it changes in "
            "every run."
        )
    if found := PATH.search(text) or PATH.search(cell.source):
        yield (
            f"{cell.where} names a path of one machine ({found.group()}...): make it "
            "relative."
        )


@_rule
def no_unreadable_widgets(nb: Notebook) -> Iterator[str]:
    """`interact` and `Output` keep what they show where nbval cannot read it."""
    for cell in nb.code:
        used = {
            getattr(node, "attr", getattr(node, "id", ""))
            for node in ast.walk(cell.tree)
        }
        for name in sorted(used & REFUSED_WIDGETS):
            yield f"{cell.where} uses {name}: take a slider with observe instead."


@_rule
def short_cells(nb: Notebook) -> Iterator[str]:
    """Cells hold what is taught: few lines, none too wide for a slide."""
    lengths = [len(cell.lines) for cell in nb.code]
    for cell, length in zip(nb.code, lengths, strict=True):
        if length > MOST_LINES:
            yield f"{cell.where} has {length} lines of code: at most {MOST_LINES}."
        for number, line in enumerate(cell.lines, start=1):
            if len(line) > LONGEST_LINE:
                yield (
                    f"{cell.where} has {len(line)} characters in line {number}: "
                    f"at most {LONGEST_LINE}."
                )
    middle = statistics.median(lengths or [0])
    if middle > MEDIAN_LINES:
        longest = nb.code[lengths.index(max(lengths))].where
        yield (
            f"the median of its code cells is {middle:g} lines, at most "
            f"{MEDIAN_LINES}: shorten {longest} and others."
        )


@_rule
def canonical(nb: Notebook) -> Iterator[str]:
    """Stored as `make notebooks` does it, under ids that stay, in under a megabyte."""
    seen: set[str] = set()
    for cell in nb.cells:
        name = cell.raw.get("id", "")
        if not ID.fullmatch(name) or len(name) > 64:
            yield (
                f"{cell.where} has a random id: name it in lowercase words, like "
                "'bits-layout'."
            )
        if name in seen:
            yield (
                f"{cell.where} has an id that another cell has: give it one of its own."
            )
        seen.add(name)
    if nb.size_bytes >= LARGEST_BYTES:
        largest = max(nb.cells, key=lambda cell: len(json.dumps(cell.raw)))
        yield (
            f"it takes {nb.size_bytes:,} bytes, most of them in {largest.where}: stay "
            f"under {LARGEST_BYTES:,}."
        )
    form = editions.canonicalise(nb.raw)
    for cell, stored in zip(nb.cells, form["cells"], strict=True):
        if cell.raw != stored:
            yield f"{cell.where} is not in canonical form: run make notebooks."
    if {**nb.raw, "cells": []} != {**form, "cells": []}:
        yield (
            "its metadata are not in canonical form (kernel, language, widgets): run "
            "make notebooks."
        )


@_rule
def figures_speak(nb: Notebook) -> Iterator[str]:
    """A figure cell prints what it rests on, says what it shows, and can be read."""
    for cell in nb.code:
        if cell.images and not re.search(
            r"\d", "".join(out.get("text", "") for out in cell.outputs)
        ):
            yield (
                f"{cell.where} draws a figure and prints no number: print what it "
                "rests on."
            )
        for out in cell.images:
            for kind in sorted(
                kind for kind in out["data"] if kind.startswith("image/")
            ):
                alt = out.get("metadata", {}).get(kind, {}).get("alt", "")
                if len(alt.split()) < 3:
                    yield (
                        f"{cell.where} has a picture without alt text: use "
                        "style.show(fig, alt)."
                    )
            told = out.get("metadata", {}).get("image/png", {})
            points = told.get("smallest_type") or SMALLEST_TYPE
            if points < SMALLEST_TYPE:
                yield (
                    f"{cell.where} has type of {points:g} points in its figure: at "
                    f"least {SMALLEST_TYPE}, or a back row cannot read it."
                )


@_rule
def opening_complete(nb: Notebook) -> Iterator[str]:
    """One title; then what to do, learn and need, the minutes, and where it runs."""
    titles = [
        cell
        for cell in nb.cells
        if not cell.is_code and re.search(r"^# ", _unfenced(cell), re.M)
    ]
    first = nb.cells[0]
    if titles != [first] or not first.source.startswith("# "):
        yield f"{first.where} must start with the notebook's one title ('# ...')."
    bold = [
        set(re.findall(r"[a-z]+", text.lower())) for text in _bold(nb.sections[0].prose)
    ]
    for what, words in OPENING.items():
        if not any(set(words) & said for said in bold):
            yield (
                f"{first.where}: the opening does not say in bold {what} "
                f"('{words[0]}')."
            )


def _unfenced(cell: Cell) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.DOTALL | re.MULTILINE)


def _bold(text: str) -> list[str]:
    return re.findall(r"\*\*(.+?)\*\*", text, re.DOTALL)


@_rule
def sections_complete(nb: Notebook) -> Iterator[str]:
    """Sections have a result, a prediction, then code; the last three close."""
    for cell in nb.cells:
        if not cell.is_code and re.search(r"\n## ", _unfenced(cell)):
            yield (
                f"{cell.where} holds a '##' heading further down: start a cell with it."
            )
    titles = tuple(section.title for section in nb.sections)
    if titles[-3:] != CLOSING:
        yield (
            f"{nb.cells[-1].where} does not close the notebook: end with "
            f"{', '.join(CLOSING)}."
        )
    for section in nb.sections[1:]:
        if section.title not in CLOSING:
            yield from _incomplete(section)


def _incomplete(section: Section) -> Iterator[str]:
    head = section.cells[0].where
    if not BOLD_RESULT.search(section.prose):
        yield f"{head}: section '{section.title}' has no result in a bold sentence."
    predicts = [
        cell.index
        for cell in section.cells
        if not cell.is_code and PREDICT.search(cell.source)
    ]
    if not predicts:
        yield (
            f"{head}: section '{section.title}' asks for no prediction ('Predict: "
            "...')."
        )
    elif not any(cell.index > predicts[0] for cell in section.code):
        yield f"{head}: section '{section.title}' has no code after its prediction."


@_rule
def metadata_complete(nb: Notebook) -> Iterator[str]:
    """The notebook says what it answers and needs; each cell its place on a slide."""
    about = nb.raw["metadata"].get("mpteach", {})
    for key, kind in ABOUT.items():
        if not isinstance(about.get(key), kind) or (about[key] == "" and key != "gpu"):
            yield (
                f"its metadata.mpteach.{key} must be a {kind.__name__}, not "
                f"{about.get(key)!r}."
            )
    if isinstance(about.get("minutes"), int):
        minutes = str(about["minutes"])
        if minutes not in re.findall(r"\d+", nb.sections[0].prose):
            yield (
                f"{nb.cells[0].where}: the opening does not say {minutes} minutes, as "
                "metadata do."
            )
    for cell in nb.cells:
        kind = cell.raw["metadata"].get("slideshow", {}).get("slide_type")
        if kind not in SLIDE_TYPES:
            yield (
                f"{cell.where} has slide type {kind!r}: one of "
                f"{', '.join(sorted(SLIDE_TYPES))}."
            )


@_rule
def nothing_skipped(nb: Notebook) -> Iterator[str]:
    """Live cells assert what they claim; no other cell escapes the comparison."""
    for cell in nb.code:
        for tag in sorted(cell.tags & REFUSED_TAGS):
            yield f"{cell.where} has the tag {tag}: nothing is skipped."
        if re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)", cell.source, re.IGNORECASE):
            yield (
                f"{cell.where} steers nbval by a comment: use the tag "
                f"{editions.LIVE_TAG}."
            )
        asserts = any(isinstance(node, ast.Assert) for node in ast.walk(cell.tree))
        if cell.is_live and not asserts:
            yield f"{cell.where} is tagged {editions.LIVE_TAG} and asserts nothing."


@_rule
def numbers_are_shown(nb: Notebook) -> Iterator[str]:
    """A number in prose stands in an output of its section, or is a sourced fact.

    The opening and the summary may repeat any output of the notebook. Live outputs
    change from run to run, so no prose can rest on them.
    """
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    for section in nb.sections:
        pool = nb.code if section.title in ("", CLOSING[0]) else section.code
        texts = [cell.printed for cell in pool if not cell.is_live]
        shown = [number for text in texts for number in numbers(text)]
        for cell in section.cells:
            for number in () if cell.is_code else typed_numbers(cell.source):
                if not is_shown(number, shown) and not is_fact(number, facts):
                    yield (
                        f"{cell.where} says '{number.text}', which no output of "
                        f"section '{section.title}' shows: print it there, or give "
                        "its source in static/facts.json."
                    )
