"""How every figure looks: one colour a precision, type that a back row can read."""

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.text import Text

# Points. On a slide of 1280 x 720 pixels that is 18 pixels, which a back row can read.
SMALLEST_TYPE = 12
# Okabe and Ito's colours (2008), which stay apart for colour-blind readers, and for the
# formats that appear in fewer figures others that stay apart from them and each other.
COLORS = {
    "float64": "#A6A6A6",
    "float32": "#000000",
    "tfloat32": "#009E73",
    "float16": "#D55E00",
    "bfloat16": "#0072B2",
    "float8_e4m3fn": "#CC10B3",
    "float8_e5m2": "#7A00F5",
    "float8_e4m3fnuz": "#8C1A0D",
    "float8_e5m2fnuz": "#26087D",
    "float8_e8m0fnu": "#D9B36B",
    "float6_e3m2fn": "#5EB838",
    "float6_e2m3fn": "#F0B428",
    "float4_e2m1fn": "#56B4E9",
}


def use() -> None:
    """Apply the course's style to every figure drawn after this call."""
    plt.rcParams.update(
        {
            "figure.figsize": (8, 4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": SMALLEST_TYPE,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 2,
        }
    )


def show(figure: Figure, alt: str) -> None:
    """Display `figure` once, with `alt` for who cannot see it, and close it.

    Beside `alt` its metadata tell the points of its `smallest_type`.
    """
    told = {"alt": alt, "smallest_type": smallest_type(figure)}
    display(figure, metadata={"image/png": told})
    plt.close(figure)


def smallest_type(figure: Figure) -> float | None:
    """Return the points of the smallest type that is shown, exponents apart; None: no type."""
    figure.draw_without_rendering()  # ticks have no text before
    texts = [one for one in figure.findobj(Text) if one.get_visible()]
    sizes = [float(one.get_fontsize()) for one in texts if one.get_text().strip()]
    return min(sizes, default=None)
