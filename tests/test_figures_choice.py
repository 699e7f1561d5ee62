"""The figures of a decision, tested on what they draw."""

import matplotlib
import numpy as np
import pytest

from mpteach import style
from mpteach.figures import choice
from mpteach.kernels import PLACES

matplotlib.use("agg")
plt = matplotlib.pyplot


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def row(recipe, speed_up, *times):
    kernel_ms = dict(zip(PLACES, times, strict=True))
    shared = {"recipe": recipe, "size": "124M", "batch": 32, "speed_up": speed_up}
    return shared | {"kernel_ms": kernel_ms}


def said(ax):
    return [text.get_text() for text in ax.texts]


def test_a_bar_is_a_steps_parts_end_to_end(ax):
    rows = [row("bf16", 1.0, 60, 10, 20, 9, 0), row("fp8", 1.25, 30, 10, 20, 9, 8)]
    choice.plot_places(ax, rows)
    bars = ax.patches[: len(PLACES)]
    assert [bar.get_width() for bar in bars] == [60, 10, 20, 9, 0]
    assert [bar.get_x() for bar in bars] == [0, 60, 70, 90, 99]
    assert said(ax) == ["60", "10", "20", "9", "1.00 x", "30", "10", "20", "9", "8", "1.25 x"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(PLACES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bf16", "fp8"]
    assert ax.get_xlabel() == "ms a step, 124M, batch 32" and ax.yaxis_inverted()


def test_every_place_has_a_colour_of_its_own():
    assert len(set(choice.PLACE_COLORS.values())) == len(PLACES)


def test_a_line_of_ratios_runs_from_the_smallest_model_to_the_largest(ax):
    weights = {"25M": 25e6, "tiny": 4e5}
    ratios = {"bf16": {"25M": 4.5, "tiny": 0.9}, "tf32": {"25M": 2.4}}
    choice.plot_scaling(ax, ratios, weights)
    line = ax.get_lines()[0]
    assert list(line.get_xdata()) == [4e5, 25e6] and list(line.get_ydata()) == [
        0.9,
        4.5,
    ]
    assert line.get_color() == style.COLORS["bfloat16"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["tiny", "25M"]
    assert set(said(ax)) == {"bf16", "tf32"}


def test_names_at_the_ends_do_not_cover_each_other(ax):
    ratios = {name: {"25M": 4.5} for name in ("bf16", "fp16", "bf16-pure")}
    choice.plot_scaling(ax, {**ratios, "tf32": {"25M": 1.0}}, {"25M": 25e6})
    heights = sorted(text.xy[1] for text in ax.texts)
    low, high = ax.get_ylim()
    assert min(np.diff(heights)) >= (high - low) / 16


def test_a_peak_is_a_bar_and_its_prediction_a_line(ax):
    choice.plot_peaks(ax, {"fp32": 4.0, "fp8": 3.0}, {"fp32": 4.5, "fp8": None})
    assert [bar.get_width() for bar in ax.patches] == [4.0, 3.0]
    (line,) = ax.get_lines()
    assert list(line.get_xdata()) == [4.5, 4.5]
    assert said(ax) == ["4.00", "3.00"] and ax.get_xlim()[1] > 4.5


def test_a_run_that_stops_ends_in_a_cross(ax):
    falling = list(np.linspace(5, 2, 100))
    runs = {"cured": (falling, "black"), "pure": ([5.5, None], "red")}
    choice.plot_failure(ax, runs)
    smooth, _, cross = ax.get_lines()
    assert smooth.get_xdata()[-1] == 100 and smooth.get_xdata()[0] == 20
    assert cross.get_marker() == "X" and list(cross.get_xdata()) == [1]
    assert list(cross.get_ydata()) == [5.5] and said(ax) == ["cured", "pure"]


def test_a_run_without_one_finite_loss_has_its_cross_at_the_first_step(ax):
    choice.plot_failure(ax, {"none": ([None] * 40, "red")})
    cross = ax.get_lines()[-1]
    assert cross.get_marker() == "X" and list(cross.get_xdata()) == [1]
    assert cross.get_transform() == ax.get_xaxis_transform()


def test_the_worse_loss_is_named_above_its_line_and_the_better_one_below(ax):
    choice.plot_failure(ax, {"good": ([1.0] * 5, "black"), "bad": ([2.0] * 5, "red")})
    sides = {text.get_text(): text.get_va() for text in ax.texts}
    assert sides == {"good": "top", "bad": "bottom"}


def test_scales_are_steps_of_powers_of_two_and_zero_is_a_cross(ax):
    falling = [(1, 65536.0), (2, 32768.0), (3, 0.0)]
    choice.plot_scales(ax, {"nan": (falling, 10, "red"), "fine": ([(1, 8.0)], 9, "k")})
    line, cross, steady = ax.get_lines()
    assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == [
        16,
        15,
        15,
    ]
    assert list(cross.get_xdata()) == [3] and cross.get_marker() == "X"
    assert list(steady.get_xdata()) == [1, 9] and set(said(ax)) == {"nan", "fine"}
