"""Rounding to a format, for whatever holds the numbers, and the exact reference."""

import math
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from numbers import Rational
from typing import Any, NamedTuple

import numpy as np

from mpteach import quanta
from mpteach.errors import InputError
from mpteach.formats import FloatFormat, get
from mpteach.inputs import MASKED, TRANSFORMED, has_memory, is_float, reals, shown
from mpteach.quanta import Grid, Operations

# Elements that numpy takes at a time: its temporaries then stay in the cache.
BLOCK = 2**14
# Elements of one mode and dtype after which compiling, about a second, has paid.
WARM = 2**24

_rounded: Counter[tuple[str, type]] = Counter()


def round_to(
    x: Any,
    fmt: FloatFormat | str,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Any = None,
    infinity: str | None = None,
    out: Any = None,
) -> Any:
    """Round each number of `x` once to the nearest value of `fmt`, or as told.

    `x` is a numpy array, a torch tensor on any device or a Python float, and the result
    is of the same kind, shape and dtype (or is `out`, which may be `x`). It carries no
    gradient, so `out` may be a leaf such as a parameter, and no result that autograd
    has recorded. float64 input never passes through float32.

    `rounding`: "nearest_even" (ties to the even multiple of the step; of two powers of
    two, in a format without fraction bits, the larger), "nearest_away" (ties away from
    zero), "toward_zero", "up", "down", or "stochastic": up with the probability
    given by the distance from the value below (within 1 part in 2^24 and 2^-31), by
    one seed drawn from `rng`, a numpy or torch generator. The same seed gives the same
    result on any device. The other modes ignore `rng`.

    `overflow`, for finite numbers that round beyond `fmt.max`: "inf", "saturate" or
    "nan". Left out it is the format's own: inf, else NaN, else saturate. Rounding
    toward zero ends at `max` under each of them. `infinity`, the same for infinite
    numbers, is left out what `overflow` is. (IEEE 754-2019, 4.3 and 7.4.)

    NaN stays NaN. Negative numbers become NaN in an unsigned format, and 0 the smallest
    value in one without zero. Raises InputError for what holds no floats, and for
    numbers that the format or the dtype of the result has no value for.
    """
    fmt = get(fmt)
    task = _Task(fmt, fmt.grid(rounding, overflow, infinity), rounding, rng)
    if hasattr(x, "detach"):
        return _round_tensor(x, task, out)
    if type(x) is float:
        if out is not None:
            raise InputError(f"x was the Python float {x}: out needs x to be an array.")
        return float(_round_array(np.array([x]), task, None)[0])
    if not isinstance(x, np.ndarray | np.generic) or not is_float(x.dtype):
        kind = f"dtype {x.dtype}" if hasattr(x, "dtype") else f"type {type(x).__name__}"
        raise InputError(
            f"{shown(x)} is of {kind}: round_to takes a Python float, a numpy array or a "
            "torch tensor, of floats up to float64."
        )
    return _round_array(x, task, out)


def exact(
    x: float | Fraction | Decimal,
    fmt: FloatFormat | str,
    rounding: str = "nearest_even",
) -> Fraction:
    """Return `x` rounded to the grid of `fmt` carried on beyond its `max`, exactly.

    One finite number by `rounding_rule`: one of Python's, a numpy float, longdouble
    included, or an array or tensor of no dimension. Raises InputError for what is no
    finite number, and for "stochastic" rounding.
    """
    fmt = get(fmt)
    fmt.grid(rounding)
    if rounding == "stochastic":
        raise InputError("stochastic rounding has no one result: choose another mode.")
    x = _fraction(x)
    # The rule climbs from binade to binade. Where all numbers are normal the grid
    # scales with x, so a number far above float64 can be rounded further down.
    binades = x.numerator.bit_length() - x.denominator.bit_length()
    scale = 2 ** max(0, binades - 1100)
    return rounding_rule(x / scale, fmt, rounding) * scale


def rounding_rule(x: Fraction, fmt: FloatFormat, rounding: str) -> Fraction:
    """Return `x` rounded to a multiple of its quantum in `fmt`: IEEE 754-2019, 4.3.

    In fractions: slow, and short enough to be checked by reading. The arguments are
    those of `exact`, which checks them.
    """
    exponent = math.frexp(fmt.smallest_normal)[1] - 1
    while abs(x) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    quantum = Fraction(2) ** (exponent - fmt.fraction_bits)
    low = math.floor(x / quantum)
    rest, half = x / quantum - low, Fraction(1, 2)
    up = {
        "nearest_even": rest > half or (rest == half and low % 2 == 1),
        "nearest_away": rest > half or (rest == half and x > 0),
        "toward_zero": rest > 0 and x < 0,
        "up": rest > 0,
        "down": False,
    }
    return (low + up[rounding]) * quantum


