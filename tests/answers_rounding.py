"""Checkers of rounding: right answers pass, plausible wrong ones get their hint."""

import math
from fractions import Fraction

import numpy as np


def ulp(x, fraction_bits):
    return 2.0 ** (math.floor(math.log2(abs(x))) - fraction_bits)


def ulp_by_frexp(x, fraction_bits):
    return math.ldexp(1.0, math.frexp(x)[1] - 1 - fraction_bits)


def stalls_at(step, fraction_bits):
    return step * 2 ** (fraction_bits + 1)


def stalls_at_by_trying(step, fraction_bits):
    """Add until nothing happens, in exact steps of the gap that holds at the sum."""
    total = step
    while True:
        gap = Fraction(2) ** (math.floor(math.log2(total)) - fraction_bits)
        after = float(round(Fraction(total + step) / gap) * gap)
        if after == total:
            return total
        total = after


def nearest_even(x, quantum):
    low = math.floor(x / quantum)
    rest = x / quantum - low
    return (low + (rest > 0.5 or (rest == 0.5 and low % 2 == 1))) * quantum


def by_chance(x, quantum, draw):
    low = math.floor(x / quantum)
    return (low + (draw < x / quantum - low)) * quantum


def by_chance_from_the_other_end(x, quantum, draw):
    low = math.floor(x / quantum)
    return (low + (1 - draw <= x / quantum - low)) * quantum


def unlucky(start):
    above = float(np.nextafter(np.float16(start), np.float16(np.inf)))
    tie, offset = (start + above) / 2, (above - start) * 2.0**-20
    odd = int(np.float16(start).view(np.uint16)) % 2
    return tie - offset if odd else tie + offset


def unlucky_by_trying(start):
    above = float(np.nextafter(np.float16(start), np.float16(np.inf)))
    tie = (start + above) / 2
    for x in (math.nextafter(tie, 0), math.nextafter(tie, math.inf)):
        if np.float16(np.float32(x)) != np.float16(np.float64(x)):
            return x


def on_the_other_side(start):
    above = float(np.nextafter(np.float16(start), np.float16(np.inf)))
    return start + above - unlucky(start)


def tie_of(start):
    return (start + float(np.nextafter(np.float16(start), np.float16(np.inf)))) / 2


RIGHT = {
    "02-1": [ulp, ulp_by_frexp],
    "02-2": [stalls_at, stalls_at_by_trying],
    "02-3": [nearest_even, lambda x, q: round(x / q) * q],
    "02-4": [by_chance, by_chance_from_the_other_end],
    "02-5": [unlucky, unlucky_by_trying],
}

WRONG = {
    "02-1": [
        (lambda x, f: abs(x) * 2.0**-f, "power of two"),
        (lambda x, f: 2.0**-f, "the gap at 1"),
        (lambda x, f: 2.0 ** (math.frexp(x)[1] - 1), "use the fraction bits"),
        (lambda x, f: 2.0 ** (math.frexp(x)[1] - f), "factor of two"),
        (lambda x, f: ulp(x, f) / 2, "factor of two"),
        (lambda x, f: ulp(max(x, 1.0), f), "the gap at 1"),
        (lambda x, f: math.log2(abs(x)) - f, "A gap is positive"),
        (lambda x, f: 1 / ulp(x, f), "by hand"),
        (lambda x, f: 2.0 ** (math.floor(math.log2(x)) - f), "gap at -0.001 is"),
        (lambda x, f: 2.0 ** (np.floor(np.log2(x)) - f), "gap at -0.001 is"),
        (lambda x, f: math.copysign(ulp(x, f), x), "A gap is positive"),
        (lambda x, f: -ulp(x, f), "A gap is positive"),
        (lambda x, f: ulp(math.sqrt(x - 1), f), "raised ValueError"),
    ],
    "02-2": [
        (lambda s, f: 2.0 ** (f + 1), "fits steps of 1"),
        (lambda s, f: s * 2.0**f, "still counts"),
        (lambda s, f: s * 2.0 ** (f + 2), "lost in a tie"),
        (lambda s, f: s * 2.0 ** (f + 1) + s, "which value does it stay at"),
        (lambda s, f: 65504, "grown to two steps"),
        (lambda s, f: 2.0 ** (f + 1) / s, "two steps"),
        (lambda s, f: s * (f + 1), "two steps"),
    ],
    "02-3": [
        (lambda x, q: math.floor(x / q + 0.5) * q, "a tie"),
        (lambda x, q: math.floor(x / q) * q, "a tie, you took 1"),
        (lambda x, q: math.ceil(x / q) * q, "a tie"),
        (lambda x, q: int(x / q) * q, "a tie, you took 1"),
        (lambda x, q: math.copysign(math.floor(abs(x) / q + 0.5), x) * q, "a tie"),
        (lambda x, q: math.ceil(x / q - 0.5) * q, "a tie, you took 1"),
        (lambda x, q: round(x / q), "counted quanta"),
        (lambda x, q: round(x), "no neighbour"),
        (lambda x, q: nearest_even(math.floor(x * 2 / q) * q / 2, q), "is nearer"),
        (lambda x, q: float(np.float16(x)), "no neighbour"),
    ],
    "02-4": [
        (lambda x, q, d: (math.floor(x / q) + (d >= x / q % 1)) * q, "more likely"),
        (lambda x, q, d: (math.floor(x / q) + (d < 0.5)) * q, "odds are even"),
        (lambda x, q, d: round(x / q) * q, "use the draw"),
        (lambda x, q, d: math.floor(x / q + d) * q + q, "which is no neighbour"),
        (lambda x, q, d: (int(x / q) + (d < abs(x / q % 1))) * q, "no neighbour"),
        (lambda x, q, d: math.floor(x / q) + (d < x / q % 1), "no neighbour"),
        (lambda x, q, d: (math.floor(x / q) + (d < x % 1)) * q, "how far is x"),
        (lambda x, q, d: math.ceil(x / q) * q, "use the draw"),
        (
            lambda x, q, d: (math.floor(x / q) + (d <= x / q % 1 + 0.01)) * q,
            "how far is x",
        ),
        (lambda x, q, d: (math.floor(x / q) + (d <= x / q % 1)) * q, "0 included"),
        (
            lambda x, q, d: by_chance(x, q, d) + (q if x % q == 0 and d < 0.5 else 0),
            "a value already",
        ),
    ],
    "02-5": [
        (tie_of, "you gave the tie"),
        (lambda start: start, "between it and the next"),
        (lambda start: start + 2.0**-11 + 2.0**-30, "For start = "),
        (lambda start: 1 + 2.0**-11 + 2.0**-30, "between it and the next"),
        (lambda start: tie_of(start) * (1 + 2.0**-20), "go closer"),
        (lambda start: tie_of(start) * (1 + 2.0**-40), "wrong side"),
        (on_the_other_side, "wrong side"),
        (lambda start: math.nan, "between it and the next"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "02-1": ["log2", "frexp", "2 **"],
    "02-2": ["2 **", "F + 1", "+ 1)"],
    "02-3": ["% 2", "round(", "floor"],
    "02-4": ["draw <", "floor"],
    "02-5": ["2**-", "nextafter", "tie +", "tie -"],
}
