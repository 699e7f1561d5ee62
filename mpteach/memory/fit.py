"""The largest batch that fits into a given memory."""

import re
from collections.abc import Callable

from mpteach.errors import InputError
from mpteach.inputs import shown

# What the device holds beside the allocator's segments: the CUDA context and the code of
# the kernels, of which more are loaded as more are used. 806 to 819 MB in the record of
# an H200, and a margin.
OUTSIDE_BYTES = 850 * 10**6
_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
MOST = 2**20  # beyond any batch


def bytes_of(text: str) -> int:
    """Return the bytes that e.g. "24GB" (10^9) or "22.5 GiB" (2^30) says."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if not found or found[2] not in _UNITS or float(found[1]) <= 0:
        raise InputError(
            f"a memory was {shown(text)}: give a number and a unit, as in 24GB (10^9) or "
            "22.5GiB (2^30)."
        )
    return int(float(found[1]) * _UNITS[found[2]])


def largest_batch(need: Callable[[int], int], budget_bytes: int) -> int:
    """Return the largest batch whose `need(batch)` is at most the budget; 0 if none.

    `need` grows nearly in proportion, so few batches are tried: the next one is where the
    line through the first and the last meets the budget; bisection ends a long search.
    """
    first = need(1)
    if first > budget_bytes:
        return 0
    fits, fails, slope, tried = 1, MOST, need(2) - first, 0
    while fails - fits > 1:
        tried += 1
        guess = 1 + (budget_bytes - first) // max(1, slope)
        guess = guess if tried < 8 else (fits + fails) // 2
        guess = min(max(guess, fits + 1), fails - 1)
        size = need(guess)
        if size <= budget_bytes:
            fits = guess
        else:
            fails = guess
        slope = (size - first) // (guess - 1)
    return fits