def _fraction(x: Any) -> Fraction:
    given = x
    if hasattr(x, "dtype") and not isinstance(x, np.longdouble):
        x = reals(x)
        if x.ndim:
            raise InputError(f"an array of shape {x.shape}: exact takes one number.")
        x = float(x)
    try:
        if isinstance(x, np.longdouble):
            return Fraction(*x.as_integer_ratio())
        if isinstance(x, float | Rational | Decimal) and not isinstance(x, bool):
            ratio = Fraction(x)
            return Fraction(int(ratio.numerator), int(ratio.denominator))
    except (ValueError, OverflowError):  # NaN, inf
        pass
    raise InputError(f"{shown(given)} is no finite number: give one.")


class _Task(NamedTuple):
    fmt: FloatFormat
    grid: Grid
    mode: str
    rng: Any


def _round_array(x: Any, task: _Task, out: Any) -> Any:
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(MASKED)
    if out is not None:
        _require_like(x, out, np.ndarray)
        if isinstance(out, np.ma.MaskedArray):
            raise InputError("out is a masked array: give an array without a mask.")
        if not out.flags.writeable:
            raise InputError("out is read-only: give an array that can be written.")
    task.fmt.require_codes(np.asarray(x))
    dtype = np.float32 if _fits_float32(task.fmt, x.dtype.itemsize) else np.float64
    target = out
    if out is None or out.dtype != dtype or not out.flags.c_contiguous:
        target = np.empty(x.shape, dtype)
    source = np.ascontiguousarray(x)
    if target is not x and np.may_share_memory(source, target):
        source = source.copy()
    _fill(source.reshape(-1), task, target.reshape(-1))
    if target is out:
        return out
    held = _held(target, x.dtype)
    if out is not None:
        out[...] = held
        return out
    return held if isinstance(x, np.ndarray) else held[()]


def _fill(source: np.ndarray, task: _Task, target: np.ndarray) -> None:
    dtype, seed = target.dtype.type, quanta.seed(task.mode, task.rng)
    grid = Grid(*(dtype(one) for one in task.grid))
    _rounded[task.mode, dtype] += source.size
    compiled = None
    native = source.dtype.itemsize >= 4 and source.dtype.isnative  # what numba takes
    if native and _rounded[task.mode, dtype] >= WARM:
        compiled = _compiled(task.mode, dtype)
    if compiled:
        compiled(source, np.int64(seed), grid, target)
        return
    for start in range(0, source.size, BLOCK):
        with np.errstate(invalid="ignore"):  # signalling NaN
            block = source[start : start + BLOCK].astype(dtype)
        rounded = quanta.round_array(block, grid, task.mode, seed, start)
        target[start : start + BLOCK] = rounded


@cache
def _compiled(mode: str, dtype: type) -> Callable[..., None] | None:
    try:
        import numba
    except ImportError:  # on a machine for training only: slower, and the same numbers
        return None
    njit = numba.njit(error_model="numpy", nogil=True)
    field, integer = (
        (0x7F800000, np.int32)
        if dtype is np.float32
        else (0x7FF0000000000000, np.int64)
    )

    @njit
    def where(condition: Any, yes: Any, no: Any) -> Any:
        return yes if condition else no

    @njit
    def power(x: Any) -> Any:
        return integer(dtype(x).view(integer) & field).view(dtype)

    @njit
    def unit(z: Any) -> Any:
        # Every processor converts int32 fast, and only some int64.
        return np.float32(np.int32(z)) * np.float32(2.0**-31)

    operations = Operations(
        where, np.rint, np.trunc, np.floor, np.ceil, np.copysign, power, unit
    )
    draw = njit(quanta.uniform(operations))
    step = njit(quanta.rounding(njit(quanta.whole(mode, operations)), operations))
    random = mode == "stochastic"

    @njit
    def loop(source: Any, seed: Any, grid: Any, target: Any) -> None:
        for i in range(source.size):
            noise = draw(i, seed) if random else np.float32(0)
            target[i] = step(dtype(source[i]), noise, grid)

    return loop


def _round_tensor(x: Any, task: _Task, out: Any) -> Any:
    import torch

    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        kind = getattr(x, "dtype", type(x).__name__)
        raise InputError(f"{shown(x)} is {kind}: round_to takes tensors of floats.")
    if "_x" in str(x.dtype):
        raise InputError(
            f"{x.dtype} packs several numbers into one: unpack them first."
        )
    _require_dense(x)
    if out is not None:
        _require_out_tensor(x, out)
    source = x.detach().resolve_neg()
    target = None if out is None else out.detach()
    if x.device.type == "cpu" and hasattr(np, str(x.dtype).removeprefix("torch.")):
        array = None if out is None else target.numpy()
        rounded = torch.from_numpy(_round_array(source.numpy(), task, array))
        if out is not None:  # autograd cannot see that numpy has written
            torch.autograd.graph.increment_version(target)
    else:
        task.fmt.require_codes(source if x.element_size() > 1 else source.float())
        rounded = _held(_by_torch(source, task), x.dtype)
        if out is not None:
            target.copy_(rounded)
    return rounded if out is None else out


