"""Checkers of autocast: right answers pass, wrong ones get their hint."""

import math

import torch

from mpteach.rounding import round_to

TOUCHED = ("float16", "bfloat16", "float32")


def arrives(rule, dtypes, half):
    eligible = [dtype for dtype in dtypes if dtype in TOUCHED]
    if rule == "as given" or not eligible:
        return dtypes
    to = {"16-bit": half, "float32": "float32"}.get(rule)
    if to is None:
        to = "float32" if "float32" in eligible else half
    return [to if dtype in TOUCHED else dtype for dtype in dtypes]


def to_one(rule, dtypes, half):
    """Casts all that comes in, whatever it is."""
    to = {"16-bit": half, "float32": "float32"}.get(rule)
    if rule == "widest":
        to = "float32" if "float32" in dtypes else half
    return [to or dtype for dtype in dtypes]


def weight_casts(uses, passes, regions, cached):
    if cached:
        return regions * sum(1 for use in uses if use)
    return passes * regions * sum(uses)


def but_cached(wrong):
    """An answer that is right without the cache, and `wrong` with it."""
    return lambda u, p, r, c: wrong(u, p, r) if c else weight_casts(u, p, r, c)


def shared(parts, cached):
    total = torch.zeros((), dtype=torch.bfloat16 if cached else torch.float32)
    for part in parts:
        total = total + torch.tensor(part).bfloat16()
    return total.item()


def shared_by_round_to(parts, cached):
    total = 0.0
    for part in parts:
        total = round_to(total + round_to(part, "bfloat16"), "bfloat16")
    return total if cached else sum(round_to(part, "bfloat16") for part in parts)


def bf16(x):
    return float(round_to(x, "bfloat16"))


def exact_parts(parts, cached):
    """Forgets that each part is 16-bit before they meet."""
    total = 0.0
    for part in parts:
        total = bf16(total + part) if cached else total + part
    return total


RIGHT = {
    "06-1": [arrives],
    "06-2": [weight_casts],
    "06-3": [
        lambda inputs, outputs: outputs + 1,
        lambda i, o: next(n for n in range(9999) if 2 * n * i + 2 * i * o < 4 * n * i),
    ],
    "06-4": [shared, shared_by_round_to],
}

WRONG = {
    "06-1": [
        (to_one, "never touch"),
        (lambda r, d, h: [h] * len(d), "never touch"),
        (lambda r, d, h: ["float32" for _ in d], "casts to one dtype"),
        (lambda r, d, h: d, "casts to one dtype"),
        (lambda r, d, h: arrives(r, d, h)[:1], "one dtype for each input"),
        (
            lambda r, d, h: arrives("16-bit" if r == "widest" else r, d, h),
            "look at all inputs",
        ),
        (
            lambda r, d, h: arrives("float32" if r == "widest" else r, d, h),
            "look at all inputs",
        ),
        (
            lambda r, d, h: arrives("widest" if r == "as given" else r, d, h),
            "left alone",
        ),
        (
            lambda r, d, h: arrives("as given" if r == "widest" else r, d, h),
            "all inputs",
        ),
        (
            lambda r, d, h: [h if x == "float32" else x for x in d],
            "casts to one dtype",
        ),
    ],
    "06-2": [
        (lambda u, p, r, c: sum(u) * p * r, "how long does one copy serve"),
        (lambda u, p, r, c: len(u), "where a region ends"),
        (but_cached(lambda u, p, r: len(u)), "where a region ends"),
        (but_cached(lambda u, p, r: len(u) * r), "nothing uses"),
        (but_cached(lambda u, p, r: sum(1 for x in u if x)), "where a region ends"),
        (but_cached(lambda u, p, r: sum(u) * r), "how long"),
        (but_cached(lambda u, p, r: len(u) * p * r), "how long"),
        (lambda u, p, r, c: weight_casts(u, p, 1, c), "where a region ends"),
        (lambda u, p, r, c: weight_casts(u, p, r, not c), "how long"),
        (lambda u, p, r, c: weight_casts(u, 1, r, c), "a copy of its own"),
    ],
    "06-3": [
        (lambda i, o: o, "not fewer"),
        (lambda i, o: i + 1, "not fewer"),
        (lambda i, o: 2 * o + 1, "fewer tokens do"),
        (lambda i, o: o / 2 + 1, "whole number"),
        (lambda i, o: i * o, "not fewer"),
        (lambda i, o: max(i, o) + 1, "fewer tokens do"),
        (lambda i, o: 0, "whole number"),
        (lambda i, o: math.inf if i > o else o + 1, "cannot be used"),
    ],
    "06-4": [
        (lambda parts, cached: sum(parts), "where do the parts meet"),
        (lambda parts, cached: bf16(sum(parts)), "in turn"),
        (lambda p, c: shared(p, not c), "before or after"),
        (lambda p, c: shared(p, True), "in which dtype do they meet"),
        (lambda p, c: shared(p, False), "before or after"),
        (lambda p, c: shared(p, c) if c else sum(p), "product return"),
        (lambda p, c: bf16(sum(p)) if c else shared(p, c), "in turn"),
        (exact_parts, "product return"),
        (lambda p, c: shared(p, c) / len(p), "by hand"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "06-1": ["float64 and", "integers"],
    "06-2": ["len(", "sum(", "* regions"],
    "06-3": ["outputs + 1", "outputs +"],
    "06-4": ["bfloat16(", "round_to", "256 "],
}
