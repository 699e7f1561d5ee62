"""The one algorithm: its whole numbers, and its random numbers."""

import math

import numpy as np
import pytest
import torch

from mpteach import quanta
from mpteach.errors import InputError
from mpteach.formats import get

MASK = 2**64 - 1


def splitmix64(index: int, seed: int) -> int:
    """SplitMix64 as published, in Python's integers."""
    z = (seed + index * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_splitmix64_is_the_published_one():
    # The first output of the reference implementation for seed 1234567.
    assert splitmix64(1, 1234567) == 6457827717110365317


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 123456789])
def test_random_numbers_are_the_top_31_bits_of_splitmix64(seed):
    index = np.array([0, 1, 2, 1000, 2**31, 2**40])
    with np.errstate(over="ignore"):
        drawn = quanta.uniform(quanta.NUMPY)(index, np.int64(seed))
    top = [splitmix64(i, seed) >> 33 for i in index.tolist()]
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, np.float32(top) * np.float32(2.0**-31))


def test_random_numbers_fill_the_unit_interval_evenly():
    with np.errstate(over="ignore"):
        drawn = quanta.uniform(quanta.NUMPY)(np.arange(10**6), np.int64(42))
    assert 0 <= drawn.min() < 1e-5 and 1 - 1e-5 < drawn.max() <= 1
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    chi_squared = ((counts - 10**4) ** 2 / 10**4).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom: 99 +- 14 on average


@pytest.mark.parametrize(("mode", "expected"), [
    ("nearest_even", [0, 0, 2, 2, -0.0, -2, 3]),
    ("nearest_away", [0, 1, 2, 3, -1, -2, 3]),
    ("toward_zero", [0, 0, 1, 2, -0.0, -1, 3]), ("up", [1, 1, 2, 3, -0.0, -1, 3]),
    ("down", [0, 0, 1, 2, -1, -2, 3]),
])  # fmt: skip
def test_whole_numbers_by_hand(mode, expected):
    steps = np.array([0.25, 0.5, 1.5, 2.5, -0.5, -1.5, 3.0])
    result = quanta.whole(mode, quanta.NUMPY)(steps, steps, None)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(expected))


def test_stochastic_goes_up_where_the_noise_is_below_the_rest():
    steps, noise = np.array([1.25, 1.25, -1.25, 2.0]), np.array([0.2, 0.25, 0.7, 0.0])
    result = quanta.whole("stochastic", quanta.NUMPY)(steps, steps, noise)
    assert result.tolist() == [2, 1, -1, 2]


def test_specials_pass_through_the_algorithm_without_a_warning():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1.7e308])
    for mode in quanta.MODES:
        y = quanta.round_array(x, get("float16").grid(mode), mode, 0)
        assert np.isnan(y[0]) and y[1:3].tolist() == [np.inf, -np.inf]
        assert np.signbit(y[3:5]).tolist() == [False, True] and not y[3:5].any()


def test_blocks_continue_the_random_numbers():
    x, grid = np.full(1000, 1.3), get("float4_e2m1fn").grid("stochastic")
    once = quanta.round_array(x, grid, "stochastic", 9)
    parts = [
        quanta.round_array(x[i : i + 300], grid, "stochastic", 9, first=i)
        for i in range(0, 1000, 300)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), once)


def test_only_stochastic_rounding_draws_a_seed():
    assert [quanta.seed(mode, None) for mode in quanta.MODES[:-1]] == [0] * 5
    rng = np.random.default_rng(1)
    assert quanta.seed("stochastic", rng) != quanta.seed("stochastic", rng)
    assert quanta.seed("stochastic", torch.Generator().manual_seed(1)) == quanta.seed(
        "stochastic", torch.Generator().manual_seed(1)
    )
    with pytest.raises(InputError, match="rng was nan: stochastic rounding needs"):
        quanta.seed("stochastic", math.nan)
