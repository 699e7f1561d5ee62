"""Rounding against a search of all values, MPFR and exact fractions."""

import math
from decimal import Decimal
from fractions import Fraction

import gmpy2
import ml_dtypes
import numpy as np
import pytest
import torch
from oracles import (
    EXACT_MODES,
    MPFR_MODES,
    SMALL,
    assert_same,
    away_by_fractions,
    by_mpfr,
    by_table,
    critical,
    spread,
)

from mpteach import rounding
from mpteach.errors import InputError
from mpteach.formats import FORMATS, FloatFormat, get
from mpteach.quanta import OVERFLOWS
from mpteach.rounding import exact, round_to

WIDE = [fmt for fmt in FORMATS.values() if fmt.bits > 19]
IDS = {"ids": lambda fmt: fmt.name}


def policies(fmt: FloatFormat) -> dict[str | None, float]:
    """Return the sizes that each policy of `fmt` gives, by its name."""
    size = {"saturate": fmt.max}
    if fmt.specials != "finite":
        size["nan"] = math.nan
    if fmt.specials == "ieee":
        size["inf"] = math.inf
    own = {"ieee": "inf", "finite": "saturate"}.get(fmt.specials, "nan")
    return {None: size[own], **size}


def with_codes(fmt: FloatFormat, x: np.ndarray) -> np.ndarray:
    return x[~np.isnan(x)] if fmt.specials == "finite" else x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", SMALL, **IDS)
def test_every_value_midpoint_and_their_neighbours(fmt, dtype):
    x = with_codes(fmt, critical(fmt, dtype))
    size = policies(fmt)[None]
    for mode in EXACT_MODES:
        expected = by_table(fmt, x.astype(np.float64), mode, size, size)
        rounded = round_to(x, fmt, mode)
        assert rounded.dtype == dtype
        assert_same(rounded, expected, x)
        if mode == "nearest_even" or fmt.bits <= 16:
            assert_same(fmt.decode(fmt.encode(x, mode)), expected, x)


@pytest.mark.parametrize("fmt", [f for f in SMALL if f.bits <= 8], **IDS)
def test_each_policy_in_each_mode(fmt):
    x = with_codes(fmt, critical(fmt, np.float64))
    sizes = policies(fmt)
    for mode in EXACT_MODES:
        for overflow, beyond in sizes.items():
            for infinity, of_inf in sizes.items():
                of_inf = beyond if infinity is None else of_inf
                expected = by_table(fmt, x, mode, beyond, of_inf)
                given = {"overflow": overflow, "infinity": infinity}
                assert_same(round_to(x, fmt, mode, **given), expected, x)
                codes = fmt.encode(x, mode, **given)
                assert_same(fmt.decode(codes), expected, x)
    for policy in set(OVERFLOWS) - set(sizes):
        with pytest.raises(InputError, match="has none: choose"):
            round_to(x, fmt, overflow=policy)


@pytest.mark.parametrize("mode", MPFR_MODES)
@pytest.mark.parametrize("fmt", FORMATS.values(), **IDS)
def test_directed_and_nearest_modes_against_mpfr(fmt, mode):
    x = spread(fmt, 3000, seed=1)
    x = x if fmt.signed else np.abs(x)
    expected = np.array([by_mpfr(fmt, number, mode) for number in x.tolist()])
    if fmt.specials == "fnuz":
        expected += 0.0
    in_range = np.abs(expected) <= fmt.max
    if not fmt.zero:
        expected = np.maximum(expected, fmt.smallest_normal)
    # In formats with infinity MPFR decides on overflow too.
    in_range |= fmt.specials == "ieee"
    assert in_range.sum() > 2000
    assert_same(round_to(x, fmt, mode)[in_range], expected[in_range], x[in_range])
    assert_same(
        fmt.decode(fmt.encode(x[in_range], mode)), expected[in_range], x[in_range]
    )


@pytest.mark.parametrize("fmt", FORMATS.values(), **IDS)
def test_ties_away_against_fractions(fmt):
    x = np.abs(spread(fmt, 1000, seed=2))
    x = x[(fmt.smallest_normal <= x) & (x < fmt.max / 2)]
    low, high = round_to(x, fmt, "down"), round_to(x, fmt, "up")
    ties = low + (high - low) / 2  # float64 has no midpoints of its own
    x = np.concatenate([x, ties, -x, -ties] if fmt.signed else [x, ties])
    expected = np.array([away_by_fractions(fmt, number) for number in x.tolist()])
    assert_same(round_to(x, fmt, "nearest_away"), expected, x)


@pytest.mark.parametrize("fmt", WIDE, **IDS)
def test_numpy_casts_ten_million_float64_to_the_same_numbers(fmt):
    for seed in range(10):
        bits = np.random.default_rng(seed).integers(0, 2**64, 500_000, dtype=np.uint64)
        x = np.concatenate([bits.view(np.float64), spread(fmt, 500_000, seed)])
        with np.errstate(all="ignore"):
            theirs = x.astype(fmt.name).astype(np.float64)
        assert_same(round_to(x, fmt), theirs, x)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "float8_e4m3fn"])
def test_float64_is_rounded_once(name):
    fmt = get(name)
    middle = 1 + fmt.eps / 2 + fmt.eps * np.arange(0, min(1 / fmt.eps, 1000))
    for way, mode in ((0.0, "down"), (9.0, "up")):
        beside = np.nextafter(middle, way)
        once = round_to(beside, fmt)
        assert_same(once, round_to(beside, fmt, mode), beside)
        twice = round_to(beside.astype(np.float32), fmt)
        wrong = (once != twice).mean()
        assert wrong == 0 if name == "float32" else 0.4 < wrong < 0.6


