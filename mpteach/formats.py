"""Number formats: a format is a frozen value, and everything else is read off it.

Sources: IEEE 754-2019, sections 3.3 and 3.4 (layout), 4.3.1 (nearest, ties to even);
Kalamkar et al. 2019, arXiv 1905.12322 (bfloat16); NVIDIA's A100 white paper (TF32).
"""

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpteach.errors import InputError


@dataclass(frozen=True)
class Fields:
    """The three fields of one value, as integers, and what they mean together.

    `kind` is "zero", "subnormal", "normal", "inf" or "nan"; `pattern` is the bits as
    text, the fields apart; `value` is exact.
    """

    sign: int
    exponent: int
    fraction: int
    kind: str
    pattern: str
    value: float


@dataclass(frozen=True)
class FloatFormat:
    """A sign bit, an exponent field and a fraction field, laid out as in IEEE 754.

    Exponent field 0 holds zero and the subnormals, the highest one inf and NaN. Names
    mirror `torch.finfo`. Raises InputError for widths that leave no normal numbers or
    no NaN, or that are as wide as float64's.
    """

    name: str
    exponent_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        for what, highest in (("exponent_bits", 11), ("fraction_bits", 51)):
            lowest, given = 2 if what == "exponent_bits" else 1, getattr(self, what)
            if type(given) is not int or not lowest <= given <= highest:
                raise InputError(
                    f"{what} was {_shown(given)}: give a whole number from {lowest} to "
                    f"{highest}: float64 must hold every value, int64 every code."
                )

    @property
    def bits(self) -> int:
        """Bits of one value, the sign included."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def eps(self) -> float:
        """Distance from 1 to the next larger value."""
        return 2.0**-self.fraction_bits

    @property
    def max(self) -> float:
        """Largest finite value."""
        return (2 - self.eps) * 2.0**self.bias

    @property
    def min(self) -> float:
        """Lowest finite value, which is `-max`."""
        return -self.max

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value with all significant bits."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value."""
        return self.smallest_normal * self.eps

    @property
    def infinity_code(self) -> int:
        """The code of +inf; codes above it, up to the sign bit, are NaN."""
        return (2**self.exponent_bits - 1) << self.fraction_bits

    def decode(self, codes: np.ndarray | int) -> np.ndarray:
        """Return the exact values of integer `codes`, of any shape, in float64.

        Raises InputError for codes that are no integers or do not fit into `bits`.
        """
        codes = self._checked(codes)
        sign = np.where(codes >> (self.bits - 1), -1.0, 1.0)
        exponent = (codes >> self.fraction_bits) & (2**self.exponent_bits - 1)
        fraction = codes & (2**self.fraction_bits - 1)
        implied = np.where(exponent > 0, 2**self.fraction_bits, 0)
        scale = np.maximum(exponent, 1) - self.bias - self.fraction_bits
        finite = np.ldexp(
            (implied + fraction).astype(np.float64), scale.astype(np.int32)
        )
        special = np.where(fraction > 0, np.nan, np.inf)
        return sign * np.where(exponent == 2**self.exponent_bits - 1, special, finite)

    def encode(self, x: np.ndarray | float) -> np.ndarray:
        """Return the codes of `x`, rounded once: to nearest, ties to even.

        `x` is taken as float64, in any shape; codes are int64 of that shape. From half
        a step above `max` on it is inf. Raises InputError for what is no real number.
        """
        x = _reals(x)
        size = np.where(np.isfinite(x), np.abs(x), 0.0)
        exponent = self._exponent(size)
        steps = np.rint(np.ldexp(size, self.fraction_bits - exponent)).astype(np.int64)
        # A subnormal's steps are its code. Each binade above adds one to the exponent
        # field; its implied bit is in `steps`, where a carry of the fraction lands.
        binades = (exponent - (1 - self.bias)).astype(np.int64)
        codes = np.minimum(steps + (binades << self.fraction_bits), self.infinity_code)
        codes = np.where(np.isinf(x), self.infinity_code, codes)
        quiet = self.infinity_code | 1 << (self.fraction_bits - 1)
        codes = np.where(np.isnan(x), quiet, codes)
        return codes | np.signbit(x).astype(np.int64) << (self.bits - 1)

    def fields(self, x: float) -> Fields:
        """Return the fields of the number `x`, rounded to this format first.

        Raises InputError for what is no single real number.
        """
        number = _reals(x)
        if number.ndim:
            raise InputError(
                f"an array of shape {number.shape}: fields takes one number."
            )
        return self.fields_of(int(self.encode(number)))

    def fields_of(self, code: int) -> Fields:
        """Return the fields of `code`; raise InputError for what is no single code."""
        codes = self._checked(code)
        if codes.ndim:
            raise InputError(
                f"an array of shape {codes.shape}: fields_of takes one code."
            )
        code = int(codes)
        pattern = f"{code:0{self.bits}b}"
        sign, exponent = pattern[0], pattern[1 : 1 + self.exponent_bits]
        fraction = pattern[1 + self.exponent_bits :]
        return Fields(
            sign=int(sign),
            exponent=int(exponent, 2),
            fraction=int(fraction, 2),
            kind=self._kind(int(exponent, 2), int(fraction, 2)),
            pattern=f"{sign} {exponent} {fraction}",
            value=float(self.decode(code)),
        )

    def values(self) -> np.ndarray:
        """Return all finite values, ascending, zero once, as float64.

        Raises InputError for formats above 16 bits: their list is too long to be read.
        """
        if self.bits > 16:
            raise InputError(
                f"{self.name} has {self.bits} bits: values() lists at most 16."
            )
        positive = self.decode(np.arange(self.infinity_code))
        return np.concatenate([-positive[:0:-1], positive])

    def ulp(self, x: np.ndarray | float) -> np.ndarray:
        """Return the distance from finite |x| to the next larger grid point, float64.

        At a power of two it is the step above it, as in `math.ulp`. The grid is carried
        on beyond `max`. Raises InputError for inf and NaN, which have no distance.
        """
        x = _reals(x)
        if not np.isfinite(x).all():
            raise InputError(
                f"ulp of {x[~np.isfinite(x)].flat[0]}: give finite numbers."
            )
        return np.ldexp(1.0, self._exponent(np.abs(x)) - self.fraction_bits)

    def _exponent(self, size: np.ndarray) -> np.ndarray:
        # frexp's mantissa lies in [0.5, 1), the format's in [1, 2). Subnormals share
        # the lowest exponent.
        _, above = np.frexp(size)
        lowest = 1 - self.bias
        return np.where(size == 0, lowest, np.maximum(above - 1, lowest))

    def _checked(self, codes: np.ndarray | int) -> np.ndarray:
        given, codes = codes, _array(codes)
        highest = 2**self.bits - 1
        if not codes.size:
            return codes.astype(np.int64)  # numpy makes an empty list float64
        if codes.dtype.kind not in "iu" and not _all_are(int, codes):
            raise InputError(
                f"codes of dtype {codes.dtype} ({_shown(given)}): {self.name} codes "
                f"are integers from 0 to {highest}."
            )
        wrong = codes[(codes < 0) | (codes >> (self.bits - 1) > 1)].tolist()
        if wrong:
            raise InputError(
                f"code {_shown(wrong[0])}: {self.name} codes are 0 to {highest}."
            )
        return codes.astype(np.int64)

    def _kind(self, exponent: int, fraction: int) -> str:
        if exponent == 2**self.exponent_bits - 1:
            return "nan" if fraction else "inf"
        if exponent == 0:
            return "subnormal" if fraction else "zero"
        return "normal"


