"""The comparison's figures, tested on what they draw."""

import matplotlib
import numpy as np
import pytest

from mpteach import comparison, records, style
from mpteach.figures import runs as figures

matplotlib.use("agg")
plt = matplotlib.pyplot


@pytest.fixture(scope="module")
def record():
    return records.committed("comparison_25M_h200")


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_a_precision_has_one_colour_whatever_the_recipe(record):
    assert (
        figures.color_of("fp16")
        == figures.color_of("fp16-pure")
        == style.COLORS["float16"]
    )
    assert figures.color_of("fp32") != figures.color_of("tf32")


def test_lines_tell_recipes_of_one_precision_apart():
    names = ("bf16", "bf16-pure", "fp16-unscaled")
    assert [figures.line_of(name) for name in names] == ["-", "--", ":"]


def test_smoothing_is_a_running_mean_of_finite_losses():
    assert figures.smoothed([1.0, 2.0, 6.0, None], window=3).tolist() == [3.0]
    assert figures.smoothed([1.0, None], window=3).size == 0


def test_a_loss_curve_is_the_mean_over_seeds(record, ax):
    figures.plot_losses(record, ax, ["bf16", "fp16-pure"])
    (line,) = ax.get_lines()
    curves = [
        figures.smoothed(run["losses"]) for run in comparison.runs_of(record, "bf16")
    ]
    np.testing.assert_allclose(line.get_ydata(), np.mean(curves, axis=0))
    assert line.get_xdata()[0] == 20 and line.get_xdata()[-1] == 400
    assert [text.get_text() for text in ax.texts] == ["bf16"]


def test_one_seed_is_a_line_a_recipe(record, ax):
    figures.plot_seed(record, ax, 2, ["tf32", "bf16-pure"])
    assert [line.get_label() for line in ax.get_lines()] == ["tf32", "bf16-pure"]
    run = comparison.runs_of(record, "tf32")[2]
    (line, _), curve = ax.get_lines(), figures.smoothed(run["losses"])
    np.testing.assert_array_equal(line.get_ydata(), curve)
    assert run["seed"] == 2 and line.get_xdata()[0] == figures.SMOOTHED_STEPS


def test_lines_that_end_together_share_a_label(record, ax):
    figures.plot_losses(record, ax, ["fp32", "bf16", "fp16-unscaled"])
    assert {text.get_text() for text in ax.texts} == {"fp32, bf16", "fp16-unscaled"}


def test_every_seed_is_a_dot_and_the_interval_a_bar(record, ax):
    figures.plot_differences(record, ax, {"bf16": (-0.01, 0.02)}, band=0.03)
    bar, dots, _ = ax.get_lines()
    assert list(bar.get_xdata()) == [-0.01, 0.02]
    assert list(dots.get_xdata()) == comparison.differences(record, "bf16")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bf16"]
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.03, 0.06))


def test_a_difference_that_is_far_off_is_written(record, ax):
    far = {"bf16": (-0.01, 0.02), "fp16-unscaled": (1.2, 1.4), "fp16": (-3.0, -1.0)}
    figures.plot_differences(record, ax, far, "tf32", widest=0.1)
    assert [text.get_text() for text in ax.texts] == ["+1.30 \u2192", "\u2190 -2.00"]
    assert len(ax.get_lines()) == 3 and ax.get_xlim() == pytest.approx((-0.105, 0.105))
    dots = ax.get_lines()[1]
    assert list(dots.get_xdata()) == comparison.differences(record, "bf16", "tf32")
    assert "tf32's" in ax.get_xlabel()


def test_bars_carry_their_values(ax):
    figures.plot_bars(ax, {"fp32": 1.0, "bf16-pure": 4.0}, "times", ".2f")
    assert [bar.get_width() for bar in ax.patches] == [1.0, 4.0]
    assert [text.get_text() for text in ax.texts] == ["1.00", "4.00"]
    assert ax.get_xlim()[1] > 4.0 and ax.yaxis_inverted()


def test_the_overview_leaves_out_what_has_no_curve(record):
    figure = figures.plot_overview(record, plt.figure())
    labels = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "bf16-pure" in labels and "fp16-pure" not in labels
    plt.close(figure)
