"""Checkers of the template notebook: halving a number until it is zero."""

from collections.abc import Callable

import numpy as np

from mpteach.exercises.registry import exercise


def _halvings(start: float, dtype: type[np.floating]) -> int:
    value, count = dtype(start), 0
    while value > 0:
        value, count = value / dtype(2), count + 1
    return count


@exercise("template-1")
def _from_two(answer: int) -> str:
    right = _halvings(2.0, np.float32)
    hints = {
        right - 1: "that is the count from 1; how many halvings lead from 2 to 1?",
        right - 2: "count the halving that gives zero as well, and start from 2",
        _halvings(2.0, np.float64): "that is float64: which dtype is asked for?",
    }
    return "" if answer == right else hints.get(answer, "start from the printed count")


@exercise("template-2")
def _count(answer: Callable[[float, type], int]) -> str:
    for start, dtype in [(1.0, np.float16), (8.0, np.float16), (1.0, np.float32)]:
        found, right = answer(start, dtype), _halvings(start, dtype)
        case = f"from {start} in {dtype.__name__} you count {found!s:.40}"
        if found == _halvings(start, np.float64):
            return f"{case}: keep the value in its dtype, or Python halves a float64"
        if found == right - 1:
            return f"{case}: the halving that gives zero counts too"
        if found != right:
            return f"{case}: halve while the value is above zero"
    return ""


@exercise("template-3")
def _last_positive(answer: Callable[[type], float]) -> str:
    for dtype in (np.float16, np.float32):
        found, limits = answer(dtype), np.finfo(dtype)
        if found == limits.tiny:
            return "that is the smallest normal number: halving goes on below it"
        if found == limits.eps:
            return "eps is the step above 1, not the smallest positive number"
        if found != limits.smallest_subnormal:
            return f"{found!s:.40} is not the last positive value of {dtype.__name__}"
    return ""
