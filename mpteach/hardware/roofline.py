"""How much an operation computes and moves, and what a machine can make of that.

The roofline: an operation that does `intensity` FLOP for each byte it moves runs at
most at intensity x bandwidth, and at most at the peak rate. Source: Williams, Waterman
and Patterson 2009, "Roofline: an insightful visual performance model", CACM 52(4).
Counted is the least that must be moved: each input read once, each output written once.
"""

import numbers
from dataclasses import dataclass
from typing import NamedTuple

from mpteach import formats
from mpteach.errors import InputError
from mpteach.inputs import shown


class Elementwise(NamedTuple):
    """What an operation does for each element: numbers read and written, FLOP.

    An addition, multiplication, comparison, division, root or exp counts as one FLOP.
    """

    reads: int
    writes: int
    flop: int


ELEMENTWISE = {
    "copy": Elementwise(1, 1, 0),
    "cast": Elementwise(1, 1, 0),  # reads float32, writes the dtype
    "add": Elementwise(2, 1, 1),
    "gelu": Elementwise(1, 1, 5),  # 0.5 x (1 + erf(x / sqrt(2)))
    "softmax": Elementwise(1, 1, 5),  # maximum, minus it, exp, sum, divide
    "layer_norm": Elementwise(1, 1, 6),  # mean, minus it, square, mean, two factors
    # weight, gradient and two means are read; the weight and both means are written.
    "adamw": Elementwise(4, 3, 14),
}
OPERATIONS = ("product", *ELEMENTWISE)


@dataclass(frozen=True)
class Work:
    """An operation on [rows, columns] numbers of `dtype`.

    A product is [rows, columns] @ [columns, columns] -> [rows, columns]; that of float8
    matrices gives bfloat16. Raises InputError for an operation not in `OPERATIONS`, and
    for rows or columns that are no whole numbers of at least 1.
    """

    operation: str
    dtype: str
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise InputError(
                f"unknown operation {shown(self.operation)}: choose from "
                f"{', '.join(OPERATIONS)}."
            )
        for name, count in (("rows", self.rows), ("columns", self.columns)):
            if not _is_whole(count) or count < 1:
                raise InputError(
                    f"{name} was {shown(count)}: give a whole number of at least 1."
                )
        stored_bytes(self.dtype)

    @property
    def flop(self) -> int:
        """Additions, multiplications and the like; a product has two for each pair."""
        if self.operation == "product":
            return 2 * self.rows * self.columns * self.columns
        return ELEMENTWISE[self.operation].flop * self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Bytes that have to be read and written at least."""
        size, result = stored_bytes(self.dtype), self.rows * self.columns
        if self.operation == "product":
            # What comes out of a float8 product is bfloat16.
            return (result + self.columns**2) * size + result * max(size, 2)
        each = ELEMENTWISE[self.operation]
        read = stored_bytes("float32") if self.operation == "cast" else size
        return result * (each.reads * read + each.writes * size)

    @property
    def intensity(self) -> float:
        """FLOP for each byte moved."""
        return self.flop / self.bytes


def stored_bytes(dtype: str) -> int:
    """Return the bytes of an element in memory.

    No number is stored in tfloat32: its products take float32 from memory. Raises
    InputError for an unknown dtype and for one of less than a byte.
    """
    bits = formats.get("float32" if dtype == "tfloat32" else dtype).bits
    if bits % 8:
        raise InputError(
            f"{dtype} has {bits} bits, no whole bytes: take a dtype of 8 bits or more."
        )
    return bits // 8


def attainable(intensity: float, peak: float, bandwidth: float) -> float:
    """Return the most FLOP/s at `intensity` FLOP a byte: the lower one of two limits.

    `peak` is in FLOP/s, `bandwidth` in bytes/s. Raises InputError for a negative
    intensity, and for limits that are not above 0.
    """
    if not isinstance(intensity, numbers.Real) or not intensity >= 0:
        raise InputError(f"intensity was {shown(intensity)}: give a number from 0 up.")
    _require_positive(peak=peak, bandwidth=bandwidth)
    return min(peak, intensity * bandwidth)


def ridge(peak: float, bandwidth: float) -> float:
    """Return the intensity, FLOP a byte, from which on the peak is the limit.

    Raises InputError for limits that are not above 0.
    """
    _require_positive(peak=peak, bandwidth=bandwidth)
    return peak / bandwidth


def all_reduce_bytes(elements: int, dtype: str, processes: int) -> float:
    """Return the bytes that each process sends when `elements` numbers are summed up.

    The ring all-reduce: n - 1 of n parts are sent once to be added and once as a
    result, 2 (n - 1) / n of the buffer. Source: Patarasuk and Yuan 2009, "Bandwidth
    optimal all-reduce algorithms for clusters of workstations", JPDC 69(2).
    Raises InputError unless both are whole, with at least 0 elements and 1 process.
    """
    whole = _is_whole(elements) and _is_whole(processes)
    if not whole or processes < 1 or elements < 0:
        raise InputError(
            f"{shown(elements)} elements over {shown(processes)} processes cannot be "
            "summed: give whole numbers, at least 0 elements and 1 process."
        )
    return 2 * (processes - 1) / processes * elements * stored_bytes(dtype)


def _is_whole(count: object) -> bool:
    return isinstance(count, numbers.Integral) and not isinstance(count, bool)


def _require_positive(**limits: object) -> None:
    for name, value in limits.items():
        if not isinstance(value, numbers.Real) or not value > 0:
            raise InputError(f"{name} was {shown(value)}: give a number above 0.")
