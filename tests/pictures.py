"""What every figure's tests ask: which texts it has, and whether they can be read."""

from matplotlib.axes import Axes


def texts(ax: Axes) -> list[str]:
    """Return the texts of `ax` that are not empty, in order."""
    return [text.get_text() for text in ax.texts if text.get_text()]


def crowded(ax: Axes) -> list:
    """Return pairs of texts whose boxes on the page meet, and texts beyond the page."""
    ax.figure.draw_without_rendering()
    boxes = [(t.get_text(), t.get_window_extent()) for t in ax.texts if t.get_text()]
    page = ax.figure.bbox
    cut = [n for n, box in boxes if box.x0 < 0 or box.x1 > page.x1 or box.y1 > page.y1]
    pairs = [
        (m, n) for i, (m, a) in enumerate(boxes) for n, b in boxes[:i] if a.overlaps(b)
    ]
    return cut + pairs
