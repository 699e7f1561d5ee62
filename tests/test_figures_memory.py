"""Figures of memory: areas, bars and dots hold the bytes that they are given."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from mpteach.figures import memory as figures
from mpteach.figures.memory import PARTS, Pair
from mpteach.memory.timeline import Storage, Timeline
from tests.pictures import crowded, texts

matplotlib.use("agg")

MIB, GIB = 2**20, 2**30


def storage(size, category, born, died=None):
    return Storage(size * MIB, "", 1, "", "", category, born, died)


@pytest.fixture
def timeline():
    phases = ["build", *["forward"] * 3, *["backward"] * 5, "step"]
    storages = [
        storage(100, "parameters", 0),
        storage(40, "activations", 1, 7),
        storage(20, "activations", 2, 6),
        storage(4, "workspace", 3),
        storage(200, "temporaries", 4, 5),
        storage(100, "gradients", 8),
        storage(10, "optimizer", 9),
    ]
    return Timeline(storages, [(phase, int(phase != "build")) for phase in phases])


@pytest.fixture
def ax():
    return Figure(figsize=(9, 4), layout="constrained").subplots()


def test_the_parts_add_up_to_what_is_allocated(timeline):
    parts = figures.by_category(timeline)
    allocated = [moment.allocated for moment in timeline.moments]
    np.testing.assert_array_equal(sum(parts.values()), allocated)
    assert list(parts) == [name for name in PARTS if name in parts]
    assert parts["activations"].max() == 60 * MIB
    assert parts["other"].tolist() == [0, 0, 0, *[4 * MIB] * 7]
    assert "weight casts" not in parts


def test_a_timeline_is_stacked_areas_with_its_peak(timeline, ax):
    figures.plot_timeline(timeline, ax)
    areas = ax.collections
    parts = figures.by_category(timeline)
    assert [area.get_label() for area in areas] == list(parts)
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in areas]
    heights = np.cumsum([parts[name] for name in parts], axis=0).max(axis=1)
    np.testing.assert_allclose(tops, heights / GIB)
    (mark,) = [line for line in ax.lines if line.get_marker() == "v"]
    assert mark.get_xydata().tolist() == [[4, 364 * MIB / GIB]]
    assert "peak 0.36 GiB,\nbackward" in texts(ax)
    assert {"forward\nstep 1", "backward\nstep 1"} <= set(texts(ax)) and not crowded(ax)
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert named == list(parts)[::-1]


def test_a_timeline_shows_the_steps_that_are_asked_for(timeline, ax):
    figures.plot_timeline(timeline, ax, steps=[1], named=False)
    assert ax.get_xlim() == (1, 10) and ax.get_legend() is None
    assert "build" not in texts(ax)


def test_a_timeline_can_be_cut_to_the_events_around_its_peak(timeline, ax):
    figures.plot_timeline(timeline, ax, around=2)
    assert timeline.peak == 4 and ax.get_xlim() == (2, 7)
    assert "peak 0.36 GiB,\nbackward" in texts(ax) and not crowded(ax)
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "temporaries" in named and "optimizer" not in named


ROWS = {
    "fp32": {"parameters": 2 * GIB, "activations": 6 * GIB, "other": GIB // 10},
    "amp-bf16": {"parameters": 2 * GIB, "activations": 3 * GIB, "logits": GIB},
}


def test_bars_are_as_long_as_their_parts(ax):
    figures.plot_stacks(ROWS, ax)
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    right = [(0, 2), (2, 6), (8, 0.1), (0, 2), (2, 3), (5, 1)]
    np.testing.assert_allclose(bars, right, rtol=1e-6)
    colors = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colors == [PARTS[name] for parts in ROWS.values() for name in parts]
    assert {"8.10", "6.00", "3.00"} <= set(texts(ax)) and "0.10" not in texts(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(ROWS)
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(named) == ["activations", "logits", "other", "parameters"]
    assert not crowded(ax)


def test_a_limit_is_a_line_left_of_the_sums(ax):
    rows = {"a": {"x": 3 * GIB}, "b": {"x": 5 * GIB}}
    figures.plot_stacks(rows, ax, {"x": "#000000"}, limit_bytes=4 * GIB)
    assert [set(line.get_xdata()) for line in ax.lines] == [{4}]
    sums = [text for text in ax.texts if text.get_weight() == "bold"]
    assert all(text.get_position()[0] > 5 for text in sums) and not crowded(ax)
    assert [text for text in texts(ax) if "GB" in text] == [f"{4 * GIB / 1e9:g} GB"]


METHODS = {
    "ours": [Pair(GIB, GIB), Pair(8 * GIB, 8 * GIB)],
    "16 P": [Pair(GIB, GIB // 2), Pair(8 * GIB, 2 * GIB)],
    "high": [Pair(GIB, 3 * GIB), Pair(8 * GIB, 8 * GIB)],
}


def test_ratios_are_predicted_over_measured(ax):
    figures.plot_ratios(METHODS, ax)
    dots = [line for line in ax.lines if line.get_linestyle() == "None"]
    shown = [line.get_xydata().tolist() for line in dots]
    assert shown == [[[1, 1], [8, 1]], [[1, 0.5], [8, 0.25]], [[1, 3], [8, 1]]]
    assert len({(line.get_color(), line.get_marker()) for line in dots}) == 3
    said = {"ours\n1.00 to 1.00", "16 P\n0.25 to 0.50", "high\n1.00 to 3.00"}
    assert set(texts(ax)) == said and not crowded(ax)
    colors = {text.get_text().split("\n")[0]: text.get_color() for text in ax.texts}
    assert [line.get_color() for line in dots] == [colors[name] for name in METHODS]


def test_methods_of_one_height_are_named_apart(ax):
    figures.plot_ratios({name: METHODS["ours"] for name in "abcd"}, ax)
    assert len(texts(ax)) == 4 and not crowded(ax)
