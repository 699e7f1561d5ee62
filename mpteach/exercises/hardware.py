"""Checkers for speed and bytes: intensity, the ring, the roofline, whole steps."""

import math
from collections.abc import Callable

from mpteach.exercises.registry import exercise
from mpteach.hardware.roofline import all_reduce_bytes, attainable


@exercise("03-1")
def _intensity(answer: Callable) -> str:
    for m, k, n, size in (
        *((64, 64, 64, 4), (64, 64, 64, 2), (1, 512, 512, 2), (16, 512, 128, 1)),
        *((100, 1, 100, 4), (7, 11, 13, 2)),
    ):
        found = float(answer(m, k, n, size))
        numbers, right = m * k + k * n + m * n, 2 * m * k * n
        case = f"for [{m}, {k}] @ [{k}, {n}] with {size} bytes a number"
        if _same(found, right / (size * numbers)):
            continue
        if _same(found, right / 2 / (size * numbers)):
            return f"An entry of the result is a sum: what is done for a term ({case})?"
        if _same(found * right, size * numbers) or _same(found * right, numbers):
            return f"This is bytes for each FLOP, not FLOP for each byte ({case})."
        if _same(found, right / numbers):
            return f"You divided by numbers: how many bytes are they ({case})?"
        if _same(found, right / (8 * size * numbers)):
            return f"You divided by bits ({case})."
        if _same(found, right / (size * (m * k + k * n))):
            return f"Something is written at the end as well ({case})."
        if _same(found, right / (size * 3 * m * n)) or _same(
            found, right / (size * 3 * k * n)
        ):
            return f"The three matrices differ in size ({case})."
        return f"Count FLOP and bytes apart, on paper ({case})."
    return ""


@exercise("03-2")
def _sent(answer: Callable) -> str:
    dtypes = {
        "float32": "float32",
        "autocast": "float32",
        "float16 weights": "float16",
    }
    for weights, way, processes in (
        *((1000, "float32", 8), (1000, "float32", 2), (1000, "float16 weights", 4)),
        *((1000, "autocast", 8), (10**9, "float16 weights", 5), (1000, "float32", 1)),
    ):
        found = float(answer(weights, way, processes))
        right = all_reduce_bytes(weights, dtypes[way], processes)
        case = f"for {weights:,} weights, {way}, {processes} processes"
        if _same(found, right):
            continue
        if processes == 1:
            return f"A process alone has nobody to send to ({case})."
        if way == "autocast" and _same(found, right / 2):
            return f"Which dtype has the gradient of a float32 weight ({case})?"
        if _same(found, right * processes):
            return f"This is what all send together: how much does one ({case})?"
        if _same(found, right / 2):
            return f"Every part travels more than once around ({case})."
        if _same(found * (processes - 1), right * processes):
            return f"In how many steps does a process send something ({case})?"
        if found > 0 and math.isclose(math.log2(found / right) % 1, 0, abs_tol=1e-9):
            return f"How many bytes does one number of this gradient take ({case})?"
        return f"Run the ring of this chapter with as many processes ({case})."
    return ""


@exercise("03-3")
def _gain(answer: Callable) -> str:
    for intensity, peak32, peak16, bandwidth in (
        *((100.0, 60.0, 960.0, 1.0), (0.1, 60.0, 960.0, 1.0)),
        *((5000.0, 60.0, 960.0, 1.0), (40.0, 60.0, 960.0, 1.0)),
        *((30.0, 60e12, 60e12, 3e12), (600.0, 60e12, 30e12, 3e12)),
    ):
        found = float(answer(intensity, peak32, peak16, bandwidth))
        before = attainable(intensity, peak32, bandwidth)
        right = attainable(2 * intensity, peak16, bandwidth) / before
        case = f"at {intensity:g} FLOP a byte, peaks {peak32:g} and {peak16:g}, "
        case += f"bandwidth {bandwidth:g}"
        if _same(found, right):
            continue
        if _same(found, attainable(intensity, peak16, bandwidth) / before):
            return f"In 16 bits the operation moves fewer bytes ({case})."
        if _same(found, attainable(intensity / 2, peak16, bandwidth) / before):
            return f"The intensity goes the other way when bytes get fewer ({case})."
        if _same(found * right, 1):
            return f"Your ratio stands upside down ({case})."
        if _same(found, peak16 / peak32):
            return f"Does it reach the peak in both formats ({case})?"
        if _same(found, 2):
            return f"Is memory the limit in both formats ({case})?"
        return f"Work out what is attainable in each format, then divide ({case})."
    return ""


# (FLOP, numbers moved) of the operations of a step.
_STEPS = (
    [(1e11, 1e6)],
    [(1.0, 1e9)],
    [(1e3, 1e3)] * 3,
    [(1e12, 1e6), (1.0, 1e9)],
    [(1e12, 1e6), (1.0, 1e9), *[(1e3, 1e3)] * 500],
)


@exercise("03-4")
def _step_gain(answer: Callable) -> str:
    peak32, peak16, bandwidth, launch = 50e12, 500e12, 4e12, 5e-6
    for step in _STEPS:
        before, after = (
            [
                max(launch, flop / peak, numbers * size / bandwidth)
                for flop, numbers in step
            ]
            for peak, size in ((peak32, 4), (peak16, 2))
        )
        right = sum(before) / sum(after)
        found = float(answer(list(step), peak32, peak16, bandwidth, launch))
        plural = "" if len(step) == 1 else "s, the first"
        case = f"for {len(step)} operation{plural} with {step[0][0]:g} FLOP and "
        case += f"{step[0][1]:g} numbers"
        if _same(found, right):
            continue
        if _same(found * right, 1):
            return f"Your ratio stands upside down ({case})."
        ratios = [one / other for one, other in zip(before, after, strict=True)]
        if _same(found, sum(ratios) / len(ratios)):
            return f"In a mean of gains a short one counts like a long one ({case})."
        if step[0][0] < 1e4 and step[0][1] < 1e4:
            return f"These are launched more slowly than they are done ({case})."
        if step[0][0] == 1 and found < right:
            return f"How many bytes has a number, before and after ({case})?"
        if len(step) > 1:
            return f"Each operation has its own limit: add up times ({case})."
        return f"Which of its three times is the longest ({case})?"
    return ""


def _same(found: float, right: float) -> bool:
    return math.isclose(found, right, rel_tol=1e-6)
