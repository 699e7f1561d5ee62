"""What several test files ask for by name, and what every run of tests does."""

from collections.abc import Iterator

import pytest

from mpteach import hardware
from tests import notebook_budgets


def pytest_configure(config: pytest.Config) -> None:
    """Report the notebooks' budgets: a plugin also sees tests outside this folder."""
    config.pluginmanager.register(notebook_budgets)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop a run that was asked for Chromium and has none, before it begins."""
    is_worker = hasattr(session.config, "workerinput")
    lacking = None if is_worker else _lacking(session.items)
    if lacking:
        raise pytest.UsageError(lacking)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail, on a worker of xdist too, what needs Chromium and has none."""
    lacking = _lacking([item])
    if lacking:
        pytest.fail(lacking, pytrace=False)


def _lacking(items: list[pytest.Item]) -> str | None:
    if not any(item.get_closest_marker("browser") for item in items):
        return None
    from tests import chromium  # which needs playwright, as few tests do

    return None if chromium.installed() else chromium.MISSING


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Hold torch to one thread: sums over several may differ in their last bits."""
    with hardware.one_thread():
        yield
