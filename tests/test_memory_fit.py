"""The largest batch that fits, and how a memory is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpteach.errors import InputError
from mpteach.memory.fit import MOST, bytes_of, largest_batch


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9),
        ("22.5 GiB", int(22.5 * 2**30)),
        ("1000", 1000),
        (" 80 TB ", 80 * 10**12),
        ("512MiB", 2**29),
        ("1.5kB", 1500),
        (7, 7),
    ],
)
def test_a_memory_is_a_number_and_a_unit(text, size):
    assert bytes_of(text) == size


WRONG = ["", "GB", "24gb", "0GB", "-1GB", "1e9", "24 G B", "4PB", None]


@pytest.mark.parametrize("text", WRONG)
def test_other_words_are_no_memory(text):
    with pytest.raises(InputError, match="a memory was .*: give a number and a unit, as"):
        bytes_of(text)


@given(
    base=st.integers(0, 10**6),
    slope=st.integers(1, 10**5),
    step=st.integers(1, 10**5),
    budget=st.integers(0, 10**7),
)
def test_the_largest_batch_is_the_last_that_fits(base, slope, step, budget):
    """`need` grows in steps, as segments do."""
    asked = []

    def need(batch):
        asked.append(batch)
        return -(-(base + slope * batch) // step) * step

    found = largest_batch(need, budget)
    assert found == 0 or need(found) <= budget
    assert found == MOST - 1 or need(found + 1) > budget
    assert len(asked) < 32


def test_few_batches_are_tried_where_need_is_a_line():
    asked = []

    def need(batch):
        asked.append(batch)
        return 5 * 10**9 + batch * 37 * 10**6

    assert largest_batch(need, 24 * 10**9) == 513
    assert len(asked) <= 5


def test_nothing_fits_or_everything():
    assert largest_batch(lambda batch: 10, 9) == 0
    assert largest_batch(lambda batch: 10, 10) == MOST - 1
