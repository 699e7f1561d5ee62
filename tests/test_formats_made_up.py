"""Properties that hold for every format, on made-up ones of every kind."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import EXACT_MODES, assert_same, by_table, critical, sizes

from mpteach.errors import InputError
from mpteach.formats import SPECIALS, FloatFormat
from mpteach.rounding import round_to

NUMBERS = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def made_up(**arguments) -> FloatFormat | None:
    try:
        return FloatFormat("made up", **arguments)
    except InputError:
        return None


LAYOUTS = st.builds(
    made_up,
    exponent_bits=st.integers(1, 8),
    fraction_bits=st.integers(0, 7),
    bias=st.none() | st.integers(-60, 200),
    specials=st.sampled_from(SPECIALS),
    signed=st.booleans(),
    zero=st.booleans(),
).filter(bool)
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=150)


def fitting(fmt: FloatFormat, x: list[float]) -> np.ndarray:
    """Return numbers of `x` that have a code, brought near the range of `fmt`."""
    scaled = np.array([math.remainder(v, 4 * fmt.max) if v - v == 0 else v for v in x])
    if not fmt.signed:
        scaled = np.abs(scaled)
    return np.concatenate([scaled, scaled * fmt.smallest_subnormal / fmt.max])


@REPEATABLE
@given(LAYOUTS)
def test_every_value_comes_back(fmt):
    values = fmt.values()
    assert_same(fmt.decode(fmt.encode(values)), values, values)
    for mode in EXACT_MODES:
        assert_same(round_to(values, fmt, mode), values, values)
    rng = np.random.default_rng(0)
    assert_same(round_to(values, fmt, "stochastic", rng=rng), values, values)


@REPEATABLE
@given(LAYOUTS, st.sampled_from(EXACT_MODES))
def test_critical_points_round_as_a_search_of_the_values_does(fmt, mode):
    x = critical(fmt, np.float64)
    if fmt.specials == "finite":
        x = x[~np.isnan(x) & (fmt.signed | (x >= 0))]
    own = {"ieee": math.inf, "finite": fmt.max}.get(fmt.specials, math.nan)
    expected = by_table(fmt, x, mode, own, own)
    assert_same(round_to(x, fmt, mode), expected, x)
    assert_same(fmt.decode(fmt.encode(x, mode)), expected, x)


@pytest.mark.parametrize("bias", range(122, 152))
def test_float32_input_near_the_smallest_numbers_of_float32(bias):
    fmt = FloatFormat("tiny", 3, 3, bias=bias)
    x = critical(fmt, np.float32)
    for mode in EXACT_MODES:
        expected = by_table(fmt, x.astype(np.float64), mode, math.inf, math.inf)
        held = (expected.astype(np.float32) == expected) | np.isnan(expected)
        assert_same(round_to(x[held], fmt, mode), expected[held], x[held])
        if not held.all():
            with pytest.raises(InputError, match="float32 cannot hold it"):
                round_to(x, fmt, mode)


def test_a_grid_finer_than_that_of_float32_leaves_float32_alone():
    fmt = FloatFormat("fine", 3, 23, bias=128)
    x = np.array([2.0**-149, 2.0**-127, 1.25 * 2.0**-126, -(2.0**-148)], np.float32)
    for mode in EXACT_MODES:
        assert_same(round_to(x, fmt, mode), x, x)


@REPEATABLE
@given(LAYOUTS, st.sampled_from(EXACT_MODES), st.lists(NUMBERS, min_size=2, max_size=9))
def test_order_is_kept(fmt, mode, numbers):
    x = np.sort(fitting(fmt, numbers))
    y = round_to(x, fmt, mode, overflow="saturate")
    assert (np.diff(y) >= 0).all()


@REPEATABLE
@given(LAYOUTS, st.lists(NUMBERS, min_size=1, max_size=9))
def test_rounding_is_odd(fmt, numbers):
    assume(fmt.signed)
    x = fitting(fmt, numbers)
    zero = 0.0 if fmt.specials == "fnuz" else -0.0
    opposite = {"up": "down", "down": "up"}
    for mode in EXACT_MODES:
        y = round_to(x, fmt, mode)
        z = round_to(-x, fmt, opposite.get(mode, mode))
        assert_same(-z + zero, y + zero, x)
    if fmt.specials != "fnuz":
        codes, sign = fmt.encode(x), 2 ** (fmt.bits - 1)
        np.testing.assert_array_equal(fmt.encode(-x), codes ^ sign)


@REPEATABLE
@given(LAYOUTS, FINITE)
def test_the_neighbours_enclose_and_the_ulp_bounds_the_error(fmt, number):
    (x, _) = fitting(fmt, [number]).tolist()
    assume(fmt.min <= x <= fmt.max)
    y = round_to(x, fmt, overflow="saturate")
    down, up = (round_to(x, fmt, mode) for mode in ("down", "up"))
    assert y in (down, up) and down <= x <= up
    assert abs(y - x) <= fmt.ulp(x) / 2
    if x == y:
        assert down == up == x
        assert x == fmt.max or fmt.next_down(fmt.next_up(x)) == x
        assert x == fmt.min or fmt.next_up(fmt.next_down(x)) == x
    else:
        assert (fmt.next_down(x), fmt.next_up(x)) == (down, up)
        assert up == fmt.next_up(down) and down == fmt.next_down(up)


@REPEATABLE
@given(LAYOUTS)
def test_neighbours_walk_through_all_values(fmt):
    values = fmt.values()
    np.testing.assert_array_equal(fmt.next_up(values[:-1]), values[1:])
    np.testing.assert_array_equal(fmt.next_down(values[1:]), values[:-1])
    table = sizes(fmt)
    np.testing.assert_array_equal(fmt.ulp(table[:-1]), np.diff(table))


@REPEATABLE
@given(LAYOUTS, st.lists(st.floats(), min_size=1, max_size=9))
def test_numbers_that_are_rounded_stay(fmt, numbers):
    x = np.array(numbers)
    if fmt.specials == "finite":
        x = x[~np.isnan(x) & (fmt.signed | (x >= 0))]
    for mode in EXACT_MODES:
        once = round_to(x, fmt, mode)
        assert_same(round_to(once, fmt, mode), once, x)
        assert_same(fmt.decode(fmt.encode(x, mode)), once, x)
