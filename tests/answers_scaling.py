"""Checkers of loss scaling: right answers pass, wrong ones get their hint."""

import math

import numpy as np


def vanishes(gradient, scale):
    return abs(gradient * scale) <= 2.0**-25


def next_scale(scale, clean, is_finite, interval):
    if not is_finite:
        return scale / 2, 0
    clean += 1
    return (scale * 2, 0) if clean == interval else (scale, clean)


def clipped(gradients, scale, max_norm):
    true = [gradient / scale for gradient in gradients]
    norm = math.sqrt(sum(gradient**2 for gradient in true))
    return [gradient * min(1.0, max_norm / norm) for gradient in true]


def clipped_by_numpy(gradients, scale, max_norm):
    true = np.array(gradients) / scale
    return true * min(1.0, max_norm / np.linalg.norm(true))


def clip_first(gradients, scale, max_norm):
    norm = np.linalg.norm(gradients)
    return np.array(gradients) * min(1.0, max_norm / norm) / scale


def skipped(largest, scale):
    steps = 0
    while np.isinf(to_half(largest * scale)):
        scale, steps = scale / 2, steps + 1
    return steps


def to_half(x):
    with np.errstate(over="ignore"):
        return np.float16(x)


def skipped_by_logarithm(largest, scale):
    return max(0, math.floor(math.log2(largest * scale / 65520)) + 1)


RIGHT = {
    "04-1": [vanishes, lambda g, s: np.float16(g * s) == 0],
    "04-2": [next_scale],
    "04-3": [clipped, clipped_by_numpy],
    "04-4": [skipped, skipped_by_logarithm],
}

WRONG = {
    "04-1": [
        (lambda g, s: abs(g * s) < 2.0**-25, "rounding to nearest"),
        (lambda g, s: abs(g * s) < 2.0**-24, "rounding to nearest"),
        (lambda g, s: abs(g * s) < 2.0**-14, "rounding to nearest"),
        (lambda g, s: abs(g) <= 2.0**-25, "after it was scaled"),
        (lambda g, s: abs(g / s) <= 2.0**-25, "after it was scaled"),
        (lambda g, s: g * s <= 2.0**-25, "it is negative"),
        (lambda g, s: True, "rounding to nearest"),
        (lambda g, s: False, "rounding to nearest"),
        (lambda g, s: 2.0**-25 < abs(g * s) and abs(g * s) < 2, "to nearest"),
        (lambda g, s: abs(g * s) <= 2.0**-25 or abs(g) == 0.5, "normal number"),
    ],
    "04-2": [
        (lambda s, c, f, n: (s, c + 1), "another scale"),
        (lambda s, c, f, n: (s * 2, 0) if f else (s / 2, 0), "not yet"),
        (lambda s, c, f, n: (s, c + 1) if f else (s / 2, c), "count starts again"),
        (lambda s, c, f, n: (s, c + 1) if f else (s / 2, 0), "last of the interval"),
        (lambda s, c, f, n: (s, c) if f else (s / 2, 0), "count this step too"),
        (
            lambda s, c, f, n: (s * 2, 0) if c == n else next_scale(s, c, f, n + 1),
            "last of the interval",
        ),
        (
            lambda s, c, f, n: (
                (s * 2, n) if f and c + 1 == n else next_scale(s, c, f, n)
            ),
            "count starts again",
        ),
        (lambda s, c, f, n: (s * 2, 0) if not f else (s, c + 1), "another scale"),
    ],
    "04-3": [
        (clip_first, "clipped first"),
        (lambda g, s, m: list(np.array(g) / s), "above max_norm"),
        (lambda g, s, m: clip_first(g, 1.0, m), "still scaled"),
        (lambda g, s, m: list(np.array(g) / np.linalg.norm(g) * m), "short enough"),
        (lambda g, s, m: list(np.clip(np.array(g) / s, -m, m)), "Compare the norm"),
        (lambda g, s, m: [np.linalg.norm(g)], "one number a gradient"),
        (lambda g, s, m: [x * s for x in clipped(g, s, m)], "still scaled"),
        (lambda g, s, m: [abs(x) for x in clipped(g, s, m)], "the signs are not"),
        (lambda g, s, m: [x / 2 for x in clipped(g, s, m)], "Compare the norm"),
    ],
    "04-4": [
        (lambda g, s: 0, "one more step"),
        (lambda g, s: skipped(g, s) + 1, "nothing overflows"),
        (lambda g, s: max(0, skipped(g, s) - 1), "one more step"),
        (lambda g, s: math.ceil(math.log2(g * s / 65504)), "whole number from 0"),
        (lambda g, s: max(0, math.log2(g * s / 65504)), "whole number from 0"),
        (lambda g, s: max(0, math.ceil(math.log2(g * s / 65504))), "still finite"),
        (lambda g, s: max(0, math.ceil(math.log2(g * s) - 16)), "one more step"),
        (lambda g, s: skipped(g, s) + (skipped(g, s) > 0), "one step too many"),
        (lambda g, s: skipped(1.0, s), "by hand"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "04-1": ["2^-25", "2**-25", "<="],
    "04-2": ["/ 2", "* 2", "halve", "double"],
    "04-3": ["/ scale", "unscale"],
    "04-4": ["log2", "while", "65520"],
}