def _by_torch(x: Any, task: _Task) -> Any:
    import torch

    narrow = _fits_float32(task.fmt, x.element_size())
    dtype = torch.float32 if narrow else torch.float64
    field, integer = (
        (0x7F800000, torch.int32) if narrow else (0x7FF0000000000000, torch.int64)
    )
    operations = Operations(
        torch.where,
        torch.round,
        torch.trunc,
        torch.floor,
        torch.ceil,
        torch.copysign,
        lambda x: (x.view(integer) & field).view(dtype),
        lambda z: z.to(torch.float32) * 2.0**-31,
    )
    seed, noise = quanta.seed(task.mode, task.rng), None
    if task.mode == "stochastic":
        index = torch.arange(x.numel(), device=x.device).reshape(x.shape)
        noise = quanta.uniform(operations)(index, seed)
    grid = Grid(*(torch.tensor(one, dtype=dtype, device=x.device) for one in task.grid))
    step = quanta.rounding(quanta.whole(task.mode, operations), operations)
    return step(x.to(dtype), noise, grid)


def _fits_float32(fmt: FloatFormat, itemsize: int) -> bool:
    # Then every step of the algorithm is exact in float32 too. 2^-127 is half of
    # float32's smallest normal number, and in its last binade that can be told apart.
    return (
        itemsize <= 4
        and fmt.fraction_bits <= 23
        and fmt.max <= float(np.finfo(np.float32).max)
        and fmt.smallest_normal >= 2.0**-127
        and fmt.smallest_subnormal >= 2.0**-149
    )


def _held(rounded: Any, dtype: Any) -> Any:
    """Return `rounded` in `dtype`; raise InputError if that changes a number."""
    if rounded.dtype == dtype:
        return rounded
    with np.errstate(over="ignore"):
        held = (
            rounded.astype(dtype) if hasattr(rounded, "astype") else rounded.to(dtype)
        )
    back = (
        held.astype(rounded.dtype)
        if hasattr(held, "astype")
        else held.to(rounded.dtype)
    )
    same = (back == rounded) | ((back != back) & (rounded != rounded))
    lost = rounded[~same]
    if len(lost):
        raise InputError(
            f"{float(lost[0])} is the rounded value, and {dtype} cannot hold it: "
            "give x in a wider dtype."
        )
    return held


def _require_dense(x: Any, name: str = "x") -> None:
    if "strided" not in str(x.layout) or x.is_meta:
        raise InputError(
            f"{name}, a tensor of layout {x.layout} on device {x.device}, cannot be "
            "rounded number by number: make it dense, on a device that holds its "
            "numbers."
        )
    if not has_memory(x):
        raise InputError(TRANSFORMED)


def _require_out_tensor(x: Any, out: Any) -> None:
    import torch

    _require_like(x, out, torch.Tensor)
    _require_dense(out, "out")
    if out.is_neg():
        raise InputError(
            "out is a view that torch negates when it is read: give a tensor that "
            "holds its own numbers."
        )
    if out.grad_fn is not None:
        raise InputError(
            "out is a result that autograd has recorded, and rounding is not: give "
            "another tensor as out, or none."
        )


def _require_like(x: Any, out: Any, kind: type) -> None:
    if not isinstance(out, kind):
        name = "numpy array" if kind is np.ndarray else "torch tensor"
        raise InputError(f"out was {shown(out)}: give a {name} like x.")
    ours, theirs = _described(out), _described(x)
    if ours != theirs:
        raise InputError(f"out has {ours}: give {theirs}, as x has.")
    if _overlaps_itself(out):
        raise InputError(
            "out has elements that share memory, as an expanded array has, and can "
            "keep one number for them only: give a copy."
        )


def _described(x: Any) -> str:
    place = f" on device {x.device}" if hasattr(x, "detach") else ""
    return f"shape {tuple(x.shape)} and dtype {x.dtype}{place}"


def _overlaps_itself(x: Any) -> bool:
    # True for some layouts too that interleave without an overlap: nobody slices those.
    if 0 in x.shape or "strided" not in str(getattr(x, "layout", "strided")):
        return False
    is_tensor = hasattr(x, "detach")
    size = x.element_size() if is_tensor else x.itemsize
    strides = [one * size for one in x.stride()] if is_tensor else x.strides
    extent = size
    for stride, count in sorted(zip(map(abs, strides), x.shape, strict=True)):
        if count > 1 and stride < extent:
            return True
        extent += stride * (count - 1)
    return False
