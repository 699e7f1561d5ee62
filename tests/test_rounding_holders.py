"""Rounding what arrays, scalars and tensors hold: the same, and given back alike."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import as_strided
from oracles import assert_same, critical, patterns

from mpteach import rounding
from mpteach.errors import InputError
from mpteach.formats import FORMATS, FloatFormat, get
from mpteach.quanta import MODES
from mpteach.rounding import round_to

NUMPY_DTYPES = [
    np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]  # fmt: skip
TORCH_DTYPES = [
    getattr(torch, name)
    for name in ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn",
                 "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
]  # fmt: skip
SAMPLE = [0.3, -1.7, 2.2, 0.0, -0.0, 3.1]


def sample(fmt, dtype):
    x = np.concatenate(
        [critical(FORMATS["float8_e5m2"], dtype), patterns(20_000, 1, dtype)]
    )
    if fmt.bits <= 16:
        x = np.concatenate([x, critical(fmt, dtype)[:50_000]])
    if fmt.specials == "finite":
        x = x[~np.isnan(x)]
    return x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", MODES)
def test_numpy_numba_and_torch_give_the_same_numbers(monkeypatch, mode, dtype):
    def ours(x, fmt, **more):
        return round_to(x, fmt, mode, rng=np.random.default_rng(4), **more)

    for fmt in FORMATS.values():
        if fmt.name == "float64" and dtype is np.float32:
            continue
        x = sample(fmt, dtype)
        monkeypatch.setattr(rounding, "WARM", math.inf)
        by_numpy = ours(x, fmt)
        monkeypatch.setattr(rounding, "WARM", 0)
        by_numba = ours(x, fmt)
        task = rounding._Task(fmt, fmt.grid(mode), mode, np.random.default_rng(4))
        by_torch = rounding._by_torch(torch.from_numpy(x), task).numpy()
        assert by_numpy.dtype == by_numba.dtype == by_torch.dtype == dtype
        assert_same(by_numba, by_numpy, x)
        assert_same(by_torch, by_numpy, x)


def test_numba_was_there_to_be_compared():
    assert rounding._compiled("up", np.float32) is not None


def test_without_numba_it_rounds_by_numpy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    monkeypatch.setattr(rounding, "WARM", 0)
    monkeypatch.setattr(rounding, "_compiled", rounding._compiled.__wrapped__)
    assert rounding._compiled("up", np.float32) is None
    assert round_to(np.array([0.3]), "float4_e2m1fn", "up").tolist() == [0.5]


def test_numba_takes_what_is_frozen_and_leaves_what_is_swapped(monkeypatch):
    monkeypatch.setattr(rounding, "WARM", 0)
    x = np.array(SAMPLE)
    expected = round_to(x, "float8_e5m2")
    x.flags.writeable = False
    assert_same(round_to(x, "float8_e5m2"), expected, x)
    for dtype in (">f8", "<f8"):
        swapped = round_to(x.astype(dtype), "float8_e5m2")
        assert swapped.dtype == dtype
        assert_same(swapped.astype(np.float64), expected, x)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_arrays_and_scalars_of_numpy_come_back_alike(dtype):
    x = np.array(SAMPLE).astype(dtype)
    y = round_to(x, "float4_e2m1fn")
    assert type(y) is np.ndarray and y.dtype == dtype and y.shape == x.shape
    wide = round_to(x.astype(np.float64), "float4_e2m1fn")
    assert_same(y.astype(np.float64), wide, x)
    one = round_to(x[0], "float4_e2m1fn")
    assert type(one) is type(x[0]) and one == y[0]
    nothing = round_to(x[:0].reshape(0, 3), "float4_e2m1fn")
    assert nothing.shape == (0, 3) and nothing.dtype == dtype
    zero_d = round_to(np.array(x[0]), "float4_e2m1fn")
    assert type(zero_d) is np.ndarray and zero_d.shape == () and zero_d == y[0]


def test_a_python_float_comes_back_as_one():
    y = round_to(0.1, "float16")
    assert type(y) is float and y == float(np.float16(0.1))
    assert math.copysign(1, round_to(-0.0, "float16")) == -1
    assert round_to(1e9, "float16") == math.inf and math.isnan(
        round_to(math.nan, "float16")
    )


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_tensors_come_back_alike(dtype):
    x = torch.tensor(SAMPLE).to(dtype)
    expected = round_to(x.double().numpy(), "float4_e2m1fn")
    for one in (x, x.reshape(2, 3), x[::2], x[0], x[:0], x.reshape(2, 3).t()):
        y = round_to(one, "float4_e2m1fn")
        assert type(y) is torch.Tensor and (y.dtype, y.shape) == (dtype, one.shape)
        assert_same(
            y.double().numpy(),
            round_to(one.double().numpy(), "float4_e2m1fn"),
            one.double().numpy(),
        )
    assert_same(round_to(x, "float4_e2m1fn").double().numpy(), expected, expected)
    assert_same(x.double().numpy(), torch.tensor(SAMPLE).to(dtype).double().numpy(), x)


def test_a_tensor_that_learns_gives_one_without_a_gradient():
    x = torch.tensor(SAMPLE, requires_grad=True)
    y = round_to(x, "float8_e5m2")
    assert not y.requires_grad and x.requires_grad and y.data_ptr() != x.data_ptr()
    parameter = torch.nn.Parameter(torch.tensor(SAMPLE))
    assert round_to(parameter, "float8_e5m2", out=parameter) is parameter
    torch.testing.assert_close(parameter.detach(), y, rtol=0, atol=0)
    assert parameter.requires_grad
    half = torch.nn.Parameter(torch.tensor(SAMPLE).bfloat16())
    assert round_to(half, "float4_e2m1fn", out=half) is half
    assert half.tolist() == round_to(np.array(SAMPLE), "float4_e2m1fn").tolist()


def test_a_view_that_is_negated_lazily_is_read_right():
    x = torch.tensor([1 + 0.3j, 1 - 2.2j]).conj().imag
    assert x.is_neg() and round_to(x, "float4_e2m1fn").tolist() == [-0.5, 2.0]


@pytest.mark.parametrize("warm", [0, math.inf])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_out_is_filled_and_given_back(monkeypatch, dtype, warm):
    monkeypatch.setattr(rounding, "WARM", warm)
    x = np.array(SAMPLE).astype(dtype)
    expected = round_to(x, "float4_e2m1fn")
    out = np.zeros_like(x)
    assert round_to(x, "float4_e2m1fn", out=out) is out
    np.testing.assert_array_equal(out, expected)
    holed = np.zeros(12, dtype)[::2]
    assert round_to(x, "float4_e2m1fn", out=holed) is holed
    np.testing.assert_array_equal(holed, expected)
    backward = np.zeros(6, dtype)
    round_to(x, "float4_e2m1fn", out=backward[::-1])
    np.testing.assert_array_equal(backward[::-1], expected)
    assert round_to(x, "float4_e2m1fn", out=x) is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("warm", [0, math.inf])
@pytest.mark.parametrize(("source", "target"), [
    (slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None)),
    (slice(None, None, -1), slice(None)), (slice(0, 5000), slice(2, 5002)),
    (slice(2, 5002), slice(0, 5000)),
])  # fmt: skip
def test_out_may_overlap_the_input(monkeypatch, source, target, warm):
    monkeypatch.setattr(rounding, "WARM", warm)
    for dtype in (np.float32, np.float64, np.float16):
        memory = np.linspace(-3, 3, 3 * rounding.BLOCK).astype(dtype)
        expected = round_to(memory[source].copy(), "float6_e3m2fn")
        round_to(memory[source], "float6_e3m2fn", out=memory[target])
        np.testing.assert_array_equal(memory[target], expected)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_tensors_as_out(dtype):
    x = torch.tensor(SAMPLE).to(dtype)
    expected = round_to(x, "float4_e2m1fn").double()
    out = torch.zeros(6).to(dtype)
    assert round_to(x, "float4_e2m1fn", out=out) is out
    assert torch.equal(out.double(), expected)
    holed = torch.zeros(12).to(dtype)[::2]
    assert round_to(x, "float4_e2m1fn", out=holed) is holed
    assert torch.equal(holed.double(), expected)
    memory = torch.cat([x, x[:1]])
    round_to(memory[:-1], "float4_e2m1fn", out=memory[1:])
    assert torch.equal(memory[1:].double(), expected)
    assert round_to(x, "float4_e2m1fn", out=x) is x
    assert torch.equal(x.double(), expected)


@pytest.mark.parametrize(("x", "out", "said"), [
    (np.ones(2), np.ones(3), r"shape \(3,\) and dtype float64: give shape \(2,\)"),
    (np.ones(2), np.ones(2, np.float32), "dtype float32: give shape"),
    (np.ones(2), [0.0, 0.0], "give a numpy array like x"),
    (np.ones(2), torch.ones(2), "give a numpy array like x"),
    (1.0, np.zeros(()), "the Python float 1.0: out needs x to be an array"),
    (np.ones(2), np.ma.ones(2), "out is a masked array: give an array without a mask"),
    (np.ones(3), as_strided(np.zeros(1), (3,), (0,)), "elements that share memory"),
    (np.ones((2, 2)), as_strided(np.zeros(3), (2, 2), (8, 8)), "that share memory"),
    (np.ones((2, 2)), as_strided(np.zeros(3), (2, 2), (4, 16)), "that share memory"),
    (torch.ones(3), torch.zeros(1).expand(3), "share memory.*keep one number"),
    (torch.ones(3).half(), torch.zeros(1).half().expand(3), "share memory"),
    (torch.ones(3).bfloat16(), torch.zeros(1).bfloat16().expand(3), "share memory"),
    (torch.ones(2), torch.ones(2).to_sparse(), "out, a tensor of layout torch.sparse"),
    (torch.ones(1), torch.tensor([1 + 2j]).conj().imag, "out is a view that torch neg"),
    (torch.ones(2), torch.ones(2, requires_grad=True).exp(), "that autograd has recor"),
    (torch.ones(2), torch.ones(3), r"out has shape \(3,\) and dtype torch.float32"),
    (torch.ones(2), torch.ones(2, dtype=torch.float64), "dtype torch.float64"),
    (torch.ones(2), np.ones(2), "give a torch tensor like x"),
    (torch.ones(2), torch.ones(2, device="meta"), "on device meta: give.* device cpu"),
])  # fmt: skip
def test_an_out_that_does_not_fit(x, out, said):
    with pytest.raises(InputError, match=said):
        round_to(x, "float16", out=out)


@pytest.mark.parametrize("dtype", TORCH_DTYPES[:4], ids=str)
def test_autograd_notices_that_out_was_written(dtype):
    w = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    y = w.exp()
    round_to(y.detach(), "float4_e2m1fn", out=y.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_an_out_of_any_layout_that_does_not_overlap_is_taken():
    cube = np.zeros((2, 3, 4))
    held = np.zeros(3, [("a", "f8"), ("b", "f4")])
    outs = cube.T, cube[:, ::-1, ::2], cube[:, None], cube[:0], held["b"], held["a"]
    for out in outs:
        x = np.full(out.shape, 0.3, out.dtype)
        assert round_to(x, "float4_e2m1fn", out=out) is out and (out == 0.5).all()
    with torch.inference_mode():
        out = torch.zeros(4, 2).t()
        assert round_to(torch.full((2, 4), 0.3), "float4_e2m1fn", out=out) is out
    assert (out == 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inside_a_transform_there_is_nothing_to_round(dtype):
    x = torch.ones(2, 3).to(dtype)
    for inside in (
        lambda x: round_to(x, "float16"),
        lambda x: round_to(torch.ones(3).to(dtype), "float16", out=x),
    ):
        with pytest.raises(InputError, match="inside a transform such as torch.func"):
            torch.func.vmap(inside)(x)


def test_a_format_beyond_float32_rounds_float32_without_a_warning():
    wide = FloatFormat("wide", 9, 5)
    for x in (np.float32(1.01), torch.tensor([1.01]), torch.tensor([1.01]).bfloat16()):
        assert float(round_to(x, wide)) == 1.0


def test_only_stochastic_rounding_looks_at_rng():
    for mode in MODES[:-1]:
        assert round_to(1.0, "float16", mode, rng="junk") == 1.0


def test_an_out_that_cannot_be_written_is_told_before_anything_is_done():
    out = np.zeros(2)
    out.flags.writeable = False
    with pytest.raises(InputError, match="out is read-only"):
        round_to(np.ones(2), "float16", out=out)


@pytest.mark.parametrize("x", [
    3, True, "a", None, [1.0], (1.0,), 1j, np.arange(3), np.ones(2, complex),
    np.array("a"), np.array([1.0], object), np.ones(2, np.longdouble),
    np.int64(3), np.bool_(True),
    np.ones(2, ml_dtypes.int4), np.zeros(2, [("a", "f4")]),
    torch.arange(3), torch.ones(2, dtype=torch.complex64),
    torch.ones(2, dtype=torch.bool),
])  # fmt: skip
def test_what_holds_no_floats_is_one_sentence(x):
    with pytest.raises(InputError, match="round_to takes") as refused:
        round_to(x, "float16")
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_arrays_and_tensors_that_are_more_than_numbers():
    with pytest.raises(InputError, match="masked array would lose its mask"):
        round_to(np.ma.ones(2), "float16")
    for tensor in (torch.ones(2).to_sparse(), torch.ones(2, device="meta")):
        with pytest.raises(InputError, match="cannot be rounded number by number"):
            round_to(tensor, "float16")
    packed = getattr(torch, "float4_e2m1fn_x2", None)
    if packed:
        with pytest.raises(InputError, match="packs several numbers into one"):
            round_to(torch.zeros(2, dtype=torch.uint8).view(packed), "float16")


@pytest.mark.parametrize("holder", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", ["float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn"])
def test_nan_has_no_value_in_a_finite_format(name, holder):
    with pytest.raises(InputError, match=f"nan has no code in {name}"):
        round_to(holder([1.0, math.nan]), name)
    assert round_to(holder([math.inf, -math.inf]), name).tolist() == [
        get(name).max, -get(name).max,
    ]  # fmt: skip


@pytest.mark.parametrize(("x", "name", "value"), [
    (np.float16([1.0, 65504.0]), "bfloat16", "65536.0"),
    (torch.tensor([1.0, 65504.0]).half(), "bfloat16", "65536.0"),
    (np.float16([0.0]), "float8_e8m0fnu", r"5.8774\d*e-39"),
    (torch.tensor([448.0]).to(torch.float8_e4m3fn), "float8_e8m0fnu", "512.0"),
    (np.array([6.0]).astype(ml_dtypes.float4_e2m1fn), "float8_e8m0fnu", "8.0"),
    (np.array([-1.0]).astype(ml_dtypes.float4_e2m1fn), "float8_e8m0fnu", "nan"),
    (np.array([1.0, -1.0], ml_dtypes.float6_e3m2fn), "float8_e8m0fnu", "nan"),
])  # fmt: skip
def test_a_value_that_the_dtype_cannot_hold_is_not_rounded_again(x, name, value):
    with pytest.raises(
        InputError, match=f"{value} is the rounded value, and .* cannot"
    ):
        round_to(x, name)


def test_the_input_is_never_changed_and_views_are_read_right():
    memory = np.linspace(-4, 4, 240)
    kept = memory.copy()
    cube = memory.reshape(4, 6, 10)
    for view in (
        cube,
        cube.T,
        cube[::-1, ::2, 3:],
        cube[:, None],
        np.asfortranarray(cube),
    ):
        expected = [round_to(one, "float6_e2m3fn") for one in view.ravel().tolist()]
        y = round_to(view, "float6_e2m3fn")
        assert y.shape == view.shape and y.ravel().tolist() == expected
    np.testing.assert_array_equal(memory, kept)


def test_every_pair_of_policies_is_the_same_for_tensors():
    x = np.array([70000.0, -70000.0, math.inf, -math.inf, 1.0])
    for overflow in ("inf", "saturate", "nan"):
        for infinity in ("inf", "saturate", "nan", None):
            given = {"overflow": overflow, "infinity": infinity}
            y = round_to(torch.from_numpy(x).bfloat16(), "float8_e5m2", **given)
            z = round_to(x, "float8_e5m2", **given)
            assert_same(y.double().numpy(), z, x)
