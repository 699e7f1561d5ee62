"""Checkers for rounding: the ulp, stalls, ties, chance, and rounding twice."""

import math
from collections.abc import Callable

from mpteach import formats
from mpteach.exercises.registry import exercise
from mpteach.rounding import round_to


@exercise("02-1")
def _ulp(answer: Callable) -> str:
    for x, fraction_bits in ((1.0, 10), (1000.0, 10), (-0.001, 7), (4.0, 3), (6.5, 2)):
        try:
            found = answer(x, fraction_bits)
        except ValueError:  # that of a logarithm
            if x > 0:
                raise
            found = math.nan
        exponent = math.frexp(x)[1] - 1
        right = 2.0 ** (exponent - fraction_bits)
        case = f"x = {x:g} and {fraction_bits} fraction bits"
        if found == right:
            continue
        if x < 0 and found != found:
            return f"x may be negative: the gap at {x:g} is the one at {-x:g}."
        if found < 0:
            return f"A gap is positive, and for {case} yours is not."
        if found == abs(x) * 2.0**-fraction_bits:
            return f"A gap is a power of two, and for {case} yours is none."
        if found == 2.0**-fraction_bits:
            return f"That is the gap at 1. Try {case}."
        if found == 2.0**exponent:
            return f"That is the power of two below x: use the fraction bits ({case})."
        if found in (right / 2, 2 * right):
            return f"Off by a factor of two: between which powers of two is {x:g}?"
        return f"Try {case} by hand: list the two neighbours of x."
    return ""


@exercise("02-2")
def _stalls_at(answer: Callable) -> str:
    for step, fraction_bits in ((1.0, 10), (1.0, 7), (0.25, 7), (4.0, 2)):
        found, right = answer(step, fraction_bits), step * 2.0 ** (fraction_bits + 1)
        case = f"steps of {step:g} with {fraction_bits} fraction bits"
        if found == right:
            continue
        if found == right / step:
            return f"That fits steps of 1. Where do {case} get stuck?"
        if found == right / 2:
            return f"At {found:g} the gap is one step, so the next step still counts."
        if found == right * 2:
            return f"Too far: at half of {found:g} the step is already lost in a tie."
        if found == right + step:
            return f"The sum never gets to {found:g}: which value does it stay at?"
        return f"For {case}: at which sum has the gap grown to two steps?"
    return ""


# A number and a quantum; the ties lie between even and odd, on both sides of zero.
_ROUNDED = (
    *((2.5, 1.0), (1.5, 1.0), (-2.5, 1.0), (-1.5, 1.0), (0.5, 1.0)),
    *((2.7, 1.0), (-2.7, 1.0), (2.2, 1.0), (0.625, 0.25), (0.7, 0.25), (7.0, 4.0)),
)


@exercise("02-3")
def _nearest_even(answer: Callable) -> str:
    for x, quantum in _ROUNDED:
        found, low = answer(x, quantum), math.floor(x / quantum) * quantum
        right, tie = round(x / quantum) * quantum, x == low + quantum / 2
        case = f"x = {x:g} with quantum {quantum:g}"
        if found == right:
            continue
        if found == right / quantum:
            return f"For {case} you counted quanta: give the rounded number itself."
        if found not in (low, low + quantum):
            return f"For {case} you return {found!s:.20}, which is no neighbour of x."
        if not tie:
            return f"For {case} the other neighbour is nearer."
        return f"For {case}, a tie, you took {found!s:.20}: is its multiple even?"
    return ""


_DRAWS = [k / 1000 for k in range(1000)]


@exercise("02-4")
def _by_chance(answer: Callable) -> str:
    for x, quantum in ((0.3, 1.0), (2.75, 1.0), (-0.25, 1.0), (0.625, 0.5), (3.0, 1.0)):
        low = math.floor(x / quantum) * quantum
        found = [answer(x, quantum, draw) for draw in _DRAWS]
        case = f"x = {x:g} with quantum {quantum:g}"
        strange = [value for value in found if value not in (low, low + quantum)]
        if strange:
            return f"For {case} you return {strange[0]!s:.20}, which is no neighbour."
        ups = sum(value == low + quantum for value in found)
        share = (x - low) / quantum
        # 0.3 of 1000 draws is 300 or, as floats have it, 301.
        if abs(ups - 1000 * share) <= (1 if share else 0):
            continue
        if x == low:
            return f"{case} is a value already: no draw may move it, 0 included."
        if abs(ups - 1000 * (1 - share)) <= 1:
            return f"For {case} the farther neighbour is the more likely one with you."
        if ups in (0, 1000):
            return f"For {case} every draw gives the same result: use the draw."
        if abs(ups - 500) <= 1:
            return f"For {case} your odds are even: they should follow the distance."
        return (
            f"For {case} you go up in {ups} of 1000 draws: how far is x above {low:g}?"
        )
    return ""


@exercise("02-5")
def _unlucky(answer: Callable) -> str:
    half = formats.get("float16")
    for start in (1.0, 1.0 + half.eps, 6.5, 0.1250, 40.03125, 60000.0):
        found, above = float(answer(start)), float(half.next_up(start))
        case = f"For start = {start:g}"
        if math.isnan(found) or not start < found < above:
            return f"{case} give a number between it and the next, {above:g}."
        once, twice = (round_to(x, half) for x in (found, round_to(found, "float32")))
        if once != twice:
            continue
        tie = (start + above) / 2
        if found == tie:
            return (
                f"{case} you gave the tie: a tie is rounded the same way once or twice."
            )
        if round_to(found, "float32") != tie:
            return f"{case} float32 can still tell your number from the tie: go closer."
        return f"{case} ties to even helps you: your number is on the wrong side."
    return ""
