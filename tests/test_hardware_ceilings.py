"""Timing on this machine: what is timed, how often, and what is refused."""

import itertools

import pytest
import torch

from mpteach import hardware
from mpteach.errors import InputError
from mpteach.hardware import ceilings
from mpteach.hardware.roofline import OPERATIONS, Work


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ceilings, "BLOCK_SECONDS", 1e-5)
    monkeypatch.setattr(ceilings, "ROW_SECONDS", 1e-5)


def test_rows_cover_every_operation_and_dtype():
    rows = ceilings.measure_ceilings("cpu", [16, 32], ["float32", "bfloat16"])
    keys = ("operation", "dtype", "rows", "columns")
    found = {tuple(row[key] for key in keys) for row in rows}
    for name, dtype in itertools.product(OPERATIONS, ("float32", "bfloat16")):
        if (name, dtype) != ("cast", "float32"):
            assert {(name, dtype, 16, 16), (name, dtype, 32, 32)} <= found
    assert ("product", "bfloat16", 1, 32) in found
    assert len(found) == len(rows)
    for row in rows:
        assert 0 < row["low"] <= row["seconds"] <= row["high"]
        assert row["samples"] >= ceilings.FEWEST and row["calls"] >= 1
        work = Work(row["operation"], row["dtype"], row["rows"], row["columns"])
        assert (row["flop"], row["bytes"]) == (work.flop, work.bytes)


def test_without_sizes_and_dtypes_it_takes_what_the_device_has(monkeypatch):
    monkeypatch.setattr(ceilings, "measure", lambda work, device: work)
    works = ceilings.measure_ceilings("cpu")
    assert {work.columns for work in works} == set(ceilings.SIZES["cpu"])
    assert {w.dtype for w in works if w.operation == "product"} == {
        dtype for dtype in hardware.DTYPES if hardware.native(dtype, "cpu")
    }


def test_what_a_gpu_is_asked_for():
    works = ceilings.works(ceilings.SIZES["cuda"], hardware.DTYPES)
    assert len(works) == len(set(works)) == 206
    square = [w for w in works if w.operation == "product" and w.rows == w.columns]
    assert {(w.dtype, w.rows) for w in square} == set(
        itertools.product(hardware.DTYPES, (256, 512, 1024, 2048, 4096, 8192, 16384))
    )
    thin = [w for w in works if w.operation == "product" and w.rows < w.columns]
    assert {w.columns for w in thin if w.rows == 1} == {16384}
    assert all(w.rows % 16 == 0 for w in works if w.dtype.startswith("float8"))
    assert not [w for w in works if w.operation != "product" and w.dtype == "tfloat32"]


@pytest.mark.parametrize(
    "sizes", [[0], [-16], [17], [16.0], [True], [], [2**21], [16 * 10**30], [16, "a"]]
)
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(InputError, match="multiples of 16"):
        ceilings.works(sizes, ["float32"])


def test_an_unknown_dtype_or_device():
    with pytest.raises(InputError, match="half"):
        ceilings.measure_ceilings("cpu", [16], ["half"])
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        ceilings.measure_ceilings("tpu")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        ceilings.measure(Work("add", "float32", 16, 16), "tpu")


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")

    def no_gpu(**_):
        raise RuntimeError("Cannot get CUDA generator")

    monkeypatch.setattr(torch, "Generator", no_gpu)
    with pytest.raises(InputError, match=r"\(torch sees no GPU\): take 'cpu'"):
        ceilings.measure(Work("add", "float32", 16, 16), "cuda")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no such product\nat all"), "this cpu cannot time product in fl"),
        (torch.OutOfMemoryError("CUDA out of memory"), "give smaller sizes"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "size 16 does not fit"),
    ],
)
def test_what_a_device_cannot_do_is_said(monkeypatch, error, said):
    def refuse(*_):
        raise error

    monkeypatch.setattr(torch, "mm", refuse)
    with pytest.raises(InputError, match=said) as caught:
        ceilings.measure(Work("product", "float32", 16, 16), "cpu")
    assert "\n" not in str(caught.value)


def test_a_float8_product_is_the_product():
    a = torch.eye(16).to(torch.float8_e4m3fn)
    b = torch.arange(256.0).reshape(16, 16).remainder(16).to(torch.float8_e4m3fn)
    try:
        result = ceilings._product(a, b)()
    except RuntimeError:
        pytest.skip("this torch has no float8 products on a CPU")
    assert torch.equal(result, b.t().bfloat16())


def test_threads_and_tf32_are_put_back():
    threads = torch.get_num_threads()
    before = torch.get_float32_matmul_precision()
    with ceilings._held(Work("product", "tfloat32", 16, 16), "cpu"):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
    assert torch.get_float32_matmul_precision() == before
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


def test_short_calls_are_timed_in_blocks_long_ones_alone(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(clock) * 0.1)
    calls, times = ceilings._times(lambda: None, "cpu")
    assert calls == 1 and len(times) == ceilings.FEWEST
    assert times == pytest.approx([0.1] * ceilings.FEWEST)
    monkeypatch.undo()
    calls, times = ceilings._times(lambda: None, "cpu")
    assert calls == ceilings.MOST_CALLS and len(times) == ceilings.MOST


def test_numbers_are_random():
    seen = []
    real = torch.mm
    work = Work("product", "float16", 16, 16)
    call = ceilings._call(work, "cpu")
    torch.mm = lambda a, b: seen.append((a, b))
    try:
        call()
    finally:
        torch.mm = real
    a, b = seen[0]
    assert a.dtype == b.dtype == torch.float16
    assert a.float().std() > 0.5 and not torch.equal(a, b)


def test_the_optimizer_takes_a_step():
    step = ceilings._call(Work("adamw", "float32", 16, 16), "cpu")
    weight = step.__self__.param_groups[0]["params"][0]
    before = weight.detach().clone()
    with torch.no_grad():
        step()
    assert not torch.equal(weight, before) and weight.isfinite().all()
