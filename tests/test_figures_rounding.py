"""Figures of rounding: what is drawn stands where the format and the modes say."""

import math
from fractions import Fraction

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach import formats
from mpteach.errors import InputError
from mpteach.figures import rounding as figures
from mpteach.formats import FloatFormat
from mpteach.quanta import MODES
from mpteach.rounding import exact, round_to
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")
NAMES = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
FOUR = [formats.get(name) for name in NAMES]
HALF, BRAIN, E4M3, E5M2 = FOUR
MINI = FloatFormat("mini", 3, 2)


@pytest.fixture
def ax():
    return Figure(figsize=(8, 4.6), layout="constrained").subplots()


def stairs_of(ax):
    return {to_hex(patch.get_edgecolor()).upper(): patch for patch in ax.patches}


def test_ulp_stairs_have_the_gap_of_each_power_of_two(ax):
    figures.plot_ulp(FOUR, np.arange(-32, 18), ax, mark=2.0)
    for fmt in FOUR:
        heights, edges, _ = stairs_of(ax)[COLORS[fmt.name]].get_data()
        np.testing.assert_array_equal(heights, fmt.ulp(edges[:-1]))
        np.testing.assert_array_equal(edges[1:], 2 * edges[:-1])
        assert edges[0] == max(fmt.smallest_subnormal, 2.0**-32)
        assert edges[-2] <= fmt.max and edges[-1] > min(fmt.max, 2.0**17)
    assert ax.get_xlim() == (2.0**-32, 2.0**18)
    numbers = ["2048", "256", "16", "8"]
    assert sorted(texts(ax)) == sorted(["gap 2", *NAMES, *numbers])
    assert not crowded(ax)


def test_the_one_of_two_ulp_stairs_that_interleave_is_dashed(ax):
    figures.plot_ulp(FOUR, np.arange(-32, 18), ax, mark=2.0)
    dashed = {
        color for color, patch in stairs_of(ax).items() if patch.get_linestyle() != "-"
    }
    assert dashed == {COLORS["float8_e5m2"]}


@pytest.mark.parametrize("first", [-32, -26])
def test_an_ulp_line_that_starts_beyond_the_axis_is_named_inside(ax, first):
    figures.plot_ulp([HALF, BRAIN], np.arange(first, 18), ax, mark=2.0)
    sides = {text.get_text(): text.get_ha() for text in ax.texts}
    assert (sides["float16"], sides["bfloat16"]) == ("right", "left")
    (patch,) = (p for c, p in stairs_of(ax).items() if c == COLORS["bfloat16"])
    assert patch.get_data().edges[0] == ax.get_xlim()[0] == 2.0**first


def test_ulp_dots_stand_where_the_gap_reaches_the_mark(ax):
    figures.plot_ulp([HALF, BRAIN], np.arange(-26, 18), ax, mark=2.0)
    dots = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[[2048.0, 2.0]], [[256.0, 2.0]]]
    numbers = {text.get_text(): text.xy for text in ax.texts}
    assert numbers["2048"] == (2048.0, 0) and numbers["256"] == (256.0, 0)
    assert ax.lines[0].get_ydata() == [2.0, 2.0]


def test_an_ulp_that_never_reaches_the_mark_has_no_dot(ax):
    figures.plot_ulp([E4M3], np.arange(-9, 9), ax, mark=1024.0)
    assert not [line for line in ax.lines if line.get_marker() == "o"]
    assert texts(ax) == ["gap 1024", "float8_e4m3fn"]


def arrows(ax):
    """Return the arrows as (mode, from, to)."""
    drawn = [t for t in ax.texts if getattr(t, "arrow_patch", None)]
    return [(MODES[a.xy[1]], a.get_position()[0], a.xy[0]) for a in drawn]


POINTS = (1.1, 1.375, 1.625)


