"""How every figure looks: one colour a precision, type that a back row can read."""

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

# Okabe and Ito's colours (2008), which stay apart for colour-blind readers.
COLORS = {
    "float32": "#000000",
    "tfloat32": "#009E73",
    "float16": "#D55E00",
    "bfloat16": "#0072B2",
}


def use() -> None:
    """Apply the course's style to every figure drawn after this call."""
    plt.rcParams.update(
        {
            "figure.figsize": (8, 4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 2,
        }
    )


def show(figure: Figure, alt: str) -> None:
    """Display `figure` once, with `alt` for who cannot see it, and close it."""
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)
