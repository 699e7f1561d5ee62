"""The one rounding algorithm: divide by the quantum, round to whole, multiply back.

It is written once, for numpy, for torch and for numba, which differ in the names of
the operations only. Sources: IEEE 754-2019, section 4.3 (rounding directions) and
section 7.4 (overflow); Connolly, Higham and Mary 2021, SIAM J. Sci. Comput. 43(1),
section 4 (stochastic rounding).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mpteach.errors import InputError
from mpteach.inputs import shown

MODES = (
    "nearest_even",
    "nearest_away",
    "toward_zero",
    "up",
    "down",
    "stochastic",
)
OVERFLOWS = ("inf", "saturate", "nan")


class Grid(NamedTuple):
    """What the algorithm knows of a format: floats alone, so that any backend takes it.

    `below` is the size that everything smaller gets (0 where the format has a zero),
    `least` the lowest number that is not invalid, `over` and `under` what numbers too
    large in size become on either side, `infinity` what the size of an infinite input
    becomes, `invalid` is NaN, and `zero` -0.0 where the format has one.
    """

    smallest_normal: float
    largest_power: float
    eps: float
    max: float
    below: float
    least: float
    over: float
    under: float
    infinity: float
    invalid: float
    zero: float


class Operations(NamedTuple):
    """The functions whose names differ between numpy, torch and numba.

    `power` gives the largest power of two up to |x| (0 for a subnormal, inf for inf and
    NaN), `unit` takes integers from 0 to 2^31 - 1 to float32 numbers from 0 to 1.
    """

    where: Callable[..., Any]
    rint: Callable[..., Any]
    trunc: Callable[..., Any]
    floor: Callable[..., Any]
    ceil: Callable[..., Any]
    copysign: Callable[..., Any]
    power: Callable[..., Any]
    unit: Callable[..., Any]


def whole(mode: str, operations: Operations) -> Callable[..., Any]:
    """Return the function that takes steps, a number of quanta, to a whole number.

    It is called with the steps, with x, of which they are the multiple, and, for
    "stochastic" alone, with numbers from 0 to 1.
    """
    where, rint, trunc, floor, ceil, copysign, _, _ = operations

    def nearest_away(steps: Any, _x: Any, _noise: Any) -> Any:
        cut = trunc(steps)
        return cut + copysign(1.0 * (abs(steps - cut) >= 0.5), steps)

    def up(steps: Any, x: Any, _noise: Any) -> Any:
        # A quantum above 1 can make the quotient 0 by underflow. Such an x is below 1.
        return ceil(where(steps == 0, x, steps))

    def down(steps: Any, x: Any, _noise: Any) -> Any:
        return floor(where(steps == 0, x, steps))

    def stochastic(steps: Any, _x: Any, noise: Any) -> Any:
        # The difference is exact; floor(steps + noise) would round the sum first.
        low = floor(steps)
        return low + (noise < steps - low)

    return {
        "nearest_even": lambda steps, _x, _noise: rint(steps),
        "nearest_away": nearest_away,
        "toward_zero": lambda steps, _x, _noise: trunc(steps),
        "up": up,
        "down": down,
        "stochastic": stochastic,
    }[mode]


def rounding(to_whole: Callable[..., Any], operations: Operations) -> Callable:
    """Return the algorithm, with no branch: f(x, noise, grid) rounds x to the grid.

    The quotient x / quantum and the product are exact, where they do not underflow or
    overflow: a quantum is a power of two.
    """
    where, _, _, _, _, copysign, power, _ = operations

    def round_to_grid(x: Any, noise: Any, grid: Grid) -> Any:
        binade = power(x)  # the largest power of two up to |x|
        binade = where(binade < grid.smallest_normal, grid.smallest_normal, binade)
        binade = where(binade > grid.largest_power, grid.largest_power, binade)
        quantum = binade * grid.eps
        size = abs(to_whole(x / quantum, x, noise) * quantum)

        beyond = where(x < 0, grid.under, grid.over)
        size = where(size > grid.max, beyond, size)
        size = where(abs(x) == math.inf, grid.infinity, size)
        size = where(size < grid.below, grid.below, size)
        size = where(x < grid.least, grid.invalid, size)
        # Adding -0.0 changes nothing, adding +0.0 makes a -0.0 positive.
        return copysign(size, x + grid.zero) + grid.zero

    return round_to_grid


def uniform(operations: Operations) -> Callable:
    """Return f(index, seed): multiples of 2^-31 from [0, 1], the same on any device.

    This is SplitMix64 (Steele, Lea and Flood 2014, OOPSLA), written for signed integers
    of 64 bits that wrap; the masks make the shifts unsigned. Its top 31 bits become a
    float32, which rounds those above 2^-7.
    """
    unit = operations.unit

    def draw(index: Any, seed: Any) -> Any:
        z = seed + index * -0x61C8864680B583EB
        z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        z = z ^ ((z >> 31) & 0x1FFFFFFFF)
        return unit((z >> 33) & 0x7FFFFFFF)

    return draw


def _power(x: np.ndarray) -> np.ndarray:
    # The exponent field alone.
    if x.dtype == np.float32:
        return (x.view(np.int32) & 0x7F800000).view(np.float32)
    return (x.view(np.int64) & 0x7FF0000000000000).view(np.float64)


def _unit(z: np.ndarray) -> np.ndarray:
    return z.astype(np.float32) * np.float32(2.0**-31)


NUMPY = Operations(
    np.where, np.rint, np.trunc, np.floor, np.ceil, np.copysign, _power, _unit
)


def round_array(x: np.ndarray, grid: Grid, mode: str, seed: int, first: int = 0) -> Any:
    """Round float32 or float64 `x` of at least one dimension to `grid` with numpy.

    Element i of the flat array takes random number `first + i` of `seed`.
    """
    noise = None
    with np.errstate(all="ignore"):
        if mode == "stochastic":
            index = np.arange(first, first + x.size).reshape(x.shape)
            noise = uniform(NUMPY)(index, np.int64(seed))
        return rounding(whole(mode, NUMPY), NUMPY)(x, noise, grid)


def seed(mode: str, rng: Any) -> int:
    """Draw one seed of 64 bits from `rng` if `mode` is stochastic, else return 0.

    `rng` is a numpy or a torch generator. Raises InputError where none is given. The
    other modes do not look at `rng`, whatever it is.
    """
    if mode != "stochastic":
        return 0
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(-(2**63), 2**63))
    if type(rng).__module__.startswith("torch"):
        import torch

        if isinstance(rng, torch.Generator):
            low, high = -(2**63), 2**63 - 1
            return int(
                torch.randint(low, high, (), generator=rng, device=rng.device).item()
            )
    raise InputError(
        f"rng was {shown(rng)}: stochastic rounding needs a generator, e.g. "
        "rng=np.random.default_rng(0)."
    )
