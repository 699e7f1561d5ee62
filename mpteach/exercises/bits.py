"""Checkers for the bits of a float: fields, limits, specials, grids, neighbours."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mpteach import formats
from mpteach.exercises.registry import exercise
from mpteach.formats import FloatFormat


@exercise("01-1")
def _exponent(answer: Callable) -> str:
    half = formats.get("float16")
    for code in (0x5640, 0x3C00, 0xC580, 0x0400, 0xFBFF):
        found, fields = answer(code), half.fields_of(code)
        right = fields.exponent - half.bias
        if found == right:
            continue
        if found == fields.exponent:
            return "That is the field as stored. What does the format subtract from it?"
        if found in (right - 1, right + 1):
            return "You are off by one: 1.0 must come out as exponent 0."
        if found == 2.0**right:
            return f"You gave {found:g}, the power itself: give its exponent alone."
        if found == (code >> half.fraction_bits) - half.bias:
            return f"Code {code:#06x} is negative: its sign bit got into your exponent."
        if found == ((code >> 7) & 0xFF) - 127:
            return (
                "You cut the fields as bfloat16 has them; these are codes of float16."
            )
        return f"Write code {code:#06x} in binary and mark the three fields."
    return ""


@exercise("01-2")
def _largest(answer: Callable) -> str:
    for exponent_bits, fraction_bits in ((5, 10), (8, 7), (4, 3), (2, 1)):
        fmt = FloatFormat("case", exponent_bits, fraction_bits)
        found, top = answer(exponent_bits, fraction_bits), 2.0**fmt.bias
        case = f"{exponent_bits} exponent and {fraction_bits} fraction bits"
        if found == fmt.max:
            continue
        if found == fmt.max / 2:
            return "That is half of it: check your bias with float16, where it is 15."
        if found in ((2 - fmt.eps) * top**2, 2 * (2 - fmt.eps) * top**2):
            return "The exponent field is stored with the bias added: subtract it."
        if found == 2 * fmt.max:
            return (
                "The highest exponent field belongs to inf and NaN: take the one below."
            )
        if found == top:
            return "The fraction of the largest value is not zero."
        if found == 2 * top:
            return (
                "That value itself is no longer in the format: it is one step too far."
            )
        if found == (2 - fmt.eps / 2) * top:
            return "You counted one fraction bit too many."
        if found == (1 - fmt.eps) * top or found == (1 - fmt.eps) * 2 * top:
            return "Do not forget the implied bit in front of the fraction."
        return f"Try {case} by hand: which exponent, and which fraction?"
    return ""


@exercise("01-3")
def _nan_count(answer: Callable) -> str:
    for exponent_bits, fraction_bits in ((5, 10), (8, 7), (3, 2)):
        found, fractions = answer(exponent_bits, fraction_bits), 2**fraction_bits
        if found == 2 * (fractions - 1):
            continue
        if found == fractions - 1:
            return "NaN has a sign bit as well, even if nobody reads it."
        if found == 2 * fractions:
            return "Two of your patterns are infinities."
        if found == fractions:
            return (
                "One fraction means inf, and each of the others comes with two signs."
            )
        if found in (1, 2):
            return "NaN is no single pattern: what may its fraction be?"
        return (
            f"List them for {exponent_bits} exponent and {fraction_bits} fraction bits."
        )
    return ""


@exercise("01-4")
def _finer(answer: Callable) -> str:
    half, brain = formats.get("float16"), formats.get("bfloat16")
    inside = (1.0, -0.001, 60000.0, 1e5, 1e-10, 3e-5, 1e-5, 5e-6, -(2.0**-24))
    limits = (2.0**-17, 2.0**-16, half.max, half.max + 1)
    for x in (*inside, *limits):
        found, right = answer(x), _finer_reference(x)
        if found == right:
            continue
        if found not in (half.name, brain.name, "same"):
            return f"For {x:g} return one of the three names, you gave {found!r:.40}."
        if x in limits:
            return f"Right elsewhere, wrong at {x:g}: is a limit off, or < for <=?"
        if abs(x) > half.max:
            return f"At {x:g} only one of the two still has finite values."
        if right == "same":
            return f"Compute both gaps at {x:g} as powers of two, and compare."
        if (
            half.smallest_subnormal < abs(x) < half.smallest_normal
            and right == half.name
        ):
            return f"{x:g} is subnormal in float16. Is its gap already the wider one?"
        if abs(x) < half.smallest_normal:
            return f"At {x:g} float16 is among its subnormals: which gap still shrinks?"
        return f"Exponent bits bring range. Which field sets the gap at {x:g}?"
    return ""


@exercise("01-5")
def _next_up(answer: Callable) -> str:
    half = formats.get("float16")
    values = np.append(half.values(), math.inf)
    for code in (
        0x3C00,
        0x03FF,
        0xBC00,
        0xC000,
        0x7BFF,
        0xFBFF,
        0x8001,
        0x0000,
        0x8000,
    ):
        x, found = float(half.decode(code)), answer(code)
        right = float(values[np.searchsorted(values, x, side="right")])
        kind = np.asarray(found).dtype.kind if np.ndim(found) == 0 else ""
        if kind not in ("b", "i", "u") or not 0 <= found < 2**16:
            shown = f"{found!r:.40}"
            return f"For {code:#06x} give a code from 0 to 0xffff, you gave {shown}."
        value = float(half.decode(int(found)))
        if value == right:
            continue
        if value < x:
            return f"For {code:#06x}, which is {x:g}, you went down to {value:g}."
        if value == x:
            return f"For {code:#06x}, which is {x:g}, you stayed at the same number."
        if math.isnan(value):
            return f"For {code:#06x}, which is {x:g}, you landed on a NaN."
        return f"For {code:#06x}, which is {x:g}, you went too far, to {value:g}."
    return ""


@exercise("01-6")
def _worst_flip(answer: int) -> str:
    brain = formats.get("bfloat16")
    start = int(brain.encode(0.5))
    flips = {start ^ 2**bit: bit for bit in range(brain.bits)}
    worst = max(flips, key=lambda code: abs(float(brain.decode(code)) - 0.5))
    if isinstance(answer, str):
        return "Give the code as an integer, without quotes."
    if not _is_whole(answer):
        return "Give the code as an integer, e.g. in hexadecimal digits after 0x."
    if answer == worst:
        return ""
    if answer == start:
        return "That is the code of 0.5 itself: flip one of its bits."
    if answer == float(brain.decode(worst)):
        return "That is the value after the flip. Give its hex code."
    if answer == formats.get("float16").encode(0.5) ^ 2**14:
        return "That is the code in float16: choose bfloat16 from the explorer's list."
    if answer not in flips:
        return "That code differs from the one of 0.5 in more than one bit."
    if flips[answer] == brain.bits - 1:
        return "The sign bit moves 0.5 by 1 only: the other fields can do worse."
    if flips[answer] < brain.fraction_bits:
        return "A fraction bit moves 0.5 by less than 0.5: try the other fields."
    return "The right field, but another of its bits weighs more."


@exercise("01-7")
def _largest_by_rule(answer: Callable) -> str:
    widths = ((4, 3), (5, 2), (3, 2), (2, 1))
    for rule in ("ieee", "fn", "fnuz", "finite"):
        for exponent_bits, fraction_bits in widths:
            found = answer(exponent_bits, fraction_bits, rule)
            by_rule = {
                other: FloatFormat("case", exponent_bits, fraction_bits, specials=other)
                for other in formats.SPECIALS
            }
            if found != by_rule[rule].max:
                case = f"{exponent_bits} exponent and {fraction_bits} fraction bits"
                return _hint_on_rule(found, rule, by_rule, case)
    return ""


def _hint_on_rule(
    found: float, rule: str, by_rule: dict[str, FloatFormat], case: str
) -> str:
    right = by_rule[rule]
    if rule == "ieee":
        return f'With "ieee" it is the number of exercise 01-2. Check it for {case}.'
    if found == by_rule["ieee"].max:
        return f'With "{rule}" and {case} the highest exponent field holds numbers too.'
    if found in (right.max / 2, 2 * right.max):
        return f'With "{rule}" and {case} you are off by a factor of 2: which bias?'
    if rule == "fn" and found == by_rule["finite"].max:
        return f'With "fn" and {case}, all ones is a NaN: take the code before it.'
    if found == by_rule["fn"].max:
        return f'With "{rule}" and {case}, is the code of all ones still a NaN?'
    return f'With "{rule}" and {case}: which is the last code that is a number?'


def _is_whole(answer: Any) -> bool:
    """Say whether `answer` is one whole number, numpy's and floats included."""
    one = answer.item() if getattr(answer, "ndim", None) == 0 else answer
    if isinstance(one, float):
        return one.is_integer()
    return isinstance(one, int) and not isinstance(one, bool)


def _finer_reference(x: float) -> str:
    half, brain = formats.get("float16"), formats.get("bfloat16")
    gaps = {fmt.name: float(fmt.ulp(x)) for fmt in (half, brain) if abs(x) <= fmt.max}
    if len(set(gaps.values())) < len(gaps):
        return "same"
    return min(gaps, key=gaps.__getitem__)
