"""Figures of autocast: the dtypes along a block, the lives of copies, what is held."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from mpteach.style import COLORS

WIDTH, HEIGHT = 1.1, 0.72  # of a box, where a column is 2 wide and a row 1 high
DIFFERS = "#FFF0C2"
# How a curve is drawn: colour, dash, width, and at which part of its peak its name is.
CURVES = (
    (COLORS["bfloat16"], "-", 5, 0.75),
    ("0.45", "--", 3, 0.35),
    ("0.3", ":", 2.5, 0),
)


def plot_chain(
    columns: Mapping[str, Sequence[Mapping[str, Any]]],
    bypasses: Sequence[tuple[int, int]],
    ax: Axes,
) -> Axes:
    """The dtype that each operation returns, from top to bottom, one column a policy.

    A row of a column has "step", "output" (a dtype's name) and "casts", what autocast
    casts to 16 bits on the way in ("" for nothing). Rows that differ have a band.
    A bypass (i, j) is a line around the steps from before row i into row j.
    """
    rows = list(zip(*columns.values(), strict=True))
    for place, row in enumerate(rows):
        if any(one != row[0] for one in row[1:]):
            ax.axhspan(place - 0.5, place + 0.5, color=DIFFERS, lw=0, zorder=0)
    for column, (title, chain) in enumerate(columns.items()):
        middle = 2 * column
        ax.text(middle, -1.1, title, ha="center", va="bottom", weight="bold")
        for place, row in enumerate(chain):
            _box(middle, place, row, ax)
            before = chain[place - 1]["output"] if place else "float32"
            tops = (place - 1 + HEIGHT / 2 if place else -0.9, place - HEIGHT / 2)
            ax.plot([middle] * 2, tops, color=COLORS[before], lw=3, zorder=1)
        for start, end in bypasses:
            _bypass(middle, start, end, ax)
    ax.set_yticks(range(len(rows)), labels=[row[0]["step"] for row in rows])
    ax.set(xlim=(-0.9, 2 * len(columns) - 0.7), ylim=(len(rows) - 0.5, -1.8))
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    return ax


def _box(middle: float, place: int, row: Mapping[str, Any], ax: Axes) -> None:
    corner = (middle - WIDTH / 2, place - HEIGHT / 2)
    color = COLORS[row["output"]]
    shape = "round,pad=0,rounding_size=0.15"
    box = FancyBboxPatch(corner, WIDTH, HEIGHT, shape, fc=color, ec="none", zorder=2)
    ax.add_patch(box)
    said = {"color": "white", "ha": "center", "va": "center"}
    ax.text(middle, place, row["output"], weight="bold", **said)
    if row["casts"]:
        beside = middle + WIDTH / 2 + 0.06
        ax.text(beside, place, f"casts {row['casts']}", va="center")


def _bypass(middle: float, start: int, end: int, ax: Axes) -> None:
    left, top = middle - WIDTH / 2 - 0.15, start - 0.5
    way = ([middle, left, left, middle - WIDTH / 2], [top, top, end, end])
    ax.plot(*way, color=COLORS["float32"], lw=2, zorder=1)


def plot_copies(
    curves: Mapping[str, Sequence[int]], region_ends: int, ax: Axes
) -> Axes:
    """Bytes of 16-bit weight copies alive, moment by moment, one line a way to run.

    At most three curves. They begin together; a shorter one ends earlier. `region_ends`
    is the first moment after the autocast region, which is shaded.
    """
    top = max(max(sizes) for sizes in curves.values()) / 1000
    longest = max(len(sizes) for sizes in curves.values())
    ax.axvspan(0, region_ends, color="0.92", lw=0)
    for (name, sizes), style in zip(curves.items(), CURVES, strict=False):
        color, dash, width, height = style
        kilobytes = np.asarray(sizes) / 1000
        ax.plot(kilobytes, dash, color=color, lw=width, drawstyle="steps-post")
        # The name stands right of where the curve last is that high.
        last = np.flatnonzero(kilobytes >= height * kilobytes.max())[-1]
        place = (min(last + 1, len(sizes) - 1) + 0.4, height * kilobytes.max())
        ax.text(*place, name, color=color, va="bottom")
    places = {"in the region": region_ends / 2, "backward": (region_ends + longest) / 2}
    for name, middle in places.items():
        ax.text(middle, 1.15 * top, name, ha="center", va="top", color="0.35")
    ax.set(xlim=(0, longest - 1), ylim=(-0.03 * top, 1.17 * top), xticks=[])
    ax.set(xlabel="moments of one step: after each layer", ylabel="copies alive, kB")
    return ax


def plot_held(
    tokens: Sequence[int], curves: Mapping[str, Sequence[int]], ax: Axes
) -> Axes:
    """Bytes that autograd holds for backward, by tokens in the batch, both axes logs.

    A name that ends in a dtype has its colour; another is a part of these, dashed.
    """
    for name, sizes in curves.items():
        dtype = name.split()[-1]
        color, dash = (COLORS[dtype], "-") if dtype in COLORS else ("0.45", "--")
        ax.plot(tokens, np.asarray(sizes) / 1000, dash, marker="o", ms=5, color=color)
        offset = {"xytext": (8, 0), "textcoords": "offset points"}
        ax.annotate(
            name, (tokens[-1], sizes[-1] / 1000), color=color, va="center", **offset
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(tokens, labels=[f"{one:,}" for one in tokens])
    ax.minorticks_off()
    ax.set(xlabel="tokens in the batch", ylabel="held for backward, kB")
    ax.margins(x=0.02)
    return ax
