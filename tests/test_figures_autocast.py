"""Figures of autocast: what is drawn stands where the numbers say."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach.figures import autocast as figures
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")


@pytest.fixture
def ax():
    return Figure(figsize=(8, 6), layout="constrained").subplots()


def chain(*rows):
    return [dict(zip(("step", "output", "casts"), row, strict=True)) for row in rows]


CHAINS = {
    "one": chain(
        ("norm", "float32", ""), ("qkv", "bfloat16", "x, W, b"), ("+", "float32", "")
    ),
    "other": chain(
        ("norm", "float32", ""), ("qkv", "float16", "x, W, b"), ("+", "float32", "")
    ),
}


def test_a_chain_is_a_column_of_boxes_in_the_colours_of_their_dtypes(ax):
    figures.plot_chain(CHAINS, [], ax)
    boxes = [patch for patch in ax.patches if hasattr(patch, "get_boxstyle")]
    rows = [
        (column, place, row)
        for column, rows in enumerate(CHAINS.values())
        for place, row in enumerate(rows)
    ]
    for box, (column, place, row) in zip(boxes, rows, strict=True):
        assert box.get_x() + box.get_width() / 2 == pytest.approx(2 * column)
        assert box.get_y() + box.get_height() / 2 == pytest.approx(place)
        assert to_hex(box.get_facecolor()) == to_hex(COLORS[row["output"]])
    said = ["one", "float32", "bfloat16", "casts x, W, b", "float32"]
    assert texts(ax)[:5] == said and "float16" in texts(ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["norm", "qkv", "+"]
    assert not [pair for pair in crowded(ax) if isinstance(pair, str)]


def test_lines_between_boxes_have_the_dtype_that_flows(ax):
    figures.plot_chain({"one": CHAINS["one"]}, [], ax)
    assert [line.get_color() for line in ax.lines] == [
        COLORS[name] for name in ("float32", "float32", "bfloat16")
    ]


def test_a_band_marks_the_rows_that_differ(ax):
    figures.plot_chain(CHAINS, [], ax)
    bands = [p for p in ax.patches if to_hex(p.get_facecolor()) == "#fff0c2"]
    assert [(band.get_y(), band.get_height()) for band in bands] == [(0.5, 1)]


def test_a_bypass_leaves_before_one_row_and_enters_another(ax):
    figures.plot_chain({"one": CHAINS["one"]}, [(0, 2)], ax)
    way = ax.lines[-1].get_xydata()
    assert way[0].tolist() == [0, -0.5] and way[-1][1] == 2
    assert way[-1][0] == -figures.WIDTH / 2 and way[1][0] < way[-1][0]


CURVES = {"a": [0, 4000, 8000, 6000, 0, 0], "b": [0, 4000, 8000, 0], "c": [0, 0, 0, 0]}


def test_copies_are_steps_in_kilobytes(ax):
    figures.plot_copies(CURVES, 3, ax)
    for line, sizes in zip(ax.lines, CURVES.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.array(sizes) / 1000)
        assert line.get_drawstyle() == "steps-post"
    widths = [line.get_linewidth() for line in ax.lines]
    assert widths == sorted(widths, reverse=True)
    (region,) = ax.patches
    assert (region.get_x(), region.get_width()) == (0, 3)
    assert texts(ax) == ["a", "b", "c", "in the region", "backward"]
    assert not crowded(ax)


def test_names_of_copies_stand_beside_their_curves(ax):
    figures.plot_copies(CURVES, 3, ax)
    for text, sizes in zip(ax.texts, CURVES.values(), strict=False):
        x, y = text.get_position()
        assert all(size <= 1000 * y for size in sizes[int(x) :]) and x > 3


TOKENS = (1, 4, 16)
HELD = {
    "float32": [10, 40, 160],
    "autocast to bfloat16": [60, 75, 130],
    "copies": [55, 55, 55],
}


def test_held_bytes_are_lines_by_tokens(ax):
    figures.plot_held(TOKENS, HELD, ax)
    for line, sizes in zip(ax.lines, HELD.values(), strict=True):
        assert line.get_xdata().tolist() == list(TOKENS)
        np.testing.assert_allclose(line.get_ydata(), np.array(sizes) / 1000)
    colors = [line.get_color() for line in ax.lines]
    assert colors == [COLORS["float32"], COLORS["bfloat16"], "0.45"]
    assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--"]
    assert texts(ax) == list(HELD) and not crowded(ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "4", "16"]
    assert ax.get_xscale() == ax.get_yscale() == "log"
