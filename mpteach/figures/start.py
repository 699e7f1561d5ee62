"""Figure of the first chapter: what each format costs on the machine at hand."""

from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from mpteach.style import COLORS


def plot_product_ratios(ratios: dict[str, float], ax: Axes) -> Axes:
    """Bars from 1 to each ratio: time of a product over float32's, log scale."""
    for row, (name, ratio) in enumerate(ratios.items()):
        ax.barh(row, ratio - 1, left=1, height=0.6, color=COLORS[name])
        slower = ratio >= 1
        ax.annotate(
            f"{ratio:.2g}",
            (ratio, row),
            xytext=(6 if slower else -6, 0),
            textcoords="offset points",
            ha="left" if slower else "right",
            va="center",
        )
    ax.axvline(1, color="0.3", lw=1)
    ax.set(xscale="log", xlabel="time of a matrix product, float32 = 1")
    ax.set_yticks(range(len(ratios)), labels=list(ratios))
    ax.set_xlim(min(ratios.values()) / 2, max(ratios.values()) * 2)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.invert_yaxis()
    return ax
