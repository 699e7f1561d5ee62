"""A statement, what its check found, and the one rule that makes a verdict of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mpteach.errors import require

TRUE, SCOPED, MISLEADING, FALSE, JUDGEMENT = VERDICTS = (
    *("true", "true with a scope", "misleading", "false", "a judgement"),
)


@dataclass(frozen=True)
class Finding:
    """What checking a statement gave: whether it holds, case by case, and the numbers.

    The first of `cases` is the usual one: what a reader of the statement has in mind.
    `text` names `numbers` in braces, with Python's format specifications.
    """

    cases: Mapping[str, bool]
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figure(self) -> str:
        """The sentence with its numbers."""
        return self.text.format(**self.numbers)


@dataclass(frozen=True)
class Place:
    """A cell of a chapter: `chapter` is the notebook's name without its number."""

    chapter: str
    cell: str


@dataclass(frozen=True)
class Claim:
    """A statement of the notes, in our words, and what decides it.

    `judge()` returns the Finding. `places` are the cells of the course that show its
    figure, the deciding one first. `instead` is what to remember in its place; "" where
    the statement can be kept. `judgement`: whether it says what is better.
    """

    id: str
    statement: str
    judge: Callable[[], Finding]
    places: tuple[Place, ...]
    instead: str = ""
    judgement: bool = False

    @cached_property
    def finding(self) -> Finding:
        """What the check gives, computed once."""
        return self.judge()

    @property
    def verdict(self) -> str:
        """One of VERDICTS, by the rule."""
        return verdict(self.finding.cases, self.judgement)


def verdict(cases: Mapping[str, bool], judgement: bool = False) -> str:
    """Return the verdict on a statement that holds in some cases, the usual one first.

    Raises InputError without a case.
    """
    require(cases, "a verdict needs cases: give one at least.")
    usual, *_ = holds = list(cases.values())
    if all(holds):
        return TRUE
    if not any(holds):
        return FALSE
    if judgement:
        return JUDGEMENT
    return SCOPED if usual else MISLEADING
