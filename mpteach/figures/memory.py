"""Figures of memory: a step as it goes, what a peak is made of, predictions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mpteach.memory.timeline import Timeline

GIB = 2**30
# What memory is for has colours of its own: those of precisions say something else.
PARTS = {
    "parameters": "#3D3D3D",
    "masters": "#6E6E6E",
    "optimizer": "#9C9C9C",
    "gradients": "#C9A227",
    "activations": "#4E9A94",
    "weight casts": "#B05C8F",
    "logits": "#2F6B8F",
    "temporaries": "#E8B48C",
    "cache": "#DDDDDD",
    "other": "#CCCCCC",
}
_LIMIT = "#CC5500"
_RARE = ("batch", "workspace")  # too small to be seen: together they are "other"


class Pair(NamedTuple):
    """A configuration: what was measured and what was predicted, in bytes."""

    measured: int
    predicted: int


def by_category(timeline: Timeline) -> dict[str, np.ndarray]:
    """Return the allocated bytes of each part after every event, the largest first below.

    Keys are those of `PARTS` that occur, in its order; each array has one entry an event.
    """
    events = len(timeline.moments)
    changes = {name: np.zeros(events + 1, dtype=np.int64) for name in PARTS}
    for one in timeline.storages:
        part = changes["other" if one.category in _RARE else one.category]
        part[one.born] += one.block
        part[events if one.died is None else one.died] -= one.block
    sums = {name: np.cumsum(change[:-1]) for name, change in changes.items()}
    return {name: sizes for name, sizes in sums.items() if sizes.any()}


def plot_timeline(
    timeline: Timeline,
    ax: Axes,
    steps: Sequence[int] | None = None,
    named: bool = True,
    around: int = 0,
) -> Axes:
    """Allocated GiB, event by event, stacked by what they are for, the peak marked.

    `steps` are the steps shown, all by default; `named`: whether the parts are named
    beside the figure; `around`: if not 0, only as many events on each side of the peak.
    """
    first, last = _shown(timeline, steps, around)
    shown = [*range(first, last), last - 1]  # the last event has a width as well
    parts = {name: sizes[shown] / GIB for name, sizes in by_category(timeline).items()}
    parts = {name: sizes for name, sizes in parts.items() if sizes.any()}
    x, base = np.arange(first, last + 1), np.zeros(last - first + 1)
    total = sum(parts.values())
    for name, sizes in parts.items():
        ax.fill_between(
            x, base, base + sizes, step="post", color=PARTS[name], lw=0, label=name
        )
        base = base + sizes
    # A peak may last for few events of thousands: an outline keeps it in sight.
    ax.plot(x, total, color="0.25", lw=0.7, drawstyle="steps-post")
    peak = first + int(np.argmax(total))
    ax.plot(peak, total.max(), "v", color="black", ms=7, clip_on=False)
    said = f"peak {total.max():.2f} GiB,\n{timeline.moments[peak].phase}"
    ax.annotate(said, (peak, total.max()), (0, 9), ha="center", **_POINTS)
    _mark_phases(timeline, first, last, ax)
    if named:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        ax.legend(reverse=True, frameon=False, **beside)
    ax.set(xlim=(first, last), ylim=(0, 1.16 * total.max()), xticks=[])
    ax.set(ylabel="allocated, GiB")
    return ax


def _shown(
    timeline: Timeline, steps: Sequence[int] | None, around: int
) -> tuple[int, int]:
    """Return the first event that is shown, and the one after the last."""
    moments = enumerate(timeline.moments)
    events = [e for e, one in moments if not steps or one.step in steps]
    first, last = events[0], events[-1] + 1
    if around:
        peak = timeline.peak
        first, last = max(first, peak - around), min(last, peak + around + 1)
    return first, last


_POINTS = {"textcoords": "offset points"}


def _mark_phases(timeline: Timeline, first: int, last: int, ax: Axes) -> None:
    """Separate the phases by thin lines and name those that are wide enough below."""
    keys = [timeline.moments[e][:2] for e in range(first, last)]
    starts = [0, *(i for i in range(1, len(keys)) if keys[i] != keys[i - 1]), len(keys)]
    for start, end in zip(starts, starts[1:]):
        phase, step = keys[start]
        ax.axvline(first + start, color="white", lw=0.8)
        if end - start > 0.07 * len(keys):
            middle = first + (start + end) / 2
            said = f"{phase}\nstep {step}" if step else phase
            ax.annotate(
                said,
                (middle, 0),
                (0, -6),
                xycoords=("data", "axes fraction"),
                va="top",
                ha="center",
                **_POINTS,
            )


def plot_stacks(
    rows: Mapping[str, Mapping[str, int]],
    ax: Axes,
    colors: Mapping[str, str] = PARTS,
    limit_bytes: int = 0,
) -> Axes:
    """Horizontal bars of bytes, one a row from top to bottom, stacked by part, in GiB.

    Wide parts have their size in them, and each bar has its sum at its end. `colors`: of
    the parts. A limit other than 0 is a line with its GB, and the sums stand right of it.
    """
    limit = limit_bytes / GIB
    widest = max(limit, *(sum(parts.values()) / GIB for parts in rows.values()))
    for place, parts in enumerate(rows.values()):
        left = 0.0
        for name, size in parts.items():
            width = size / GIB
            ax.barh(place, width, 0.72, left, color=colors[name], label=name)
            if width > 0.055 * widest:
                color = "white" if _is_dark(colors[name]) else "black"
                place_in = {"ha": "center", "va": "center"}
                ax.text(left + width / 2, place, f"{width:.2f}", color=color, **place_in)
            left += width
        end = widest if limit else left
        ax.text(end + 0.01 * widest, place, f"{left:.2f}", va="center", weight="bold")
    if limit:
        ax.axvline(limit, color=_LIMIT, lw=1.5)
        top = {"xycoords": ("data", "axes fraction"), "ha": "center", "color": _LIMIT}
        ax.annotate(f"{limit_bytes / 1e9:g} GB", (limit, 1), (0, 3), **top, **_POINTS)
    ax.set_yticks(range(len(rows)), labels=list(rows))
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.12 * widest), xlabel="GiB")
    ax.tick_params(axis="y", length=0)
    named = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    above = {"loc": "lower center", "bbox_to_anchor": (0.45, 1.0), "ncols": 4}
    look = {"frameon": False, "handlelength": 1.2, "columnspacing": 1.2}
    ax.legend(named.values(), named.keys(), **above, **look)
    return ax


def _is_dark(color: str) -> bool:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return 0.3 * red + 0.6 * green + 0.1 * blue < 140


# How a method's dots look: colour, marker. The first one is ours.
_METHODS = (
    ("#000000", "o"),
    ("#CC5500", "s"),
    ("#6A51A3", "^"),
    ("#3182BD", "D"),
)


def _height(item: tuple[str, tuple]) -> float:
    return item[1][0]


def plot_ratios(methods: Mapping[str, Sequence[Pair]], ax: Axes) -> Axes:
    """Predicted over measured by what was measured, in GiB: one marker a method.

    At most four methods; each is named right of the dots, in its colour, with the range
    of its ratios.
    """
    pairs = [pair for every in methods.values() for pair in every]
    ratios = [pair.predicted / pair.measured for pair in pairs]
    ax.axhline(1, color="0.6", lw=1, zorder=0)
    means = {}
    for (name, every), (color, marker) in zip(methods.items(), _METHODS):
        x = [pair.measured / GIB for pair in every]
        y = [pair.predicted / pair.measured for pair in every]
        ax.plot(x, y, marker, color=color, ms=6, mec="white", mew=0.6, zorder=3)
        means[name] = float(np.median(y)), min(y), max(y), color
    line, below = 0.18 * max(ratios), -np.inf
    for name, (middle, low, high, color) in sorted(means.items(), key=_height):
        below = max(middle, below + line)
        said = f"{name}\n{low:.2f} to {high:.2f}"
        at = {"xycoords": ("axes fraction", "data"), "va": "center", "color": color}
        ax.annotate(said, (1, below), (8, 0), **at, **_POINTS)
    ax.set_xscale("log", base=2)
    ticks = [2.0**power for power in range(-1, 6)]
    ax.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    sizes = [pair.measured / GIB for pair in pairs]
    top = max(1.08 * max(ratios), below + line / 2)
    ax.set(xlim=(0.8 * min(sizes), 1.2 * max(sizes)), ylim=(0, top))
    ax.set(xlabel="measured peak, GiB", ylabel="predicted / measured")
    return ax
