"""Checkers for autocast: what arrives, how many casts, when it pays, shared copies."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from mpteach.exercises.registry import exercise
from mpteach.rounding import round_to

# rule, dtypes of the tensors, the 16-bit dtype -> dtypes that reach the kernel
_ARRIVALS = (
    ("16-bit", ["float32", "float32"], "bfloat16", ["bfloat16", "bfloat16"]),
    ("16-bit", ["float16", "float32"], "float16", ["float16", "float16"]),
    ("16-bit", ["float64", "float64"], "bfloat16", ["float64", "float64"]),
    ("float32", ["bfloat16", "float32"], "bfloat16", ["float32", "float32"]),
    ("float32", ["float16", "int64"], "float16", ["float32", "int64"]),
    ("float32", ["float64"], "float16", ["float64"]),
    ("widest", ["bfloat16", "float32"], "bfloat16", ["float32", "float32"]),
    ("widest", ["float16", "float16"], "float16", ["float16", "float16"]),
    ("widest", ["float16", "int64"], "float16", ["float16", "int64"]),
    ("as given", ["float16", "float32"], "float16", ["float16", "float32"]),
    ("as given", ["float32"], "bfloat16", ["float32"]),
)


@exercise("06-1")
def _arrivals(answer: Callable) -> str:
    for rule, dtypes, half, right in _ARRIVALS:
        found = [str(one) for one in answer(rule, list(dtypes), half)]
        if found == right:
            continue
        case = f"rule {rule!r}, inputs {', '.join(dtypes)}, 16-bit dtype {half}"
        if len(found) != len(right):
            return f"{case}: give one dtype for each input."
        if rule == "as given":
            return f"{case}: an operation on no list is left alone."
        if any(
            a in ("float64", "int64") and a != b
            for a, b in zip(dtypes, found, strict=True)
        ):
            return f"{case}: which dtypes does autocast never touch?"
        if rule == "widest":
            return f"{case}: look at all inputs before you cast one of them."
        return f"{case}: this rule casts to one dtype all that autocast touches."
    return ""


@exercise("06-2")
def _weight_casts(answer: Callable) -> str:
    # uses of each weight in one pass, passes a region, regions, cached
    for uses, passes, regions, cached in (
        *(([1, 1, 1], 1, 1, True), ([1, 1, 1], 1, 1, False), ([1, 1], 3, 1, True)),
        *(([1, 1], 3, 2, True), ([2, 1], 3, 2, False), ([4, 1], 2, 3, True)),
        *(([0, 1, 2], 2, 2, True), ([0, 3], 1, 1, False), ([0, 0], 2, 2, True)),
    ):
        used = sum(use > 0 for use in uses)
        right = used * regions if cached else sum(uses) * passes * regions
        found = answer(list(uses), passes, regions, cached)
        if found == right:
            continue
        case = f"uses {uses}, {passes} passes, {regions} regions, cached is {cached}"
        if not cached:
            return f"{case}: without the cache every use makes a copy of its own."
        if found == len(uses) * regions:
            return f"{case}: does autocast look at a weight that nothing uses?"
        if found == used:
            return f"{case}: what becomes of the cache where a region ends?"
        return f"{case}: how long does one copy serve?"
    return ""


@exercise("06-3")
def _break_even(answer: Callable) -> str:
    for inputs, outputs in ((1, 1), (4, 4), (128, 512), (512, 128), (1000, 10)):
        found = answer(inputs, outputs)
        held = 2 * found * inputs + 2 * inputs * outputs
        plain = 4 * found * inputs
        case = f"with {inputs} inputs and {outputs} outputs"
        if found != int(found) or found < 1:
            return f"{case} you say {found:g} tokens: give a whole number from 1."
        said = f"{case}, {found:g} tokens hold {held:g} bytes under autocast"
        if held >= plain:
            return f"{said} and {plain:g} in float32: that is not fewer."
        if found > outputs + 1:
            return f"{said} and {plain:g} in float32: fewer tokens do as well."
    return ""


def _gradient(parts: list[float], cached: bool) -> float:
    """The gradient of a weight used once for each of `parts`, as autograd adds it."""
    total = np.float32(0)
    for part in parts:
        total += np.float32(round_to(part, "bfloat16"))
        if cached:
            total = np.float32(round_to(float(total), "bfloat16"))
    return float(total)


@exercise("06-4")
def _shared_gradient(answer: Callable) -> str:
    for parts, cached in (
        *(([1.0, 1.0], True), ([1.0] * 303, True), ([1.0] * 303, False)),
        *(([256.0] + [1.0] * 64, True), ([0.1, 0.1, 0.1], False)),
        *(([1.0, 2.0**-9, 2.0**-9], True), ([1.0] + [0.001] * 9, True)),
    ):
        right, found = _gradient(parts, cached), float(answer(list(parts), cached))
        if abs(found - right) <= 1e-6 * abs(right):
            continue
        shown = ", ".join(f"{part:g}" for part in parts[:3])
        dots = ", ..." if len(parts) > 3 else ""
        case = f"for {len(parts)} parts {shown}{dots} and cached {cached}"
        exact = float(sum(map(Fraction, parts)))
        if cached and abs(found - _gradient(parts, False)) <= 1e-6 * abs(found):
            return f"{case}: where do the parts meet, before or after the cast back?"
        if cached and found == round_to(exact, "bfloat16"):
            return f"{case}: one rounding at the end is too few: they come in turn."
        if not cached and abs(found - _gradient(parts, True)) <= 1e-6 * abs(found):
            return f"{case}: each use has its own copy: in which dtype do they meet?"
        if not cached and abs(found - exact) <= 1e-6 * abs(exact):
            return f"{case}: in which dtype does a product return the gradient?"
        return f"{case}: follow two parts by hand, from the product to the weight."
    return ""
