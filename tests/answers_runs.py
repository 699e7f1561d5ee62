"""The comparison's checkers: right answers pass, plausible wrong ones get their hint."""

import math
import statistics

import numpy as np


def kept(gradients, scale):
    with np.errstate(over="ignore"):
        half = (gradients * scale).astype(np.float16)
    return np.isfinite(half).all() and ((half == 0) == (gradients == 0)).all()


def smallest_scale(gradients, highest=40, start=0):
    for k in range(start, highest + 1):
        if kept(gradients, 2.0**k):
            return 2.0**k
    return 0


def all_kept(gradients):
    """Loses sight of zeros: none of them can be kept from being zero."""
    return smallest_scale(gradients) if gradients.all() else 0


def by_formula(gradients):
    """The same answer without a search: what must be lifted above 2^-25, what stays under."""
    sizes = np.abs(gradients[gradients != 0])
    k = 0
    while sizes.min() * 2.0**k <= 2.0**-25:
        k += 1
    return 2.0**k if sizes.max() * 2.0**k < 65520 else 0


def only_largest(gradients):
    return 2.0 ** math.floor(math.log2(65504 / np.abs(gradients).max()))


def whole_step(parts, factors):
    return sum(parts.values()) / new_time(parts, factors)


def new_time(parts, factors):
    return sum(ms / factors.get(part, 1) for part, ms in parts.items())


def by_shares(parts, factors):
    """Amdahl's law as it is in print, a share at a time."""
    whole = sum(parts.values())
    shares = {part: ms / whole for part, ms in parts.items()}
    saved = sum(shares[part] * (1 - 1 / factor) for part, factor in factors.items())
    return 1 / (1 - saved)


def only_changed(parts, factors):
    own = {part: parts[part] for part in factors}
    return whole_step(own, factors) if own else 1.0


def rest_forgotten(parts, factors):
    own = {part: parts[part] for part in factors}
    return sum(parts.values()) / new_time(own, factors) if own else 1.0


def weighted(parts, factors):
    faster = sum(ms * factors.get(part, 1) for part, ms in parts.items())
    return faster / sum(parts.values())


def half_width(values, factor):
    return factor * statistics.stdev(values) / math.sqrt(len(values))


RIGHT = {
    "08-1": [lambda base, own: statistics.median(own) / statistics.median(base)],
    "08-2": [whole_step, by_shares],
    "08-3": [half_width, lambda v, f: f * (np.std(v, ddof=1) / len(v) ** 0.5)],
    "08-4": [smallest_scale, by_formula],
}

WRONG = {
    "08-1": [
        (lambda b, o: statistics.median(b) / statistics.median(o), "above 1"),
        (lambda b, o: statistics.fmean(o) / statistics.fmean(b), "does it not move"),
        (
            lambda b, o: statistics.median(o) / statistics.median(b) - 1,
            "counts the base",
        ),
        (lambda b, o: max(o) / max(b), "which two numbers"),
        (lambda b, o: statistics.median(o) - statistics.median(b), "which two numbers"),
        (lambda b, o: o[0] / b[0], "which two numbers"),
        (lambda b, o: [y / x for x, y in zip(b, o)], "cannot be used"),
    ],
    "08-2": [
        (lambda p, f: 1 / whole_step(p, f), "above 1"),
        (new_time, "new time in ms"),
        (lambda p, f: whole_step(p, f) - 1, "counts the old step"),
        (weighted, "do not add up"),
        (only_changed, "take their time as well"),
        (rest_forgotten, "still there"),
        (lambda p, f: statistics.fmean(f.values()) if f else 1.0, "how long it takes"),
        (lambda p, f: max(f.values(), default=1.0), "by hand"),
        (lambda p, f: sum(p.values()), "by hand"),
    ],
    "08-3": [
        (lambda v, f: f * statistics.stdev(v), "one seed"),
        (lambda v, f: f * statistics.stdev(v) / len(v), "more slowly"),
        (lambda v, f: f * statistics.pstdev(v) / math.sqrt(len(v)), "ddof"),
        (lambda v, f: statistics.stdev(v) / math.sqrt(len(v)), "standard error"),
        (lambda v, f: 2 * half_width(v, f), "whole width"),
        (lambda v, f: f * max(v), "by hand"),
        (lambda v, f: f * statistics.variance(v) / len(v), "by hand"),
    ],
    "08-4": [
        (lambda g: 2.0**16, "overflows"),
        (lambda g: 1.0, "still loses"),
        (only_largest, "smaller one does too"),
        (lambda g: smallest_scale(g) or 2.0**40, "no scale keeps both"),
        (lambda g: 1.5 * smallest_scale(g), "power of two"),
        (lambda g: "big", "one number"),
        (lambda g: 2.0**20, "overflows"),
        (lambda g: 0, "there is a scale"),
        (lambda g: all_kept(g), "0 already is not lost"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "08-1": ["median", "middle"],
    "08-2": [".get(", "ms /"],
    "08-3": ["sqrt", "ddof=1"],
    "08-4": ["2.0**", "for k"],
}
