"""Figures of the notes' statements: what is drawn stands where the data say."""

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach import claims
from mpteach.figures import claims as figures
from mpteach.figures.weights import BOXES
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")


@pytest.fixture
def ax():
    return Figure(figsize=(10.5, 3.6), layout="constrained").subplots()


WIDE = dict.fromkeys(figures.STATIONS, "float32")
FLOWS = {
    "fp32": WIDE,
    "fp16": WIDE | {"used": "float16", "activation": "float16"},
    "bf16-pure": dict.fromkeys(figures.STATIONS, "bfloat16"),
}


def cells(ax, row):
    return [box for box in ax.patches if int(box.get_y()) == row]


def test_a_flow_is_a_row_of_cells_in_the_colours_of_its_dtypes(ax):
    figures.plot_flows(FLOWS, [], ax)
    for row, dtypes in enumerate(FLOWS.values()):
        found = [to_hex(box.get_facecolor()) for box in cells(ax, row)]
        assert found == [COLORS[dtype].lower() for dtype in dtypes.values()]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(FLOWS)
    heads = [label.get_text() for label in ax.get_xticklabels()]
    assert heads == list(figures.STATIONS.values()) and not crowded(ax)


def test_a_gap_stands_before_a_cell_where_the_dtype_changes(ax):
    figures.plot_flows(FLOWS, [], ax)
    starts = [box.get_x() % 1 > 0 for box in cells(ax, 1)]
    keys = list(figures.STATIONS)
    assert [key for key, gap in zip(keys, starts) if gap] == ["used", "loss"]
    assert not any(box.get_x() % 1 for row in (0, 2) for box in cells(ax, row))


def test_the_scale_comes_in_after_the_loss_and_goes_before_adam(ax):
    figures.plot_flows(FLOWS, ["fp16"], ax)
    marks = [text for text in ax.texts if text.get_text() in ("× S", "÷ S")]
    keys = list(figures.STATIONS)
    places = [keys[round(text.get_position()[0])] for text in marks]
    assert places == ["activation gradient", "read"]
    assert {text.get_position()[1] for text in marks} == {1.5} and not crowded(ax)


def test_the_stations_are_those_of_the_loop_and_what_adam_reads():
    assert set(figures.STATIONS) == {*BOXES, "read"}


RATIOS = {"small": 0.8, "low": 1.99, "at the end": 2.0, "inside": 4.0, "high": 12.77}


def test_ratios_in_the_claimed_band_are_filled(ax):
    figures.plot_range(RATIOS, (2, 8), ax)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    for row, (dot, ratio) in enumerate(zip(dots, RATIOS.values(), strict=True)):
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (ratio, row)
        face = "#000000" if 2 <= ratio <= 8 else "#ffffff"
        assert to_hex(dot.get_markerfacecolor()) == face
    band = ax.patches[0].get_window_extent()
    edges = ax.transData.inverted().transform([(band.x0, 0), (band.x1, 0)])[:, 0]
    assert edges == pytest.approx([2, 8]) and ax.get_xscale() == "log"
    assert texts(ax) == ["0.80", "1.99", "2.00", "4.00", "12.77"] and not crowded(ax)
    low, high = ax.get_xlim()
    assert low < 0.8 and high > 12.77


def test_a_value_stands_on_the_side_away_from_one(ax):
    figures.plot_range(RATIOS, (2, 8), ax)
    assert [text.get_ha() for text in ax.texts] == ["right"] + ["left"] * 4


def test_verdicts_are_rows_of_tiles(ax):
    ids = {"true": ["C01"], "misleading": ["C04", "C08", "C09"], "false": ["C12"]}
    figures.plot_verdicts(ids, ax)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["true: 1", "misleading: 3", "false: 1"]
    assert texts(ax) == [name for names in ids.values() for name in names]
    for tile, row in zip(ax.patches, (0, 1, 1, 1, 2), strict=True):
        shade = figures.SHADES[list(ids)[row]][0]
        assert (
            to_hex(tile.get_facecolor()) == shade.lower() and int(tile.get_y()) == row
        )
    assert not crowded(ax)


def test_every_verdict_has_a_shade():
    assert set(figures.SHADES) == set(claims.VERDICTS)
    assert len({face for face, _ in figures.SHADES.values()}) == len(claims.VERDICTS)
