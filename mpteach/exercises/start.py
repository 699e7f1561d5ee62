"""Checkers for the first chapter: units, the doctor's report, and emulation."""

import math
from collections.abc import Callable

import numpy as np

from mpteach.exercises.registry import exercise

GIB = 2**30


def _hint(found: float, right: float, mistakes: dict[str, float], else_say: str) -> str:
    """Return the hint whose wrong result is `found`, "" where `found` is right."""
    for hint, result in {"": right, **mistakes}.items():
        if math.isclose(found, result, rel_tol=1e-6):
            return hint
    return else_say


@exercise("00-0")
def _bits_of_a_byte(answer: int) -> str:
    """The one that the chapter uses to show what `check` says."""
    return "" if answer == 8 else "Count on two hands and leave out the thumbs."


@exercise("00-1")
def _weights_gib(answer: Callable) -> str:
    for weights, bits in ((3_000_000_000, 16), (124_000_000, 32), (1_000, 8)):
        right = weights * bits / 8 / GIB
        mistakes = {
            "That is in GB: which unit has the 'i' in its name?": right * GIB / 10**9,
            "Those are bits: how many of them make a byte?": right * 8,
            "That is in MiB: one more step up.": right * 2**10,
            "Those are bytes: how many of them make a GiB?": right * GIB,
            "You dropped the fraction: small models take less than one.": right // 1,
            "The size must depend on the bits of a number.": weights * 4 / GIB,
        }
        on_paper = f"Try it on paper: {weights:,} weights of {bits} bits, step by step."
        if hint := _hint(answer(weights, bits), right, mistakes, on_paper):
            return hint
    return ""


# Two reports, cut short.
_REPORTS = (
    {
        "gpu": {"problem": "torch sees no GPU"},
        "chapters": [
            {"name": "00_start_here", "minutes": 15, "runs": "live"},
            {"name": "03_why_half", "minutes": 50, "runs": "records"},
            {"name": "08_train_and_compare", "minutes": 60, "runs": "no"},
            {"name": "10_go_to_eight_bits", "minutes": 40, "runs": "records"},
        ],
    },
    {
        "gpu": {"problem": ""},
        "chapters": [
            {"name": "00_start_here", "minutes": 15, "runs": "live"},
            {"name": "03_why_half", "minutes": 50, "runs": "live"},
        ],
    },
)


@exercise("00-2")
def _minutes_from_records(answer: Callable) -> str:
    for report in _REPORTS:
        found = answer(report)
        if isinstance(found, list):
            return "Give one number: the sum of the minutes."
        total = {"live": 0, "records": 0, "no": 0}
        for chapter in report["chapters"]:
            total[chapter["runs"]] += chapter["minutes"]
        right, missing = total["records"], total["no"]
        counted = sum(chapter["runs"] == "records" for chapter in report["chapters"])
        mistakes = {
            "A chapter without its record reads none: leave it out.": right + missing,
            "Those minutes are computed live: you want the others.": total["live"],
            "Those are all chapters: select by 'runs'.": sum(total.values()),
            "You counted chapters: add up their minutes.": counted,
        }
        other = "Use the report that your function is given, not this machine's."
        if hint := _hint(found, right, mistakes, other):
            return hint
    return ""


@exercise("00-3")
def _seconds(answer: Callable) -> str:
    for count, base_ms, ratio in ((2_000, 0.5, 64.0), (300, 2.0, 0.25)):
        base = count * base_ms / 1e3
        right = base * ratio
        mistakes = {
            "Those are milliseconds: the question asks for seconds.": right * 1e3,
            "A ratio above 1 means slower: your time became shorter.": base / ratio,
            "That is the time in float32: the ratio has no effect yet.": base,
            "That is one product: there are several.": right / count,
            "The ratio replaces the time in float32, it adds none.": base + right,
        }
        other = f"Try it by hand: {count} products, {base_ms} ms each, ratio {ratio}."
        if hint := _hint(answer(count, base_ms, ratio), right, mistakes, other):
            return hint
    return ""


# Rows of a, b, c, rounded to float16 before use. In the first one the number of
# roundings and their order change the result; in the second a * b overflows float16,
# in the third the result underflows it.
_FACTORS = np.array(
    [[1.3, 1.6, 3.1], [512.0, 256.0, 0.25], [0.001, 0.001, 0.01], [3.0, -5.0, 7.0]]
)


@exercise("00-4")
def _float16_by_hand(answer: Callable) -> str:
    a, b, c = _rounded(_FACTORS.T)
    found = np.asarray(answer(a, b, c)).astype(np.float32)
    if found.shape != a.shape:
        return "Return an array: one product for each place of a, b and c."
    results = {
        "": _rounded(_rounded(a * b) * c),
        "Nothing is rounded to float16 yet.": a * b * c,
        "One rounding is missing: how is the first product kept?": _rounded(a * b * c),
        "The result must be a float16 value too: round once more.": _rounded(a * b) * c,
        "Mind the order: a times b comes first.": _rounded(a * _rounded(b * c)),
        "The third factor has no effect yet.": _rounded(a * b),
    }
    for hint, result in results.items():
        if np.array_equal(found, result):
            return hint
    return "Go in steps: multiply two, round, multiply by the third, and then?"


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)
