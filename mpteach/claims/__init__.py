"""The statements of the notes as data: each with its check, its verdict and its cell.

claims.get("C12").verdict                  # computed when asked for
display(claims.Table(claims.BITS))         # statement, verdict, figure, cell
"""

from collections.abc import Sequence

from mpteach.claims import bits, memory, speed, steps
from mpteach.claims.rule import VERDICTS, Claim, Finding, Place, verdict
from mpteach.course import Chapter, chapters
from mpteach.errors import InputError

BITS, STEPS, MEMORY, SPEED = bits.CLAIMS, steps.CLAIMS, memory.CLAIMS, speed.CLAIMS
CLAIMS = tuple(sorted((*BITS, *STEPS, *MEMORY, *SPEED), key=lambda claim: claim.id))

__all__ = [
    "BITS",
    "CLAIMS",
    "MEMORY",
    "SPEED",
    "STEPS",
    "VERDICTS",
    "Claim",
    "Finding",
    "Place",
    "Table",
    "by_verdict",
    "chapter_of",
    "get",
    "verdict",
]


def get(name: str) -> Claim:
    """Return the claim with this id; raise InputError that lists the ids."""
    found = [claim for claim in CLAIMS if claim.id == name]
    if not found:
        known = ", ".join(claim.id for claim in CLAIMS)
        raise InputError(f"unknown claim {name!r}: choose from {known}.")
    return found[0]


def by_verdict() -> dict[str, list[Claim]]:
    """Return the claims by their verdict, in the order of VERDICTS."""
    found = {word: [one for one in CLAIMS if one.verdict == word] for word in VERDICTS}
    return {word: ones for word, ones in found.items() if ones}


def chapter_of(place: Place) -> Chapter:
    """Return the chapter of a place; raise InputError where the course has none."""
    for chapter in chapters():
        if chapter.name.partition("_")[2] == place.chapter:
            return chapter
    raise InputError(f"no chapter is called {place.chapter!r}: mend the claim's place.")


class Table:
    """Claims as a table: the statement, the verdict, the figure, the cells that show it.

    Its text is Markdown, which a notebook shows as a table.
    """

    HEAD = ("", "the notes say", "verdict", "what decides it", "where")

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = tuple(claims)

    def __repr__(self) -> str:
        rows = [self.HEAD, ["---"] * len(self.HEAD), *map(self._row, self.claims)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    _repr_markdown_ = __repr__

    def _row(self, claim: Claim) -> list[str]:
        places = "; ".join(_link(place) for place in claim.places)
        said, figure = f"**{claim.verdict}**", claim.finding.figure
        return [claim.id, claim.statement, said, figure, places]


def _link(place: Place) -> str:
    chapter = chapter_of(place)
    number = chapter.name.partition("_")[0]
    # JupyterLab goes to the cell; elsewhere the link opens the chapter.
    address = f"{chapter.path.name}#cell-id={place.cell}"
    return f"[{number}, {place.cell}]({address})"
