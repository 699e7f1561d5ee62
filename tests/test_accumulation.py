"""Sums in a format: each step against fractions, known answers, and error bounds."""

import math
from fractions import Fraction
from inspect import signature

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpteach import accumulation, formats, rounding
from mpteach.accumulation import METHODS, add_to_odd, cumsum, dot
from mpteach.errors import InputError
from mpteach.formats import FORMATS, FloatFormat

MODES = ("nearest_even", "nearest_away", "toward_zero", "up", "down")
NAMES = [name for name in FORMATS if name != "float64"]
SIGNED = [name for name in NAMES if FORMATS[name].signed]
# float64 holds the exact sums of this format, and not one bit more.
WIDEST = FloatFormat("widest", 10, 50)
NARROW = "float4_e2m1fn"  # neither inf nor NaN


def total(x, *args, **kwargs):
    return accumulation.sum(x, *args, **kwargs).tolist()


def values(fmt, rng, shape, spread):
    """Return numbers of `fmt` whose sizes spread over `spread` binades."""
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-spread, 1, shape)
    return rounding.round_to(x, fmt)


def reference(terms, fmt, mode):
    """Add fractions, one after the other, each sum rounded exactly."""
    held = Fraction(0)
    for term in terms:
        held = rounding.exact(held + Fraction(term), fmt, mode)
    return float(held)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fmt", [*map(FORMATS.get, SIGNED), WIDEST], ids=lambda fmt: fmt.name
)
def test_one_addition_is_one_rounding_of_the_exact_sum(fmt, mode):
    rng = np.random.default_rng(3)
    pairs = values(fmt, rng, (200, 2), min(120, 2 ** (fmt.exponent_bits - 1)))
    pairs = pairs[np.abs(pairs.sum(-1)) <= fmt.max]
    expected = [
        float(rounding.exact(Fraction(a) + Fraction(b), fmt, mode)) for a, b in pairs
    ]
    assert total(pairs, fmt, rounding=mode) == expected


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
@settings(max_examples=300, deadline=None)
def test_rounding_to_odd(a, b):
    exact = Fraction(a) + Fraction(b)
    (odd,) = add_to_odd(np.array([a]), np.array([b]))
    if exact == Fraction(a + b):
        assert odd == a + b
        return
    around = sorted(
        [float(odd), math.nextafter(odd, math.inf if odd < exact else -math.inf)]
    )
    assert around[0] < exact < around[1]
    assert np.float64(odd).view(np.int64) % 2 == 1


