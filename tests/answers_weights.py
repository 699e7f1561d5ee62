"""Checkers of weights and updates: right answers pass, wrong ones get their hint."""

import math

import numpy as np

from mpteach import formats
from mpteach.rounding import round_to

BRAIN = formats.get("bfloat16")
SIZES = {None: 0, "float16": 2, "bfloat16": 2, "float32": 4}


def fate(ratio, eps):
    if ratio <= eps / 4:
        return "stays"
    return "moves" if ratio > eps / 2 else "depends"


def fate_by_trying(ratio, eps):
    name = {2.0**-7: "bfloat16", 2.0**-10: "float16"}[eps]
    weights = np.arange(1, 2, eps)
    stays = round_to(weights * (1 + ratio), name) == weights
    if stays.all():
        return "stays"
    return "depends" if stays.any() else "moves"


def sizes(flow, moments=2, **left_out):
    kinds = ("weights", "gradients", "masters")
    kept = [kind for kind in kinds if kind not in left_out]
    return sum(SIZES[flow[kind]] for kind in kept) + moments * SIZES[flow["moments"]]


def sizes_by_bits(flow):
    dtypes = [flow[kind] for kind in ("weights", "gradients", "masters")]
    dtypes += 2 * [flow["moments"]]
    return sum(formats.get(dtype).bits for dtype in dtypes if dtype) // 8


def step(master, gradient, scale, rate):
    if np.isfinite(gradient):
        master = np.float32(master - np.float32(rate) * (np.float32(gradient) / scale))
    return master, np.float16(master)


def step_in_float64(master, gradient, scale, rate):
    if not np.isfinite(gradient):
        return master, np.float16(master)
    master = np.float32(float(master) - rate * float(gradient) / scale)
    return master, np.float16(master)


def step_in_half(master, gradient, scale, rate):
    with np.errstate(all="ignore"):
        change = np.float16(rate) * (gradient / np.float16(scale))
    master = np.float32(master - np.float32(change))
    return master, np.float16(master)


def step_without_a_master(master, gradient, scale, rate):
    new = np.float16(step(master, gradient, scale, rate)[0])
    return np.float32(new), new


def first_move(weight, update):
    half_gap = float(BRAIN.ulp(weight)) / 2
    even = weight / (2 * half_gap) % 2 == 0
    steps = math.ceil(half_gap / update)
    return steps + 1 if steps * update == half_gap and even else steps


def first_move_by_trying(weight, update):
    steps = 1
    while round_to(weight + steps * update, BRAIN) == weight:
        steps += 1
    return steps


def half_gaps(weight, update):
    return float(BRAIN.ulp(weight)) / 2 / update


RIGHT = {
    "05-1": [fate, fate_by_trying],
    "05-2": [sizes, sizes_by_bits],
    "05-3": [step, step_in_float64],
    "05-4": [first_move, first_move_by_trying],
}

WRONG = {
    "05-1": [
        (lambda r, e: "stays" if r <= e / 2 else "moves", "just below 2"),
        (lambda r, e: "stays" if r <= e / 4 else "moves", "just below 2"),
        (lambda r, e: "stays" if r <= e else "moves", "just below 2"),
        (lambda r, e: fate(r, e) if r < e / 2 else "depends", "half of any gap"),
        (lambda r, e: "moves", "small for it"),
        (lambda r, e: "depends", "small for it"),
        (lambda r, e: r > e / 2, 'return \'False\''),
        (lambda r, e: "stays" if r < 4 * e else "moves", "just below 2"),
        (lambda r, e: "depends" if r > e else fate(r, e), "the gap itself"),
    ],
    "05-2": [
        (lambda f: sizes(f, moments=1), "is missing"),
        (lambda f: sizes(f, masters=0), "is missing"),
        (lambda f: sizes(f, gradients=0), "is missing"),
        (lambda f: sizes(f) + (4 if f["masters"] is None else 0), "no masters here"),
        (lambda f: 8 * sizes(f), "bits"),
        (lambda f: sizes(f, moments=0), "Some kinds are missing"),
        (lambda f: 16, "no masters here"),
    ],
    "05-3": [
        (lambda m, g, s, r: step(m, g, 1.0, r), "loss times the scale"),
        (lambda m, g, s, r: step(m, -g, s, r), "against the gradient"),
        (lambda m, g, s, r: step(m, g, 1 / s, r), "in which dtype"),
        (step_without_a_master, "rounded to float16"),
        (lambda m, g, s, r: step(m, g, s, r)[::-1], "rounded to float16"),
        (lambda m, g, s, r: 2 * step(m, g, s, r)[:1], "master in float16"),
        (lambda m, g, s, r: (step(m, g, s, r)[0], np.float16(m)), "in float16"),
        (step_in_half, "in which dtype"),
        (
            lambda m, g, s, r: step(m, np.nan_to_num(g, posinf=1.0), s, r),
            "as it was",
        ),
    ],
    "05-4": [
        (lambda w, u: math.ceil(half_gaps(w, u)), "Who wins it"),
        (lambda w, u: math.floor(half_gaps(w, u)) + 1, "moves one step earlier"),
        (lambda w, u: math.ceil(2 * half_gaps(w, u)) + 2, "as far as the next number"),
        (half_gaps, "whole number from 1"),
        (lambda w, u: 1, "moves later"),
        (lambda w, u: math.ceil(BRAIN.eps / 2 / u), "Who wins it"),
        (lambda w, u: first_move(w, u) + 1, "moves one step earlier"),
        (lambda w, u: max(1, first_move(w, u) - 1), "Who wins it"),
    ],
}
# What a hint must not say: the answer, as a number or as the code of a solution.
ANSWERS = {
    "05-1": ["eps / 4", "eps / 2", "/ 4"],
    "05-2": ["2 *", "4 bytes", "twice"],
    "05-3": ["/ scale", "divide", "isfinite"],
    "05-4": ["ceil", "even", "% 2"],
}
