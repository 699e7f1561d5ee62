"""What several test files ask for by name."""

from collections.abc import Iterator

import pytest

from mpteach import hardware


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Hold torch to one thread: sums over several may differ in their last bits."""
    with hardware.one_thread():
        yield