@pytest.mark.parametrize("points", [POINTS, tuple(-x for x in POINTS)])
def test_mode_arrows_lead_to_the_rounded_numbers(ax, points):
    figures.plot_modes(MINI, points, ax)
    expected = [
        (mode, x, round_to(x, MINI, mode))
        for mode in MODES
        if mode != "stochastic"
        for x in points
    ]
    by_chance = [
        ("stochastic", x, round_to(x, MINI, way)) for x in points for way in MODES[3:5]
    ]
    assert sorted(arrows(ax)) == sorted(expected + by_chance)


def test_mode_rows_say_points_values_and_chances(ax):
    figures.plot_modes(MINI, POINTS, ax)
    assert texts(ax) == [
        *("60 %", "40 %", "50 %", "50 %", "50 %", "50 %"),
        *("1.1", "1.375", "1.625"),
    ]
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == ["1", "1.25", "1.5", "1.75"]
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == [figures.ROW_NAMES[mode] for mode in MODES]
    markers = {line.get_xdata()[0]: line.get_marker() for line in ax.lines[1:4]}
    assert markers == {1.1: "o", 1.375: "D", 1.625: "D"}


@pytest.mark.parametrize("width", [4.0, 8.0])
def test_mode_texts_do_not_meet(width):
    ax = Figure(figsize=(width, 4.6), layout="constrained").subplots()
    figures.plot_modes(MINI, POINTS, ax)
    assert not crowded(ax)


@pytest.mark.parametrize("fmt", [MINI, E4M3, E5M2], ids=lambda fmt: fmt.name)
def test_worst_relative_errors_are_those_of_a_dense_search(fmt):
    exponents = np.arange(math.frexp(fmt.smallest_subnormal)[1] - 4, 3)
    found = figures.worst_relative_errors(fmt, exponents)
    for row, e in enumerate(exponents.tolist()):
        for part in range(4):
            start, dense = Fraction(2) ** e, range(64)
            numbers = [start * (1 + Fraction(part * 64 + k, 256)) for k in dense]
            worst = max(abs(exact(x, fmt) - x) / x for x in numbers)
            end = start * (1 + Fraction(part + 1, 4))
            slack = max(abs(exact(end, fmt) - end) / end - worst, 0) + Fraction(1, 64)
            assert float(worst) <= found[row, part] <= float(worst + slack)


@pytest.mark.parametrize("fmt", FOUR, ids=lambda fmt: fmt.name)
def test_the_worst_error_of_normal_numbers_is_next_to_u(fmt):
    low = math.frexp(fmt.smallest_normal)[1] - 1
    exponents = np.arange(low, math.frexp(fmt.max)[1] - 1)
    worst, u = figures.worst_relative_errors(fmt, exponents), fmt.eps / 2
    assert np.all(worst.max(axis=1) == worst[:, 0])
    np.testing.assert_allclose(worst[:, 0], u / (1 + u), rtol=1e-14)


def test_worst_errors_end_in_nothing_left_and_in_overflow():
    worst = figures.worst_relative_errors(HALF, np.array([-27, -26, 15, 16]))
    assert (worst[:2] == 1).all() and math.isinf(worst[2, 3])
    assert np.isfinite(worst[2, :3]).all() and np.isinf(worst[3]).all()
    assert np.isinf(figures.worst_relative_errors(E4M3, np.array([9]))).all()


def test_the_two_16_bit_formats_cross_where_their_grids_are_one():
    half, brain = (
        figures.worst_relative_errors(fmt, np.arange(-24, 15)) for fmt in FOUR[:2]
    )
    below, same, above = half[:7], half[7], half[8:]
    assert (below > brain[:7]).any(axis=1).all() and (same == brain[7]).all()
    assert (above < brain[8:]).all()


@pytest.mark.parametrize("parts", [0, 3, -1, 16])
def test_parts_that_do_not_divide_are_refused(parts):
    with pytest.raises(InputError, match=f"parts was {parts}: give a divisor of 8"):
        figures.worst_relative_errors(MINI, np.arange(0, 2), parts)


