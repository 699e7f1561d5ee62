"""The model of CUDA's allocator, against the rules that torch documents."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpteach.errors import InputError
from mpteach.memory.allocator import CachingAllocator, rounded, segment

KIB, MIB = 2**10, 2**20


def filled(*sizes: int) -> tuple[CachingAllocator, list[int]]:
    allocator = CachingAllocator()
    return allocator, [allocator.malloc(size) for size in sizes]


def figures(allocator: CachingAllocator) -> tuple[int, int, int]:
    return allocator.requested, allocator.allocated, allocator.reserved


@pytest.mark.parametrize(
    ("size", "block"), [(1, 512), (512, 512), (513, 1024), (MIB - 1, MIB), (MIB, MIB)]
)
def test_a_block_is_a_multiple_of_512(size, block):
    assert rounded(size) == block
    allocator, _ = filled(size)
    assert figures(allocator) == (size, block, 2 * MIB)


@pytest.mark.parametrize(
    ("size", "asked"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (11 * MIB, 12 * MIB),
        (64 * MIB, 64 * MIB),
    ],
)
def test_segments_have_the_documented_sizes(size, asked):
    assert segment(size) == asked
    allocator, _ = filled(size)
    assert allocator.reserved == asked


def test_the_pool_is_that_of_the_rounded_request():
    allocator, _ = filled(MIB - 1)
    assert allocator.reserved == 2 * MIB
    allocator.malloc(MIB + 1)
    assert allocator.reserved == 22 * MIB


def test_small_requests_share_a_segment_down_to_512_bytes():
    allocator, addresses = filled(*[512] * 4096)
    assert figures(allocator) == (2 * MIB,) * 3
    assert addresses == list(range(0, 2 * MIB, 512))
    allocator.malloc(1)
    assert allocator.reserved == 4 * MIB


def test_small_and_large_requests_never_share():
    allocator, _ = filled(512, 2 * MIB, 512, 2 * MIB)
    assert allocator.reserved == 22 * MIB


@pytest.mark.parametrize(
    ("left", "block"), [(MIB, 12 * MIB), (MIB + 512, 11 * MIB - 512)]
)
def test_a_large_block_is_split_if_more_than_1_mib_remains(left, block):
    allocator, (address,) = filled(12 * MIB)
    allocator.free(address)
    allocator.malloc(12 * MIB - left)
    assert figures(allocator) == (12 * MIB - left, block, 12 * MIB)


def test_the_smallest_block_that_is_large_enough_is_taken():
    allocator, addresses = filled(30 * MIB, 12 * MIB, 20 * MIB)
    for address in addresses:
        allocator.free(address)
    assert allocator.malloc(12 * MIB) == addresses[1]
    assert allocator.malloc(13 * MIB) == addresses[2]
    assert allocator.malloc(25 * MIB) == addresses[0]
    assert allocator.reserved == 62 * MIB


def test_of_blocks_of_one_size_the_lowest_address_is_taken():
    allocator, addresses = filled(10 * MIB, 10 * MIB)
    for address in reversed(addresses):
        allocator.free(address)
    assert allocator.malloc(10 * MIB) == addresses[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_a_free_block_merges_with_both_neighbours(order):
    allocator, addresses = filled(6 * MIB, 6 * MIB, 6 * MIB)
    assert allocator.reserved == 20 * MIB
    for one in order:
        allocator.free(addresses[one])
    assert figures(allocator) == (0, 0, 20 * MIB)
    assert allocator.malloc(9 * MIB) == addresses[0]
    assert allocator.malloc(9 * MIB) == addresses[0] + 9 * MIB
    assert allocator.reserved == 20 * MIB


def test_a_block_in_use_keeps_its_neighbours_apart():
    allocator, addresses = filled(6 * MIB, 6 * MIB, 6 * MIB)
    allocator.free(addresses[0])
    allocator.free(addresses[2])  # merges with the 2 MiB behind it
    allocator.malloc(9 * MIB)
    assert allocator.reserved == 40 * MIB


def test_segments_never_merge():
    allocator, addresses = filled(10 * MIB, 10 * MIB)
    for address in addresses:
        allocator.free(address)
    allocator.malloc(20 * MIB)
    assert allocator.reserved == 40 * MIB


def test_what_is_reserved_never_falls_and_is_used_again():
    allocator, (address,) = filled(40 * MIB)
    allocator.free(address)
    assert figures(allocator) == (0, 0, 40 * MIB)
    assert allocator.malloc(33 * MIB) == address
    assert figures(allocator) == (33 * MIB, 33 * MIB, 40 * MIB)


@pytest.mark.parametrize("size", [0, -512])
def test_a_request_of_nothing_is_refused(size):
    with pytest.raises(InputError, match=f"size was {size}: ask for at least one byte."):
        CachingAllocator().malloc(size)


def test_what_is_not_in_use_cannot_be_freed():
    allocator, (address,) = filled(512)
    allocator.free(address)
    for wrong in (address, 512, -1):
        with pytest.raises(InputError, match=f"no block in use begins at {wrong}."):
            allocator.free(wrong)


SIZES = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(MIB - 2 * KIB, MIB + 2 * KIB),
    st.integers(1, 64).map(lambda n: n * MIB // 2),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(SIZES, st.integers(-30, -1)), max_size=120))
def test_blocks_never_overlap_and_the_sums_are_theirs(actions):
    """A positive action asks for bytes; a negative one frees one of the live blocks."""
    allocator, live, reserved = CachingAllocator(), {}, 0
    for action in actions:
        if action > 0:
            before = allocator.allocated
            address = allocator.malloc(action)
            live[address] = action, allocator.allocated - before
        elif live:
            address = sorted(live)[action % len(live)]
            allocator.free(address)
            del live[address]
        ends = [address + block for address, (_, block) in sorted(live.items())]
        assert all(end <= start for end, start in zip(ends, sorted(live)[1:]))
        assert allocator.requested == sum(asked for asked, _ in live.values())
        assert allocator.allocated == sum(block for _, block in live.values())
        assert all(asked <= block for asked, block in live.values())
        assert all(block < asked + MIB + 512 for asked, block in live.values())
        assert allocator.allocated <= allocator.reserved >= reserved
        reserved = allocator.reserved


@settings(max_examples=100, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_when_all_is_free_whole_segments_are(sizes, random):
    allocator, addresses = filled(*sizes)
    random.shuffle(addresses)
    for address in addresses:
        allocator.free(address)
    requested, allocated, reserved = figures(allocator)
    assert requested == allocated == 0
    free = [block for blocks in allocator._free.values() for block in blocks]
    assert sum(size for size, _ in free) == reserved
    whole = {segment(rounded(size)) for size in sizes}
    assert {size for size, _ in free} <= whole
