"""What every command's tests ask: is bad input told in one sentence, with status 2?"""

from typing import Any


def refused(result: tuple[int, Any], *parts: str) -> None:
    """Assert that a command ended in one sentence holding `parts`, and printed no more.

    `result` is its status and what capsys read.
    """
    status, said = result
    assert status == 2 and said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("mpteach: ")
    for part in parts:
        assert part in said.err