def test_relative_error_stairs_hold_the_worst_errors(ax):
    exponents = np.arange(-28, 18)
    figures.plot_relative_error(FOUR, exponents, ax, crossover=2.0**-17)
    for fmt in FOUR:
        heights, edges, _ = stairs_of(ax)[COLORS[fmt.name]].get_data()
        worst = figures.worst_relative_errors(fmt, exponents).ravel()
        finite = np.isfinite(worst)
        np.testing.assert_array_equal(heights[finite], worst[finite])
        assert (heights[~finite] > ax.get_ylim()[1]).all()
        assert len(edges) == 4 * len(exponents) + 1
        assert edges[4] == 2.0**-27 and edges[1] == 1.25 * 2.0**-28
    (crossing,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert list(crossing.get_xdata()) == [2.0**-17] * 2
    assert not crowded(ax)


def test_relative_error_names_its_plateaus_and_ends(ax):
    figures.plot_relative_error(FOUR, np.arange(-28, 18), ax, crossover=2.0**-17)
    said = texts(ax)
    for fmt, power in zip(FOUR, (-11, -8, -4, -3), strict=True):
        assert f"{fmt.name}: $u = 2^{{{power}}}$" in said
    ends = [t.get_position()[0] for t in ax.texts if t.get_text() == "overflow "]
    assert sorted(ends) == [1.75 * 2.0**8, 1.75 * 2.0**15]
    assert " $2^{-17}$" in said and "nothing left" in said


def test_neighbours_are_the_values_around_the_number(ax):
    figures.plot_neighbours([HALF, BRAIN], 0.001, 2.8e-5, ax, claimed=0.00098)
    *lines, half, brain = ax.collections
    for fmt, strokes in ((HALF, half), (BRAIN, brain)):
        drawn = sorted(stroke[0, 0] for stroke in strokes.get_segments())
        near = fmt.values()[np.abs(fmt.values() - 0.001) <= 2.8e-5]
        assert drawn == near.tolist()
        assert to_hex(strokes.get_color()[0]).upper() == COLORS[fmt.name]
    assert [line.get_segments()[0][0, 0] for line in lines] == [0.001, 0.00098]
    dots = [dot.get_xdata()[0] for dot in ax.lines]
    assert dots == [float(np.float16(0.001)), round_to(0.001, "bfloat16")]


def test_neighbours_say_code_and_error(ax):
    figures.plot_neighbours([HALF, BRAIN], 0.001, 2.8e-5, ax, claimed=0.00098)
    assert texts(ax) == [
        *("0.001", "claimed: 0.00098"),
        *("0x1419, off by +0.0404 %", "0x3A83, off by -0.0549 %"),
    ]
    assert not crowded(ax)


SUMS = {
    "float16": np.minimum(np.arange(1, 4097), 2048),
    "bfloat16": np.minimum(np.arange(1, 4097), 256),
    "bfloat16 stochastic": np.arange(1, 4097) - 40.0,
    "float16 stochastic": np.arange(1, 4097) + 20.0,
}


@pytest.mark.parametrize("log", [True, False])
def test_sums_are_drawn_named_and_apart(ax, log):
    figures.plot_sums({n: np.maximum(s, 1) for n, s in SUMS.items()}, ax, log=log)
    ones, *lines = ax.lines
    assert ones.get_xydata().tolist() == [[1, 1], [4096, 4096]]
    for line, (name, partial) in zip(lines, SUMS.items(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), np.maximum(partial, 1))
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 4097))
        assert to_hex(line.get_color()).upper() == COLORS[name.split()[0]]
        assert line.get_linestyle() == ("--" if "stochastic" in name else "-")
    assert texts(ax) == [f"{name}: {partial[-1]:g}" for name, partial in SUMS.items()]
    assert ax.get_yscale() == ("log" if log else "linear") and not crowded(ax)
