"""Figures of loss scaling: where gradients lie, what a scale saves, how it moves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mpteach.gradients import shares
from mpteach.style import COLORS

# What float16 makes of a number: from which exponent on, and its colour. The exponents
# are those of `gradients.shares`: half of the smallest subnormal number is 2^-25.
RANGES = {
    "zero": (-math.inf, COLORS["float16"]),
    "subnormal": (-25, "#F0B428"),
    "normal": (-14, "0.55"),
    "infinite": (16, "#000000"),
}
# How a scaled, an unscaled and another training are drawn, by the words after the dtype.
STYLES = {"": "-", "unscaled": ":", "scaled": "--"}


def range_of(exponent: int) -> str:
    """Return what float16 makes of a number of this exponent: a key of `RANGES`."""
    return [name for name, (start, _) in RANGES.items() if exponent >= start][-1]


def plot_exponents(rows: Mapping[str, Mapping[str, Any]], ax: Axes) -> Axes:
    """Histograms of exponents, one row each, in the colours of float16's ranges.

    `rows` maps a name to a histogram as `gradients.exponents` gives it. Each row has its
    own height; beside it stands the share that becomes zero, counted over all numbers.
    The axis begins and ends where bars can be seen: at a 100th of their row's highest.
    """
    seen = []
    for row, (name, histogram) in enumerate(rows.items()):
        counts = np.asarray(histogram["counts"], dtype=float)
        powers = histogram["lowest"] + np.arange(len(counts))
        heights = -0.85 * counts / max(counts.max(), 1)
        colors = [RANGES[range_of(power)][1] for power in powers]
        ax.bar(powers + 0.5, heights, 1.0, bottom=row, color=colors)
        seen.extend(powers[counts > counts.max() / 100])
        said = f" {100 * shares(histogram)['zero']:.1f} % zero"
        place = {"transform": ax.get_yaxis_transform(), "va": "center"}
        ax.text(1.0, row - 0.35, said, **place)
    ax.set_yticks(np.arange(len(rows)) - 0.35, labels=list(rows))
    ax.set(xlabel="exponent: the number lies between $2^e$ and $2^{e+1}$")
    ax.set(xlim=(min(seen) - 2, max(seen) + 3), ylim=(len(rows) - 0.9, -1.9))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    _name_ranges(ax)
    return ax


def _name_ranges(ax: Axes) -> None:
    """Draw the borders of the ranges, and their names at the top, inside the limits."""
    low, high = ax.get_xlim()
    starts = [min(max(start, low), high) for start, _ in RANGES.values()]
    for (name, (start, _)), left, right in zip(
        RANGES.items(), starts, [*starts[1:], high], strict=True
    ):
        if low < left < high:
            ax.axvline(start, color="0.7", lw=1, zorder=0)
        if right - left > 4:
            ax.text((left + right) / 2, -1.2, name, color="0.2", ha="center")
    ax.set_xlim(low, high)


def plot_shares(
    histogram: Mapping[str, Any], powers: Sequence[int], ax: Axes, mark: int
) -> Axes:
    """What float16 makes of the counted numbers at each scale 2^power, as stacked areas.

    The line down is at the power `mark`.
    """
    found = [shares(histogram, power) for power in powers]
    below = np.zeros(len(powers))
    for name, (_, color) in RANGES.items():
        height = 100 * np.array([one[name] for one in found])
        ax.fill_between(powers, below, below + height, color=color, lw=0, label=name)
        widest = int(height.argmax())
        if height[widest] > 12:
            edge = {0: "left", len(powers) - 1: "right"}.get(widest, "center")
            # At an edge, as high as the area still is where the word ends.
            inside = min(max(widest, 3), len(powers) - 4)
            middle = below[inside] + height[inside] / 2
            place = {"ha": edge, "va": "center", "weight": "bold"}
            dark = "black" if name == "subnormal" else "white"
            ax.text(powers[widest], middle, f" {name} ", color=dark, **place)
        below = below + height
    ax.axvline(mark, color="white", ls=":", lw=2)
    ax.text(mark, 101, f"$2^{{{mark}}}$", ha="center", va="bottom")
    ax.set(xlabel="loss scale, as a power of two", ylabel="share of the numbers, %")
    ax.set(xlim=(powers[0], powers[-1]), ylim=(0, 100))
    return ax


def plot_training(runs: Mapping[str, Sequence[float]], ax: Axes) -> Axes:
    """Losses by step on a log axis, one line a run, named at its end.

    A name is a dtype, which gives the colour, and perhaps "scaled" or "unscaled".
    """
    ends = _spread({name: math.log10(losses[-1]) for name, losses in runs.items()})
    for place, (name, losses) in enumerate(runs.items()):
        dtype, _, how = name.partition(" ")
        steps = np.arange(1, len(losses) + 1)
        # A later line is thinner, so that it does not hide what it lies on.
        width = 2 + 1.8 * (len(runs) - 1 - place)
        ax.plot(steps, losses, STYLES[how], color=COLORS[dtype], lw=width)
        ax.annotate(
            name,
            (steps[-1], 10 ** ends[name]),
            xytext=(10, 0),
            textcoords="offset points",
            color=COLORS[dtype],
            va="center",
        )
    ax.set(yscale="log", xlabel="step", ylabel="loss", xlim=(1, None))
    ax.margins(y=0.15)
    return ax


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """Return `heights` moved apart by a line of text, in order."""
    line = 0.1 * max(max(heights.values()) - min(heights.values()), 0.5)
    result, above = {}, -math.inf
    for name in sorted(heights, key=heights.__getitem__):
        result[name] = above = max(heights[name], above + line)
    return result


def plot_flow(stages: Mapping[str, tuple[float, str]], ax: Axes) -> Axes:
    """The way through a training step: a magnitude after each call.

    `stages` maps a call to the magnitude and to what has it: "loss", "gradient" or
    "change". Magnitudes are on a log2 axis, with float16's zero and infinity behind.
    """
    ax.set_yscale("log", base=2)
    sizes = np.array([size for size, _ in stages.values()])
    low, high = min(sizes.min(), 2.0**-27) / 16, max(sizes.max(), 2.0**17) * 16
    zero, infinite = (2.0 ** RANGES[name][0] for name in ("subnormal", "infinite"))
    ax.axhspan(low, zero, color=RANGES["zero"][1], alpha=0.25, lw=0)
    ax.axhspan(infinite, high, color="0.5", alpha=0.3, lw=0)
    right = len(sizes) - 0.55
    for name, height in (("zero in float16", zero), ("infinite in float16", infinite)):
        above = height == infinite
        place = {"ha": "right", "va": "bottom" if above else "top", "color": "0.3"}
        ax.text(right, height, name, **place)
    for place in range(1, len(sizes)):
        arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 8, "shrinkB": 8}
        before = (place - 1, sizes[place - 1])
        ax.annotate("", (place, sizes[place]), before, arrowprops=arrow)
    for place, (size, what) in enumerate(stages.values()):
        ax.plot(place, size, "o", color="#0072B2", ms=9)
        # Below where an arrow goes up from here, or comes down to here.
        below = size < sizes[max(place - 1, 0) : place + 2].max()
        ax.annotate(
            f"{what}\n$2^{{{math.log2(size):.1f}}}$",
            (place, size),
            (0, -10 if below else 10),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
        )
    ax.set_xticks(range(len(sizes)), labels=list(stages))
    ax.set(ylim=(low, high), xlim=(-0.5, right), ylabel="magnitude")
    return ax


def plot_loss_scale(
    scales: Sequence[float], skipped: Sequence[int], ax: Axes, start: int = 1
) -> Axes:
    """The loss scale in each step as a staircase on a log2 axis; skipped steps marked.

    `skipped` are numbers of steps; the first of `scales` is that of step `start`.
    """
    steps = start + np.arange(len(scales))
    edges = np.append(steps - 0.5, steps[-1] + 0.5)
    ax.stairs(scales, edges, baseline=None, color=COLORS["float16"], lw=2)
    at = [scales[step - start] for step in skipped]
    ax.plot(skipped, at, "x", color="0.1", ms=9, mew=2)
    if at:
        ax.annotate(
            "skipped",
            (skipped[0], at[0]),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_yscale("log", base=2)
    ax.set(xlabel="step", ylabel="loss scale", xlim=(edges[0], edges[-1]))
    ax.margins(y=0.1)
    return ax


def plot_endings(
    losses: Mapping[str, Sequence[float]], ax: Axes, formats: Mapping[str, str]
) -> Axes:
    """Final losses, one row a kind of run, one dot a seed, and their mean beside it.

    `formats` names the precision of a kind, for its colour, where it is not float16.
    """
    for row, (name, values) in enumerate(losses.items()):
        color = COLORS[formats.get(name, "float16")]
        ax.plot(values, [row] * len(values), "o", color=color, ms=9)
        said = f"mean {np.mean(values):.2f}"
        ax.annotate(
            said,
            (max(values), row),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_yticks(range(len(losses)), labels=list(losses))
    ax.set(xlabel="final training loss, lower is better")
    ax.set(ylim=(len(losses) - 0.5, -0.5))
    ax.margins(x=0.25)
    return ax
