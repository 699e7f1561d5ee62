"""Number formats: a format is a frozen value, and everything else is read off it.

Sources: IEEE 754-2019, sections 3.3 and 3.4 (layout); OCP 8-bit Floating Point (OFP8)
1.0 and Micikevicius et al. 2022, arXiv 2209.05433 (float8_e4m3fn, float8_e5m2); Noune
et al. 2022, arXiv 2206.02915 (the fnuz formats); OCP Microscaling Formats (MX) 1.0
(e8m0, fp6, fp4); Kalamkar et al. 2019, arXiv 1905.12322 (bfloat16); NVIDIA's A100
white paper (TF32).
"""

import difflib
import math
import numbers
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpteach import quanta
from mpteach.errors import InputError
from mpteach.inputs import all_are, array_of, reals, require_one_of, shown
from mpteach.quanta import MODES, OVERFLOWS, Grid

SPECIALS = ("ieee", "fn", "fnuz", "finite")


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
    """A sign bit, an exponent field and a fraction field, each of a width of its own.

    `specials` says which codes are no numbers. "ieee": the highest exponent field is
    inf (fraction 0) and NaN. "fn" (finite, NaN): no inf, and NaN only where exponent
    and fraction are all ones. "fnuz" (unsigned zero): no inf, and the one NaN has the
    code that -0 would have. "finite": neither.

    `bias` is subtracted from the exponent field; left out, it is half the field's
    range as in the standards. `dataclasses.replace` copies it: give `bias=None` there
    to have it derived anew. Exponent field 0 holds zero and the subnormals, or, with
    `zero=False`, one more power of two. `signed=False` drops the sign bit.

    Names of the limits mirror `torch.finfo`. Raises InputError for a format without
    normal numbers, and for one that float64 does not hold.
    """

    name: str
    exponent_bits: int
    fraction_bits: int
    bias: int | None = None
    specials: str = "ieee"
    signed: bool = True
    zero: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"name was {shown(self.name)}: give the format a name.")
        self._require_whole("exponent_bits", 1, 11)
        self._require_whole("fraction_bits", 0, 52)
        for what in ("signed", "zero"):
            if not isinstance(getattr(self, what), bool):
                given = shown(getattr(self, what))
                raise InputError(f"{what} was {given}: give True or False.")
        self._require_possible_specials()
        if self.bias is None:
            half = 2 ** (self.exponent_bits - 1)
            bias = half if self.specials == "fnuz" else half - 1
            object.__setattr__(self, "bias", bias)  # the way into a frozen dataclass
        self._require_within_float64()

    @property
    def bits(self) -> int:
        """Bits of one value, the sign included."""
        return self.signed + self.exponent_bits + self.fraction_bits

    @property
    def eps(self) -> float:
        """Distance from 1 to the next larger value."""
        return 2.0**-self.fraction_bits

    @cached_property
    def max(self) -> float:
        """Largest finite value."""
        return float(self.decode(self._max_code))

    @property
    def min(self) -> float:
        """Lowest finite value: `-max`, or the smallest one of an unsigned format."""
        if self.signed:
            return -self.max
        return 0.0 if self.zero else self.smallest_normal

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value with all significant bits."""
        return math.ldexp(1.0, self._lowest_exponent)

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value; where nothing is subnormal, `smallest_normal`."""
        return self.smallest_normal * self.eps if self.zero else self.smallest_normal

    @property
    def infinity_code(self) -> int | None:
        """The code of +inf, or None; -inf has the sign bit on top of it."""
        return self._max_code + 1 if self.specials == "ieee" else None

    @property
    def nan_code(self) -> int | None:
        """The code that `encode` gives a NaN, quiet and positive, or None."""
        if self.specials == "ieee":
            return self._all_ones ^ (2 ** (self.fraction_bits - 1) - 1)
        return {"fn": self._all_ones, "fnuz": self._all_ones + 1}.get(self.specials)

    @property
    def nan_codes(self) -> tuple[range, ...]:
        """All codes of NaN, as ranges: one a sign, none where there is no NaN."""
        if self.specials == "finite":
            return ()
        if self.specials == "fnuz":
            return (range(self.nan_code, self.nan_code + 1),)
        first = self._max_code + (2 if self.specials == "ieee" else 1)
        signs = (0, self._sign_code) if self.signed else (0,)
        return tuple(range(s + first, s + self._all_ones + 1) for s in signs)

    @property
    def value_count(self) -> int:
        """How many different finite values there are; -0 and +0 count as one."""
        positive = self._max_code + 1
        return 2 * positive - self.zero if self.signed else positive

    def decode(self, codes: np.ndarray | int) -> np.ndarray:
        """Return the exact values of integer `codes`, of any shape, in float64.

        Raises InputError for codes that are no integers or do not fit into `bits`.
        """
        codes = self._checked(codes)
        size_code = codes & self._all_ones
        field = (size_code >> self.fraction_bits).astype(np.int64)
        fraction = (size_code & (2**self.fraction_bits - 1)).astype(np.float64)
        normal = field > 0 if self.zero else field >= 0
        steps = fraction + np.where(normal, 2.0**self.fraction_bits, 0.0)
        exponent = field - self.bias + (self.zero & ~normal) - self.fraction_bits
        with np.errstate(over="ignore"):  # inf's code would be a number beyond float64
            size = np.ldexp(steps, exponent.astype(np.int32))
        size = np.where(size_code > self._max_code, math.nan, size)
        if self.specials == "ieee":
            size = np.where(size_code == self.infinity_code, math.inf, size)
        if self.specials == "fnuz":
            size = np.where(codes == self.nan_code, math.nan, size)
        return np.where(codes > self._all_ones, -size, size)

    def encode(
        self,
        x: np.ndarray | float,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        rng: np.random.Generator | None = None,
        infinity: str | None = None,
    ) -> np.ndarray:
        """Return the codes of real numbers `x`, of any shape, each rounded once.

        The arguments are those of `rounding.round_to`, which says what they do. Codes
        are int64, uint64 for 64 bits. A NaN keeps its sign and loses its payload.
        Raises InputError for what is no real number or has no code in this format.
        """
        x = reals(x)
        grid = self.grid(rounding, overflow, infinity)
        self.require_codes(x)
        seed = quanta.seed(rounding, rng)
        flat = np.atleast_1d(x)
        return self._packed(quanta.round_array(flat, grid, rounding, seed)).reshape(
            x.shape
        )

    def fields(self, x: float) -> Fields:
        """Return the fields of the number `x`, rounded to this format first.

        Raises InputError for what is no single real number.
        """
        number = reals(x)
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
        digits = f"{code:0{self.bits}b}"
        start = self.bits - self.fraction_bits
        texts = digits[: self.signed], digits[self.signed : start], digits[start:]
        sign, exponent, fraction = (int(text or "0", 2) for text in texts)
        return Fields(
            sign=sign,
            exponent=exponent,
            fraction=fraction,
            kind=self._kind(code),
            pattern=" ".join(text for text in texts if text),
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
        positive = self.decode(np.arange(self._max_code + 1))
        return np.concatenate([-positive[:0:-1], positive]) if self.signed else positive

    def ulp(self, x: np.ndarray | float) -> np.ndarray:
        """Return the distance from finite |x| to the next larger grid point, float64.

        At a power of two it is the step above it, as in `math.ulp`. The grid is carried
        on beyond `max`. Raises InputError for inf and NaN, which have no distance.
        """
        x = reals(x)
        if not np.isfinite(x).all():
            raise InputError(
                f"ulp of {x[~np.isfinite(x)].flat[0]}: give finite numbers."
            )
        steps = np.ldexp(1.0, self._exponent(np.abs(x)) - self.fraction_bits)
        return np.asarray(steps)  # of a single number too, as from decode

    def next_up(self, x: np.ndarray | float) -> np.ndarray:
        """Return the least value above each number of `x`, float64.

        From `max` on it is inf, or NaN in a format without inf. (IEEE 754-2019, 5.3.1.)
        """
        return self._neighbour(reals(x), "down", 1)

    def next_down(self, x: np.ndarray | float) -> np.ndarray:
        """Return the greatest value below each number of `x`, float64.

        From `min` on it is -inf, or NaN in a format without it. (IEEE 754-2019, 5.3.1.)
        """
        return self._neighbour(reals(x), "up", -1)

    def grid(
        self,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        infinity: str | None = None,
    ) -> Grid:
        """Return what the rounding algorithm in `quanta` needs to know of this format.

        Raises InputError for names that are no modes, and for specials not held.
        """
        require_one_of("rounding", rounding, MODES)
        carried = self._size_beyond("overflow", overflow)
        largest_power = math.ldexp(1.0, math.frexp(self.max)[1] - 1)
        # A mode that goes toward zero ends at max (IEEE 754-2019, section 7.4).
        return Grid(
            smallest_normal=self.smallest_normal,
            largest_power=largest_power,
            eps=self.eps,
            max=self.max,
            below=0.0 if self.zero else self.smallest_normal,
            least=-math.inf if self.signed else 0.0,
            over=self.max if rounding in ("toward_zero", "down") else carried,
            under=self.max if rounding in ("toward_zero", "up") else carried,
            infinity=self._size_beyond(
                "infinity", overflow if infinity is None else infinity
            ),
            invalid=math.nan,
            zero=-0.0 if self._has_negative_zero else 0.0,
        )

    def require_codes(self, x: Any) -> None:
        """Raise InputError where array or tensor `x` holds numbers that have no code.

        These are NaN, and what is less than 0 if unsigned, in a format without NaN.
        """
        if self.specials != "finite":
            return
        lacking = x != x if self.signed else (x != x) | (x < 0)
        if lacking.any():
            wrong = x[lacking]
            raise InputError(
                f"{float(wrong[0])} has no code in {self.name}, which has no NaN: "
                "replace such numbers first, e.g. with where."
            )

    @property
    def _all_ones(self) -> int:
        return 2 ** (self.exponent_bits + self.fraction_bits) - 1

    @property
    def _max_code(self) -> int:
        reserved = {"ieee": 2**self.fraction_bits, "fn": 1}.get(self.specials, 0)
        return self._all_ones - reserved

    @property
    def _sign_code(self) -> int:
        return self._all_ones + 1

    @property
    def _has_negative_zero(self) -> bool:
        return self.signed and self.specials != "fnuz"

    @property
    def _lowest_exponent(self) -> int:
        return (1 if self.zero else 0) - self.bias

    def _packed(self, y: np.ndarray) -> np.ndarray:
        # y is on the grid. A subnormal's steps are its code, and each binade above adds
        # one to the exponent field. The implied bit is in `steps`.
        size = np.abs(np.where(np.isfinite(y), y, 0.0))
        exponent = self._exponent(size)
        steps = np.ldexp(size, self.fraction_bits - exponent).astype(np.int64)
        binades = (exponent - self._lowest_exponent).astype(np.int64)
        codes = steps + (binades << self.fraction_bits)
        if not self.zero:
            codes -= 2**self.fraction_bits
        if self.specials == "ieee":
            codes = np.where(np.isinf(y), self.infinity_code, codes)
        negative = np.signbit(y) & self.signed
        if self.nan_code is not None:
            codes = np.where(np.isnan(y), self.nan_code, codes)
            negative &= ~np.isnan(y) | (self.specials != "fnuz")
        wide = codes.astype(np.uint64) | negative.astype(np.uint64) << (self.bits - 1)
        return wide if self.bits == 64 else wide.astype(np.int64)

    def _neighbour(self, x: np.ndarray, inward: str, step: int) -> np.ndarray:
        # Values in order have consecutive ordinals: their codes, with the sign.
        inside = np.clip(np.where(np.isnan(x), 0.0, x), self.min, self.max)
        near = quanta.round_array(np.atleast_1d(inside), self.grid(inward), inward, 0)
        size_code = (self._packed(np.abs(near)) & self._all_ones).astype(np.int64)
        ordinal = np.where(np.signbit(near), -size_code, size_code).reshape(x.shape)
        # What lies outside has the outermost value as its neighbour on the way in.
        outside = x < self.min if step > 0 else x > self.max
        ordinal = ordinal + np.where(outside, 0, step)
        low, high = -self._max_code if self.signed else 0, self._max_code
        value = self.decode(np.abs(np.clip(ordinal, low, high)))
        value = np.where(ordinal < 0, -value, value)
        if self._has_negative_zero:
            value = np.where((ordinal == 0) & (x < 0), -0.0, value)
        top = math.inf if self.specials == "ieee" else math.nan
        value = np.where(ordinal > high, top, value)
        value = np.where(ordinal < low, -top if self.signed else math.nan, value)
        return np.where(np.isnan(x), math.nan, value)

    def _exponent(self, size: np.ndarray) -> np.ndarray:
        # frexp's mantissa lies in [0.5, 1), the format's in [1, 2). Subnormals share
        # the lowest exponent.
        _, above = np.frexp(size)
        lowest = self._lowest_exponent
        return np.where(size == 0, lowest, np.maximum(above - 1, lowest))

    def _size_beyond(self, what: str, policy: str | None) -> float:
        if policy is None:
            standard = {"ieee": "inf", "fn": "nan", "fnuz": "nan", "finite": "saturate"}
            policy = standard[self.specials]
        require_one_of(what, policy, OVERFLOWS)
        missing = (policy == "inf" and self.specials != "ieee") or (
            policy == "nan" and self.specials == "finite"
        )
        if missing:
            others = "saturate" if self.specials == "finite" else "saturate or nan"
            raise InputError(
                f"{what} was {policy!r}, and {self.name} has none: choose {others}."
            )
        return {"inf": math.inf, "saturate": self.max, "nan": math.nan}[policy]

    def _checked(self, codes: np.ndarray | int) -> np.ndarray:
        given, codes = codes, array_of(codes)
        highest = 2**self.bits - 1
        dtype = np.uint64 if self.bits == 64 else np.int64
        if not codes.size and not hasattr(given, "dtype"):
            return codes.astype(dtype)  # numpy makes an empty list float64
        if codes.dtype.kind not in "iu" and not all_are(int, codes):
            raise InputError(
                f"codes of dtype {codes.dtype} ({shown(given)}): {self.name} codes "
                f"are integers from 0 to {highest}."
            )
        wrong = codes[(codes < 0) | (codes > highest)].tolist()
        if wrong:
            raise InputError(
                f"code {shown(wrong[0])}: {self.name} codes are 0 to {highest}."
            )
        return codes.astype(dtype)

    def _kind(self, code: int) -> str:
        size_code = code & self._all_ones
        if any(code in codes for codes in self.nan_codes):
            return "nan"
        if size_code == self.infinity_code:
            return "inf"
        if self.zero and size_code >> self.fraction_bits == 0:
            return "subnormal" if size_code else "zero"
        return "normal"

    def _require_whole(self, what: str, lowest: int, highest: int) -> None:
        given = getattr(self, what)
        whole = isinstance(given, numbers.Integral) and not isinstance(given, bool)
        if not whole or not lowest <= given <= highest:
            raise InputError(
                f"{what} was {shown(given)}: give a whole number from {lowest} to "
                f"{highest}, so that float64 holds every value."
            )
        object.__setattr__(self, what, int(given))  # numpy's integers would wrap

    def _require_possible_specials(self) -> None:
        require_one_of("specials", self.specials, SPECIALS)
        wrong = None
        if self.specials == "ieee" and not self.fraction_bits:
            wrong = "without fraction bits no code is left for NaN"
        elif self.specials == "fnuz" and not self.signed:
            wrong = "NaN takes the code of -0, which an unsigned format lacks"
        elif self._max_code >> self.fraction_bits < self.zero:
            wrong = "no code is left for a normal number"
        if wrong:
            raise InputError(
                f"specials was {self.specials!r}, but {wrong}: choose another rule, or "
                "give more bits."
            )
        if self.signed and not self.zero:
            raise InputError(
                "zero was False and signed True: only an unsigned format can do "
                "without a zero, so give signed=False too."
            )

    def _require_within_float64(self) -> None:
        top = self._max_code >> self.fraction_bits
        lowest, highest = top - 1023, 1022 + self.zero
        if lowest > highest:
            raise InputError(
                f"exponent_bits was {self.exponent_bits}: with specials "
                f"{self.specials!r} its largest number is beyond float64: give fewer."
            )
        self._require_whole("bias", lowest, highest)


FORMATS = {
    fmt.name: fmt
    for fmt in (
        FloatFormat("float64", 11, 52),
        FloatFormat("float32", 8, 23),
        FloatFormat("tfloat32", 8, 10),
        FloatFormat("float16", 5, 10),
        FloatFormat("bfloat16", 8, 7),
        FloatFormat("float8_e4m3fn", 4, 3, specials="fn"),
        FloatFormat("float8_e5m2", 5, 2),
        FloatFormat("float8_e4m3fnuz", 4, 3, specials="fnuz"),
        FloatFormat("float8_e5m2fnuz", 5, 2, specials="fnuz"),
        FloatFormat("float8_e8m0fnu", 8, 0, specials="fn", signed=False, zero=False),
        FloatFormat("float6_e3m2fn", 3, 2, specials="finite"),
        FloatFormat("float6_e2m3fn", 2, 3, specials="finite"),
        FloatFormat("float4_e2m1fn", 2, 1, specials="finite"),
    )
}


def get(name: str | FloatFormat) -> FloatFormat:
    """Return the format called `name`; a FloatFormat comes back as it is.

    Raises InputError that suggests names, for a dtype the name of its format.
    """
    if isinstance(name, FloatFormat):
        return name
    if isinstance(name, str) and name in FORMATS:
        return FORMATS[name]
    called = getattr(name, "name", getattr(name, "__name__", shown(name)))
    word = (name if isinstance(name, str) else f"{called}").lower()
    word = word.removeprefix("torch.")
    close = [word] if word in FORMATS else []
    close = close or [known for known in FORMATS if len(word) > 2 and word in known][:3]
    close = close or difflib.get_close_matches(word, FORMATS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? All are" if close else "choose from"
    raise InputError(f"unknown format {shown(name)}: {hint} {', '.join(FORMATS)}.")
