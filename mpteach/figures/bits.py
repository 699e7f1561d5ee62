"""Figures of bits, values, ranges and density: formats in, Axes out."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mpteach.formats import FloatFormat
from mpteach.style import COLORS

# Tints of colours that no precision has.
FIELD_COLORS = {"sign": "#BBBBBB", "exponent": "#F0C04F", "fraction": "#A6D8F5"}
KIND_COLORS = {"subnormal": "#B0307A", "normal": "#666666"}


def plot_layout(formats: list[FloatFormat], ax: Axes) -> Axes:
    """One row of boxes a format, one box a bit, each field with its name and width."""
    most = max(fmt.bits for fmt in formats)
    for row, fmt in enumerate(formats):
        start = 0
        for field, width in _widths(fmt).items():
            for bit in range(start, start + width):
                ax.add_patch(_box(bit, row, FIELD_COLORS[field]))
            # The name of a field that is wide enough for it on the page.
            label = f"{width} {field}" if 8 * width > most else str(width)
            # A patch of the field's own colour keeps box edges out of the label.
            patch = {"facecolor": FIELD_COLORS[field], "edgecolor": "none", "pad": 2}
            middle = start + width / 2
            ax.text(middle, row, label, ha="center", va="center", bbox=patch)
            start += width
    if formats[0].signed:
        ax.text(0.5, -0.36, "sign", ha="center", va="bottom")
    _as_boxes(ax, formats)
    ax.set_ylim(len(formats) - 0.5, -0.7)
    return ax


def plot_fields(formats: list[FloatFormat], x: float, ax: Axes) -> Axes:
    """The bits of `x` in each format, digit by digit, and the value that they give."""
    for row, fmt in enumerate(formats):
        fields = fmt.fields(x)
        colors = [
            FIELD_COLORS[name] for name, w in _widths(fmt).items() for _ in range(w)
        ]
        digits = fields.pattern.replace(" ", "")
        for bit, (digit, color) in enumerate(zip(digits, colors, strict=True)):
            ax.add_patch(_box(bit, row, color))
            ax.text(bit + 0.5, row, digit, ha="center", va="center", family="monospace")
        ax.text(0, row + 0.34, f"= {fields.value!r}", ha="left", va="top")
    _as_boxes(ax, formats)
    ax.set_ylim(len(formats) - 0.25, -0.4)
    return ax


def plot_values(fmt: FloatFormat, ax: Axes) -> Axes:
    """Every finite value as a stroke on a line; subnormals and zero are longer."""
    values = fmt.values()
    low = np.abs(values) < fmt.smallest_normal
    ax.vlines(values[~low], -0.5, 0.5, color=KIND_COLORS["normal"], lw=1)
    ax.vlines(values[low], -0.9, 0.9, color=KIND_COLORS["subnormal"], lw=1)
    ax.axhline(0, color="0.3", lw=1)
    ax.set(ylim=(-1.2, 1.2), xlabel=f"finite values of {fmt.name}")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    for x, kind, label in (
        (0.5, "subnormal", "zero and subnormals"),
        (0.82, "normal", "normal numbers"),
    ):
        ax.text(
            x, 1.02, label, color=KIND_COLORS[kind], ha="center", transform=ax.transAxes
        )
    return ax


def plot_powers(formats: list[FloatFormat], ax: Axes) -> Axes:
    """One row a format: each positive value a stroke at its log2, subnormals longer."""
    for row, fmt in enumerate(formats):
        values = fmt.values()[fmt.values() > 0]
        powers, is_low = np.log2(values), values < fmt.smallest_normal
        for chosen, height in ((powers[~is_low], 0.4), (powers[is_low], 0.6)):
            # As wide as the row has room for; unsnapped, all come out equally wide.
            width = 0.75 * np.diff(chosen).min(initial=0.2)
            place = {"bottom": row - height / 2, "color": COLORS[fmt.name]}
            ax.bar(chosen, height, width, snap=False, **place)
        label = f"{fmt.name}, up to {fmt.max:g}"
        ax.text(powers[0], row - 0.36, label, va="bottom")
    _name_a_subnormal(formats, ax)
    ax.set(ylim=(len(formats) - 0.6, -0.8), xlabel="power of two", yticks=[])
    ax.margins(x=0.01)
    ax.spines["left"].set_visible(False)
    return ax


def _name_a_subnormal(formats: list[FloatFormat], ax: Axes) -> None:
    # In the row with the most room before its strokes.
    lowest, row = max(
        (fmt.smallest_subnormal * (fmt.smallest_subnormal < fmt.smallest_normal), row)
        for row, fmt in enumerate(formats)
    )
    if lowest:
        place = {"xytext": (-8, 0), "ha": "right", "va": "center"}
        ax.annotate(
            "subnormal", (np.log2(lowest), row), textcoords="offset points", **place
        )


def plot_ranges(formats: list[FloatFormat], ax: Axes) -> Axes:
    """From smallest to largest positive value, log2; the pale part is subnormal."""
    for row, fmt in enumerate(formats):
        points = (fmt.smallest_subnormal, fmt.smallest_normal, fmt.max)
        lowest, normal, highest = np.log2(points)
        color = COLORS[fmt.name]
        ax.barh(row, highest - normal, left=normal, color=color, height=0.4)
        ax.barh(row, normal - lowest, left=lowest, color=color, height=0.4, alpha=0.35)
        for x, value, place in zip((lowest, normal, highest), points, _PLACES):
            ax.annotate(f"{value:.5g}", (x, row), textcoords="offset points", **place)
    ax.set_yticks(range(len(formats)), labels=[fmt.name for fmt in formats])
    ax.set(ylim=(len(formats) - 0.5, -0.7), xlim=(-210, 195))
    ax.set_xlabel("power of two")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


# Where a range says its smallest subnormal, its smallest normal and its largest value.
_PLACES = (
    {"xytext": (-5, 0), "ha": "right", "va": "center"},
    {"xytext": (0, 14), "ha": "center", "va": "bottom"},
    {"xytext": (5, 0), "ha": "left", "va": "center"},
)


def per_binade(fmt: FloatFormat, exponents: np.ndarray) -> np.ndarray:
    """Count the values of `fmt` in [2^e, 2^(e+1)) for each integer of `exponents`.

    The highest of these intervals may be cut short by codes that are no numbers.
    """
    starts = np.ldexp(1.0, exponents)
    gaps = fmt.ulp(starts)
    counts = np.minimum(starts, fmt.max - starts + gaps) / gaps
    inside = (starts >= fmt.smallest_subnormal) & (starts <= fmt.max)
    return np.where(inside, counts, 0).astype(int)


def plot_density(formats: list[FloatFormat], exponents: np.ndarray, ax: Axes) -> Axes:
    """Values in [2^e, 2^(e+1)) for each e, on log2 axes, one stepped line a format."""
    edges = np.append(exponents, exponents[-1] + 1)
    for fmt in formats:
        counts, color = per_binade(fmt, exponents), COLORS[fmt.name]
        ax.stairs(counts, edges, baseline=None, color=color, lw=2.5)
        # Named where it first reaches its full height, or at the left edge.
        first = exponents[counts == counts.max()][0]
        ax.text(first, counts.max() * 1.15, fmt.name, color=color, va="bottom")
    ax.set_yscale("log", base=2)
    ax.set(xlabel="$e$", ylabel="values from $2^e$ to $2^{e+1}$", ylim=(0.8, 2**12))
    return ax


def _widths(fmt: FloatFormat) -> dict[str, int]:
    widths = fmt.signed, fmt.exponent_bits, fmt.fraction_bits
    named = zip(FIELD_COLORS, map(int, widths), strict=True)
    return {field: width for field, width in named if width}


def _box(bit: int, row: int, color: str) -> Rectangle:
    return Rectangle((bit, row - 0.3), 1, 0.6, facecolor=color, edgecolor="white")


def _as_boxes(ax: Axes, formats: list[FloatFormat]) -> None:
    ax.set_xlim(-0.1, max(fmt.bits for fmt in formats) + 0.1)
    ax.set_yticks(range(len(formats)), labels=[fmt.name for fmt in formats])
    ax.set_xticks([])
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
