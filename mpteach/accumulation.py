"""Sums and dot products carried out in a format: every operation is rounded once.

Sources: Kahan 1965, Commun. ACM 8(1), "Further remarks on reducing truncation errors";
Knuth, The Art of Computer Programming 2, section 4.2.2 (TwoSum); Boldo and Melquiond
2008, IEEE Trans. Computers 57(4) (rounding to odd, then to the format, rounds once);
Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 4 (error bounds).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpteach import quanta
from mpteach.errors import InputError
from mpteach.formats import FloatFormat, get
from mpteach.inputs import reals, shown
from mpteach.rounding import round_to

Add = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sum(
    x: Any,
    fmt: FloatFormat | str,
    method: str = "naive",
    accumulator: FloatFormat | str | None = None,
    rounding: str = "nearest_even",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return the sum of `x` [..., n] along its last axis as arithmetic in `fmt` has it.

    The terms are rounded to `fmt` first. `method` is "naive" (one after the other),
    "pairwise" or "kahan" (compensated). Every addition is rounded once to the format
    `accumulator`, which is `fmt` unless given, and the result once to `fmt`: that is
    how a GPU sums float16 products in float32. `rounding` and `rng` are those of
    `round_to`, for every step; what overflows on the way follows the format's own rule.

    Returns float64 [...]. A sum that is zero has the sign that float64 gives it. Raises
    InputError for an unknown word, for x without an axis, for "kahan" in an unsigned
    accumulator, for NaN or inf in one that has neither, and for an accumulator that is
    too wide: float64 could not hold its sums before they are rounded.
    """
    fmt = get(fmt)
    terms = _rounded_inputs(x, fmt, rounding, rng)
    total = _arithmetic(accumulator, fmt, rounding, rng).total(terms, method)
    return round_to(total, fmt, rounding, rng=rng)


