"""Checkers for statements: the rule, what pairs allow to say, casts, and a scope."""

import math
import statistics
from collections.abc import Callable

from mpteach.exercises.registry import exercise

# By whether a sentence holds in the usual case, and whether all cases agree.
_WORDS = {
    (True, True): "true",
    (True, False): "true with a scope",
    (False, False): "misleading",
    (False, True): "false",
}
_CASES = ([True], [False], [True, True], [False, False], [True, False], [False, True])
_LONGER = ([True, True, False], [False, False, True], [True, False, False, True])


@exercise("12-1")
def _verdict(answer: Callable) -> str:
    for holds in (*_CASES, *_LONGER, [False, True, True]):
        found = str(answer(list(holds)))
        right = verdict_of(holds)
        if found == right:
            continue
        if found not in _WORDS.values():
            return f"for {holds} you return {found!r:.40}: give one of the four words."
        if len(set(holds)) == 1:
            return f"for {holds} there is no case that disagrees."
        if found in ("true", "false"):
            return f"for {holds} the cases disagree: it is neither of the plain words."
        return f"for {holds}: which one is the usual case, and does it hold?"
    return ""


def verdict_of(holds: list[bool]) -> str:
    """Return the verdict on cases, the usual one first, that hold or not."""
    return _WORDS[holds[0], len(set(holds)) == 1]


# Paired differences and Student's t; each tells the right interval from a wrong one.
_PAIRS = (
    ([0.10, 0.11, 0.12], 4.30),
    ([-0.10, -0.11, -0.12], 4.30),
    ([0.02, 0.10], 12.7),
    ([0.01, 0.05, 0.09, 0.05], 3.18),  # with n instead of n - 1 below the root: another
    ([0.02, 0.05, 0.08], 4.30),  # without the root of n it is resolved no more
    ([0.015, 0.05, 0.085], 2.60),
    ([0.0, 0.06, 0.06, 0.06], 3.18),
    ([-0.02, -0.06, -0.07, -0.05], 3.18),
    ([-0.03, 0.03], 12.7),
)


def _allowed(pairs: list[float], t: float) -> str:
    half = t * statistics.stdev(pairs) / math.sqrt(len(pairs))
    middle = statistics.fmean(pairs)
    if abs(middle) <= half:
        return "open"
    return "worse" if middle > 0 else "better"


@exercise("12-2")
def _sentence(answer: Callable) -> str:
    for pairs, t in _PAIRS:
        found, right = str(answer(list(pairs), t)), _allowed(pairs, t)
        case = f"for {pairs} and t = {t:g}"
        if found == right:
            continue
        if found not in ("worse", "better", "open"):
            return f'{case} you return {found!r:.40}: "worse", "better" or "open".'
        if right == "open":
            return f"{case} the interval reaches over zero."
        if found == "open":
            return f"{case} the interval does not reach zero: how long is half of it?"
        return f"{case} you have the direction the wrong way round: it is a loss."
    return ""


_STEPS = (
    ["float32"] * 4,
    ["float32", "float16", "float16", "float32"],
    ["float32", "float16", "float16", "float16"],
    ["bfloat16", "float32", "float16", "float32", "float32", "bfloat16"],
    ["float16", "float32"],
    ["float16"],
    # Autocast, and 16-bit weights with masters, from the weights to Adam's moments.
    ["float32", *["float16"] * 2, "float32", *["float16"] * 2, *["float32"] * 3],
    ["float32", *["bfloat16"] * 2, "float32", *["bfloat16"] * 3, *["float32"] * 2],
)


@exercise("12-3")
def _casts(answer: Callable) -> str:
    for dtypes in _STEPS:
        found = float(answer(list(dtypes)))
        open_end = sum(a != b for a, b in zip(dtypes, dtypes[1:]))
        right = open_end + (dtypes[-1] != dtypes[0])
        case = f"from {', '.join(dtypes)}"
        if found == right:
            continue
        if found == open_end:
            return (
                f"{case} one is missing: after the last tensor the step begins again."
            )
        if found in (len(set(dtypes)), len(set(dtypes)) - 1):
            return f"{case} you count {found:g}, the formats: count the changes."
        if found == len(dtypes) - right:
            return f"{case} you count the places at which nothing is cast."
        return f"{case} you count {found:g}: go through the pairs of neighbours."
    return ""


def _runs(*groups: tuple[int, str, dict[int, float]]) -> list[tuple]:
    return [
        (size, recipe, seed, speed)
        for size, recipe, speeds in groups
        for seed, speed in speeds.items()
    ]


_RECORDS = (
    # Faster from the middle size on.
    _runs(
        *((1, "fp32", {0: 9.0, 1: 8.0}), (1, "fp16", {0: 7.0, 1: 7.0})),
        *((5, "fp32", {0: 4.0, 1: 4.0}), (5, "fp16", {0: 6.0, 1: 7.0})),
        *((9, "fp32", {0: 1.0, 1: 1.0}), (9, "fp16", {0: 4.0, 1: 4.0})),
    ),
    # A middle size is slower again, so that only the largest counts; sizes are mixed.
    _runs(
        *((30, "fp16", {0: 9.0}), (2, "fp32", {0: 5.0}), (30, "fp32", {0: 3.0})),
        *((2, "fp16", {0: 6.0}), (8, "fp32", {0: 5.0}), (8, "fp16", {0: 4.0})),
    ),
    # The means say faster, one pair does not.
    _runs((4, "fp32", {0: 2.0, 1: 6.0}), (4, "fp16", {0: 9.0, 1: 5.0})),
    # Seeds in another order, one without a partner, and another recipe.
    _runs(
        *((3, "fp32", {2: 8.0, 0: 2.0, 5: 99.0}), (3, "fp16", {0: 3.0, 2: 9.0})),
        (3, "bf16", {0: 1.0, 2: 1.0}),
    ),
    # The largest size has no fp32 run, so it says nothing.
    _runs((6, "fp32", {0: 2.0}), (6, "fp16", {0: 3.0}), (7, "fp16", {0: 1.0})),
    # Just as fast is not faster.
    _runs((6, "fp32", {0: 2.0}), (6, "fp16", {0: 2.0})),
)


def _from_size(runs: list[tuple]) -> int:
    speed = {(size, recipe, seed): value for size, recipe, seed, value in runs}
    start = 0
    for size in sorted({size for size, *_ in runs}, reverse=True):
        seeds = [seed for s, r, seed in speed if (s, r) == (size, "fp16")]
        base = {seed: speed.get((size, "fp32", seed)) for seed in seeds}
        pairs = [(speed[size, "fp16", seed], own) for seed, own in base.items() if own]
        if any(half <= single for half, single in pairs):
            break
        start = size if pairs else start
    return start


@exercise("12-4")
def _scope(answer: Callable) -> str:
    hints = (
        "at the two largest sizes fp16 is faster with both seeds, below it is not",
        "at a size between the two others fp16 is slower: is it faster *from there on*?",
        "with one of the seeds fp16 is slower, whatever the mean says",
        "compare runs of one seed, and only fp16 with fp32",
        "a size that one of the two recipes lacks decides nothing",
        "as fast as fp32 is not faster",
    )
    for runs, hint in zip(_RECORDS, hints, strict=True):
        found = float(answer(list(runs)))
        if found != _from_size(runs):
            return f"of {_shown(runs)} you make {found:g}: {hint}."
    return ""


def _shown(runs: list[tuple]) -> str:
    said = ", ".join(f"{r} {seed}: {v:g} ({size})" for size, r, seed, v in runs)
    return said if len(said) < 120 else f"{len(runs)} runs"
