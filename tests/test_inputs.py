"""What counts as real numbers, and the sentence for everything else."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch

from mpteach.errors import InputError
from mpteach.inputs import all_are, array_of, is_float, reals, shown


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
    ([0.5, None], "is no real number"), (1j, "is no real number"),
    ({1.0}, "no real number"),
    ([[1.0], [1.0, 2.0]], "is no real number"), (np.arange(2), "has dtype int64"),
    (np.array([1.0], object), "has dtype object"), (np.ones(1, complex), "complex128"),
    (np.ones(1, np.longdouble), r"e.g. by astype\(np.float64\)"),
    (torch.ones(1).bfloat16(), r"bfloat16 through double\(\)"),
])  # fmt: skip
def test_what_is_none_is_one_sentence(x, said):
    with pytest.raises(InputError, match=said) as refused:
        reals(x)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


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