def dot(
    x: Any,
    y: Any,
    fmt: FloatFormat | str,
    method: str = "naive",
    accumulator: FloatFormat | str | None = None,
    rounding: str = "nearest_even",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return the dot products of `x` and `y` [..., n] along their last axes.

    Each product is rounded once to `accumulator`, and they are added as in `sum`,
    whose arguments these are. The axes before the last are broadcast. Returns float64
    [...].

    Raises InputError as `sum` does, for lengths that differ, and for a format whose
    products float64 does not hold exactly.
    """
    fmt = get(fmt)
    _require_exact_products(fmt)
    x, y = (_rounded_inputs(given, fmt, rounding, rng) for given in (x, y))
    if x.shape[-1] != y.shape[-1]:
        raise InputError(
            f"x has {x.shape[-1]} terms and y {y.shape[-1]}: give last axes of one "
            "length."
        )
    arithmetic = _arithmetic(accumulator, fmt, rounding, rng)
    total = arithmetic.total(arithmetic.products(x, y), method)
    return round_to(total, fmt, rounding, rng=rng)


def cumsum(
    x: Any,
    fmt: FloatFormat | str,
    rounding: str = "nearest_even",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return all partial sums of `x` [..., n] along its last axis, float64 [..., n].

    They are those of the naive `sum`, whose arguments and errors these are.
    """
    fmt = get(fmt)
    terms = _rounded_inputs(x, fmt, rounding, rng)
    columns, add = _first_axis(terms), _Arithmetic(fmt, rounding, rng).add
    partial = np.empty_like(columns)
    with np.errstate(invalid="ignore"):  # inf - inf
        for row, total in zip(partial, _partial_sums(columns, add), strict=True):
            row[:] = total
    return partial.T.reshape(terms.shape)


def naive(terms: np.ndarray, add: Add) -> np.ndarray:
    """Return the sum of `terms` [n, rows], one added after the other.

    The error is at most (n - 1) u times the sum of sizes, to first order in the
    format's unit roundoff u = eps / 2.
    """
    total = np.zeros(terms.shape[1])
    for total in _partial_sums(terms, add):
        pass
    return total


def pairwise(terms: np.ndarray, add: Add) -> np.ndarray:
    """Return the sum of `terms` [n, rows], added in pairs, then pairs of pairs.

    The error is at most log2(n) u times the sum of sizes, to first order.
    """
    while len(terms) > 1:
        alone = terms[len(terms) // 2 * 2 :]
        terms = np.concatenate([add(terms[:-1:2], terms[1::2]), alone])
    # One term is rounded as well: it may come from a wider format.
    return add(np.zeros(terms.shape[1]), terms[0]) if len(terms) else naive(terms, add)


def kahan(terms: np.ndarray, add: Add) -> np.ndarray:
    """Return the sum of `terms` [n, rows], with what each addition loses carried on.

    The error is at most 2 u times the sum of sizes, to first order, whatever n is.
    """
    total = lost = np.zeros(terms.shape[1])
    for term in terms:
        corrected = add(term, lost)
        before, total = total, add(total, corrected)
        gained = add(total, -before)
        lost = add(corrected, -gained)
    return total


METHODS = {"naive": naive, "pairwise": pairwise, "kahan": kahan}


def add_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a + b, float64 arrays of one shape, rounded to odd.

    An exact sum is returned as it is. Of the two float64 numbers around any other, the
    one with the odd last bit is: no format with at least two bits fewer has a value, or
    the middle between two, where it lies. Rounding it to such a format therefore gives
    what rounding the exact sum gives, in every mode.
    """
    total = a + b
    of_b = total - a
    error = (a - (total - of_b)) + (b - of_b)  # TwoSum: a + b is total + error, exactly
    between = abs(error) > 0  # NaN where the sum is not finite
    if not between.any():
        return total
    even = total.view(np.int64) & 1 == 0
    odd = np.nextafter(total, np.copysign(math.inf, error))
    return np.where(between & even, odd, total)


class _Arithmetic:
    """Operations on float64 arrays whose exact results are rounded once to a format."""

    def __init__(self, fmt: FloatFormat | str, rounding: str, rng: Any) -> None:
        self.fmt, self.mode = get(fmt), rounding
        _require_exact_sums(self.fmt)
        self.grid = self.fmt.grid(rounding)
        self.seed, self.drawn = quanta.seed(rounding, rng), 0

    def total(self, terms: np.ndarray, method: str) -> np.ndarray:
        """Add `terms` [..., n] along the last axis."""
        if not isinstance(method, str) or method not in METHODS:
            raise InputError(
                f"method was {shown(method)}: choose from {', '.join(METHODS)}."
            )
        if method == "kahan" and not self.fmt.signed:
            raise InputError(
                f"kahan needs a signed format, as it subtracts, and {self.fmt.name} "
                "has no sign: choose naive or pairwise, or a signed accumulator."
            )
        self._require_terms(terms)
        with np.errstate(invalid="ignore"):  # inf - inf
            total = METHODS[method](_first_axis(terms), self.add)
        return total.reshape(terms.shape[:-1])

    def products(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # inf * 0
            exact = _broadcast_product(x, y)
        self._require_terms(exact)
        return self._rounded(exact)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._rounded(add_to_odd(a, b))

    def _require_terms(self, x: np.ndarray) -> None:
        self.fmt.require_codes(x)
        # Saturated one by one, inf and -inf would cancel; added first, they are NaN.
        if self.fmt.specials == "finite" and np.isinf(x).any():
            raise InputError(
                f"{x[np.isinf(x)][0]} among the terms, and the accumulator "
                f"{self.fmt.name} has neither inf nor NaN: take a wider one, e.g. "
                "float32."
            )

    def _rounded(self, x: np.ndarray) -> np.ndarray:
        first, self.drawn = self.drawn, self.drawn + x.size
        return quanta.round_array(x, self.grid, self.mode, self.seed, first)


def _arithmetic(
    accumulator: FloatFormat | str | None, fmt: FloatFormat, rounding: str, rng: Any
) -> _Arithmetic:
    return _Arithmetic(fmt if accumulator is None else accumulator, rounding, rng)


def _partial_sums(terms: np.ndarray, add: Add) -> Iterator[np.ndarray]:
    total = np.zeros(terms.shape[1])
    for term in terms:
        total = add(total, term)
        yield total


def _first_axis(terms: np.ndarray) -> np.ndarray:
    """Return `terms` [..., n] as [n, rows]."""
    n, rows = terms.shape[-1], math.prod(terms.shape[:-1])
    return np.ascontiguousarray(terms.reshape(rows, n).T)


def _rounded_inputs(x: Any, fmt: FloatFormat, rounding: str, rng: Any) -> np.ndarray:
    x = reals(x)
    if not x.ndim:
        raise InputError(f"x was the single number {x}: give an array of terms.")
    return round_to(x, fmt, rounding, rng=rng)


def _broadcast_product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    try:
        return x * y
    except ValueError:
        raise InputError(
            f"x has shape {x.shape} and y {y.shape}: the axes before the last must be "
            "equal, or 1 in one of them."
        ) from None


def _require_exact_sums(fmt: FloatFormat) -> None:
    if fmt.fraction_bits > 50 or fmt.max > 2.0**1022:
        raise InputError(
            f"{fmt.name} is too wide to add in: float64 could not hold the sums before "
            "they are rounded, so take an accumulator of at most 50 fraction bits and "
            "numbers up to 2^1022, e.g. float32."
        )


def _require_exact_products(fmt: FloatFormat) -> None:
    too_small = fmt.smallest_subnormal < 2.0**-537
    if fmt.fraction_bits > 25 or too_small or fmt.max * fmt.max == math.inf:
        raise InputError(
            f"{fmt.name} is too wide to multiply in: float64 could not hold the "
            "products before they are rounded, so take a format of at most 25 fraction "
            "bits and sizes from 2^-537 to 2^512, e.g. float32."
        )
