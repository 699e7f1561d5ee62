"""What rounding must give, by means that share nothing with the package's algorithm.

`by_table` searches the list of all values, `by_mpfr` asks GNU MPFR, and
`library_mismatches` asks other libraries, outside what they do otherwise by design.
"""

import math
from fractions import Fraction

import gmpy2
import numpy as np

from mpteach.formats import FORMATS, FloatFormat, get
from mpteach.libraries import LIBRARIES, convert, holds
from mpteach.quanta import MODES
from mpteach.rounding import round_to

EXACT_MODES = tuple(mode for mode in MODES if mode != "stochastic")
SMALL = [fmt for fmt in FORMATS.values() if fmt.bits <= 19]
PAIRS = [
    (name, library)
    for name in FORMATS
    for library in LIBRARIES
    if library != "gfloat" and holds(name, library)
]
MPFR_MODES = {
    "nearest_even": gmpy2.RoundToNearest,
    "toward_zero": gmpy2.RoundToZero,
    "up": gmpy2.RoundUp,
    "down": gmpy2.RoundDown,
}


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Say where two arrays differ: sign of zero included, NaN equal to NaN."""
    same = (one == other) & (np.signbit(one) == np.signbit(other))
    return ~(same | (np.isnan(one) & np.isnan(other)))


def assert_same(one: np.ndarray, other: np.ndarray, x: np.ndarray) -> None:
    """Fail with the first input on which two results differ."""
    wrong = differing(np.asarray(one), np.asarray(other))
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} differ, the first at {x[wrong][0]!r}: "
        f"{one[wrong][0]!r}, not {other[wrong][0]!r}"
    )


def sizes(fmt: FloatFormat) -> np.ndarray:
    """Return the finite values of the codes without sign, and the next of the grid."""
    values = fmt.decode(np.arange(2 ** (fmt.bits - fmt.signed)))
    values = values[np.isfinite(values)]
    assert (np.diff(values) > 0).all()
    step = 2.0 ** (math.frexp(values[-1])[1] - 1 - fmt.fraction_bits)
    return np.append(values, values[-1] + step)


def critical(fmt: FloatFormat, dtype: type) -> np.ndarray:
    """Return every value and midpoint, with neighbours in `dtype`, and specials."""
    table = sizes(fmt)
    points = np.concatenate([table, (table[:-1] + table[1:]) / 2])
    with np.errstate(over="ignore"):
        points = points.astype(dtype)
    around = [np.nextafter(points, dtype(way)) for way in (-np.inf, np.inf)]
    extremes = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, np.inf
    points = np.concatenate([points, *around, np.array([0, 1e30, *extremes], dtype)])
    return np.concatenate([points, -points, np.array([np.nan], dtype)])


def by_table(
    fmt: FloatFormat, x: np.ndarray, mode: str, overflow: float, infinity: float
) -> np.ndarray:
    """Round float64 `x` by searching all values; the policies are sizes."""
    table = sizes(fmt)
    size = np.abs(np.nan_to_num(x, nan=1.0))
    size = np.maximum(size, 0 if fmt.zero else table[0])
    at = np.searchsorted(table, size, side="right") - 1
    low, high = table[at], np.append(table, np.inf)[at + 1]
    middle = (low + high) / 2
    # The only digit of a power of two is odd: of two such, the larger is delivered.
    odd = (at % 2 == 1) if fmt.fraction_bits else (low > 0)
    away = {
        "nearest_even": (size > middle) | ((size == middle) & odd),
        "nearest_away": size >= middle,
        "toward_zero": np.zeros(x.shape, bool),
        "up": x > 0,
        "down": x < 0,
    }[mode]
    rounded = np.where(away & (size != low), high, low)
    inward = {"toward_zero": x == x, "up": x < 0, "down": x > 0}.get(mode, x != x)
    over = np.where(inward, table[-2], overflow)
    rounded = np.where(rounded > table[-2], over, rounded)
    rounded = np.where(np.isinf(x), infinity, rounded)
    rounded = np.where(np.isnan(x) | ((x < 0) & (not fmt.signed)), np.nan, rounded)
    signed_zero = fmt.signed and fmt.specials != "fnuz"
    minus = np.signbit(x) & (signed_zero | ((rounded != 0) & (x != 0)))
    return np.where(minus, -rounded, rounded)


def by_mpfr(fmt: FloatFormat, x: float, mode: str, carried: bool = False) -> float:
    """Round finite `x` with MPFR; the grid ends where the format has an infinity.

    Without one, or with `carried`, it goes on beyond `fmt.max`.
    """
    ends = fmt.specials == "ieee" and not carried
    lowest = math.frexp(fmt.smallest_normal)[1] - fmt.fraction_bits
    given = gmpy2.mpfr(x, 53)  # outside the context, which would round it too
    with gmpy2.context(
        precision=fmt.fraction_bits + 1,
        emin=lowest,
        emax=math.frexp(fmt.max)[1] if ends else 2000,
        subnormalize=True,
        round=MPFR_MODES[mode],
    ) as context:
        return float(context.plus(given))


def away_by_fractions(fmt: FloatFormat, x: float) -> float:
    """Round finite `x` to the nearer of MPFR's two neighbours, ties away from zero."""
    low, high = (by_mpfr(fmt, x, mode, carried=True) for mode in ("down", "up"))
    below, above = Fraction(x) - Fraction(low), Fraction(high) - Fraction(x)
    if below == above:
        return high if x > 0 else low
    return low if below < above else high


def spread(fmt: FloatFormat, count: int, seed: int) -> np.ndarray:
    """Return float64 numbers of both signs spread evenly over the binades of `fmt`."""
    random = np.random.default_rng(seed)
    low, high = math.log2(fmt.smallest_subnormal) - 2, math.log2(fmt.max) + 2
    size = np.exp2(random.uniform(max(low, -1073), min(high, 1023), count))
    return size * random.choice([-1, 1], count)


def patterns(count: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    """Return `count` random bit patterns, as numbers of `dtype`."""
    bits = {np.float32: np.uint32, np.float64: np.uint64}[dtype]
    random = np.random.default_rng(seed)
    return random.integers(0, 2 ** (8 * bits().itemsize), count, bits).view(dtype)


def by_design(name: str, library: str, x: np.ndarray) -> np.ndarray:
    """Say for which inputs `DISAGREEMENTS` lets `library` differ, or us refuse."""
    fmt = get(name)
    if fmt.specials == "finite":
        return np.isnan(x)
    if name == "float8_e4m3fn" and library == "torch":
        return np.abs(x) > 464
    if name == "float8_e8m0fnu":
        outside = (x < 0) if library == "torch" else (x == 0)
        return outside | ((2.0**-127 < x) & (x < 1.5 * 2.0**-127))
    return np.zeros(x.shape, bool)


def library_mismatches(name: str, library: str, x: np.ndarray) -> tuple[int, int]:
    """Return how many of `x` were compared with `library`, and how many differ."""
    with np.errstate(invalid="ignore"):
        x = x[~by_design(name, library, x)]
    wrong = differing(round_to(x, name), convert(x, name, library))
    return x.size, int(wrong.sum())