@pytest.mark.parametrize("fmt", ["bfloat16", "float32", "tfloat32"])
def test_a_trifle_decides_where_float64_loses_it(fmt):
    eps, trifle = FORMATS[fmt].eps, 2.0**-100
    assert 1 + trifle == 1  # what float64 makes of the exact sum
    assert total([1, trifle], fmt, rounding="up") == 1 + eps
    assert total([1, trifle], fmt, rounding="down") == 1
    assert total([1, -trifle], fmt, rounding="down") == 1 - eps / 2
    assert total([1, -trifle], fmt, rounding="toward_zero") == 1 - eps / 2
    assert total([-1, trifle], fmt, rounding="up") == eps / 2 - 1
    # Half a step and a trifle more: float64 sees a tie and would go to the even side.
    tie = np.array([1 + eps / 2])
    assert rounding.round_to(tie + trifle, fmt) == 1
    assert rounding.round_to(add_to_odd(tie, np.array([trifle])), fmt) == 1 + eps


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float32", "float8_e4m3fn"])
def test_partial_sums_are_those_of_fractions(fmt, mode):
    terms = values(FORMATS[fmt], np.random.default_rng(5), 60, 12)
    partial = cumsum(terms, fmt, rounding=mode)
    expected = [reference(terms[: i + 1], FORMATS[fmt], mode) for i in range(60)]
    assert partial.tolist() == expected
    assert total(terms, fmt, rounding=mode) == expected[-1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("accumulator", ["float16", "bfloat16", "float32"])
def test_products_are_rounded_once_too(accumulator, mode):
    rng = np.random.default_rng(7)
    x, y = (values(FORMATS["float16"], rng, 40, 8) for _ in "xy")
    within = FORMATS[accumulator]
    products = [
        rounding.exact(Fraction(a) * Fraction(b), within, mode)
        for a, b in zip(x, y, strict=True)
    ]
    held = reference(products, within, mode)
    expected = float(rounding.exact(held, FORMATS["float16"], mode))
    found = dot(x, y, "float16", accumulator=accumulator, rounding=mode)
    assert found == expected


def test_ones_stall_where_one_is_half_a_step():
    stalls = {"float16": 2048, "bfloat16": 256, "float8_e4m3fn": 16, "float8_e5m2": 8}
    for name, stall in stalls.items():
        assert stall == 2 / formats.get(name).eps
        partial = cumsum(np.ones(stall + 100), name)
        assert partial[:stall].tolist() == list(range(1, stall + 1))
        assert set(partial[stall:]) == {stall}


def test_a_wider_accumulator_does_not_stall():
    ones = np.ones(8192)
    assert total(ones, "float16", accumulator="float32") == 8192
    assert dot(ones[:4096], ones[:4096], "float16") == 2048
    assert dot(ones[:4096], ones[:4096], "float16", accumulator="float32") == 4096
    assert total(ones[:1024], "bfloat16", accumulator="float32") == 1024
    for method in ("pairwise", "kahan"):
        assert total(ones[:4096], "float16", method) == 4096


def test_the_result_is_rounded_to_the_format_at_the_end():
    # 2049 is between two float16 numbers, 70000 beyond the largest.
    assert total(np.ones(2049), "float16", accumulator="float32") == 2048
    assert total([7e4 / 2, 7e4 / 2], "float16", accumulator="float32") == math.inf
    back = [4e4, 4e4, -4e4]
    assert total(back, "float16") == math.inf
    assert total(back, "float16", accumulator="float32") == 4e4


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_numpy_adds_the_same_way(dtype):
    terms = np.random.default_rng(11).standard_normal((3, 500)).astype(dtype)
    assert np.array_equal(cumsum(terms, dtype), np.cumsum(terms, -1, dtype=dtype))


def test_torch_adds_the_same_way_in_bfloat16():
    terms = torch.randn(300, generator=torch.Generator().manual_seed(0)).bfloat16()
    held = torch.zeros((), dtype=torch.bfloat16)
    for term in terms:
        held = held + term
    assert total(terms.double(), "bfloat16") == held.item()


def test_a_tenth_added_over_and_over():
    tenths = np.full(10, 0.1, dtype=np.float16)
    assert total(tenths, "float16") == np.cumsum(tenths)[-1]
    # From 256 on, a tenth is less than half a step.
    partial = cumsum(np.full(4096, 0.1), "float16")
    assert partial[-1] == partial[-1000] == 256
    up = cumsum(np.full(4096, 0.1), "float16", rounding="up")
    assert up[-1] > 4096 * 0.1 and (np.diff(up) > 0).all()
    down = total(np.full(4096, 0.1), "float16", rounding="down")
    assert down < 256


@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", "float16"])
def test_the_harmonic_series_stalls(fmt):
    partial = cumsum(1 / np.arange(1, 3001), fmt)
    last = int(np.flatnonzero(np.diff(partial))[-1]) + 1
    assert set(partial[last:]) == {partial[last]} and last < 2900
    # The next term is at most half of the step above.
    step = formats.get(fmt).ulp(partial[last])
    assert 1 / (last + 2) <= step / 2 * (1 + formats.get(fmt).eps)
    assert math.fsum(1 / n for n in range(1, 3001)) > partial[last] + step


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float32"])
def test_each_method_keeps_to_its_bound(fmt, positive):
    fmt = formats.get(fmt)
    n = min(1000, int(0.2 / fmt.eps))
    terms = values(fmt, np.random.default_rng(13), (8, n), 3)
    terms = abs(terms) if positive else terms
    exact = np.array([math.fsum(row) for row in terms])
    size = np.abs(terms).sum(-1)
    u = fmt.eps / 2

    def gamma(count):
        return count * u / (1 - count * u)

    bounds = {
        "naive": gamma(n - 1),
        "pairwise": gamma(math.ceil(math.log2(n))),
        "kahan": 2 * u + 8 * n * u * u,
    }
    worst = {}
    for method, bound in bounds.items():
        # The result itself counts: it is held in the format.
        error = abs(accumulation.sum(terms, fmt, method) - exact) / size
        assert (error <= bound).all(), method
        worst[method] = error.max()
    assert worst["pairwise"] < worst["naive"] and worst["kahan"] < worst["naive"]


def test_stochastic_rounding_does_not_stall():
    tiny, n, rows = 2.0**-10, 1024, 400
    terms = np.full((rows, n), tiny)
    terms[:, 0] = 4.0  # where tiny is a quarter of a step
    assert set(total(terms, "float16")) == {4.0}
    sums = accumulation.sum(
        terms, "float16", rounding="stochastic", rng=np.random.default_rng(17)
    )
    step = formats.get("float16").ulp(4.0)
    chance = tiny / step
    expected = 4 + (n - 1) * tiny
    deviation = step * math.sqrt((n - 1) * chance * (1 - chance))
    z = (sums.mean() - expected) / (deviation / math.sqrt(rows))
    assert abs(z) < 4
    assert 0.8 < sums.std() / deviation < 1.2


def test_stochastic_steps_draw_numbers_of_their_own():
    def sums(seed, **how):
        rng = np.random.default_rng(seed)
        x = np.full((4, 300), 0.1)
        return accumulation.sum(x, "bfloat16", rounding="stochastic", rng=rng, **how)

    assert sums(0).tolist() == sums(0).tolist() != sums(1).tolist()
    assert len(set(sums(0).tolist())) > 1
    for method in METHODS:
        assert np.isfinite(sums(0, method=method)).all()


@pytest.mark.parametrize("method", METHODS)
def test_overflow_follows_the_format(method):
    assert not math.isfinite(total([6e4, 6e4], "float16", method))
    assert total([6.0, 6.0], "float4_e2m1fn", method) == 6
    assert math.isnan(total([448.0, 448.0], "float8_e4m3fn", method))
    assert total([448.0, 10.0], "float8_e4m3fn", method) == 448


def test_beyond_the_largest_number_there_is_infinity():
    assert total([65504, 16], "float16") == math.inf
    assert total([65504, 15.99], "float16") == 65504
    assert total([65504, 65504], "float16", rounding="toward_zero") == 65504
    assert math.isnan(total([math.inf, -math.inf], "float16"))
    assert total([math.inf, 1], "float16") == math.inf
    assert math.isnan(total([math.nan, 1], "bfloat16"))
    assert math.isnan(dot([math.inf], [0.0], "float16"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4), (2, 3, 7), (2, 0), (0, 3), (0,)])
