"""A model of torch's CUDA caching allocator: what a request costs, and what is kept.

Source: c10/cuda/CUDACachingAllocator.cpp, of torch 2.11; one stream, default settings.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from mpteach.errors import require

GRAIN = 512  # every block is a multiple of it
SMALL = MIB = 2**20  # requests up to here share segments of 2 MiB


def rounded(size: int) -> int:
    """Return the bytes of the block that a request of `size` bytes needs at least."""
    return -(-size // GRAIN) * GRAIN


def segment(size: int) -> int:
    """Return the bytes that the allocator asks of CUDA for a block of `size` bytes."""
    if size <= SMALL:
        return 2 * MIB
    return 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB


@dataclass
class CachingAllocator:
    """Hands out blocks of segments, best fit first, and keeps what is freed.

    All in bytes. `requested` is what live tensors asked for, `allocated` the blocks they
    got, `reserved` the segments, in use or not. A block is split where more than 1 MiB
    would remain (512 bytes in small segments), and merged with free neighbours.
    """

    requested: int = 0
    allocated: int = 0
    reserved: int = 0
    _size: dict[int, int] = field(default_factory=dict)  # of each block, by address
    _before: dict[int, int] = field(default_factory=dict)  # block that ends at address
    _asked: dict[int, int] = field(default_factory=dict)  # live blocks: the request
    _small: dict[int, bool] = field(default_factory=dict)  # whose segment is small
    _free: dict[bool, list] = field(default_factory=lambda: {True: [], False: []})

    def malloc(self, size: int) -> int:
        """Return the address of a block for `size` bytes, at least 1."""
        require(size > 0, f"size was {size}: ask for at least one byte.")
        need, small = rounded(size), rounded(size) <= SMALL
        free = self._free[small]
        place = bisect_left(free, (need, 0))
        if place == len(free):  # where the new segment, the largest, will be
            # Gaps between the addresses keep segments from merging.
            self._set_free(2 * self.reserved, segment(need), small)
            self.reserved += segment(need)
        had, address = free.pop(place)
        if had - need > (0 if small else SMALL):
            self._size[address], self._before[address + need] = need, address
            self._set_free(address + need, had - need, small)
        self._asked[address] = size
        self.requested += size
        self.allocated += self._size[address]
        return address

    def free(self, address: int) -> None:
        """Take back the block at `address`; InputError unless it is in use."""
        require(address in self._asked, f"no block in use begins at {address}.")
        self.requested -= self._asked.pop(address)
        self.allocated -= self._size[address]
        start, end, small = address, address + self._size[address], self._small[address]
        for other in (self._before.get(start), end):
            if other in self._size and other not in self._asked:
                self._free[small].remove((self._size[other], other))
                start, end = min(start, other), max(end, other + self._size[other])
                del self._size[max(other, address)]
        self._set_free(start, end - start, small)

    def _set_free(self, address: int, size: int, small: bool) -> None:
        self._size[address], self._small[address] = size, small
        self._before[address + size] = address
        insort(self._free[small], (size, address))
