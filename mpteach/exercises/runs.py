"""Checkers for the training comparison: reading runs, and deciding from them."""

import math
import statistics
from collections.abc import Callable

import numpy as np

from mpteach.exercises.registry import exercise

# Half-widths are asked for with the factor given: no table of quantiles is needed.
_FACTOR = {3: 4.3027, 5: 2.7764}


@exercise("08-1")
def _speed_up(answer: Callable) -> str:
    cases = [
        ([10.0, 10.0, 10.0], [25.0, 24.0, 90.0]),
        ([3.0], [1.5]),
        ([4.0, 8.0], [6.0, 6.0]),
    ]
    for base, own in cases:
        found = answer(base, own)
        right = statistics.median(own) / statistics.median(base)
        if math.isclose(found, right, rel_tol=1e-6):
            continue
        if math.isclose(found, 1 / right, rel_tol=1e-6):
            return "A faster recipe must get a number above 1: turn the ratio over."
        if math.isclose(
            found, statistics.fmean(own) / statistics.fmean(base), rel_tol=1e-6
        ):
            return "One slow seed moves a mean: which summary does it not move?"
        if math.isclose(found, right - 1, rel_tol=1e-6):
            return "That is the gain; 'times as fast' counts the base as 1."
        case = f"Try it on base {base} and own {own}"
        return f"{case}: which two numbers stand for the seeds?"
    return ""


@exercise("08-2")
def _whole_step(answer: Callable) -> str:
    parts = {"products": 60.0, "attention": 10.0, "rest": 30.0}
    cases = [
        (parts, {"products": 2.0, "attention": 4.0}),
        (parts, {}),
        ({"products": 3.0, "rest": 5.0}, {"products": 4.0, "rest": 0.5}),
        ({"products": 8.0}, {"products": 2.0}),
    ]
    for times, factors in cases:
        found = answer(dict(times), dict(factors))
        hint = _step_hint(found, times, factors)
        if hint:
            return hint
    return ""


def _step_hint(found: float, times: dict, factors: dict) -> str:
    before = sum(times.values())
    after = sum(ms / factors.get(part, 1) for part, ms in times.items())
    changed = [part for part in times if part in factors]
    if math.isclose(found, before / after, rel_tol=1e-6):
        return ""
    wrong = {
        after / before: "A step that takes less time must get a number above 1.",
        after: "That is the new time in ms: how many times as fast is it?",
        before / after
        - 1: "That is the gain; 'times as fast' counts the old step as 1.",
        sum(ms * factors.get(part, 1) for part, ms in times.items()) / before: (
            "Factors of speed do not add up. What does add up, part by part?"
        ),
    }
    if changed:
        kept = sum(times[part] / factors[part] for part in changed)
        own = sum(times[part] for part in changed)
        wrong |= {
            own / kept: "The parts that stay as they are take their time as well.",
            before / kept: "After the change the other parts are still there.",
            statistics.fmean(factors.values()): "A part counts by how long it takes.",
        }
    for value, hint in wrong.items():
        if math.isclose(found, value, rel_tol=1e-6):
            return hint
    return f"Try it by hand on {times} and {factors}: how long is the step afterwards?"


@exercise("08-3")
def _half_width(answer: Callable) -> str:
    for values in ([0.01, -0.02, 0.03], [0.004, 0.001, -0.002, 0.006, 0.0]):
        count, factor = len(values), _FACTOR[len(values)]
        found, spread = answer(values, factor), statistics.stdev(values)
        if math.isclose(found, factor * spread / math.sqrt(count), rel_tol=1e-6):
            continue
        if math.isclose(found, factor * spread, rel_tol=1e-6):
            return (
                "That is the spread of one seed: the mean of several is known better."
            )
        if math.isclose(found, factor * spread / count, rel_tol=1e-6):
            return (
                "The error of a mean falls more slowly than the number of seeds grows."
            )
        population = statistics.pstdev(values)
        if math.isclose(found, factor * population / math.sqrt(count), rel_tol=1e-6):
            return (
                "Look at what your spread divides by; np.std needs to be told (ddof)."
            )
        if math.isclose(found, spread / math.sqrt(count), rel_tol=1e-6):
            return "That is the standard error; the factor for 95 % is still missing."
        if math.isclose(found, 2 * factor * spread / math.sqrt(count), rel_tol=1e-6):
            return "That is the whole width of the interval."
        steps = "spread of the seeds, error of their mean, factor"
        return f"Try it by hand on {values}: {steps}."
    return ""


@exercise("08-4")
def _smallest_scale(answer: Callable) -> str:
    cases = [
        np.array([2.0**-20, 2.0**-25, 2.0**-30, 1.0]),
        np.array([0.0, -(2.0**-26), 2.0**-24]),
        np.array([1e-3, -2e-4]),
        np.array([3.0e-8, 1.5, 0.0]),
        np.array([2.0**-33, 2.0**-10]),
        np.array([2.0**-45, 1.0]),
    ]
    for gradients in cases:
        found, right = answer(gradients), _reference_scale(gradients)
        if found == right:
            continue
        shown = np.array2string(gradients, formatter={"float": "{:.3g}".format})
        if np.ndim(found) or np.asarray(found).dtype.kind not in "biuf":
            return f"For {shown} give one number, not {type(found).__name__}."
        if right == 0:
            return f"For {shown} no scale keeps both ends: the answer 0 says so."
        if found == 0:
            extra = (
                "" if gradients.all() else " A gradient that is 0 already is not lost."
            )
            return f"For {shown} there is a scale that keeps both ends.{extra}"
        if not _kept(gradients, found):
            which = (
                "overflows"
                if _overflows(gradients, found)
                else "still loses a gradient"
            )
            return f"For {shown} the scale {found:g} {which}."
        if math.frexp(found)[0] != 0.5:
            return "Take a power of two: other scales round every gradient once more."
        return f"For {shown} the scale {found:g} works, and a smaller one does too."
    return ""


def _reference_scale(gradients: np.ndarray) -> float:
    scales = (2.0**k for k in range(41))
    return next((scale for scale in scales if _kept(gradients, scale)), 0)


def _halved(gradients: np.ndarray, scale: float) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (gradients * scale).astype(np.float16)


def _kept(gradients: np.ndarray, scale: float) -> bool:
    half = _halved(gradients, scale)
    return bool(np.isfinite(half).all() and ((half == 0) == (gradients == 0)).all())


def _overflows(gradients: np.ndarray, scale: float) -> bool:
    return not np.isfinite(_halved(gradients, scale)).all()
