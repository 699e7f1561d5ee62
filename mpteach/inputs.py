"""What the rooms of numbers take: real numbers that float64 holds exactly."""

import numbers
from typing import Any

import numpy as np

from mpteach.errors import InputError

FLOATS = "float16, float32 or float64, or one of ml_dtypes'"


def reals(x: Any) -> np.ndarray:
    """Return `x` as a float64 array of the same shape, without changing a value.

    Takes Python's real numbers, lists of them, and arrays of floats. Raises InputError
    for integer, complex, string and object arrays, and for numbers between float64's:
    they would be rounded twice.
    """
    array = array_of(x)
    if is_float(array.dtype):
        with np.errstate(invalid="ignore"):  # signalling NaN
            return array.astype(np.float64)
    if hasattr(x, "dtype"):
        raise InputError(
            f"{shown(x)} has dtype {array.dtype}: give {FLOATS}, "
            "e.g. by astype(np.float64)."
        )
    if array.dtype.kind not in "iu" and not all_are(numbers.Real, array):
        raise InputError(
            f"{shown(x)} is no real number, nor an array of them: give numbers."
        )
    return _exactly(array.tolist(), x).reshape(array.shape)


def array_of(x: Any) -> np.ndarray:
    """Return `np.asarray(x)`; raise InputError with what helps where there is none.

    A list that holds an integer and would become floats becomes objects: numpy would
    round what is above 2^53.
    """
    try:
        array = np.asarray(x)
        if array.dtype.kind == "f" and not hasattr(x, "dtype"):
            objects = np.asarray(x, dtype=object)
            if any(isinstance(one, numbers.Integral) for one in objects.flat):
                return objects
        return array
    except Exception:
        if not hasattr(x, "detach"):
            raise InputError(
                f"{shown(x)} is no real number, nor an array of them: give numbers."
            ) from None
        raise InputError(
            f"numpy cannot read this tensor ({shown(x)}): pass x.detach().cpu(), a "
            "sparse one through to_dense() too, bfloat16 through double()."
        ) from None


def is_float(dtype: np.dtype) -> bool:
    """Say whether `dtype` is a float type that float64 holds, ml_dtypes' included."""
    if dtype.kind == "f":
        return dtype.itemsize <= 8
    # The types that ml_dtypes adds are of kind V, as raw bytes are.
    castable = dtype.kind == "V" and np.can_cast(dtype, np.float64)
    return castable and "int" not in dtype.name


def all_are(kind: type, array: np.ndarray) -> bool:
    """Say whether Python objects of `kind` fill `array`, e.g. ints beyond int64."""
    return array.dtype == object and all(
        isinstance(one, kind) and not isinstance(one, bool) for one in array.flat
    )


def shown(x: Any) -> str:
    """Return `x` for a sentence: its repr on one line, cut after 60 characters."""
    try:
        return " ".join(f"{x!r}".split())[:60]
    except Exception:  # ints above 4300 digits have no repr
        return f"<{type(x).__name__}>"


def _exactly(numbers_: Any, given: Any) -> np.ndarray:
    flat = np.ravel(np.array(numbers_, dtype=object))
    for one in flat:
        try:
            held = float(one)
        except OverflowError:
            raise InputError(
                f"{shown(given)} is beyond float64, whose largest number is about "
                "1.8e308: give smaller numbers, or inf."
            ) from None
        if held != one and one == one:
            raise InputError(
                f"{shown(one)} lies between two float64 numbers and would be rounded "
                "twice: give float(...) of it, or use rounding.exact."
            )
    return flat.astype(np.float64)
