"""Checkers of statements: right answers pass, wrong ones get their hint."""

import math
import statistics
from itertools import groupby

import numpy as np

from mpteach import differences


def verdict(cases):
    if all(cases):
        return "true"
    if not any(cases):
        return "false"
    return "true with a scope" if cases[0] else "misleading"


def verdict_by_counting(cases):
    share = sum(cases) / len(cases)
    if share in (0, 1):
        return ["false", "true"][int(share)]
    return ["misleading", "true with a scope"][bool(cases[0])]


def allowed(pairs, t):
    half = t * statistics.stdev(pairs) / math.sqrt(len(pairs))
    low, high = statistics.fmean(pairs) - half, statistics.fmean(pairs) + half
    if low > 0:
        return "worse"
    return "better" if high < 0 else "open"


def allowed_by_ratio(pairs, t):
    score = np.mean(pairs) / (np.std(pairs, ddof=1) / np.sqrt(len(pairs)))
    return "open" if abs(score) <= t else "worse" if score > 0 else "better"


def with_half(half_of):
    def answer(pairs, t):
        half, middle = half_of(pairs, t), statistics.fmean(pairs)
        return "open" if abs(middle) <= half else "worse" if middle > 0 else "better"

    return answer


def casts(dtypes):
    return sum(
        before != after for before, after in zip(dtypes, dtypes[1:] + dtypes[:1])
    )


def casts_by_runs(dtypes):
    runs = len(list(groupby(dtypes)))
    return runs - (dtypes[0] == dtypes[-1])


def paired(runs):
    speed = {(size, recipe, seed): value for size, recipe, seed, value in runs}
    found = {}
    for (size, recipe, seed), value in speed.items():
        if recipe == "fp16" and (size, "fp32", seed) in speed:
            found.setdefault(size, []).append((value, speed[size, "fp32", seed]))
    return found


def from_size(runs):
    start = 0
    for size, pairs in sorted(paired(runs).items(), reverse=True):
        if any(half <= single for half, single in pairs):
            break
        start = size
    return start


def from_size_upwards(runs):
    sizes = sorted(paired(runs))
    faster = {
        size: all(half > single for half, single in pairs)
        for size, pairs in paired(runs).items()
    }
    fitting = [s for s in sizes if all(faster[one] for one in sizes if one >= s)]
    return min(fitting, default=0)


def first_size(runs):
    """The smallest size at which fp16 is faster, whatever comes above it."""
    fitting = [s for s, ps in paired(runs).items() if all(a > b for a, b in ps)]
    return min(fitting, default=0)


def by_means(runs, others=("fp16",), at_least=False):
    means = {}
    for size, recipe, _, value in runs:
        means.setdefault((size, "half" if recipe in others else recipe), []).append(
            value
        )
    start = 0
    for size in sorted({size for size, _ in means}, reverse=True):
        if (size, "fp32") not in means or (size, "half") not in means:
            continue
        half, single = (np.mean(means[size, one]) for one in ("half", "fp32"))
        if half < single or (half == single and not at_least):
            break
        start = size
    return start


def not_slower(runs):
    start = 0
    for size, pairs in sorted(paired(runs).items(), reverse=True):
        if any(half < single for half, single in pairs):
            break
        start = size
    return start


def by_place(runs):
    """Pairs by the order of the runs instead of the seed."""
    start = 0
    for size in sorted(paired(runs), reverse=True):
        half, single = (
            [value for s, r, _, value in runs if (s, r) == (size, name)]
            for name in ("fp16", "fp32")
        )
        if any(a <= b for a, b in zip(half, single)):
            break
        start = size
    return start


def missing_is_slow(runs):
    sizes = sorted({size for size, *_ in runs}, reverse=True)
    start = 0
    for size in sizes:
        pairs = paired(runs).get(size, [(0, 1)])
        if any(half <= single for half, single in pairs):
            break
        start = size
    return start


RIGHT = {
    "12-1": [verdict, verdict_by_counting],
    "12-2": [allowed, allowed_by_ratio],
    "12-3": [casts, casts_by_runs],
    "12-4": [from_size, from_size_upwards],
}

WRONG = {
    "12-1": [
        (lambda cases: all(cases), "four words"),
        (lambda cases: verdict(cases[::-1]), "the usual case"),
        (lambda cases: "true" if any(cases) else "false", "the cases disagree"),
        (lambda cases: "true" if all(cases) else "false", "the cases disagree"),
        (lambda cases: "true" if cases[0] else "false", "the cases disagree"),
        (lambda cases: "true" if cases[0] else "misleading", "no case that disagrees"),
        (lambda cases: verdict(cases) if any(cases) else "misleading", "disagrees"),
        (
            lambda cases: (
                verdict([sum(cases) > len(cases) / 2, *cases])
                if len(set(cases)) > 1
                else verdict(cases)
            ),
            "the usual case",
        ),
        (lambda cases: "a judgement", "four words"),
    ],
    "12-2": [
        (with_half(lambda p, t: 0), "over zero"),
        (
            with_half(lambda p, t: t * statistics.pstdev(p) / math.sqrt(len(p))),
            "over zero",
        ),
        (with_half(lambda p, t: t * statistics.stdev(p)), "half of it"),
        (with_half(lambda p, t: statistics.stdev(p) / math.sqrt(len(p))), "over zero"),
        (with_half(lambda p, t: t * statistics.stdev(p) / len(p)), "over zero"),
        (lambda p, t: allowed([-one for one in p], t), "wrong way round"),
        (lambda p, t: "open", "half of it"),
        (lambda p, t: differences.interval(p), '"worse", "better" or "open"'),
        (
            lambda p, t: "worse" if min(p) > 0 else "better" if max(p) < 0 else "open",
            "over zero",
        ),
    ],
    "12-3": [
        (lambda d: sum(a != b for a, b in zip(d, d[1:])), "begins again"),
        (lambda d: len(set(d)), "count the changes"),
        (lambda d: len(set(d)) - 1, "count the changes"),
        (lambda d: len(d) - casts(d), "nothing is cast"),
        (lambda d: casts(d) + 1, "count the changes"),
        (lambda d: 2 * casts(d), "neighbours"),
        (lambda d: 0, "neighbours"),
    ],
    "12-4": [
        (first_size, "from there on"),
        (by_means, "whatever the mean says"),
        (not_slower, "is not faster"),
        (by_place, "runs of one seed"),
        (missing_is_slow, "decides nothing"),
        (lambda runs: 0, "both seeds"),
        (lambda runs: max(paired(runs), default=0), "both seeds"),
        (lambda runs: by_means(runs, ("fp16", "bf16")), "whatever the mean says"),
    ],
}
# What a hint must not say: the answer, as a word or as the code of a solution.
ANSWERS = {
    "12-1": ["true with a scope", "misleading", "cases[0]"],
    "12-2": ["stdev", "sqrt", "ddof"],
    "12-3": ["zip", "dtypes[0]"],
    "12-4": ["sorted", "break", "reverse"],
}
