"""Checkers of the bits: right answers pass, plausible wrong ones get their hint."""

import math

import numpy as np


def largest(exponent_bits, fraction_bits):
    top = 2 ** (2 ** (exponent_bits - 1) - 1)
    return (2 - 2.0**-fraction_bits) * top


def by_searching(exponent_bits, fraction_bits):
    """The same value, put together from the fields of the last finite pattern."""
    exponent = 2**exponent_bits - 2
    fraction = 2**fraction_bits - 1
    bias = 2**exponent_bits // 2 - 1
    return (1 + fraction / 2**fraction_bits) * 2.0 ** (exponent - bias)


def finer(x):
    exponent = math.frexp(abs(x))[1] - 1
    half, brain = max(exponent, -14) - 10, max(exponent, -126) - 7
    if abs(x) > 65504 or brain < half:
        return "bfloat16"
    return "same" if brain == half else "float16"


def finer_by_limits(x):
    if abs(x) > 65504 or abs(x) < 2.0**-17:
        return "bfloat16"
    return "same" if abs(x) < 2.0**-16 else "float16"


def next_up(code):
    if code == 0x8000:
        return 1
    return code - 1 if code & 0x8000 else code + 1


def next_up_by_numpy(code):
    x = np.array([code], dtype=np.uint16).view(np.float16)
    return int(np.nextafter(x, np.float16(np.inf)).view(np.uint16)[0])


def largest_by_rule(exponent_bits, fraction_bits, specials):
    bias = 2 ** (exponent_bits - 1) - (specials != "fnuz")
    exponent = 2**exponent_bits - 1 - (specials == "ieee")
    fraction = 2**fraction_bits - 1 - (specials == "fn")
    return (1 + fraction / 2**fraction_bits) * 2.0 ** (exponent - bias)


def largest_by_factors(exponent_bits, fraction_bits, specials):
    """The same value, from what each rule changes of the IEEE format's largest."""
    if specials in ("ieee", "fnuz"):
        return largest(exponent_bits, fraction_bits)
    lost = 2 * 2.0**-fraction_bits if specials == "fn" else 2.0**-fraction_bits
    return (2 - lost) * 2.0**2 ** (exponent_bits - 1)


RIGHT = {
    "01-1": [lambda c: (c >> 10) % 32 - 15, lambda c: ((c & 0x7FFF) >> 10) - 15],
    "01-2": [largest, by_searching],
    "01-3": [lambda e, f: 2 * (2**f - 1), lambda e, f: 2 ** (f + 1) - 2],
    "01-4": [finer, finer_by_limits],
    "01-5": [next_up, next_up_by_numpy],
    "01-6": [0x7F00, 0b0111_1111_0000_0000],
    "01-7": [largest_by_rule, largest_by_factors],
}

