"""Figures of the notes' statements: dtypes of recipes, a claimed range, verdicts."""

from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from mpteach.style import COLORS

# The tensors of a step from left to right, and what they are called in a column's head.
STATIONS = {
    "kept": "weights,\nupdated",
    "used": "weights in\nproducts",
    "activation": "activations",
    "loss": "loss",
    "activation gradient": "activation\ngradients",
    "product gradient": "weight\ngradients,\nmade",
    "gradient": "weight\ngradients,\nkept",
    "read": "gradients\nAdam reads",
    "moments": "m and v",
}
# Between these two the loss is multiplied by the scale, and there divided again.
SCALED, UNSCALED = ("loss", "activation gradient"), ("gradient", "read")
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
# Green where much of a statement stays, brown where nothing does, grey for judgements.
SHADES = {
    "true": ("#1B7837", "white"),
    "true with a scope": ("#A6DBA0", "black"),
    "a judgement": ("#DDDDDD", "black"),
    "misleading": ("#F6C27A", "black"),
    "false": ("#8C510A", "white"),
}


def plot_flows(
    flows: Mapping[str, Mapping[str, str]], scaled: Collection[str], ax: Axes
) -> Axes:
    """Each recipe's step as a row of cells from left to right, in their dtypes' colours.

    `flows` maps a recipe to the dtypes of STATIONS. A gap is where a dtype changes: a
    cast. Rows in `scaled` have marks where the loss scale comes in and goes out.
    """
    keys = list(STATIONS)
    for row, (name, dtypes) in enumerate(flows.items()):
        for column, key in enumerate(keys):
            dtype, before = dtypes[key], dtypes[keys[max(column - 1, 0)]]
            left = 0.0 if dtype == before else 0.12
            box = (column + left, row + 0.12), 1 - left, 0.76
            ax.add_patch(Rectangle(*box, fc=COLORS[dtype], ec="none"))
            place = {"ha": "center", "va": "center", "color": "white"}
            ax.text(column + (1 + left) / 2, row + 0.5, SHORT[dtype], **place)
        if name in scaled:
            for pair, said in ((SCALED, "× S"), (UNSCALED, "÷ S")):
                _mark(keys.index(pair[1]), row, said, ax)
    ax.set_yticks([row + 0.5 for row in range(len(flows))], labels=list(flows))
    ax.set_xticks([c + 0.5 for c in range(len(keys))], labels=list(STATIONS.values()))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set(xlim=(0, len(keys)), ylim=(len(flows), 0))
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def _mark(column: int, row: int, said: str, ax: Axes) -> None:
    badge = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "0.2", "lw": 1}
    place = {"ha": "center", "va": "center", "bbox": badge}
    ax.text(column + 0.02, row + 0.5, said, color="0.1", **place)


def plot_range(
    ratios: Mapping[str, float], claimed: tuple[float, float], ax: Axes
) -> Axes:
    """Ratios as dots on a log axis, a row each, over a band for what is claimed.

    A dot inside the band is filled, one outside is not; its value stands beside it.
    """
    ax.axvspan(*claimed, color="#F6C27A", alpha=0.45, lw=0)
    ax.axvline(1, color="0.3", lw=1)
    for row, ratio in enumerate(ratios.values()):
        face = "black" if claimed[0] <= ratio <= claimed[1] else "white"
        ax.plot(ratio, row, "o", ms=10, mfc=face, mec="black", mew=1.8)
        out = -1 if ratio < 1 else 1  # away from the line at 1
        beside = {"textcoords": "offset points", "va": "center"}
        beside["ha"] = "right" if ratio < 1 else "left"
        ax.annotate(f"{ratio:.2f}", (ratio, row), (10 * out, 0), **beside)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(ratios)), labels=list(ratios))
    lowest, highest = min(ratios.values()), max(ratios.values())
    ax.set(xlim=(lowest / 1.6, 2 * max(highest, claimed[1])))
    ax.set(ylim=(len(ratios) - 0.5, -0.5), xlabel="times the speed of single precision")
    return ax


def plot_verdicts(ids: Mapping[str, Sequence[str]], ax: Axes) -> Axes:
    """Statements as tiles, a row a verdict; `ids` maps a verdict to the ids under it."""
    for row, (verdict, names) in enumerate(ids.items()):
        face, ink = SHADES[verdict]
        for column, name in enumerate(names):
            tile = (column + 0.05, row + 0.1), 0.9, 0.8
            ax.add_patch(Rectangle(*tile, fc=face, ec="none"))
            place = {"ha": "center", "va": "center", "color": ink}
            ax.text(column + 0.5, row + 0.5, name, **place)
    labels = [f"{verdict}: {len(names)}" for verdict, names in ids.items()]
    ax.set_yticks([row + 0.5 for row in range(len(ids))], labels=labels)
    ax.set(xlim=(0, max(len(names) for names in ids.values())), ylim=(len(ids), 0))
    ax.set_xticks([])
    ax.tick_params(length=0, labelsize=13)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax
