"""Figures of weights and updates: what is drawn stands where the numbers say."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach import formats
from mpteach.figures import weights as figures
from mpteach.master_weights import stall_ratio
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")


@pytest.fixture
def ax():
    return Figure(figsize=(9, 4.4), layout="constrained").subplots()


PATHS = {
    "float32": [1.0, 0.5, 0.0],
    "float16": [1.0, 0.6, 0.01],
    "bfloat16 stuck": [1.0, 1.0, 1.0],
}


def test_paths_are_lines_of_the_dtype_with_names_apart(ax):
    figures.plot_paths(PATHS, ax, thin=["float32"])
    ax.set_xlim(0, 3)
    for line, (name, path) in zip(ax.lines, PATHS.items(), strict=True):
        assert line.get_ydata().tolist() == path
        assert line.get_color() == COLORS[name.split()[0]]
        assert line.get_linestyle() == ("--" if name == "float32" else "-")
    assert texts(ax) == list(PATHS) and not crowded(ax)


@pytest.mark.parametrize("heights", [[0.0, 0.0, 0.0], [1.0, 0.98, 0.0], [0.0, 0.5, 1.0]])
def test_spread_heights_keep_their_order_and_a_distance(heights):
    given = dict(zip("abc", heights))
    moved = figures.spread(given, [heights])
    order = sorted(given, key=given.__getitem__)
    gaps = np.diff([moved[name] for name in order])
    assert (gaps >= 0.07 * (max(heights) - min(heights) or 1) - 1e-12).all()
    assert all(moved[name] >= given[name] for name in given)


def test_stalls_are_the_ratios_and_rates_fall_with_the_weight(ax):
    names, rates = ("float32", "float16", "bfloat16"), {"one": 2.0**-6, "two": 2.0**-12}
    figures.plot_stalls(names, range(-3, 2), rates, ax)
    for name, line in zip(names, ax.lines):
        weights, ratios = line.get_data()
        fmt = formats.get(name)
        assert (fmt.decode(fmt.encode(weights)) == weights).all()
        np.testing.assert_array_equal(ratios, stall_ratio(name, weights))
        eps = fmt.eps
        assert ratios.max() == eps / 2 and eps / 4 < ratios.min() < 0.27 * eps
        assert line.get_color() == COLORS[name] and weights.min() == 2.0**-3
    for line, rate in zip(ax.lines[3:], rates.values(), strict=True):
        weights, ratios = line.get_data()
        assert (weights * ratios == rate).all()
    assert texts(ax) == [*names, *rates] and not crowded(ax)


def test_the_map_has_a_cell_for_each_share(ax):
    steps = [1, 10, 20, 30, 40, 50, 60]
    rows = {"a": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0], "b": [1.0] * 7}
    figures.plot_share_map(rows, steps, ax)
    (mesh,) = ax.collections
    assert mesh.get_array().reshape(2, 7).tolist() == list(rows.values())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "40", "60"]
    assert texts(ax) == ["0", "40", "100", "100", "100", "100"] and not crowded(ax)
    assert ax.get_ylim() == (2, 0)


SHARES = {
    "bfloat16 all in bfloat16": [0.6, 0.4, 0.6, 0.8, 1.0],
    "bfloat16 image": [0.6, 0.3, 0.4, 0.7, 1.0],
    "float32 weights": [0.0, 0.0, 0.0, 0.0, 1.0],
}


def test_shares_are_in_percent_and_named_halfway(ax):
    figures.plot_shares(SHARES, [1, 2, 3, 4, 5], ax)
    for line, (name, shares) in zip(ax.lines, SHARES.items(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(shares))
        assert line.get_color() == COLORS[name.split()[0]]
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "-"]
    assert texts(ax) == ["all in bfloat16", "image", "weights"] and not crowded(ax)
    assert [note.xy for note in ax.texts] == [(3, 60), (3, 40), (3, 0)]


def test_a_staircase_holds_each_value_until_the_next(ax):
    figures.plot_staircase([1.0, 1.0, 0.5], [1.0, 0.8, 0.6], "kahan", ax)
    exact, stairs = ax.lines
    assert exact.get_ydata().tolist() == [1.0, 0.8, 0.6]
    assert stairs.get_ydata().tolist() == [1.0, 1.0, 0.5]
    assert stairs.get_drawstyle() == "steps-post" and ax.get_title() == "kahan"
    assert stairs.get_color() == COLORS["bfloat16"]


FLOW = {
    **dict.fromkeys(("kept", "loss", "gradient", "moments"), "float32"),
    **dict.fromkeys(("used", "activation"), "float16"),
    **dict.fromkeys(("activation gradient", "product gradient"), "float16"),
}


def test_a_step_shows_each_tensor_and_fills_what_is_held(ax):
    figures.plot_step(FLOW, {"kept", "moments"}, ax)
    assert len(ax.patches) == len(figures.BOXES)
    for patch, key in zip(ax.patches, figures.BOXES):
        color = COLORS[FLOW[key]]
        assert to_hex(patch.get_edgecolor()) == color.lower()
        filled = color if key in ("kept", "moments") else "#ffffff"
        assert to_hex(patch.get_facecolor()) == filled.lower()
    boxes = [text.get_text().rsplit("\n", 1) for text in ax.texts[: len(figures.BOXES)]]
    assert boxes == [[said, FLOW[key]] for key, (*_, said) in figures.BOXES.items()]
    assert not crowded(ax)


def test_a_step_says_on_each_way_what_is_done_in_which_dtype(ax):
    figures.plot_step(FLOW, set(), ax)
    assert [said for said in texts(ax)[len(figures.BOXES) :]] == [
        "cast\nfloat32 to float16",
        "forward\nfloat16",
        "loss\nfloat16 to float32",
        "times S, backward\nfloat32 to float16",
        "backward\nfloat16",
        "cast\nfloat16 to float32",
        "divide by S\nfloat32",
        "step\nfloat32",
    ]


def test_ways_join_the_boxes_in_a_circle(ax):
    figures.plot_step(dict.fromkeys(figures.BOXES, "bfloat16"), set(), ax)
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    places = [box[:2] for box in figures.BOXES.values()]
    assert len(arrows) == len(places)
    for arrow, start, end in zip(arrows, places, [*places[1:], places[0]]):
        for found, box in ((arrow.xyann, start), (arrow.xy, end)):
            assert abs(found[0] - box[0]) < 0.4 and abs(found[1] - box[1]) < 0.3


TABLE = {
    "plain": {"weights": (4.0, "float32"), "m": (4.0, "float32")},
    "mixed": {
        "weights": (2.0, "float16"),
        "m": (4.0, "float32"),
        "copy*": (2.0, "float16"),
    },
}


def test_bytes_are_stacked_and_what_passes_is_outlined(ax):
    figures.plot_bytes(TABLE, ax)
    lefts = [patch.get_x() for patch in ax.patches]
    assert lefts == [0, 4, 0, 2, 6]
    assert [patch.get_width() for patch in ax.patches] == [4, 4, 2, 4, 2]
    assert to_hex(ax.patches[2].get_facecolor()) == COLORS["float16"].lower()
    assert to_hex(ax.patches[4].get_facecolor()) == "#ffffff"
    assert {"8", "6 + 2", "copy\n2"} <= set(texts(ax)) and not crowded(ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(TABLE)


def test_differences_are_dots_and_intervals_bars(ax):
    pairs = {"bf16-pure": [0.1, 0.2, 0.3], "tf32": [-0.1]}
    figures.plot_differences(pairs, {"bf16-pure": (0.0, 0.4)}, ax)
    bar, dots, one, zero = ax.lines
    assert list(bar.get_xdata()) == [0.0, 0.4] and bar.get_solid_capstyle() == "butt"
    assert list(dots.get_xdata()) == pairs["bf16-pure"]
    assert one.get_xydata().tolist() == [[-0.1, 1]] and list(zero.get_xdata()) == [0, 0]
    assert dots.get_color() == COLORS["bfloat16"]
    assert one.get_color() == COLORS["tfloat32"]
