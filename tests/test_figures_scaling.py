"""Figures of loss scaling: what is drawn stands where the numbers say."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach.figures import scaling as figures
from mpteach.gradients import exponents, shares
from mpteach.rounding import round_to
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")
ROWS = {
    "all lost": {"lowest": -30, "counts": [1, 3, 2]},
    "some lost": {"lowest": -27, "counts": [5, 5, 10, 0, 10, 4, 2, 0, 0, 1, 1, 1, 1]},
    "a few": {"lowest": 12, "counts": [4, 8, 1, 1, 2]},
}


@pytest.fixture
def ax():
    return Figure(figsize=(8, 4.6), layout="constrained").subplots()


@pytest.mark.parametrize("exponent", [-40, -26, -25, -24, -15, -14, 0, 15, 16, 20])
def test_the_range_of_an_exponent_is_what_float16_makes_of_the_number(exponent):
    became = round_to(1.5 * 2.0**exponent, "float16")
    found = {0.0: "zero", np.inf: "infinite"}.get(became)
    normal = "normal" if became >= 2.0**-14 else "subnormal"
    assert figures.range_of(exponent) == (found or normal)


def test_the_ranges_are_those_that_shares_counts():
    for exponent in range(-40, 30):
        counted = shares({"lowest": exponent, "counts": [1]})
        assert counted[figures.range_of(exponent)] == 1


def test_exponents_are_bars_in_the_colour_of_their_range(ax):
    figures.plot_exponents(ROWS, ax)
    bars = iter(ax.patches)
    for row, histogram in enumerate(ROWS.values()):
        for place, count in enumerate(histogram["counts"]):
            bar, power = next(bars), histogram["lowest"] + place
            assert bar.get_x() == power and bar.get_width() == 1
            high = 0.85 * count / max(histogram["counts"])
            assert bar.get_y() == row and bar.get_height() == pytest.approx(-high)
            color = figures.RANGES[figures.range_of(power)][1]
            assert to_hex(bar.get_facecolor()) == to_hex(color)
    assert next(bars, None) is None


def test_exponent_rows_say_their_names_and_the_share_of_zeros(ax):
    figures.plot_exponents(ROWS, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(ROWS)
    assert texts(ax)[:3] == [" 100.0 % zero", " 25.0 % zero", " 0.0 % zero"]
    assert texts(ax)[3:] == ["zero", "subnormal", "normal"]
    assert {line.get_xdata()[0] for line in ax.lines} == {-25, -14, 16}
    assert not crowded(ax)


def test_the_axis_of_exponents_leaves_out_what_cannot_be_seen(ax):
    counts = [2, 0, 0, 1000, 10, 500, 11, 9]
    figures.plot_exponents({"row": {"lowest": -40, "counts": counts}}, ax)
    assert ax.get_xlim() == (-37 - 2, -34 + 3)
    assert len(ax.patches) == len(counts) and texts(ax)[0] == " 100.0 % zero"


def test_names_of_ranges_stand_inside_the_axis(ax):
    figures.plot_exponents({"small": {"lowest": -26, "counts": [1] * 20}}, ax)
    low, high = ax.get_xlim()
    assert high < 16 and texts(ax)[1:] == ["subnormal", "normal"]
    assert all(low < t.get_position()[0] < high for t in ax.texts[1:])
    assert {line.get_xdata()[0] for line in ax.lines} == {-25, -14}


def test_shares_are_stacked_to_all_of_the_numbers(ax):
    histogram, powers = exponents(torch.logspace(-12, -1, 99)), range(0, 33)
    figures.plot_shares(histogram, powers, ax, mark=16)
    tops = np.zeros(len(powers))
    for name, area in zip(figures.RANGES, ax.collections, strict=True):
        corners = area.get_paths()[0].vertices
        tops = tops + [100 * shares(histogram, power)[name] for power in powers]
        for power, top in zip(powers, tops, strict=True):
            there = corners[corners[:, 0] == power, 1]
            assert np.isclose(there, top).any()
    np.testing.assert_allclose(tops, 100)
    assert ax.lines[0].get_xdata()[0] == 16 and "$2^{16}$" in texts(ax)
    assert {" zero ", " normal ", " infinite "} <= set(texts(ax)) and not crowded(ax)
    zero = next(t for t in ax.texts if t.get_text() == " zero ")
    assert zero.get_position()[1] < 100 * shares(histogram, powers[3])["zero"]


RUNS = {
    "float32": [4.0, 2.0, 1.0],
    "bfloat16": [4.0, 2.0, 1.01],
    "float16 scaled": [4.0, 2.0, 1.02],
    "float16 unscaled": [4.0, 4.0, 4.0],
}


def test_training_lines_have_the_losses_and_names_apart(ax):
    figures.plot_training(RUNS, ax)
    for line, (name, losses) in zip(ax.lines, RUNS.items(), strict=True):
        assert line.get_xydata().tolist() == [[i + 1, x] for i, x in enumerate(losses)]
        assert line.get_color() == COLORS[name.split()[0]]
    styles = [line.get_linestyle() for line in ax.lines]
    assert styles == ["-", "-", "--", ":"]
    widths = [line.get_linewidth() for line in ax.lines]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == len(widths)
    assert texts(ax) == list(RUNS) and not crowded(ax)


STAGES = {
    "loss": (2.0**-15, "loss"),
    "scale": (2.0, "loss"),
    "backward": (2.0**-9, "gradient"),
    "unscale_": (2.0**-25, "gradient"),
    "step": (2.0**-10, "weight"),
}


def test_flow_dots_stand_at_the_magnitudes_and_arrows_join_them(ax):
    figures.plot_flow(STAGES, ax)
    dots = [line.get_xydata().tolist()[0] for line in ax.lines]
    assert dots == [[place, size] for place, (size, _) in enumerate(STAGES.values())]
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert [(a.get_position(), a.xy) for a in arrows] == [
        (tuple(before), tuple(after)) for before, after in zip(dots, dots[1:])
    ]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(STAGES)
    assert "gradient\n$2^{-9.0}$" in texts(ax) and "loss\n$2^{1.0}$" in texts(ax)
    sides = [t.get_va() for t in ax.texts if t.get_text().startswith(("loss", "grad"))]
    assert sides == ["top", "bottom", "top", "top"]
    low, high = ax.get_ylim()
    assert low < 2.0**-25 and high > 2.0**16


def test_the_scale_is_a_staircase_with_skipped_steps_marked(ax):
    scales = [1024.0, 512.0, 512.0, 1024.0, 1024.0, 512.0]
    figures.plot_loss_scale(scales, [5, 9], ax, start=5)
    (stairs,) = ax.patches
    assert stairs.get_data().values.tolist() == scales
    assert stairs.get_data().edges.tolist() == [4.5 + k for k in range(7)]
    assert ax.lines[0].get_xydata().tolist() == [[5, 1024], [9, 1024]]
    assert texts(ax) == ["skipped"] and ax.get_yscale() == "log"


def test_a_scale_without_skipped_steps_has_no_mark(ax):
    figures.plot_loss_scale([2.0, 4.0], [], ax)
    assert not texts(ax) and ax.lines[0].get_xydata().size == 0


def test_endings_are_dots_with_their_mean(ax):
    losses = {"nothing": [1.5, 1.7], "zeros": [3.0, 3.5], "both": [2.0]}
    figures.plot_endings(losses, ax, {"nothing": "tfloat32"})
    colors = [COLORS["tfloat32"], COLORS["float16"], COLORS["float16"]]
    assert [line.get_color() for line in ax.lines] == colors
    drawn = [line.get_xydata().tolist() for line in ax.lines]
    assert drawn == [[[x, r] for x in v] for r, v in enumerate(losses.values())]
    assert texts(ax) == ["mean 1.60", "mean 3.25", "mean 2.00"] and not crowded(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(losses)
