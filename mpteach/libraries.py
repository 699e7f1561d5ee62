"""What other libraries make of a number, and where they disagree with this one.

Sources of the sentences in `DISAGREEMENTS`: IEEE 754-2019, sections 4.3, 4.3.1, 6.2 and
7.4; OCP 8-bit Floating Point (OFP8) 1.0; Micikevicius et al. 2022, arXiv 2209.05433,
section 2; OCP Microscaling Formats (MX) 1.0; Noune et al. 2022, arXiv 2206.02915.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mpteach.errors import InputError
from mpteach.formats import FORMATS, get
from mpteach.inputs import reals, shown
from mpteach.rounding import round_to

LIBRARIES = tuple(
    name
    for name in ("numpy", "ml_dtypes", "torch", "gfloat")
    if importlib.util.find_spec(name)
)
GFLOAT_NAMES = {
    "float64": "binary64",
    "float32": "binary32",
    "float16": "binary16",
    "bfloat16": "bfloat16",
    "float8_e4m3fn": "ocp_e4m3",
    "float8_e5m2": "ocp_e5m2",
    "float8_e8m0fnu": "ocp_e8m0",
    "float6_e3m2fn": "ocp_e3m2",
    "float6_e2m3fn": "ocp_e2m3",
    "float4_e2m1fn": "ocp_e2m1",
}


@dataclass(frozen=True)
class Disagreement:
    """Inputs on which libraries differ, or might be feared to, and what decides.

    `inputs` are numbers of `dtype` ("float32" or "float64"), or where the case is about
    the bits of NaN, `patterns` are its codes in float32. `decides` is the rule in our
    words, `source` where it stands. `outcomes` computes what each library does.

    Raises InputError for an unknown format, for inputs that are no row of numbers of
    `dtype`, and for patterns that are no codes of float32.
    """

    format: str
    title: str
    inputs: tuple[float, ...]
    dtype: str
    decides: str
    source: str
    patterns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require_name(self.format)
        known = ("float32",) if self.patterns else ("float32", "float64")
        if not isinstance(self.dtype, str) or self.dtype not in known:
            raise InputError(
                f"dtype was {shown(self.dtype)}: choose {' or '.join(known)}."
            )
        given = reals(self.inputs)
        with np.errstate(all="ignore"):  # beyond float32
            held = given.astype(self.dtype)
        if given.ndim != 1 or not np.array_equal(held, given, equal_nan=True):
            raise InputError(
                f"inputs were {shown(self.inputs)}: give a row of numbers that "
                f"{self.dtype} holds."
            )
        if len(self.patterns):
            get("float32").decode(self.patterns)

    @property
    def array(self) -> np.ndarray:
        """The inputs, as an array of `dtype`."""
        if self.patterns:
            return np.array(self.patterns, np.uint32).view(np.float32)
        return np.array(self.inputs, self.dtype)


def convert(x: np.ndarray, fmt_name: str, library: str) -> np.ndarray:
    """Return as float64 what `library` makes of `x` cast to the format `fmt_name`.

    `x` is a float32 or float64 array of any shape. Raises InputError where the library
    lacks the format or refuses a number.
    """
    return _converted(x, fmt_name, library)[0]


def stored(x: np.ndarray, fmt_name: str, library: str) -> np.ndarray:
    """Return the codes that `library` stores for `x` cast to `fmt_name`.

    They are int64, uint64 for 64 bits, as those of `FloatFormat.encode`. Arguments and errors are those of `convert`. NaN codes may depend on the shape of
    `x` and on the processor.
    """
    codes = _converted(x, fmt_name, library)[1]()
    return codes.astype(np.uint64 if get(fmt_name).bits == 64 else np.int64)


def holds(fmt_name: str, library: str) -> bool:
    """Say whether `library` has the format `fmt_name`.

    Raises InputError for an unknown format and for a library not in `LIBRARIES`.
    """
    _require_name(fmt_name)
    if not isinstance(library, str) or library not in LIBRARIES:
        raise InputError(
            f"library was {shown(library)}: choose from {', '.join(LIBRARIES)}."
        )
    if library == "gfloat":
        return fmt_name in GFLOAT_NAMES
    return hasattr(importlib.import_module(library), fmt_name)


def outcomes(case: Disagreement) -> dict[str, list[float | None]]:
    """Return what each library that has the format makes of each input of `case`.

    The first entry, "mpteach", is `round_to`. None stands for a number refused. Where
    the case is about the bits of NaN they are codes, the first those of `encode`.
    """
    fmt = get(case.format)
    ours, theirs = partial(round_to, fmt=fmt), convert
    if case.patterns:
        ours, theirs = fmt.encode, stored
    casts = {"mpteach": ours}
    for library in LIBRARIES:
        if holds(fmt.name, library):
            casts[library] = partial(theirs, fmt_name=fmt.name, library=library)
    return {name: _one_by_one(cast, case.array) for name, cast in casts.items()}


def _one_by_one(cast: Callable[[np.ndarray], Any], x: np.ndarray) -> list[float | None]:
    def one(i: int) -> float | None:
        try:
            return cast(x[i : i + 1]).item()
        except InputError:
            return None

    return [one(i) for i in range(x.size)]


# The values, and what returns the codes.
_Cast = tuple[np.ndarray, Callable[[], np.ndarray]]


def _converted(x: Any, fmt_name: str, library: str) -> _Cast:
    if not holds(fmt_name, library):
        raise _lacks(library, fmt_name)
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        raise InputError(f"x was {shown(x)}: give an array of float32 or float64.")
    with np.errstate(all="ignore"):
        return _CONVERTERS[library](x, fmt_name)


def _require_name(fmt_name: str) -> None:
    # A format of one's own may have a name that a library gives to another.
    if not isinstance(fmt_name, str):
        raise InputError(
            f"the format was {shown(fmt_name)}: give a name, one of "
            f"{', '.join(FORMATS)}."
        )
    get(fmt_name)


def _by_numpy(x: np.ndarray, fmt_name: str) -> _Cast:
    return _cast(x, getattr(np, fmt_name))


def _by_ml_dtypes(x: np.ndarray, fmt_name: str) -> _Cast:
    import ml_dtypes

    return _cast(x, getattr(ml_dtypes, fmt_name))


def _cast(x: np.ndarray, dtype: type) -> _Cast:
    held = x.astype(dtype)
    codes = held.view(f"u{held.dtype.itemsize}")
    return held.astype(np.float64), lambda: codes


def _by_torch(x: np.ndarray, fmt_name: str) -> _Cast:
    import torch

    dtype = getattr(torch, fmt_name)
    held = torch.from_numpy(np.array(x, order="C")).to(dtype)
    size = held.element_size()
    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    codes = held.view(signed).numpy().view(f"u{size}")
    return held.double().numpy(), lambda: codes


def _by_gfloat(x: np.ndarray, fmt_name: str) -> _Cast:
    import gfloat
    from gfloat import formats

    info = getattr(formats, f"format_info_{GFLOAT_NAMES[fmt_name]}")
    try:
        held = gfloat.round_ndarray(info, x.astype(np.float64))
    except ValueError as error:
        raise InputError(f"gfloat does not take {shown(x)}: {error}.") from None
    return held, lambda: gfloat.encode_ndarray(info, held)


_CONVERTERS = {
    "numpy": _by_numpy,
    "ml_dtypes": _by_ml_dtypes,
    "torch": _by_torch,
    "gfloat": _by_gfloat,
}


def _lacks(library: str, fmt_name: str) -> InputError:
    having = [name for name in LIBRARIES if holds(fmt_name, name)]
    others = f"or {' or '.join(having)}" if having else "no library here has this one"
    return InputError(f"{library} has no {fmt_name}: choose another format, {others}.")


_ONCE = (
    "The exact number is rounded once. By way of float32 it is rounded twice, and may "
    "land on a tie that was none."
)
_NO_NAN = (
    "The format has no code for NaN, and what becomes of one is left open: we refuse "
    "it. Numbers beyond the largest, and infinity, become the largest."
)
_NAN_BITS = (
    "Which NaN comes out is left open: the payload should be kept where it fits, and "
    "one that signals comes out quiet. We give one quiet NaN for each sign."
)


def _between(low: float, step: float, even: bool) -> float:
    """Return a float64 next to the middle of a step, on the side of no even code."""
    return low + step / 2 + (2.0**-40 if even else -(2.0**-40))


def _twice(fmt_name: str) -> Disagreement:
    step = get(fmt_name).eps
    return Disagreement(
        fmt_name,
        "float64 rounded twice",
        (_between(1.0, step, even=True), _between(1.0 + step, step, even=False)),
        "float64",
        _ONCE,
        "IEEE 754-2019, section 4.3",
    )


DISAGREEMENTS = (
    Disagreement(
        "float8_e4m3fn",
        "overflow",
        (464.0, float(np.nextafter(np.float32(464), np.float32(465))), 1e9, math.inf),
        "float32",
        "464 is a tie and goes to the even 448. Beyond it, also for infinity, comes "
        "NaN, our default, or with saturation 448.",
        "OFP8 1.0, conversions; Micikevicius et al. 2022, section 2",
    ),
    Disagreement(
        "float8_e5m2",
        "overflow",
        (float(np.nextafter(np.float32(61440), np.float32(0))), 61440.0, math.inf),
        "float32",
        "What rounds beyond the largest number, as if the exponent had no end, becomes "
        "infinity. A conversion with saturation would give 57344.",
        "IEEE 754-2019, section 7.4; OFP8 1.0, conversions",
    ),
    *(
        Disagreement(
            fmt_name,
            "overflow",
            (float(np.nextafter(np.float32(tie), np.float32(0))), tie, math.inf, -0.0),
            "float32",
            "The format has no infinity and no -0: overflow gives its one NaN.",
            "Noune et al. 2022 (arXiv 2206.02915)",
        )
        for fmt_name, tie in (("float8_e4m3fnuz", 248.0), ("float8_e5m2fnuz", 61440.0))
    ),
    Disagreement(
        "float8_e8m0fnu",
        "zero",
        (0.0, -0.0),
        "float32",
        "The format has no zero, and no rule for it: we give the nearest number, "
        "2^-127.",
        "MX 1.0, the E8M0 scale",
    ),
    Disagreement(
        "float8_e8m0fnu",
        "negative numbers",
        (-1.0, -(2.0**-149), -math.inf),
        "float32",
        "The format has no sign, and no rule for a negative number: we give NaN.",
        "MX 1.0, the E8M0 scale",
    ),
    Disagreement(
        "float8_e8m0fnu",
        "ties",
        (1.5, 3.0, 6.0),
        "float32",
        "Two powers of two have one digit each, a 1, so neither is even: the larger "
        "is delivered.",
        "IEEE 754-2019, section 4.3.1",
    ),
    Disagreement(
        "float8_e8m0fnu",
        "just above the smallest",
        (1.0 * 2.0**-127, 1.25 * 2.0**-127, 1.5 * 2.0**-127, 1.75 * 2.0**-127),
        "float32",
        "The nearest of 2^-127 and 2^-126 is delivered, and of a tie the larger. In "
        "float32 these numbers are subnormal.",
        "IEEE 754-2019, section 4.3.1",
    ),
    *(_twice(name) for name in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")),
    *(
        Disagreement(
            fmt_name,
            "NaN without a code",
            (math.nan, math.inf, get(fmt_name).max * 2),
            "float32",
            _NO_NAN,
            "MX 1.0, the FP6 and FP4 element formats",
        )
        for fmt_name in ("float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn")
    ),
    *(
        Disagreement(
            fmt_name,
            "the bits of NaN",
            (math.nan, -math.nan, math.nan),
            "float32",
            _NAN_BITS,
            "IEEE 754-2019, sections 6.2 and 6.2.3",
            patterns=(0x7FC00000, 0xFFC00000, 0x7F802001),
        )
        for fmt_name in ("float16", "bfloat16", "float8_e5m2")
    ),
)
