"""What counts as real numbers, and the sentence for everything else."""

from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from mpteach.errors import InputError
from mpteach.inputs import (
    all_are,
    array_of,
    has_memory,
    is_float,
    reals,
    require_one_of,
    shown,
)
from mpteach.rounding import exact


@pytest.mark.parametrize(("x", "expected"), [
    (1, 1.0), (0.5, 0.5), ([], []), ([1, 2.5], [1.0, 2.5]), (Fraction(3, 8), 0.375),
    ([2**53, 0.5], [2.0**53, 0.5]), ([[1], [2]], [[1.0], [2.0]]),
    (-(2**1023), -(2.0**1023)),
    (np.float16(0.5), 0.5), ([np.float32(0.5), 2], [0.5, 2.0]), (float("nan"), np.nan),
    (ml_dtypes.bfloat16(1.5), 1.5), (torch.tensor([[0.5]]), [[0.5]]),
])  # fmt: skip
def test_real_numbers_become_float64(x, expected):
    array = reals(x)
    assert array.dtype == np.float64 and array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(("x", "said"), [
    (2**53 + 1, "lies between two float64 numbers"), ([2**53 + 1, 0.5], "lies between"),
    (Fraction(1, 10), "would be rounded twice"), (10**309, "is beyond float64"),
    ([1.0, 10**309], "is beyond float64"), ("1", "'1' is no real number"),
    (True, "True is no real number"), ([True, 0.5], "is no real number"),
    ([0.5, None], "is no real number"), ([0.5, "1"], "is no real number"), (1j, "is no real number"),
    ({1.0}, "no real number"),
    ([[1.0], [1.0, 2.0]], "has rows of different lengths: give rows of one length"),
    (Decimal("0.5"), r"holds a Decimal: give fractions.Fraction\(...\) of it"),
    ([1, Decimal("0.5")], "or holds a Decimal"),
    (np.ma.array([1.0, 2.0], mask=[0, 1]), "would lose its mask: pass x.filled"),
    (np.ma.masked, "a masked array would lose its mask"), (np.arange(2), "has dtype int64"),
    (np.array([1.0], object), "has dtype object"), (np.ones(1, complex), "complex128"),
    (np.ones(1, np.longdouble), "single numbers to rounding.exact: turning these into"),
    (np.array(["1"]), "one of ml_dtypes'.$"),
    (torch.ones(1, device="meta"), "device meta holds no numbers: give one that does"),
])  # fmt: skip
def test_what_is_none_is_one_sentence(x, said):
    with pytest.raises(InputError, match=said) as refused:
        reals(x)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


TENSORS = {
    "x.detach()": (lambda: torch.ones(2, requires_grad=True), [1, 1]),
    "x.double()": (lambda: torch.ones(2).to(torch.float8_e4m3fn), [1, 1]),
    "x.to_dense()": (lambda: torch.eye(2).to_sparse_csr(), [[1, 0], [0, 1]]),
    "x.dequantize()": (
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8),
        [1, 1],
    ),
    "x.resolve_neg()": (lambda: torch.tensor([1 + 2j]).conj().imag, [-2]),
    "x.detach().to_dense().double()": (
        lambda: torch.ones(2).bfloat16().requires_grad_().to_sparse(),
        [1, 1],
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("calls", TENSORS)
def test_the_advice_for_a_tensor_works_and_is_no_longer_than_needed(calls):
    make, expected = TENSORS[calls]
    x = make()
    with pytest.raises(InputError, match="numpy cannot read this tensor") as refused:
        reals(x)
    assert str(refused.value).endswith(f"pass {calls}.")
    np.testing.assert_array_equal(reals(eval(calls)), expected)


@pytest.mark.parametrize(("x", "advice"), [
    (torch.arange(3), "x.double()"), (torch.ones(2).bool(), "x.double()"),
    (np.arange(3), "x.astype(np.float64)"), (np.True_, "x.astype(np.float64)"),
    (np.ones(2, ml_dtypes.int4), "x.astype(np.float64)"),
    (np.ones(2, complex), "x.real"), (np.ones(2, complex), "abs(x)"),
    (torch.ones(2, dtype=torch.complex64), "abs(x)"),
    (np.array([0.5, 2], object), "x.tolist()"),
])  # fmt: skip
def test_the_advice_for_a_dtype_works(x, advice):
    with pytest.raises(InputError) as refused:
        reals(x)
    assert advice in str(refused.value)
    assert reals(eval(advice)).shape == tuple(x.shape)


def test_longdouble_numbers_are_taken_where_the_sentence_sends_them():
    with pytest.raises(InputError, match="rounding.exact"):
        reals(np.longdouble("0.1"))
    assert exact(np.longdouble("0.1"), "float16") == Fraction(float(np.float16(0.1)))


def test_inside_a_transform_a_tensor_has_no_numbers():
    inside = []
    torch.func.vmap(lambda x: inside.append(has_memory(x)) or x)(torch.ones(2, 3))
    with FakeTensorMode():
        inside.append(has_memory(torch.ones(2)))
    assert inside == [False, False]
    assert has_memory(torch.ones(2)) and has_memory(torch.ones(0))
    with pytest.raises(InputError, match="torch.func.vmap has no numbers to read"):
        torch.func.vmap(reals)(torch.ones(2, 3))


@pytest.mark.parametrize("given", ["", "upp", 1, None, ["up"]])
def test_a_word_is_one_of_those_allowed(given):
    require_one_of("mode", "up", ("up", "down"))
    with pytest.raises(InputError, match="mode was .*: choose from up, down"):
        require_one_of("mode", given, ("up", "down"))


def test_signalling_nan_raises_no_warning():
    assert np.isnan(reals(np.array([0x7F800001], np.uint32).view(np.float32))).all()


def test_which_dtypes_hold_floats():
    small = ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn
    floats = ["f2", "f4", "f8", ">f4", *small]
    others = ["i4", "u1", "?", "c8", "U3", "O", "V8", "M8[s]", np.longdouble,
              ml_dtypes.int4, ml_dtypes.uint2, [("a", "f4")]]  # fmt: skip
    assert all(is_float(np.dtype(one)) for one in floats)
    assert not any(is_float(np.dtype(one)) for one in others)


def test_integers_are_not_turned_into_floats_on_the_way():
    assert array_of([0, 2**64 - 1]).tolist() == [0, 2**64 - 1]
    assert array_of([2**53 + 1, 0.5]).tolist() == [2**53 + 1, 0.5]
    assert array_of([0.5, 1.5]).dtype == np.float64
    assert all_are(int, array_of([0, 2**64])) and not all_are(int, array_of([0, 0.5]))
    assert not all_are(int, np.array([True], object))


def test_a_value_is_shown_on_one_line_and_cut():
    assert shown(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    assert len(shown("a" * 100)) == 60 and shown(10**5000) == "<int>"
