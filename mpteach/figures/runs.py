"""Figures of a comparison: one function an idea, a record in, Axes out."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpteach import comparison, recipes
from mpteach.records import Record
from mpteach.style import COLORS

SMOOTHED_STEPS = 20


def color_of(name: str) -> str:
    """The course's colour of the precision that the recipe `name` multiplies in."""
    return COLORS[recipes.get(name).products]


def line_of(name: str) -> str:
    """Line style of a recipe: solid with 32-bit weights, dashed with 16-bit, dotted unscaled."""
    if name.endswith("-unscaled"):
        return ":"
    return "--" if recipes.get(name).weights != "float32" else "-"


def smoothed(losses: list[float | None], window: int = SMOOTHED_STEPS) -> np.ndarray:
    """Running mean of the finite losses over `window` steps, one value for each full window."""
    finite = np.array([loss for loss in losses if loss is not None], dtype=float)
    if len(finite) < window:
        return np.array([])
    return np.convolve(finite, np.full(window, 1 / window), mode="valid")


def plot_losses(record: Record, ax: Axes, names: list[str]) -> Axes:
    """Training loss by step: the mean over seeds, and a band from the lowest to the highest."""
    ends = {}
    for name in names:
        runs = comparison.runs_of(record, name)
        curves = np.array([smoothed(run["losses"]) for run in runs])
        if curves.size == 0:
            continue
        steps = np.arange(curves.shape[1]) + SMOOTHED_STEPS
        color = color_of(name)
        ax.plot(
            steps, curves.mean(axis=0), line_of(name), color=color, lw=2, label=name
        )
        ax.fill_between(
            steps, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.2
        )
        ends[name] = (steps[-1], curves.mean(axis=0)[-1])
    _label_ends(ax, ends)
    ax.set(xlabel="step", ylabel="training loss (nats a byte)")
    ax.set_xlim(right=ax.get_xlim()[1] * 1.02)
    return ax


def plot_seed(record: Record, ax: Axes, seed: int, names: list[str]) -> Axes:
    """Training loss by step of the recipes `names` with one seed."""
    for name in names:
        run = next(x for x in comparison.runs_of(record, name) if x["seed"] == seed)
        curve = smoothed(run["losses"])
        steps = np.arange(len(curve)) + SMOOTHED_STEPS
        ax.plot(steps, curve, line_of(name), color=color_of(name), lw=2, label=name)
    ax.set(title=f"seed {seed}", xlabel="step", ylabel="training loss (nats a byte)")
    return ax


def plot_differences(
    record: Record,
    ax: Axes,
    intervals: dict[str, tuple[float, float]],
    base: str = "fp32",
    band: float = 0.0,
    widest: float = math.inf,
) -> Axes:
    """Held-out loss minus the base's: a dot for each seed, a bar for the interval.

    `intervals` are (low, high) in nats. Grey is the `band` that seeds alone make. A
    recipe beyond `widest` gets its middle in figures, at the edge.
    """
    ax.axvspan(-band, band, color="0.92", lw=0)
    for row, (name, (low, high)) in enumerate(intervals.items()):
        if max(-low, high) > widest:
            middle = (low + high) / 2
            side = "right" if middle > 0 else "left"
            x, said = math.copysign(widest, middle), f"{middle:+.2f}"
            said = f"{said} \u2192" if middle > 0 else f"\u2190 {said}"
            ax.text(x, row, said, ha=side, va="center", color=color_of(name))
            continue
        values = comparison.differences(record, name, base)
        ax.plot([low, high], [row, row], color=color_of(name), lw=6, alpha=0.35)
        ax.plot(values, [row] * len(values), "o", color=color_of(name), ms=6)
    ax.axvline(0, color="0.3", lw=1)
    ax.set_yticks(range(len(intervals)), labels=list(intervals))
    ax.set_ylim(len(intervals) - 0.5, -0.5)
    if math.isfinite(widest):
        ax.set_xlim(-1.05 * widest, 1.05 * widest)
    ax.set_xlabel(f"held-out loss minus {base}'s (nats), a dot for each seed")
    return ax


def plot_bars(
    ax: Axes, values: dict[str, float], xlabel: str, digits: str = ".1f"
) -> Axes:
    """One horizontal bar for each recipe of `values`, with its value written at its end."""
    names = list(values)
    bars = ax.barh(
        names, list(values.values()), color=[color_of(name) for name in names]
    )
    for bar, name in zip(bars, names, strict=True):
        if recipes.get(name).weights != "float32":
            bar.set_alpha(0.6)
    ax.bar_label(bars, labels=[format(v, digits) for v in values.values()], padding=4)
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    ax.set_xlim(right=1.12 * max(values.values()))
    return ax


def plot_overview(record: Record, figure: Figure) -> Figure:
    """The comparison in one picture: losses on the left, speed on the right."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [n for n in comparison.recipes_in(record) if n != "fp16-pure"]
    plot_losses(record, left, names)
    speeds = {name: comparison.speed_up(record, name) for name in names}
    plot_bars(
        right, {n: s for n, s in speeds.items() if s}, "tokens per second, times fp32's"
    )
    return figure


def _label_ends(ax: Axes, ends: dict[str, tuple[float, float]]) -> None:
    # Names stand at the ends of their lines; lines that end together share a label.
    groups: list[list[str]] = []
    for name in sorted(ends, key=lambda n: ends[n][1]):
        if groups and ends[name][1] - ends[groups[-1][-1]][1] < 0.08:
            groups[-1].append(name)
        else:
            groups.append([name])
    for group in groups:
        x, y = ends[group[-1]]
        group = sorted(group, key=list(recipes.RECIPES).index)
        pairs = [", ".join(group[k : k + 2]) for k in range(0, len(group), 2)]
        ax.annotate(
            ",\n".join(pairs),
            (x, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
