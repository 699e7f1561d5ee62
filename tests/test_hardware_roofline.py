"""Counting FLOP and bytes, the roofline, and what a ring all-reduce sends."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mpteach.errors import InputError
from mpteach.hardware import roofline
from mpteach.hardware.roofline import (
    ELEMENTWISE,
    Work,
    all_reduce_bytes,
    attainable,
    ridge,
    stored_bytes,
)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_the_bytes_of_a_number_are_torchs(dtype):
    assert stored_bytes(dtype) == getattr(torch, dtype).itemsize


def test_tf32_is_stored_as_float32():
    assert stored_bytes("tfloat32") == 4


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_a_product_counts_as_torch_counts(rows):
    a, b = torch.zeros(rows, 32), torch.zeros(32, 32)
    with FlopCounterMode(display=False) as counter:
        result = a @ b
    work = Work("product", "float32", rows, 32)
    assert work.flop == counter.get_total_flops()
    assert work.bytes == a.nbytes + b.nbytes + result.nbytes
    assert work.intensity == work.flop / work.bytes
    half = Work("product", "float16", rows, 32)
    assert half.intensity == 2 * work.intensity


def test_a_float8_product_writes_two_bytes():
    work = Work("product", "float8_e4m3fn", 64, 32)
    assert work.bytes == 64 * 32 + 32 * 32 + 2 * 64 * 32


def test_element_wise_bytes():
    numbers = 8 * 4
    assert Work("copy", "bfloat16", 8, 4).bytes == numbers * (2 + 2)
    assert Work("cast", "bfloat16", 8, 4).bytes == numbers * (4 + 2)
    assert Work("add", "float32", 8, 4).bytes == numbers * (4 + 4 + 4)
    assert Work("adamw", "float32", 8, 4).bytes == numbers * 7 * 4
    assert Work("add", "float32", 8, 4).intensity == pytest.approx(1 / 12)
    assert Work("copy", "float32", 8, 4).flop == 0
    for name, each in ELEMENTWISE.items():
        assert Work(name, "float16", 8, 4).flop == each.flop * numbers


def test_bad_work():
    with pytest.raises(InputError, match="unknown operation 'dot'.*product, copy"):
        Work("dot", "float32", 4, 4)
    with pytest.raises(InputError, match="half"):
        Work("product", "half", 4, 4)


def test_the_roof_has_a_slope_a_ridge_and_a_top():
    peak, bandwidth = 989e12, 4.8e12
    assert attainable(1.0, peak, bandwidth) == bandwidth
    assert attainable(1e6, peak, bandwidth) == peak
    edge = ridge(peak, bandwidth)
    assert edge == pytest.approx(206.04, abs=0.01)
    assert attainable(edge, peak, bandwidth) == pytest.approx(peak)
    grid = np.geomspace(0.1, 1e5, 99)
    rates = [attainable(one, peak, bandwidth) for one in grid]
    assert rates == sorted(rates)


def ring(gradients):
    """Send parts around as a ring does; return the sums and the bytes one sends."""
    n = len(gradients)
    parts = [np.array_split(one.copy(), n) for one in gradients]
    sent = 0
    for step in range(2 * (n - 1)):
        messages = [parts[rank][(rank - step) % n].copy() for rank in range(n)]
        for rank, message in enumerate(messages):
            place, to = (rank - step) % n, (rank + 1) % n
            adding = step < n - 1
            parts[to][place] = message + parts[to][place] if adding else message
            sent += message.nbytes
    return [np.concatenate(one) for one in parts], sent / n


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_a_ring_sends(processes, dtype):
    rng = np.random.default_rng(0)
    gradients = [rng.integers(-9, 9, 480).astype(dtype) for _ in range(processes)]
    sums, sent = ring(gradients)
    assert all((one == np.sum(gradients, axis=0)).all() for one in sums)
    assert sent == pytest.approx(all_reduce_bytes(480, dtype, processes))


def test_a_ring_that_cannot_be():
    with pytest.raises(InputError, match="1000 elements over 0 processes"):
        all_reduce_bytes(1000, "float32", 0)
    with pytest.raises(InputError, match="-1 elements"):
        all_reduce_bytes(-1, "float32", 2)
    assert all_reduce_bytes(1000, "float32", 1) == 0


def test_every_operation_is_listed():
    assert set(roofline.OPERATIONS) == {"product", *ELEMENTWISE}


@pytest.mark.parametrize("count", [0, -1, 1.5, "3", True, None])
def test_rows_and_columns_are_whole_and_positive(count):
    with pytest.raises(InputError, match=r"rows was .*: give a whole number of at lea"):
        Work("add", "float32", count, 4)
    with pytest.raises(InputError, match=r"columns was .*: give a whole number"):
        Work("add", "float32", 4, count)


def test_less_than_a_byte_is_no_whole_byte():
    for dtype, bits in (("float6_e3m2fn", 6), ("float4_e2m1fn", 4)):
        with pytest.raises(InputError, match=f"{dtype} has {bits} bits.*8 bits or mo"):
            stored_bytes(dtype)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "fast", None])
def test_limits_are_positive(value):
    for call in (ridge, lambda *limits: attainable(1.0, *limits)):
        with pytest.raises(InputError, match=r"peak was .*: give a number above 0"):
            call(value, 1.0)
        with pytest.raises(InputError, match=r"bandwidth was .*: give a number above"):
            call(1.0, value)


@pytest.mark.parametrize("value", [-1.0, float("nan"), "much"])
def test_an_intensity_is_not_negative(value):
    with pytest.raises(InputError, match=r"intensity was .*from 0 up"):
        attainable(value, 1.0, 1.0)
    assert attainable(0, 1.0, 1.0) == 0


@pytest.mark.parametrize("pair", [(10, 2.5), (10.5, 2), ("10", 2), (10, True)])
def test_a_ring_has_whole_numbers(pair):
    with pytest.raises(InputError, match="elements over .* whole numbers"):
        all_reduce_bytes(pair[0], "float32", pair[1])