def _reals(x: np.ndarray | float) -> np.ndarray:
    array = _array(x)
    exact = _all_are(numbers.Real, array)
    try:
        with np.errstate(over="ignore"):  # np.longdouble may reach further
            return array.astype(np.float64, casting="unsafe" if exact else "same_kind")
    except OverflowError:
        raise InputError(
            f"{_shown(x)} is beyond float64, whose largest number is about 1.8e308: "
            "give smaller numbers, or inf."
        ) from None
    except (TypeError, ValueError):
        raise InputError(_no_number(x)) from None


def _array(x: Any) -> np.ndarray:
    try:
        return np.asarray(x)
    except Exception:
        if not hasattr(x, "detach"):
            raise InputError(_no_number(x)) from None
        raise InputError(
            f"numpy cannot read this tensor ({_shown(x)}): pass x.detach().cpu(), a "
            "sparse one through to_dense() too, bfloat16 through double()."
        ) from None


def _all_are(kind: type, array: np.ndarray) -> bool:
    """Say whether Python objects of `kind` fill `array`, e.g. ints beyond int64."""
    return array.dtype == object and all(
        isinstance(one, kind) and not isinstance(one, bool) for one in array.flat
    )


def _no_number(x: Any) -> str:
    return f"{_shown(x)} is no real number, nor an array of them: give numbers."


def _shown(x: Any) -> str:
    try:
        return " ".join(f"{x!r}".split())[:60]
    except Exception:  # ints above 4300 digits have no repr
        return f"<{type(x).__name__}>"


FORMATS = {
    fmt.name: fmt
    for fmt in (
        FloatFormat("float32", 8, 23),
        FloatFormat("tfloat32", 8, 10),
        FloatFormat("float16", 5, 10),
        FloatFormat("bfloat16", 8, 7),
    )
}


def get(name: str) -> FloatFormat:
    """Return the format called `name`; raise InputError that lists the names."""
    if not isinstance(name, str) or name not in FORMATS:
        raise InputError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}.")
    return FORMATS[name]