def test_sums_run_along_the_last_axis(method, shape):
    x = np.arange(math.prod(shape), dtype=float).reshape(shape)
    found = accumulation.sum(x, "float32", method)
    assert found.dtype == np.float64 and found.shape == shape[:-1]
    assert np.array_equal(found, x.sum(-1))
    assert np.array_equal(dot(x, x, "float32", method), (x * x).sum(-1))
    if method == "naive":
        assert np.array_equal(cumsum(x, "float32"), x.cumsum(-1))


def test_one_term_is_rounded_to_the_accumulator():
    for method in METHODS:
        assert total([1.001], "float32", method, "bfloat16") == 1


@pytest.mark.parametrize("method", METHODS)
def test_infinities_without_an_infinity_are_nan_in_every_order(method):
    both = [math.inf, -math.inf, 1.0]
    assert math.isnan(total(both, "float16", method, "float8_e4m3fn"))
    # Rounded to the narrow format first, they are its largest numbers.
    assert total([math.inf, -math.inf], NARROW, method) == 0


def test_kahan_adds_unsigned_numbers_in_a_signed_accumulator():
    assert total([1.0, 2.0, 4.0], "float8_e8m0fnu", "kahan", "float16") == 8


def test_leading_axes_are_broadcast():
    matrix = np.arange(12.0).reshape(3, 4)
    vector = np.arange(4.0)
    assert np.array_equal(dot(matrix, vector, "float16"), matrix @ vector)
    outer = dot(matrix[:, None], matrix[None], "float16")
    assert np.array_equal(outer, matrix @ matrix.T)


