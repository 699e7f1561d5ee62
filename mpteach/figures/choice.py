"""Figures for a decision: where a step's time goes, what pays at which size, failures."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from mpteach.figures.runs import SMOOTHED_STEPS, color_of, line_of, smoothed
from mpteach.kernels import PLACES

# Of one lightness step each, so that they stay apart in grey too.
PLACE_COLORS = dict(
    zip(PLACES, ("#08306B", "#2171B5", "#6BAED6", "#BDD7E7", "#E0E0E0"))
)
DARK = 2  # so many of them want white letters


def plot_places(ax: Axes, rows: Sequence[Mapping]) -> Axes:
    """A bar a recipe of what a step's kernels take, in ms; its speed-up at the end.

    `rows` are those of a record of training speed that know the kernels' times.
    """
    longest = max(sum(row["kernel_ms"].values()) for row in rows)
    for y, row in enumerate(rows):
        left = 0.0
        for place, ms in row["kernel_ms"].items():
            name = "_" + place if y else place  # one entry a place in the legend
            color = PLACE_COLORS[place]
            ax.barh(y, ms, left=left, color=color, height=0.75, label=name)
            if ms > 0.08 * longest:
                ink = "white" if PLACES.index(place) < DARK else "black"
                middle = left + ms / 2
                ax.text(middle, y, f"{ms:.0f}", ha="center", va="center", color=ink)
            left += ms
        ax.text(left + 0.01 * longest, y, f"{row['speed_up']:.2f} x", va="center")
    ax.set_yticks(range(len(rows)), labels=[row["recipe"] for row in rows])
    ax.set(xlim=(0, 1.17 * longest), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xlabel(f"ms a step, {rows[0]['size']}, batch {rows[0]['batch']}")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.3, 1), ncols=3, frameon=False)
    return ax


def plot_scaling(
    ax: Axes, ratios: Mapping[str, Mapping[str, float]], weights: Mapping[str, int]
) -> Axes:
    """Speed as times fp32's over the size of the model, a line a recipe, named at its end.

    `ratios` maps recipe and size to a ratio, `weights` a size to its parameters.
    """
    ends: dict[str, tuple[float, float]] = {}
    for name, by_size in ratios.items():
        places = sorted((weights[size], ratio) for size, ratio in by_size.items())
        x, y = zip(*places)
        ax.plot(x, y, line_of(name), marker="o", color=color_of(name))
        ends[name] = places[-1]
    ax.axhline(1, color="0.3", lw=1)
    ax.set_xscale("log")
    sizes = sorted({size for one in ratios.values() for size in one}, key=weights.get)
    ax.set_xticks([weights[size] for size in sizes], labels=sizes)
    ax.minorticks_off()
    ax.set(xlabel="size of the model", ylabel="tokens a second, times fp32's")
    _label_ends(ax, ends)
    return ax


def _label_ends(ax: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Names right of the last points, pushed apart where they would cover each other."""
    low, high = ax.get_ylim()
    gap, last = (high - low) / 15, -math.inf
    for name in sorted(ends, key=lambda one: ends[one][1]):
        x, y = ends[name]
        last = max(y, last + gap)
        said = {"textcoords": "offset points", "va": "center", "color": color_of(name)}
        ax.annotate(name, (x, last), (8, 0), annotation_clip=False, **said)


def plot_peaks(
    ax: Axes, recorded: Mapping[str, float], predicted: Mapping[str, float | None]
) -> Axes:
    """A bar a recipe with its peak in GiB, and a grey line where it was predicted."""
    for y, (name, peak) in enumerate(recorded.items()):
        ax.barh(y, peak, color=color_of(name))
        expected = predicted.get(name)
        if expected:
            ax.plot([expected] * 2, [y - 0.45, y + 0.45], color="0.45", lw=3)
        said = {"ha": "right", "va": "center", "color": "white"}
        ax.annotate(
            f"{peak:.2f}", (peak, y), (-6, 0), textcoords="offset points", **said
        )
    ax.set_yticks(range(len(recorded)), labels=list(recorded))
    ax.invert_yaxis()
    widest = max([*recorded.values(), *filter(None, predicted.values())])
    ax.set(xlim=(0, 1.05 * widest), xlabel="peak memory (GiB); grey line: predicted")
    return ax


def plot_failure(ax: Axes, runs: Mapping[str, tuple[list[float | None], str]]) -> Axes:
    """Training losses by step, each named at its end; a cross where they stop being finite.

    `runs` maps a label to its losses, in nats, and to its line's colour.
    """
    ends = {
        label: (losses or [None])[-1] or math.inf for label, (losses, _) in runs.items()
    }
    for label, (losses, color) in runs.items():
        steps, curve = _curve(losses)
        ax.plot(steps, curve, color=color, lw=2)
        if None in losses:
            _mark_stop(ax, label, steps, curve, color)
            continue
        above = ends[label] == max(ends.values())
        said = {"color": color, "ha": "right"}
        said |= {"va": "bottom" if above else "top", "textcoords": "offset points"}
        ax.annotate(label, (steps[-1], curve[-1]), (0, 6 if above else -8), **said)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.12 * (high - low), high + 0.15 * (high - low))
    ax.set(xlabel="step", ylabel="training loss (nats)")
    return ax


def _curve(losses: list[float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of the finite ones: smoothed, where there are enough of them."""
    known = [loss for loss in losses if loss is not None]
    curve = smoothed(losses) if len(known) > 3 * SMOOTHED_STEPS else np.array(known)
    start = len(known) - len(curve) + 1
    return np.arange(start, start + len(curve)), curve


def _mark_stop(
    ax: Axes, label: str, steps: np.ndarray, curve: np.ndarray, color: str
) -> None:
    """A cross at the last finite loss; without one near the top, at step 1."""
    known = len(curve) > 0
    x, y = (steps[-1], curve[-1]) if known else (1, 0.95)
    where = ax.transData if known else ax.get_xaxis_transform()
    ax.plot([x], [y], "X", color=color, ms=10, transform=where)
    said = {"color": color, "va": "center"}
    ax.annotate(label, (x, y), (14, 0), where, textcoords="offset points", **said)


def plot_scales(ax: Axes, scales: Mapping[str, tuple[list, int, str]]) -> Axes:
    """Loss scales by step as powers of two; a cross where one is 0.

    `scales` maps a label to the changes (step, scale) of a run, its last step, a colour.
    """
    for label, (changes, end, color) in scales.items():
        alive = [(step, math.log2(scale)) for step, scale in changes if scale > 0]
        steps, powers = zip(*alive)
        gone = next((step for step, scale in changes if scale == 0), None)
        stop = gone or end
        ax.step([*steps, stop], [*powers, powers[-1]], where="post", color=color)
        if gone:
            ax.plot([stop], [powers[-1]], "X", color=color, ms=10)
        middle = len(steps) // 2
        at = (
            (steps[middle], powers[middle]) if len(steps) > 1 else (stop / 2, powers[0])
        )
        ax.annotate(
            label, at, (8, 4), textcoords="offset points", color=color
        )
    ax.set(xlabel="step", ylabel="loss scale, power of 2")
    return ax
