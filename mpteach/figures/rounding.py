"""Figures of rounding: the gap, the modes, the error by magnitude, sums that stall."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from mpteach.errors import InputError
from mpteach.formats import FloatFormat
from mpteach.quanta import MODES
from mpteach.rounding import exact, round_to
from mpteach.style import COLORS

# Numbers before rounding, in a colour that no precision has.
BEFORE = "#B0307A"
# Where the axis of a relative error ends; 1 is the loss of the whole number.
TOP = 4.0
ROW_NAMES = {
    "nearest_even": "nearest,\nties to even",
    "nearest_away": "nearest,\nties away",
    "toward_zero": "toward zero",
    "up": "up",
    "down": "down",
    "stochastic": "stochastic",
}


def plot_ulp(
    formats: Sequence[FloatFormat], exponents: np.ndarray, ax: Axes, mark: float
) -> Axes:
    """The ulp from 2^e to 2^(e+1), one stepped line a format, on log2 axes.

    A line goes from the format's smallest positive value, where its name stands, to its
    largest, or to the edges of the axis; one a single step from another is dashed.
    `mark` is a gap: drawn across, with a dot where an ulp reaches it, and the number at
    which it does on the axis below.
    """
    starts = np.ldexp(1.0, exponents)
    ax.axhline(mark, color="0.75", lw=1)
    _beside(ax, f"gap {mark:g}", (starts[0], mark), (4, 3), "0.4")
    for place, fmt in enumerate(formats):
        color = COLORS[fmt.name]
        low = starts[(starts >= fmt.smallest_subnormal) & (starts <= fmt.max)]
        ulps = fmt.ulp(low)
        near = any(fmt.eps in (one.eps / 2, 2 * one.eps) for one in formats[:place])
        line = {"color": color, "lw": 2.5, "ls": (0, (1.2, 0.8)) if near else "-"}
        ax.stairs(ulps, np.append(low, 2 * low[-1]), baseline=None, **line)
        if fmt.smallest_subnormal < starts[0]:
            _beside(ax, fmt.name, (low[:5][-1], ulps[:5][-1]), (6, -2), color)
        else:
            _beside(ax, fmt.name, (low[0], ulps[0]), (-5, 0), color)
        for first in low[ulps >= mark][:1].tolist():
            beside = any(one.eps == fmt.eps / 2 for one in formats)
            _drop(ax, first, mark, color, side="right" if beside else "left")
    _on_log2(ax)
    ax.set_xlim(starts[0], 2 * starts[-1])
    ax.set(xlabel="magnitude of the number", ylabel="gap to the next number: 1 ulp")
    return ax


def _drop(ax: Axes, first: float, mark: float, color: str, side: str) -> None:
    """Put a dot at (`first`, `mark`) and below it, on the axis, the number `first`."""
    ax.plot(first, mark, "o", color=color)
    down = {"arrowstyle": "-", "color": color, "ls": ":", "shrinkA": 0, "shrinkB": 0}
    ax.annotate(
        "", (first, mark), (first, 0), "data", ax.get_xaxis_transform(), arrowprops=down
    )
    kind = {"xytext": (-3 if side == "right" else 3, 3), "textcoords": "offset points"}
    ax.annotate(
        f"{first:g}",
        (first, 0),
        xycoords=ax.get_xaxis_transform(),
        color=color,
        ha=side,
        **kind,
    )


def _beside(
    ax: Axes, said: str, xy: tuple[float, float], offset: tuple[int, int], color: str
) -> None:
    """Write `said` next to the point `xy`, `offset` points to one side of it."""
    sides, heights = {-1: "right", 1: "left"}, {-1: "top", 0: "center", 1: "bottom"}
    place = {"ha": sides[np.sign(offset[0])], "va": heights[np.sign(offset[1])]}
    kind = {"xytext": offset, "textcoords": "offset points"}
    ax.annotate(said, xy, color=color, **kind, **place)


def plot_modes(fmt: FloatFormat, points: Sequence[float], ax: Axes) -> Axes:
    """One row a rounding mode: an arrow from each point to what becomes of it.

    Points are open circles, ties open diamonds. "stochastic" has two arrows a point,
    with the probability of each in percent.
    """
    low = min(float(exact(x, fmt, "down")) for x in points)
    high = max(float(exact(x, fmt, "up")) for x in points)
    grid = fmt.values()
    grid = grid[(grid >= low) & (grid <= high)]
    for row, mode in enumerate(MODES):
        ax.axhline(row, color="0.85", lw=1, zorder=0)
        for x in points:
            for target, chance in _targets(x, fmt, mode):
                _arrow(ax, x, target, row)
                if mode == "stochastic":
                    middle = (x + target) / 2
                    said = f"{100 * chance:.0f} %"
                    ax.text(middle, row - 0.16, said, ha="center")
            tie = float(fmt.ulp(x)) / 2 == x - float(exact(x, fmt, "down"))
            ax.plot(x, row, "D" if tie else "o", mfc="white", mec=BEFORE, ms=7)
    for x in points:
        ax.text(x, -0.5, f"{x:g}", color=BEFORE, ha="center", va="bottom")
    ax.vlines(grid, -0.45, len(MODES) - 0.55, color="0.4", lw=1, zorder=0)
    ax.set_yticks(range(len(MODES)), labels=[ROW_NAMES[mode] for mode in MODES])
    ax.set_xticks(grid, labels=[f"{value:g}" for value in grid])
    ax.set_ylim(len(MODES) - 0.5, -0.85)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def _targets(x: float, fmt: FloatFormat, mode: str) -> list[tuple[float, float]]:
    """Return what `x` can become in `mode`, each with its probability."""
    if mode != "stochastic":
        return [(float(exact(x, fmt, mode)), 1.0)]
    below, above = (float(exact(x, fmt, way)) for way in ("down", "up"))
    up = (x - below) / (above - below)
    return [(below, 1 - up), (above, up)]


def _arrow(ax: Axes, x: float, target: float, row: int) -> None:
    ax.annotate(
        "",
        (target, row),
        (x, row),
        arrowprops={"arrowstyle": "-|>", "color": "0.2", "lw": 1.5, "shrinkB": 0},
    )


def worst_relative_errors(
    fmt: FloatFormat, exponents: np.ndarray, parts: int = 4
) -> np.ndarray:
    """Return the largest |round(x) - x| / x in each part of each [2^e, 2^(e+1)).

    Each is cut into `parts` parts of one width; the result is [exponents, parts].
    Rounding is to nearest, and x that becomes inf or NaN has an error of inf. Between
    two neighbours the error is largest at their tie, so looking at every tie and at the
    ends of every part is enough. Raises InputError where `parts` does not divide the
    number of half ulps from 2^e to 2^(e+1).
    """
    halves = 2 ** (fmt.fraction_bits + 1)
    if parts < 1 or halves % parts:
        raise InputError(
            f"parts was {parts}: give a divisor of {halves}, the half ulps of "
            f"{fmt.name} in one power of two."
        )
    inside = (1 + np.arange(halves) / halves).reshape(parts, -1)
    # A part does not contain its right end, only numbers as close to it as we like.
    ends = np.nextafter(1 + np.arange(1, parts + 1) / parts, 0)[:, None]
    x = np.ldexp(np.hstack([inside, ends]), np.asarray(exponents)[:, None, None])
    rounded = round_to(x, fmt)
    error = np.abs(np.where(np.isfinite(rounded), rounded, math.inf) - x) / x
    return error.max(axis=-1)


def plot_relative_error(
    formats: Sequence[FloatFormat],
    exponents: np.ndarray,
    ax: Axes,
    crossover: float,
    parts: int = 4,
) -> Axes:
    """The worst relative error by magnitude, one stepped line a format, log2 axes.

    From 1 on nothing of the number is left; a line that leaves the axes at the top has
    reached overflow. Each name stands at its plateau, with the unit roundoff u. The
    dotted line is at the magnitude `crossover`.
    """
    edges = np.ldexp(1 + np.arange(parts) / parts, np.asarray(exponents)[:, None])
    edges = np.append(edges.ravel(), 2.0 ** (exponents[-1] + 1))
    ax.axhline(1, color="0.75", lw=1)
    ax.text(edges[2], 1.1, "nothing left", color="0.4", va="bottom")
    ax.axvline(crossover, color="0.4", ls=":", lw=1.5)
    power = math.log2(crossover)
    ax.text(crossover, 2.0**-13.5, f" $2^{{{power:.0f}}}$", color="0.2", va="center")
    ends = set()
    for fmt in formats:
        worst, color = worst_relative_errors(fmt, exponents, parts), COLORS[fmt.name]
        height = np.minimum(worst.ravel(), 2.0 * TOP)
        ax.stairs(height, edges, baseline=None, color=color, lw=1.7)
        if math.isinf(worst[-1, -1]):
            ends.add(float(edges[np.argmax(np.isinf(worst))]))
        _name_plateau(fmt, formats, edges, ax)
    for end in ends:
        ax.text(end, 0.8 * TOP, "overflow ", color="0.4", ha="right", va="top")
    _on_log2(ax, every=(4, 2))
    ax.set(xlabel="magnitude of the number", ylabel="worst relative error")
    ax.set(ylim=(2.0**-14, TOP), xlim=(edges[0], edges[-1]))
    return ax


def _name_plateau(
    fmt: FloatFormat, formats: Sequence[FloatFormat], edges: np.ndarray, ax: Axes
) -> None:
    u = fmt.eps / 2
    # Below the line, unless another plateau is there.
    crowded = any(u / 4 < other.eps / 2 < u for other in formats)
    first, last = max(fmt.smallest_normal, edges[2]), min(fmt.max, edges[-1])
    middle = 2.0 ** ((math.log2(first) + math.log2(last)) / 2)
    at_edge = fmt.smallest_normal < edges[0]
    ax.text(
        first if at_edge else middle,
        1.3 * u if crowded else 0.44 * u,
        f"{fmt.name}: $u = 2^{{{math.log2(u):.0f}}}$",
        color=COLORS[fmt.name],
        ha="left" if at_edge else "center",
        va="bottom" if crowded else "top",
    )


def plot_neighbours(
    formats: Sequence[FloatFormat], x: float, span: float, ax: Axes, claimed: float
) -> Axes:
    """The values of each format from x - span to x + span, and the one x becomes.

    One row a format, one stroke a value. A dot sits on the value nearest to `x`, with
    its code and relative error. `x` and the value `claimed` for it are lines across.
    """
    rows = len(formats)
    for value, color, name in ((x, BEFORE, ""), (claimed, "0.4", "claimed: ")):
        ax.vlines(
            value, -0.5, rows - 0.4, color=color, lw=1.5, ls="--" if name else "-"
        )
        said = f"{name}{value:g}"
        ax.text(value, -0.55, said, color=color, ha="center", va="bottom")
    for row, fmt in enumerate(formats):
        color, value = COLORS[fmt.name], float(round_to(x, fmt))
        grid = fmt.values()
        near = grid[np.abs(grid - x) <= span]
        ax.vlines(near, row - 0.22, row + 0.22, color=color, lw=1.2)
        ax.plot(value, row, "o", color=color, ms=8)
        said = f"0x{int(fmt.encode(x)):04X}, off by {100 * (value / x - 1):+.4f} %"
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        place = {"ha": "center", "va": "top", "bbox": patch}
        ax.text(value, row + 0.28, said, color=color, **place)
    ax.set_yticks(range(rows), labels=[fmt.name for fmt in formats])
    ax.set(ylim=(rows - 0.4, -0.8), xlim=(x - span, x + span))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax


def plot_sums(sums: Mapping[str, np.ndarray], ax: Axes, log: bool = True) -> Axes:
    """Partial sums over the number of terms, one line each, named at its end.

    A name starts with the format's name, which gives the colour; where more follows,
    the line is dashed. The thin line is the exact sum of ones. `log` gives log2 axes.
    """
    count = max(len(partial) for partial in sums.values())
    ax.plot([1, count], [1, count], color="0.6", lw=1)
    ends = _spread({name: float(partial[-1]) for name, partial in sums.items()}, log)
    for name, partial in sums.items():
        color, dashes = COLORS[name.split()[0]], "--" if " " in name else "-"
        ax.plot(np.arange(1, len(partial) + 1), partial, dashes, color=color)
        ax.annotate(
            f"{name}: {partial[-1]:g}",
            (count, ends[name]),
            xytext=(6, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
    if log:
        _on_log2(ax, every=(2, 2))
    ax.set(xlabel="ones added", ylabel="running sum", xlim=(1, count))
    return ax


def _spread(ends: Mapping[str, float], log: bool) -> dict[str, float]:
    """Return heights for names near `ends`, none closer than a line of text."""
    heights = {name: math.log2(end) if log else end for name, end in ends.items()}
    line = 0.07 * max(heights.values())
    above = -math.inf
    for name in sorted(heights, key=heights.__getitem__):
        heights[name] = above = max(heights[name], above + line)
    return {name: 2.0**height if log else height for name, height in heights.items()}


def _on_log2(ax: Axes, every: tuple[int, int] = (6, 6)) -> None:
    """Give both axes powers of two, with a tick every so many of them, x and y."""
    scales = (ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)
    for (axis, set_scale), step in zip(scales, every, strict=True):
        set_scale("log", base=2)
        axis.set_major_locator(LogLocator(base=2.0**step, numticks=20))
        axis.set_minor_locator(NullLocator())
