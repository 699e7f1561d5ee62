"""The README's picture: `python -m mpteach.figures.overview` draws it from the record."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from mpteach import records, style
from mpteach.course import ROOT
from mpteach.figures.runs import plot_overview

PICTURE = ROOT / "static" / "readme.png"


def draw() -> Figure:
    """Return the picture, drawn from the recorded comparison."""
    style.use()
    return plot_overview(
        records.committed("comparison_25M_h200"), plt.figure(figsize=(12, 4.5))
    )


if __name__ == "__main__":
    draw().savefig(PICTURE, metadata={"Software": None})
