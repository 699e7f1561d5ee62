"""Checkers for weights and updates: what stalls, bytes, a step with a master, its image."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from mpteach import formats
from mpteach.exercises.registry import exercise
from mpteach.rounding import exact

BRAIN = formats.get("bfloat16")


@exercise("05-1")
def _fate(answer: Callable) -> str:
    for name in ("bfloat16", "float16"):
        eps = formats.get(name).eps
        for share, right in (
            *((0.1, "stays"), (0.24, "stays"), (0.26, "depends"), (0.4, "depends")),
            *((0.49, "depends"), (0.51, "moves"), (0.9, "moves"), (3.0, "moves")),
        ):
            found = str(answer(share * eps, eps))
            case = f"with eps {eps:.4g} and a ratio of {share * eps:.4g}"
            if found == right:
                continue
            if found not in ("stays", "moves", "depends"):
                return f'{case} you return {found!r}: "stays", "moves" or "depends".'
            if right == "stays":
                return f"{case} even a weight whose gap is small for it stays."
            if right == "moves" and share < 1:
                return f"{case} it is more than half of any gap: where does it round to?"
            if right == "moves":
                return f"{case} the update is larger than the gap itself."
            return f"{case}: try a weight of 1, and one just below 2."
    return ""


_SIZES = {None: 0, "float16": 2, "bfloat16": 2, "float32": 4}
_FLOWS = (
    *(("float32", "float32", None, "float32"), ("float16", "float16", None, "float16")),
    ("float16", "float32", "float32", "float32"),
    ("bfloat16", "bfloat16", "float32", "float32"),
    ("bfloat16", "bfloat16", None, "float32"),
)


@exercise("05-2")
def _bytes_a_parameter(answer: Callable) -> str:
    for dtypes in _FLOWS:
        kinds = ("weights", "gradients", "masters", "moments")
        flow = dict(zip(kinds, dtypes, strict=True))
        single = [_SIZES[flow[kind]] for kind in kinds[:3]]
        right = sum(single) + 2 * _SIZES[flow["moments"]]
        found = float(answer(flow))
        said = ", ".join(f"{kind} {dtype}" for kind, dtype in flow.items())
        if found == right:
            continue
        if found == 8 * right:
            return f"These are bits ({said})."
        if flow["masters"] is None and found > right:
            return f"There are no masters here ({said})."
        if found == right - _SIZES[flow["moments"]]:
            return f"One of the kinds is missing; is it one of the two moments ({said})?"
        if found < right:
            return f"Some kinds are missing ({said})."
        return f"Write down the bytes of each kind by itself ({said})."
    return ""


@exercise("05-3")
def _step(answer: Callable) -> str:
    for master, gradient, scale, rate in (
        *((1.0, 0.5, 1.0, 0.25), (1.0, 0.5, 1024.0, 0.25), (0.1, -3.0, 8.0, 0.1)),
        *((1.0, 0.03, 1024.0, 0.001), (0.1, 2.0, 65536.0, 1.0)),
        *((1.0, math.inf, 1024.0, 0.1), (0.3, math.nan, 2.0, 0.1)),
    ):
        given = np.float32(master), np.float16(gradient), scale, rate
        new, image = (float(part) for part in answer(*given))
        case = f"for a master of {master:g}, a gradient of {gradient:g}, scale {scale:g}"
        hint = _step_hint(given, new, image)
        if hint:
            return f"{hint} ({case} and rate {rate:g})."
    return ""


def _step_hint(given: tuple, new: float, image: float) -> str:
    master, gradient, scale, rate = given
    if not np.isfinite(gradient):
        return "" if new == master else "The master must be as it was"
    true = float(gradient) / scale
    right = float(master) - rate * true
    close = 2.0**-22 * max(abs(right), abs(float(master)))  # float32 may round in between
    if abs(new - right) > close:
        if scale != 1 and abs(new - float(master) + rate * float(gradient)) < close:
            return "The gradient is that of the loss times the scale"
        if abs(new - float(master) - rate * true) < close:
            return "Descent goes against the gradient"
        if float(np.float16(right)) == new:
            return "The master itself was rounded to float16"
        return "The master is off: in which dtype is each operation"
    # As Python floats: numpy would round the image to float16 to compare it.
    rounded = float(np.float16(new))
    return "" if image == rounded else "The image is the new master in float16"


@exercise("05-4")
def _first_move(answer: Callable) -> str:
    gap = 2.0**-7
    for weight, update in (
        *((1.0, gap), (1.0, gap / 4), (1.0, gap / 2), (1 + gap, gap / 2)),
        *((1 + gap, gap / 8), (1.0, gap / 8), (1.0, gap / 3), (2.0, gap / 8)),
        *((3.0, 0.001), (2.0**-10, 2.0**-20), (1 + 2 * gap, gap / 64), (1.5, 0.01)),
    ):
        right = 1
        while exact(Fraction(weight) + right * Fraction(update), BRAIN) == weight:
            right += 1
        found = float(answer(weight, update))
        case = f"from {weight:g} by {update:.4g} a step"
        if found == right:
            continue
        if found != int(found) or found < 1:
            return f"{case} you count {found:g} steps: give a whole number from 1."
        tie = Fraction(update) * (right - 1) * 2 == Fraction(float(BRAIN.ulp(weight)))
        if tie and found == right - 1:
            return f"{case}: one step earlier it is a tie. Who wins it here?"
        if found == right + 1:
            return f"{case} it moves one step earlier. Is that a tie, and whose?"
        if found > right:
            return f"{case} it moves earlier: it need not come as far as the next number."
        return f"{case} it moves later: how far is it from there to the middle?"
    return ""