WRONG = {
    "01-1": [
        (lambda c: (c >> 10) % 32, "field as stored"),
        (lambda c: (c >> 10) % 32 - 16, "off by one"),
        (lambda c: (c >> 10) % 32 - 14, "off by one"),
        (lambda c: (c >> 10) - 15, "is negative"),
        (lambda c: (c >> 7) % 256 - 127, "as bfloat16 has them"),
        (lambda c: c % 1024, "mark the three fields"),
        (lambda c: 2.0 ** ((c >> 10) % 32 - 15), "give its exponent alone"),
        (lambda c: c[10:15], "01-1: not yet. <lambda>(22080) raised TypeError"),
    ],
    "01-2": [
        (lambda e, f: 2 * largest(e, f), "inf and NaN"),
        (lambda e, f: 2.0 ** (2 ** (e - 1) - 1), "is not zero"),
        (lambda e, f: 2.0**2 ** (e - 1), "no longer in the format"),
        (lambda e, f: (2 - 2.0 ** -(f + 1)) * 2.0 ** (2 ** (e - 1) - 1), "too many"),
        (lambda e, f: (1 - 2.0**-f) * 2.0 ** (2 ** (e - 1) - 1), "implied bit"),
        (lambda e, f: largest(e, f) / 2, "half of it"),
        (lambda e, f: (2 - 2.0**-f) * 2.0 ** (2**e - 2), "subtract it"),
        (lambda e, f: (2 - 2.0**-f) * 2.0 ** (2**e - 1), "subtract it"),
        (lambda e, f: 65504, "by hand"),
    ],
    "01-3": [
        (lambda e, f: 2**f - 1, "a sign bit as well"),
        (lambda e, f: 2 * 2**f, "are infinities"),
        (lambda e, f: 2**f, "two signs"),
        (lambda e, f: 1, "no single pattern"),
        (lambda e, f: 2, "no single pattern"),
        (lambda e, f: 2**e, "List them"),
        (lambda e, f: 2046, "List them"),
    ],
    "01-4": [
        (lambda x: "float16", "only one of the two"),
        (lambda x: "bfloat16", "Exponent bits bring range"),
        (
            lambda x: "bf16" if finer(x) == "bfloat16" else "fp16",
            "one of the three names",
        ),
        (
            lambda x: "float16" if 2.0**-14 <= abs(x) <= 65504 else "bfloat16",
            "subnormal",
        ),
        (
            lambda x: "float16" if 2.0**-17 <= abs(x) <= 65504 else "bfloat16",
            "both gaps",
        ),
        (
            lambda x: "bfloat16" if abs(x) > 65504 else "float16",
            "which gap still shrinks",
        ),
        (lambda x: "float16" if 1e-6 < x <= 65504 else "bfloat16", "Exponent bits"),
        (lambda x: "same", "Exponent bits bring range"),
        (lambda x: finer(x) if abs(x) != 2.0**-16 else "same", "wrong at 1.52588e-05"),
        (
            lambda x: finer(x) if abs(x) != 2.0**-17 else "bfloat16",
            "wrong at 7.62939e-06",
        ),
        (lambda x: finer(x) if abs(x) != 65504 else "bfloat16", "wrong at 65504"),
        (
            lambda x: finer(x) if not 65504 < abs(x) <= 65536 else "float16",
            "wrong at 65505",
        ),
    ],
    "01-5": [
        (lambda c: c + 1, "you went down"),
        (lambda c: c - 1 if c & 0x8000 else c + 1, "For 0x8000"),
        (lambda c: 0 if c == 0x8000 else next_up(c), "stayed at the same number"),
        (lambda c: c + 1 if c & 0x8000 else c - 1, "you went down"),
        (lambda c: c, "stayed at the same number"),
        (lambda c: next_up(next_up(c)), "too far"),
        (lambda c: min(next_up(c), 0x7BFF) if c < 0x8000 else next_up(c), "0x7bff"),
        (lambda c: 0x7E00 if c == 0x7BFF else next_up(c), "landed on a NaN"),
        (lambda c: float(np.uint16(c).view(np.float16)) + 2.0**-10, "give a code"),
    ],
    "01-6": [
        (0x3F00, "0.5 itself"),
        (0xBF00, "The sign bit"),
        (0x3F01, "A fraction bit"),
        (0x3F40, "A fraction bit"),
        (0x1F00, "weighs more"),
        (0x3F80, "weighs more"),
        (0x7F80, "in more than one bit"),
        (0x7800, "in float16"),
        (14, "in more than one bit"),
        (2.0**127, "after the flip"),
        ("0x7F00", "without quotes"),
        (math.nan, "as an integer, e.g."),
        (math.inf, "as an integer, e.g."),
        (1 / 3, "as an integer, e.g."),
        (True, "as an integer, e.g."),
        ([1], "as an integer, e.g."),
        (largest, "as an integer, e.g."),
    ],
    "01-7": [
        (lambda e, f, s: largest(e, f), 'With "fn" and 4 exponent'),
        (lambda e, f, s: largest_by_rule(e, f, "fn"), "exercise 01-2"),
        (lambda e, f, s: 448, "exercise 01-2"),
        (
            lambda e, f, s: largest_by_rule(e, f, "finite" if s == "fn" else s),
            "all ones is a NaN",
        ),
        (
            lambda e, f, s: largest_by_rule(e, f, "finite" if s == "fnuz" else s),
            "which bias",
        ),
        (
            lambda e, f, s: largest_by_rule(e, f, "fn" if s == "finite" else s),
            "still a NaN",
        ),
        (
            lambda e, f, s: largest_by_rule(e, f, "ieee" if s == "finite" else s),
            "holds numbers too",
        ),
        (
            lambda e, f, s: largest_by_rule(e, f, s) / (1 + (s == "fnuz")),
            "a factor of 2",
        ),
        (
            lambda e, f, s: largest_by_rule(e, f, s) - (s == "fn"),
            "the last code that is a number",
        ),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "01-1": ["- 15", ">> 10", "% 32"],
    "01-2": ["65504", "2 - 2"],
    "01-3": ["2046", "- 1)"],
    "01-4": ["2^-16", "2^-17", "2**-1"],
    "01-5": ["code + 1", "code - 1"],
    "01-6": ["7f00", "7F00", "32512"],
    "01-7": ["448", "57344", "- 2", "28"],
}
