"""Figures of speed: lines and dots stand where the numbers say."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from mpteach.figures import hardware as figures
from mpteach.figures.hardware import Point, Roof
from mpteach.hardware.roofline import attainable
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")

PROMISED = Roof({"float32": 67e12, "float16": 989e12, "bfloat16": 989e12}, 4.8e12)
MEASURED = Roof({"float32": 50e12, "float16": 700e12, "bfloat16": 740e12}, 4.2e12)
POINTS = [
    Point("float32", 0.08, 0.3e12),
    Point("bfloat16", 1.0, 4e12, "one row"),
    Point("bfloat16", 5000.0, 700e12, "large"),
]


@pytest.fixture
def ax():
    return Figure(figsize=(9, 5), layout="constrained").subplots()


def test_roofs_are_the_lower_one_of_two_limits(ax):
    figures.plot_roofline(PROMISED, MEASURED, POINTS, ax)
    for roof, style in ((PROMISED, "--"), (MEASURED, "-")):
        lines = [one for one in ax.lines if one.get_linestyle() == style]
        colored = [one for one in lines if one.get_color() in COLORS.values()]
        assert len(colored) == 3
        for line in colored:
            tops = [
                peak
                for dtype, peak in roof.peaks.items()
                if COLORS[dtype] == line.get_color()
            ]
            right = [attainable(x, tops[0], roof.bandwidth) for x in line.get_xdata()]
            np.testing.assert_allclose(line.get_ydata(), np.array(right) / 1e12)


def test_operations_are_dots_in_the_colour_of_their_dtype(ax):
    figures.plot_roofline(PROMISED, MEASURED, POINTS, ax)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    for dot, point in zip(dots, POINTS, strict=True):
        assert dot.get_xydata().tolist() == [[point.intensity, point.rate / 1e12]]
        assert dot.get_color() == COLORS[point.dtype]
    assert {"one row", "large"} <= set(texts(ax))
    low, high = ax.get_xlim()
    assert low < 0.08 and high > 5000 and ax.get_xscale() == ax.get_yscale() == "log"


def test_roofs_are_named_with_what_was_measured(ax):
    figures.plot_roofline(PROMISED, MEASURED, POINTS, ax)
    assert {"float32: 50", "float16: 700", "bfloat16: 740"} <= set(texts(ax))
    assert "solid: measured, 4.2 TB/s\ndashed: promised, 4.8 TB/s" in texts(ax)
    assert not crowded(ax)


RATIOS = {
    "tfloat32": {256: 1.0, 1024: 5.0, 4096: 7.0},
    "float16": {256: 0.9, 1024: 6.0, 4096: 13.0},
    "bfloat16": {256: 0.9, 1024: 6.0, 4096: 13.1},
}


def test_speed_ups_by_size(ax):
    figures.plot_speed_up(RATIOS, ax)
    lines = [line for line in ax.lines if line.get_marker() == "o"]
    for line, (dtype, by_size) in zip(lines, RATIOS.items(), strict=True):
        assert line.get_xydata().tolist() == [list(pair) for pair in by_size.items()]
        assert line.get_color() == COLORS[dtype]
    assert texts(ax) == list(RATIOS) and not crowded(ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["256", "1024", "4096"]
    (one,) = [line for line in ax.lines if line.get_marker() != "o"]
    assert set(one.get_ydata()) == {1}
    assert ax.yaxis.get_major_formatter()(8, None) == "8x"


def test_equal_speed_ups_are_named_apart(ax):
    same = {dtype: {16: 1.0, 32: 1.0} for dtype in RATIOS}
    figures.plot_speed_up(same, ax)
    assert texts(ax) == list(RATIOS) and not crowded(ax)


def test_names_that_would_overlap_stand_around_their_place():
    heights = {"a": 1.0, "b": 1.1, "c": 3.0}
    apart = figures._spread(heights, 0.5)
    assert apart["c"] == 3.0 and apart["b"] - apart["a"] == pytest.approx(0.5)
    assert (apart["a"] + apart["b"]) / 2 == pytest.approx(1.05)
    chain = list(figures._spread({"a": 0.0, "b": 0.4, "c": 0.5}, 0.5).values())
    assert np.diff(chain) == pytest.approx([0.5, 0.5]) and chain[1] == pytest.approx(0.3)


def test_what_several_dtypes_share_is_grey_up_to_the_last_ridge_but_one(ax):
    figures.plot_roofline(PROMISED, MEASURED, POINTS, ax)
    grey = [line for line in ax.lines if line.get_color() == "0.45"]
    for line, roof in zip(grey, (PROMISED, MEASURED), strict=True):
        second = sorted(roof.peaks.values())[-2] / roof.bandwidth
        assert line.get_xdata()[-1] == pytest.approx(second)
        ends = line.get_xdata() * roof.bandwidth / 1e12
        np.testing.assert_allclose(line.get_ydata(), ends)
    starts = [line.get_xdata()[0] for line in ax.lines if line.get_color() != "0.45"]
    assert min(starts[:6]) == pytest.approx(50e12 / 4.2e12)
    alone = Figure(layout="constrained").subplots()
    one = Roof({"float32": 67e12}, 4.8e12)
    figures.plot_roofline(one, one, POINTS[:1], alone)
    assert [text.get_text() for text in alone.texts][0] == "float32: 67"