@pytest.mark.parametrize("mode", EXACT_MODES)
@pytest.mark.parametrize("fmt", FORMATS.values(), **IDS)
def test_exact_is_mpfr_on_the_grid_carried_on(fmt, mode):
    x = spread(fmt, 200 if fmt.exponent_bits < 11 else 20, seed=3)  # slow there
    for number in np.append(x, 8.5 * x[np.abs(x) < 1e300]).tolist():
        if mode == "nearest_away":
            expected = away_by_fractions(fmt, number)
        else:
            expected = by_mpfr(fmt, number, mode, carried=True)
        if math.isfinite(expected):
            assert exact(number, fmt, mode) == Fraction(expected), number


@pytest.mark.parametrize("fmt", [f for f in SMALL if f.bits <= 8 and f.zero], **IDS)
def test_exact_agrees_with_rounding_at_critical_points(fmt):
    x = critical(fmt, np.float64)
    x = x[np.abs(x) <= fmt.max]
    for mode in EXACT_MODES:
        ours = [exact(number, fmt.name, mode) for number in x.tolist()]
        assert ours == [
            Fraction(y) for y in round_to(x, fmt, mode, "saturate").tolist()
        ]


def test_exact_takes_numbers_that_no_float_holds():
    third = Fraction(1, 3)
    assert exact(third, "float16", "down") < third < exact(third, "float16", "up")
    assert exact(Fraction(65520), "float16") == 65536 == exact(65520.0, "float16")
    assert exact(third, "float64") == Fraction(float(gmpy2.mpfr("1") / 3))


@pytest.mark.parametrize("mode", EXACT_MODES)
def test_the_rule_alone_rounds_as_exact_does(mode):
    for x in (Fraction(1, 3), Fraction(-5, 2**26), Fraction(4097), Fraction(0)):
        by_rule = rounding.rounding_rule(x, get("float16"), mode)
        assert by_rule == exact(x, "float16", mode)
        assert by_rule == Fraction(round_to(float(x), "float16", mode))


@pytest.mark.parametrize("x", [
    1.5, Fraction(3, 2), Decimal("1.5"), np.float32(1.5), np.longdouble(1.5),
    np.array(1.5), torch.tensor(1.5), ml_dtypes.bfloat16(1.5), gmpy2.mpq(3, 2),
])  # fmt: skip
def test_exact_takes_a_number_whatever_holds_it(x):
    assert exact(x, "float4_e2m1fn") == Fraction(3, 2)
    with pytest.raises(InputError, match=r"array of shape \(1,\): exact takes one"):
        exact(np.ones(1), "float16")


@pytest.mark.parametrize("mode", EXACT_MODES)
def test_exact_scales_numbers_beyond_all_binades_of_float64(mode, monkeypatch):
    x = (Fraction(2**3000) + Fraction(2**2989) * 3 + 1) * Fraction(4, 3)
    for number in (x, -x, Fraction(2**3000 + 2**2989), Fraction(2**1101)):
        by_rule = rounding.rounding_rule(number, get("float16"), mode)
        assert exact(number, "float16", mode) == by_rule
    sizes = []
    monkeypatch.setattr(rounding, "rounding_rule", lambda x, *_: sizes.append(x) or x)
    huge = Decimal("1e40000")  # the rule alone would climb 130000 binades
    assert exact(huge, "float16", mode) == 10**40000 and sizes[0] < 2**1101


@pytest.mark.parametrize("x", [
    math.inf, math.nan, "a", None, 1j, "1.5", "1/0", True, Decimal("inf"),
    Decimal("sNaN"), np.float32(math.inf), np.longdouble(math.nan),
])  # fmt: skip
def test_exact_takes_one_finite_number(x):
    with pytest.raises(InputError, match="is no finite number"):
        exact(x, get("float16"))


def test_exact_has_no_result_for_stochastic_and_unknown_modes():
    with pytest.raises(InputError, match="has no one result"):
        exact(1.0, "float16", "stochastic")
    with pytest.raises(InputError, match="rounding was 'odd'"):
        exact(1.0, "float16", "odd")
    with pytest.raises(InputError, match="unknown format 'half'"):
        exact(1.0, "half")


def test_a_quantum_above_one_does_not_lose_the_smallest_numbers():
    large = FloatFormat("large", 3, 2, bias=-1000)
    tiny = np.array([5e-324, -5e-324, 1e-300, 0.0, -0.0])
    step = large.smallest_subnormal
    assert round_to(tiny, large, "up").tolist() == [step, 0, step, 0, 0]
    assert round_to(tiny, large, "down").tolist() == [0, -step, 0, 0, 0]
    assert not round_to(tiny, large).any()


def test_e8m0_takes_zero_to_its_smallest_and_no_negative_number():
    x = np.array([0.0, -0.0, 1e-45, 2.0**-127, -1e-45, -1.0, -np.inf])
    for mode in EXACT_MODES:
        y = round_to(x, "float8_e8m0fnu", mode)
        assert y[:4].tolist() == [2.0**-127] * 4 and np.isnan(y[4:]).all()
    # 1.5 lies between two powers of two: one digit each, so neither is even.
    assert round_to(np.array([1.5, 3.0, 6.0]), "float8_e8m0fnu").tolist() == [2, 4, 8]


def test_the_steps_of_the_algorithm_are_small_enough_for_float32():
    for fmt in FORMATS.values():
        narrow = rounding._fits_float32(fmt, 4)
        assert narrow == (fmt.name != "float64")
        assert not rounding._fits_float32(fmt, 8)
