"""Figures of speed: the roofline, and speed-ups by size."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mpteach.hardware.roofline import attainable, ridge
from mpteach.style import COLORS

TERA = 1e12


class Roof(NamedTuple):
    """The limits of a machine: FLOP/s of products by dtype, and bytes/s."""

    peaks: Mapping[str, float]
    bandwidth: float


class Point(NamedTuple):
    """An operation on the roofline: FLOP a byte, FLOP/s, and what it is called ("")."""

    dtype: str
    intensity: float
    rate: float
    label: str = ""


def plot_roofline(
    promised: Roof, measured: Roof, points: Sequence[Point], ax: Axes
) -> Axes:
    """Attainable TFLOP/s by FLOP a byte: dashed as promised, solid as measured.

    Every dtype has its roof, named at its right end with the measured TFLOP/s; `points`
    are operations, in the colour of their dtype.
    """
    low = 0.4 * min(point.intensity for point in points)
    high = 4 * max(point.intensity for point in points)
    for roof, style, width in ((promised, "--", 1.2), (measured, "-", 2.2)):
        # What several dtypes share is nobody's colour: up to the last ridge but one.
        second = ridge(sorted(roof.peaks.values())[-2:][0], roof.bandwidth)
        slope = np.array([low, second])
        ax.plot(slope, slope * roof.bandwidth / TERA, style, color="0.45", lw=width)
        for dtype, peak in sorted(roof.peaks.items(), key=lambda pair: pair[1]):
            own = np.geomspace(min(ridge(peak, roof.bandwidth), second), high, 400)
            y = [attainable(one, peak, roof.bandwidth) / TERA for one in own]
            ax.plot(own, y, style, color=COLORS[dtype], lw=width)
    ax.set(xscale="log", yscale="log", xlim=(low, high))
    _name_roofs(measured, high, ax)
    said = (("solid: measured", measured), ("dashed: promised", promised))
    lines = [f"{name}, {roof.bandwidth / TERA:.1f} TB/s" for name, roof in said]
    ax.text(0.02, 0.98, "\n".join(lines), transform=ax.transAxes, va="top")
    for point in points:
        place = (point.intensity, point.rate / TERA)
        color = COLORS[point.dtype]
        ax.plot(*place, "o", color=color, ms=7, mec="white", mew=0.8, zorder=3)
        if point.label:
            _name_point(point, measured, ax)
    ax.set(xlabel="arithmetic intensity, FLOP a byte", ylabel="TFLOP/s")
    return ax


def plot_speed_up(
    ratios: Mapping[str, Mapping[int, float]], ax: Axes, base: str = "float32"
) -> Axes:
    """How many times as fast as `base`, by size: one line a dtype, both axes log2."""
    ends = {dtype: by_size[max(by_size)] for dtype, by_size in ratios.items()}
    logs = [math.log2(v) for by_size in ratios.values() for v in by_size.values()]
    low, high = min(logs) - 0.4, max(logs) + 0.4
    line = 0.075 * (high - low)
    places = _spread({name: math.log2(end) for name, end in ends.items()}, line)
    for dtype, by_size in ratios.items():
        color = COLORS[dtype]
        ax.plot(list(by_size), list(by_size.values()), "o-", color=color, ms=5)
        ax.annotate(
            dtype,
            (max(by_size), 2 ** places[dtype]),
            (9, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
    sizes = sorted({size for by_size in ratios.values() for size in by_size})
    ax.axhline(1, color="0.5", lw=1, zorder=0)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(sizes, labels=[f"{size}" for size in sizes])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    ax.minorticks_off()
    ax.set_ylim(2**low, 2**high)
    ax.set(xlabel="size of the matrices", ylabel=f"times as fast as {base}")
    return ax


def _name_point(point: Point, roof: Roof, ax: Axes) -> None:
    # There is room above the slope, and far below the roofs.
    on_slope = point.rate > 0.8 * point.intensity * roof.bandwidth
    on_top = point.rate > 0.8 * roof.peaks[point.dtype]
    leader = {"arrowstyle": "-", "color": COLORS[point.dtype], "lw": 0.8}
    ax.annotate(
        point.label,
        (point.intensity, point.rate / TERA),
        (-8, 4) if on_slope else (0, -34) if on_top else (6, -6),
        textcoords="offset points",
        ha="right" if on_slope else "center" if on_top else "left",
        va="bottom" if on_slope else "top",
        color=COLORS[point.dtype],
        arrowprops=leader if on_top else None,
    )


def _name_roofs(roof: Roof, right: float, ax: Axes) -> None:
    tops = {dtype: math.log10(peak / TERA) for dtype, peak in roof.peaks.items()}
    for dtype, height in _spread(tops, 0.2).items():
        ax.annotate(
            f"{dtype}: {roof.peaks[dtype] / TERA:,.0f}",
            (right, 10**height),
            (6, 0),
            textcoords="offset points",
            color=COLORS[dtype],
            va="center",
            annotation_clip=False,
        )


def _spread(heights: Mapping[str, float], line: float) -> dict[str, float]:
    """Return `heights` with at least `line` between any two: those too near give way.

    In order; what stands together stays around the mean of its heights.
    """
    groups: list[list[str]] = []
    for name in sorted(heights, key=heights.__getitem__):
        groups.append([name])
        while len(groups) > 1 and _overlap(*groups[-2:], heights, line):
            groups[-2:] = [groups[-2] + groups[-1]]
    return {
        name: height
        for group in groups
        for name, height in zip(group, _stacked(group, heights, line), strict=True)
    }


def _stacked(
    group: list[str], heights: Mapping[str, float], line: float
) -> list[float]:
    middle = sum(heights[name] for name in group) / len(group)
    return [middle + (i - (len(group) - 1) / 2) * line for i in range(len(group))]


def _overlap(
    lower: list[str], upper: list[str], heights: Mapping[str, float], line: float
) -> bool:
    top = _stacked(lower, heights, line)[-1]
    return _stacked(upper, heights, line)[0] < top + line
