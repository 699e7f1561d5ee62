"""Figures of weights and their updates: what stalls, what is kept, in which dtype."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MultipleLocator

from mpteach import formats
from mpteach.master_weights import stall_ratio
from mpteach.style import COLORS

# The tensors of a training step, where their boxes stand, and what they are called.
BOXES = {
    "kept": (0, 1, "weights the\noptimizer updates"),
    "used": (1, 1, "weights in\nthe products"),
    "activation": (2, 1, "activations"),
    "loss": (3, 1, "loss"),
    "activation gradient": (3, 0, "gradients of\nactivations"),
    "product gradient": (2, 0, "weights' gradients,\nas computed"),
    "gradient": (1, 0, "weights' gradients,\nas kept"),
    "moments": (0, 0, "Adam's m and v"),
}
# What is done on the way from each box to the next one, and from the last to the first.
WAYS = (
    *("copy", "forward", "loss", "times S, backward"),
    *("backward", "keep", "divide by S", "step"),
)
# The precision of which a recipe's name speaks.
PRECISIONS = {
    "fp32": "float32",
    "tf32": "tfloat32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
WIDTH, HEIGHT = 0.66, 0.42


def plot_paths(
    paths: Mapping[str, Sequence[float]], ax: Axes, thin: Collection[str] = ()
) -> Axes:
    """A weight step by step, one line a run, named at its end.

    A name begins with a dtype, which gives the colour. Lines of names in `thin` are
    dashed, to be seen on top of others.
    """
    ends = spread({name: path[-1] for name, path in paths.items()}, paths.values())
    for name, path in paths.items():
        color, dashed = COLORS[name.split()[0]], name in thin
        ax.plot(path, "--" if dashed else "-", color=color, lw=1.5 if dashed else 3)
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(name, (len(path) - 1, ends[name]), color=color, **place)
    ax.set(xlabel="step", ylabel="weight", xlim=(0, None))
    return ax


def spread(
    heights: Mapping[str, float], paths: Collection[Sequence[float]]
) -> dict[str, float]:
    """Return `heights` moved apart by a line of text, lowest first.

    `paths` are the values on the same axis; a line of text takes 7 % of their range.
    """
    values = np.concatenate([np.asarray(path, dtype=float) for path in paths])
    line, below, moved = 0.07 * (np.ptp(values) or 1.0), -np.inf, {}
    for name in sorted(heights, key=heights.__getitem__):
        moved[name] = below = max(heights[name], below + line)
    return moved


def plot_stalls(
    names: Sequence[str], exponents: Sequence[int], rates: Mapping[str, float], ax: Axes
) -> Axes:
    """What each format swallows, by weight, on log axes, and updates of fixed length.

    A sawtooth shows `stall_ratio` from 2^`exponents[0]` to 2^`exponents[-1]`: updates
    below it are lost. `rates` maps a label to the length of an update.
    """
    binade = np.linspace(1, 2, 40, endpoint=False)
    for name in names:
        fmt = formats.get(name)
        weights = np.concatenate([binade * 2.0**e for e in exponents[:-1]])
        weights = fmt.decode(fmt.encode(weights))
        ax.plot(weights, stall_ratio(fmt, weights), color=COLORS[name], lw=2.5)
        below = {"va": "top", "color": COLORS[name]}
        ax.text(2.0 ** exponents[0] * 1.1, fmt.eps * 0.22, name, **below)
    ends = np.array([2.0 ** exponents[0], 2.0 ** exponents[-1]])
    for label, rate in rates.items():
        ax.plot(ends, rate / ends, "--", color="0.35", lw=1.5)
        ax.annotate(
            label,
            (ends[1], rate / ends[1]),
            (4, 0),
            textcoords="offset points",
            va="center",
            color="0.25",
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=10)
    ax.set(xlabel="magnitude of the weight", ylabel="update / weight", xlim=ends)
    ax.set_ylim(bottom=0.04 * min(formats.get(name).eps for name in names))
    return ax


def plot_share_map(
    rows: Mapping[str, Sequence[float]], steps: Sequence[int], ax: Axes
) -> Axes:
    """Shares of swallowed updates, a row a layer and a column a step, the darker the more.

    Every fourth column, and the last, has its percentages written in.
    """
    table = np.array(list(rows.values()))
    ax.pcolormesh(table, cmap="Blues", vmin=0, vmax=1, edgecolor="white", lw=0.4)
    last = len(steps) - 1
    written = sorted({last, *range(0, last - 1, 4)})
    for row, shares in enumerate(table):
        for column in written:
            share = shares[column]
            place = {"ha": "center", "va": "center"}
            color = "white" if share > 0.55 else "0.15"
            said = f"{100 * share:.0f}"
            ax.text(column + 0.5, row + 0.5, said, color=color, **place)
    ax.set_yticks(np.arange(len(rows)) + 0.5, labels=list(rows))
    ax.set_xticks([c + 0.5 for c in written], labels=[steps[c] for c in written])
    ax.tick_params(length=0)
    ax.set(xlabel="step", ylim=(len(rows), 0))
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def plot_shares(
    shares: Mapping[str, Sequence[float]], steps: Sequence[int], ax: Axes
) -> Axes:
    """Shares of weights that a step leaves as they are, in %, named halfway.

    A name is a dtype, which gives the colour, and what is to be said; further lines of
    one dtype are dashed. The names of the highest and the lowest line stand above it.
    """
    table = {name: 100 * np.asarray(values) for name, values in shares.items()}
    at = len(steps) // 2
    order = sorted(table, key=lambda name: table[name][at])
    seen = set()
    for name in table:
        dtype, _, said = name.partition(" ")
        color, end = COLORS[dtype], (steps[at], table[name][at])
        ax.plot(steps, table[name], "--" if dtype in seen else "-", color=color, lw=2.5)
        seen.add(dtype)
        shift = {order[-1]: (-8, 6), order[0]: (-60, 6)}.get(name, (10, -14))
        side = "right" if name == order[-1] else "left"
        ax.annotate(said, end, shift, textcoords="offset points", ha=side, color=color)
    ax.set(xlabel="step", ylabel="weights left as they are, %", ylim=(-3, 103))
    return ax


def plot_staircase(
    path: Sequence[float], exact: Sequence[float], name: str, ax: Axes
) -> Axes:
    """A bfloat16 weight step by step, and where exact arithmetic has it, as a thin line."""
    ax.plot(exact, color=COLORS["float32"], lw=1)
    ax.step(range(len(path)), path, where="post", color=COLORS["bfloat16"], lw=2.5)
    ax.set_title(name, size=12)
    ax.set(xlabel="step", xlim=(0, len(path) - 1))
    ax.ticklabel_format(axis="y", style="plain", useOffset=False)
    return ax


def plot_step(flow: Mapping[str, str], held: Collection[str], ax: Axes) -> Axes:
    """One training step: its tensors as boxes with their dtypes, joined by what is done.

    `flow` maps each key of `BOXES` to a dtype, which gives the colour of the box and of
    the arrow to it. Boxes in `held` live from step to step and are filled; the others
    are outlined.
    """
    keys = list(BOXES)
    for key, (column, row, said) in BOXES.items():
        color = COLORS[flow[key]]
        face = color if key in held else "white"
        corner = (column - WIDTH / 2, row - HEIGHT / 2)
        box = {"boxstyle": "round,pad=0.02", "ec": color, "fc": face, "lw": 2}
        ax.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, **box))
        text = f"{said}\n{flow[key]}"
        ink = "white" if key in held else color
        ax.text(column, row, text, color=ink, ha="center", va="center")
    for start, end, way in zip(keys, [*keys[1:], keys[0]], WAYS, strict=True):
        said = _edge(way, flow[start], flow[end])
        _arrow(BOXES[start][:2], BOXES[end][:2], said, COLORS[flow[end]], ax)
    ax.set(xlim=(-0.5, 3.5), ylim=(-0.3, 1.45))
    ax.set_axis_off()
    return ax


def _edge(way: str, before: str, after: str) -> str:
    """Return what is done on a way, and below it the dtype, or both where it changes."""
    if before == after:
        return f"{way}\n{after}"
    return f"{'cast' if way in ('copy', 'keep') else way}\n{before} to {after}"


def _arrow(
    start: tuple[int, int], end: tuple[int, int], said: str, color: str, ax: Axes
) -> None:
    (x, y), (to_x, to_y) = start, end
    side, up = np.sign(to_x - x), np.sign(to_y - y)
    out, above = side * (WIDTH / 2 + 0.03), up * (HEIGHT / 2 + 0.03)
    look = {"arrowstyle": "-|>", "color": color, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (to_x - out, to_y - above), (x + out, y + above), arrowprops=look)
    inward = 1 if x == 0 else -1
    if up:
        place = {"ha": "left" if inward > 0 else "right", "va": "center"}
        middle = (y + to_y) / 2 + 0.08  # apart from what stands above the lower boxes
        ax.text(x + 0.05 * inward, middle, said, color=color, **place)
    else:
        place = {"ha": "center", "va": "bottom"}
        ax.text((x + to_x) / 2, y + 0.25, said, color=color, **place)


def plot_bytes(
    flows: Mapping[str, Mapping[str, tuple[float, str]]], ax: Axes
) -> Axes:
    """Bytes a parameter, a bar a flow, cut into its kinds, each in its dtype's colour.

    `flows` maps a flow to its kinds, and each kind to bytes and dtype. A kind whose name
    ends in "*" lives for part of a step only, and is outlined.
    """
    for row, (flow, kinds) in enumerate(flows.items()):
        left = lasting = 0.0
        for kind, (size, dtype) in kinds.items():
            color, brief = COLORS[dtype], kind.endswith("*")
            face = "white" if brief else color
            ax.barh(row, size, 0.66, left, color=face, ec=color if brief else "white", lw=2)
            said = f"{kind.rstrip('*')}\n{size:g}"
            place = {"ha": "center", "va": "center"}
            ax.text(left + size / 2, row, said, color=color if brief else "white", **place)
            left += size
            lasting += 0 if brief else size
        total = f"{lasting:g}" if lasting == left else f"{lasting:g} + {left - lasting:g}"
        ax.text(left + 0.2, row, total, va="center", weight="bold")
    ax.set_yticks(range(len(flows)), labels=list(flows))
    ax.xaxis.set_major_locator(MultipleLocator(4))
    ax.set(xlabel="bytes a parameter", ylim=(len(flows) - 0.5, -0.5))
    ax.margins(x=0.08)
    return ax


def plot_differences(
    pairs: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float]],
    ax: Axes,
) -> Axes:
    """Paired differences of a loss, a dot a seed; a bar where there is an interval.

    The names are those of recipes or their variants, which give the colour.
    """
    for row, (name, values) in enumerate(pairs.items()):
        color = color_of(name)
        if name in intervals:
            bar = {"lw": 8, "alpha": 0.3, "solid_capstyle": "butt"}  # ends at the ends
            ax.plot(intervals[name], [row, row], color=color, **bar)
        ax.plot(values, [row] * len(values), "o", color=color, ms=8)
    ax.axvline(0, color="0.3", lw=1)
    ax.set_yticks(range(len(pairs)), labels=list(pairs))
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    return ax


def color_of(name: str) -> str:
    """Return the course's colour for a recipe or variant, such as "bf16-kahan"."""
    return COLORS[PRECISIONS[name.partition("-")[0]]]
