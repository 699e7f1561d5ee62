"""Checkers of the template: right answers pass, plausible wrong ones get their hint."""

import numpy as np


def halvings(start, dtype):
    value, count = dtype(start), 0
    while value > 0:
        value, count = value / dtype(2), count + 1
    return count


RIGHT = {
    "template-1": [151, 150 + 1],
    "template-2": [halvings],
    "template-3": [
        lambda dtype: np.nextafter(dtype(0), dtype(1)),
        lambda dtype: np.finfo(dtype).smallest_subnormal,
    ],
}

WRONG = {
    "template-1": [
        (150, "that is the count from 1"),
        (149, "count the halving that gives zero"),
        (1076, "that is float64"),
        (12, "start from the printed count"),
        (300, "start from the printed count"),
        (2.0**-149, "start from the printed count"),
        ("151", "start from the printed count"),
    ],
    "template-2": [
        (lambda start, dtype: halvings(start, np.float64), "keep the value in its"),
        (lambda start, dtype: halvings(start, dtype) - 1, "gives zero counts too"),
        (lambda start, dtype: halvings(1, dtype), "halve while the value is above"),
        (lambda start, dtype: halvings(start, np.float16), "from 1.0 in float32"),
        (lambda start, dtype: halvings(start, dtype) + 1, "halve while the value is"),
        (lambda start, dtype: float(np.log2(start)), "halve while the value is above"),
        (lambda start: halvings(start, np.float32), "raised TypeError"),
    ],
    "template-3": [
        (lambda dtype: np.finfo(dtype).tiny, "smallest normal"),
        (lambda dtype: np.finfo(dtype).eps, "eps is the step"),
        (lambda dtype: dtype(0), "is not the last positive value of float16"),
        (lambda dtype: np.finfo(dtype).min, "is not the last positive value"),
        (lambda dtype: 2.0**-24, "is not the last positive value of float32"),
        (lambda dtype: np.finfo(dtype).smallest_subnormal / 2, "0.0 is not the last"),
        (lambda dtype: halvings(1.0, dtype), "is not the last positive value"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "template-1": ["151"],
    "template-2": ["/ dtype", "while value"],
    "template-3": ["smallest_subnormal", "nextafter"],
}
