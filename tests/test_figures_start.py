"""The figure of the first chapter holds the numbers it was given."""

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach.figures.start import plot_product_ratios
from mpteach.style import COLORS

matplotlib.use("agg")
RATIOS = {"float32": 1.0, "bfloat16": 0.27, "float16": 41.0}


@pytest.fixture
def ax():
    return plot_product_ratios(RATIOS, Figure().subplots())


def test_bars_reach_from_float32_to_the_ratio(ax):
    assert [bar.get_x() for bar in ax.patches] == [1, 1, 1]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == pytest.approx(list(RATIOS.values()))
    low, high = ax.get_xlim()
    assert low < 0.27 and high > 41 and ax.get_xscale() == "log"


def test_each_format_has_its_colour_and_its_number(ax):
    drawn = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert drawn == [to_hex(COLORS[name]) for name in RATIOS]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(RATIOS)
    assert [text.get_text() for text in ax.texts] == ["1", "0.27", "41"]
    assert [text.get_ha() for text in ax.texts] == ["left", "right", "left"]
