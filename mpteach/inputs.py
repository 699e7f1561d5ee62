"""What the rooms of numbers take: real numbers that float64 holds exactly."""

import numbers
from decimal import Decimal
from typing import Any

import numpy as np

from mpteach.errors import InputError

FLOATS = "float16, float32 or float64, or one of ml_dtypes'"
MASKED = "a masked array would lose its mask: pass x.filled(...)."
TRANSFORMED = (
    "a tensor inside a transform such as torch.func.vmap has no numbers to read: "
    "call this outside of it."
)


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
            f"{shown(x)} has dtype {array.dtype}: give {FLOATS}"
            f"{_way_to_float(array.dtype, hasattr(x, 'detach'))}."
        )
    if array.dtype.kind not in "iu" and not all_are(numbers.Real, array):
        raise InputError(_no_number(x, array))
    return _exactly(array.tolist(), x).reshape(array.shape)


def array_of(x: Any) -> np.ndarray:
    """Return `np.asarray(x)`; raise InputError with what helps where there is none.

    A list that holds an integer and would become floats becomes objects: numpy would
    round what is above 2^53.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(MASKED)
    try:
        array = np.asarray(x)
        if array.dtype.kind == "f" and not hasattr(x, "dtype"):
            objects = np.asarray(x, dtype=object)
            if any(isinstance(one, numbers.Integral) for one in objects.flat):
                return objects
        return array
    except Exception as error:
        if hasattr(x, "detach"):
            raise InputError(_way_to_numpy(x)) from None
        if "inhomogeneous" in str(error):
            raise InputError(
                f"{shown(x)} has rows of different lengths: give rows of one length."
            ) from None
        raise InputError(_no_number(x, None)) from None


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


def require_one_of(what: str, given: Any, allowed: tuple[str, ...]) -> None:
    """Raise InputError that lists `allowed` where `given` is none of these words."""
    if not isinstance(given, str) or given not in allowed:
        raise InputError(
            f"{what} was {shown(given)}: choose from {', '.join(allowed)}."
        )


def positive_float32(value: Any) -> Any:
    """Return one number above 0 as a tensor of no dimensions, float32, on the CPU.

    Takes a number or a tensor of one element. Raises InputError for another, and for what
    float32 rounds to 0 or infinity.
    """
    import torch

    number = value if isinstance(value, int | float | torch.Tensor) else 0
    try:
        scale = torch.as_tensor(number, dtype=torch.float32, device="cpu")
    except (OverflowError, RuntimeError):
        scale = torch.zeros(())
    if scale.numel() != 1 or not 0 < scale < torch.inf or scale.requires_grad:
        raise InputError(
            f"the scale was {shown(value)}: give one number above 0 in float32."
        )
    return scale.clone().reshape(())


def has_memory(tensor: Any) -> bool:
    """Say whether the numbers of a dense torch tensor lie in memory that can be read.

    They do not inside a transform, which gives a function stand-ins for its tensors.
    """
    try:
        return tensor.untyped_storage().device == tensor.device
    except RuntimeError:
        return False


def shown(x: Any) -> str:
    """Return `x` for a sentence: its repr on one line, cut after 60 characters."""
    try:
        return " ".join(f"{x!r}".split())[:60]
    except Exception:  # ints above 4300 digits have no repr
        return f"<{type(x).__name__}>"


def _no_number(x: Any, array: np.ndarray | None) -> str:
    if array is not None and any(isinstance(one, Decimal) for one in array.flat):
        return (
            f"{shown(x)} is or holds a Decimal: give fractions.Fraction(...) of it, "
            "the same number."
        )
    return f"{shown(x)} is no real number, nor an array of them: give numbers."


def _way_to_float(dtype: np.dtype, is_tensor: bool) -> str:
    if dtype.kind == "f":  # longdouble
        return (
            ", or single numbers to rounding.exact: turning these into float64 would "
            "round them a first time"
        )
    if dtype.kind == "c":
        return ", e.g. x.real or abs(x)"
    if dtype.kind == "O":
        return ", or x.tolist() if it holds Python's numbers"
    if dtype.kind in "iub" or (dtype.kind == "V" and "int" in dtype.name):
        call = "x.double()" if is_tensor else "x.astype(np.float64)"
        return f", e.g. by {call}, which is exact up to 2^53"
    return ""


def _way_to_numpy(x: Any) -> str:
    if x.is_meta:
        return "a tensor on device meta holds no numbers: give one that does."
    dense = "strided" in str(x.layout)
    if dense and not has_memory(x):
        return TRANSFORMED
    known = hasattr(np, str(x.dtype).removeprefix("torch."))
    steps = {
        "detach": x.requires_grad,
        "cpu": x.device.type != "cpu",
        "to_dense": not dense,
        "dequantize": x.is_quantized,
        "resolve_conj": dense and x.is_conj(),
        "resolve_neg": dense and x.is_neg(),
        "double": not known and not x.is_quantized,
    }
    calls = "".join(f".{name}()" for name, needed in steps.items() if needed)
    return f"numpy cannot read this tensor ({shown(x)}): pass x{calls}."


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
