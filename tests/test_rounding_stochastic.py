"""Stochastic rounding: only the two neighbours, exact values stay, no bias, a seed."""

import math

import numpy as np
import pytest
import torch
from oracles import SMALL, assert_same, sizes, spread

from mpteach import quanta, rounding
from mpteach.errors import InputError
from mpteach.formats import FORMATS, get
from mpteach.rounding import round_to

IDS = {"ids": lambda fmt: fmt.name}
DRAWS = 10**6
# P(|z| > 4.5) is 7e-6 for a fair draw: less than 1 in 1,000 for all those below.
BOUND = 4.5


def stochastic(x, fmt, seed=0, **more):
    return round_to(x, fmt, "stochastic", rng=np.random.default_rng(seed), **more)


@pytest.mark.parametrize("fmt", FORMATS.values(), **IDS)
def test_only_the_two_neighbours_come_out(fmt):
    x = spread(fmt, 200_000, seed=1)
    x = np.clip(x, fmt.min, fmt.max)
    y, low, high = stochastic(x, fmt), round_to(x, fmt, "down"), round_to(x, fmt, "up")
    assert ((y == low) | (y == high)).all()
    moved = low != high
    assert not moved.any() or 0.4 < (y == high)[moved].mean() < 0.6
    np.testing.assert_array_equal(np.signbit(y)[y != 0], np.signbit(x)[y != 0])


@pytest.mark.parametrize("fmt", SMALL, **IDS)
def test_exact_values_never_move(fmt):
    values = sizes(fmt)[:-1]
    values = np.concatenate([values, -values[1:]]) if fmt.signed else values
    many = np.tile(values, max(1, 20_000 // values.size))
    assert_same(stochastic(many, fmt), many, many)
    assert_same(stochastic(many.astype(np.float32), fmt), many, many)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "near"), [
    ("float16", 1.0), ("bfloat16", -3.0), ("float8_e4m3fn", 2.0**-9),
    ("float8_e5m2", -40000.0), ("float8_e4m3fnuz", 0.0), ("float8_e8m0fnu", 4.0),
    ("float4_e2m1fn", 4.0),
])  # fmt: skip
@pytest.mark.parametrize("above", [1 / 1024, 0.3, 0.5, 0.75, 1 - 1 / 256])
def test_a_million_draws_have_no_bias(name, near, dtype, above):
    fmt = get(name)
    low = round_to(near, fmt, "down")
    step = fmt.next_up(low) - low
    x = dtype(low + above * step)
    share = (float(x) - low) / step  # what the dtype left of it
    y = stochastic(np.full(DRAWS, x), fmt, seed=int(above * 1024))
    assert set(np.unique(y)) == {low, low + step}
    ups = np.count_nonzero(y == low + step)
    z = (ups - DRAWS * share) / math.sqrt(DRAWS * share * (1 - share))
    assert abs(z) < BOUND


def test_the_mean_is_the_number_itself_over_many_numbers():
    x = np.random.default_rng(5).normal(size=DRAWS)
    error = stochastic(x, "bfloat16") - x
    assert abs(error.mean()) < BOUND * error.std() / math.sqrt(DRAWS)
    nearest = round_to(x, "bfloat16") - x
    assert error.std() > 1.3 * nearest.std()  # the price


def test_draws_next_to_each_other_are_not_related():
    y = stochastic(np.full(DRAWS, 0.5), "float4_e2m1fn", seed=1)
    assert (y == 0.5).all()
    up = stochastic(np.full(DRAWS, 1.25), "float4_e2m1fn", seed=1) > 1
    for apart in (1, 2, 7, 64, 2**14):
        both = np.mean(up[apart:] == up[:-apart])
        assert abs(both - 0.5) < BOUND * 0.5 / math.sqrt(DRAWS - apart)
    again = stochastic(np.full(DRAWS, 1.25), "float4_e2m1fn", seed=2) > 1
    assert abs(np.mean(up == again) - 0.5) < BOUND * 0.5 / math.sqrt(DRAWS)


@pytest.mark.parametrize("draw", [
    lambda seed: np.random.default_rng(seed),
    lambda seed: torch.Generator().manual_seed(seed),
])  # fmt: skip
def test_the_generator_decides_and_moves_on(draw):
    x = np.full(1000, 1.0001)
    first, same, other = (
        round_to(x, "float16", "stochastic", rng=draw(seed)) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    rng = draw(7)
    runs = [round_to(x, "float16", "stochastic", rng=rng) for _ in range(2)]
    np.testing.assert_array_equal(runs[0], first)
    assert (runs[0] != runs[1]).any()


def test_other_modes_leave_the_generator_alone():
    rng = np.random.default_rng(3)
    round_to(np.ones(3), "float16", rng=rng)
    get("float16").encode(1.0, rng=rng)
    assert rng.integers(2**40) == np.random.default_rng(3).integers(2**40)


def test_one_seed_gives_one_result_however_the_numbers_are_held(monkeypatch):
    x = spread(get("float16"), 3 * rounding.BLOCK + 5, seed=2).astype(np.float32)
    expected = stochastic(x, "float16")
    fmt = get("float16")
    codes = fmt.encode(x, "stochastic", rng=np.random.default_rng(0))
    assert_same(fmt.decode(codes), expected, x)
    assert_same(stochastic(x.astype(np.float64), fmt), expected, x)
    assert_same(stochastic(torch.from_numpy(x), fmt).numpy(), expected, x)
    assert_same(stochastic(x.reshape(-1, 1), fmt)[:, 0], expected, x)
    monkeypatch.setattr(rounding, "WARM", 0)
    assert_same(stochastic(x, "float16"), expected, x)


@pytest.mark.parametrize(
    "rng", [None, 1, "seed", np.random.RandomState(0), torch.ones(1)]
)
def test_without_a_generator_it_is_one_sentence(rng):
    with pytest.raises(InputError, match="stochastic rounding needs a generator, e.g."):
        round_to(np.ones(2), "float16", "stochastic", rng=rng)


def test_what_is_drawn_beyond_the_largest_number_follows_the_policy():
    x = np.full(1000, 65504 + 8.0)  # a quarter of the way to 65536
    assert set(stochastic(x, "float16").tolist()) == {65504, math.inf}
    assert set(stochastic(x, "float16", overflow="saturate").tolist()) == {65504}
    assert np.isnan(stochastic(x, "float16", overflow="nan")).any()
    far = np.array([1e9, -1e9, math.inf])
    assert stochastic(far, "float16").tolist() == [math.inf, -math.inf, math.inf]
    assert stochastic(far, "float16", overflow="saturate", infinity="inf").tolist() == [
        65504, -65504, math.inf,
    ]  # fmt: skip


def test_the_seed_is_of_64_bits_for_both_generators():
    for rng in (np.random.default_rng(0), torch.Generator().manual_seed(0)):
        seeds = [quanta.seed("stochastic", rng) for _ in range(100)]
        assert len(set(seeds)) == 100 and min(seeds) < 0 < max(seeds)
        assert max(abs(seed) for seed in seeds) > 2**62