def test_inputs_are_rounded_first_and_left_alone():
    x = np.full(3, 0.1)
    before = x.copy()
    assert total(x[:1], "bfloat16") == rounding.round_to(0.1, "bfloat16")
    assert total(x[:1], "bfloat16", rounding="up") > 0.1
    assert np.array_equal(x, before)


def test_a_zero_has_the_sign_of_float64():
    assert math.copysign(1, total([-0.0, -0.0], "float16")) == 1
    assert math.copysign(1, total([1.0, -1.0], "float16", rounding="down")) == 1


def test_formats_of_ones_own_and_unsigned_ones():
    assert total([1, 1, 1], FloatFormat("e5m1", 5, 1)) == 3
    assert total([1, 2, 4], "float8_e8m0fnu") == 8
    assert math.isnan(total([1, -2], "float8_e8m0fnu"))


def test_the_three_take_the_same_arguments():
    names = list(signature(accumulation.sum).parameters)
    assert [n for n in signature(dot).parameters if n != "y"] == names
    assert set(signature(cumsum).parameters) < set(names)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: total([1.0], "float64"), "float64 is too wide to add in.*float32"),
        (lambda: total([1.0], FloatFormat("e11", 11, 4)), "too wide to add in"),
        (lambda: total([1.0], "float16", accumulator="float64"), "too wide to add in"),
        (lambda: cumsum([1.0], "float64"), "too wide to add in"),
        (lambda: dot([1.0], [1.0], WIDEST), "widest is too wide to multiply in"),
        (lambda: dot([1.0], [1.0], FloatFormat("e", 10, 4, 500)), "to multiply in"),
        (lambda: total([1.0], "float17"), "unknown format 'float17'"),
        (lambda: total([1.0], "float16", "sorted"), "'sorted': choose from naive"),
        (lambda: total([1.0], "float16", rounding="nearest"), "choose from nearest_e"),
        (lambda: total([1.0], "float16", rounding="stochastic"), "needs a generator"),
        (lambda: total(1.0, "float16"), "single number 1.0: give an array"),
        (lambda: total(np.arange(3), "float16"), "dtype int64"),
        (lambda: dot([1.0, 2], [1.0], "float16"), "x has 2 terms and y 1"),
        (lambda: dot(np.ones((2, 3)), np.ones((4, 3)), "float16"), "must be equal"),
        (lambda: total([math.nan], "float4_e2m1fn"), "has no NaN"),
        (
            lambda: total([math.nan], "float16", accumulator="float6_e3m2fn"),
            "has no NaN",
        ),
        (
            lambda: total([1.0, 2.0], "float8_e8m0fnu", "kahan"),
            "kahan needs a signed format, as it subtracts, and float8_e8m0fnu",
        ),
        (
            lambda: dot(
                [1.0],
                [1.0],
                "float16",
                "kahan",
                FloatFormat("u", 4, 3, specials="finite", signed=False),
            ),
            "and u has no sign: choose naive or pairwise",
        ),
        *(
            (call, "-?inf among the terms, and the accumulator float4_e2m1fn has nei")
            for method in METHODS
            for call in (
                lambda m=method: total([math.inf, -math.inf], "float16", m, NARROW),
                lambda m=method: dot([-math.inf], [2.0], "float16", m, NARROW),
            )
        ),
        *(
            (lambda odd=odd: total([1.0], "float16", accumulator=odd), "unknown form")
            for odd in ("", 0, False)
        ),
        (lambda: dot([1.0], [1.0], "float16", accumulator=""), "unknown format ''"),
        (lambda: total([1.0], "float16", ["naive"]), r"\['naive'\]: choose from naive"),
    ],
)
def test_bad_input_is_told_in_a_sentence(call, said):
    with pytest.raises(InputError, match=said) as told:
        call()
    assert "\n" not in str(told.value)


def test_sums_of_the_widest_format_are_exact_to_the_last_bit():
    eps = WIDEST.eps
    assert total([1, eps / 2, eps / 2**40], WIDEST) == 1
    assert total([1, eps / 2 * (1 + eps)], WIDEST) == 1 + eps
    assert total([1 + eps, eps / 2], WIDEST) == 1 + 2 * eps
