"""Figures of bits: what is drawn stands where the format says."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mpteach import formats
from mpteach.figures import bits
from mpteach.formats import FloatFormat
from mpteach.style import COLORS
from tests.pictures import crowded, texts

matplotlib.use("agg")
THREE = [formats.get(name) for name in ("float32", "float16", "bfloat16")]
MINI = FloatFormat("mini", 3, 2)
FEW = [fmt for fmt in formats.FORMATS.values() if fmt.bits <= 8]


@pytest.fixture
def ax():
    return Figure(figsize=(8, 4), layout="constrained").subplots()


def colors_of_row(ax, row):
    boxes = [box for box in ax.patches if box.get_y() == pytest.approx(row - 0.3)]
    boxes.sort(key=lambda box: box.get_x())
    assert [box.get_x() for box in boxes] == list(range(len(boxes)))
    return [to_hex(box.get_facecolor()).upper() for box in boxes]


def expected_colors(fmt):
    sign, exponent, fraction = bits.FIELD_COLORS.values()
    colors = [exponent] * fmt.exponent_bits + [fraction] * fmt.fraction_bits
    return [sign] * fmt.signed + colors


def test_a_layout_has_a_box_a_bit_in_its_field(ax):
    bits.plot_layout(THREE, ax)
    for row, fmt in enumerate(THREE):
        assert colors_of_row(ax, row) == expected_colors(fmt)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        f.name for f in THREE
    ]
    assert texts(ax) == [
        *("1", "8 exponent", "23 fraction"),
        *("1", "5 exponent", "10 fraction"),
        *("1", "8 exponent", "7 fraction", "sign"),
    ]
    assert not crowded(ax)


def test_a_layout_of_the_family_is_legible():
    large = [fmt for fmt in formats.FORMATS.values() if fmt.bits > 8]
    figure = Figure(figsize=(8, 6), layout="constrained")
    for ax, shown in zip(
        figure.subplots(2, height_ratios=[5, 8]), (large, FEW), strict=True
    ):
        bits.plot_layout(shown, ax)
        for row, fmt in enumerate(shown):
            assert colors_of_row(ax, row) == expected_colors(fmt)
        assert not crowded(ax)
        assert all(text.get_fontsize() >= 10 for text in ax.texts)


def test_an_unsigned_format_has_no_sign(ax):
    scale = formats.get("float8_e8m0fnu")
    bits.plot_layout([scale], ax)
    assert texts(ax) == ["8 exponent"]
    ax.clear()
    bits.plot_fields([scale], 0.25, ax)
    assert texts(ax) == [*"01111101", "= 0.25"]


def test_fields_show_every_digit_and_the_value(ax):
    bits.plot_fields(THREE, -0.15625, ax)
    for row, fmt in enumerate(THREE):
        assert colors_of_row(ax, row) == expected_colors(fmt)
        digits = [t for t in ax.texts if t.get_position()[1] == row]
        digits.sort(key=lambda text: text.get_position()[0])
        shown = "".join(text.get_text() for text in digits)
        assert int(shown, 2) == fmt.encode(-0.15625)
    assert texts(ax).count("= -0.15625") == 3
    assert not crowded(ax)


def test_values_stand_on_the_number_line_by_kind(ax):
    bits.plot_values(MINI, ax)
    strokes = {
        to_hex(lines.get_color()[0]).upper(): sorted(
            s[0, 0] for s in lines.get_segments()
        )
        for lines in ax.collections
    }
    low = [k / 16 for k in range(-3, 4)]
    assert strokes[bits.KIND_COLORS["subnormal"]] == low
    normal = strokes[bits.KIND_COLORS["normal"]]
    assert sorted(normal + low) == MINI.values().tolist()
    assert texts(ax) == ["zero and subnormals", "normal numbers"]
    assert ax.get_xlabel() == "finite values of mini" and not crowded(ax)


def test_powers_have_a_stroke_for_each_positive_value(ax):
    bits.plot_powers(FEW, ax)
    for row, fmt in enumerate(FEW):
        normal, low = strokes_of_row(ax, row)
        positive = fmt.values()[fmt.values() > 0]
        drawn = np.array([x for x, _ in low + normal])
        np.testing.assert_allclose(2.0**drawn, positive)
        assert len(low) == (positive < fmt.smallest_normal).sum()
        # Apart from each other, and still too wide to vanish.
        for strokes in (normal, low):
            gaps = np.diff([x for x, _ in strokes])
            assert all(0.05 < width < gaps.min(initial=1) for _, width in strokes)
    named = [f"{fmt.name}, up to {fmt.max:g}" for fmt in FEW]
    assert texts(ax) == [*named, "subnormal"]
    assert not crowded(ax)


def strokes_of_row(ax, row):
    """Return the centre and the width of each short and of each long stroke."""
    found = []
    for bars in ax.containers[2 * row : 2 * row + 2]:
        for bar in bars:
            assert bar.get_y() + bar.get_height() / 2 == pytest.approx(row)
            assert to_hex(bar.get_facecolor()).upper() == COLORS[FEW[row].name]
        found.append([(b.get_x() + b.get_width() / 2, b.get_width()) for b in bars])
    short, long = ([b.get_height() for b in ax.containers[2 * row + k]] for k in (0, 1))
    assert not long or min(long) > max(short)
    return found


def test_the_subnormal_that_is_named_is_a_long_stroke(ax):
    shown = [formats.get(name) for name in ("float8_e5m2", "float6_e2m3fn")]
    bits.plot_powers(shown, ax)
    (note,) = (text for text in ax.texts if text.get_text() == "subnormal")
    assert note.xy == (np.log2(shown[1].smallest_subnormal), 1)


def test_no_subnormal_is_named_where_there_is_none(ax):
    bits.plot_powers([formats.get("float8_e8m0fnu")], ax)
    assert texts(ax) == ["float8_e8m0fnu, up to 1.70141e+38"]


def test_ranges_reach_from_the_smallest_to_the_largest_value(ax):
    bits.plot_ranges(THREE, ax)
    normal, pale = ax.patches[0::2], ax.patches[1::2]
    for row, fmt in enumerate(THREE):
        low, high = normal[row].get_x(), normal[row].get_x() + normal[row].get_width()
        assert (low, high) == pytest.approx(
            (np.log2(fmt.smallest_normal), np.log2(fmt.max))
        )
        assert pale[row].get_x() == np.log2(fmt.smallest_subnormal)
        assert pale[row].get_x() + pale[row].get_width() == pytest.approx(low)
        assert to_hex(normal[row].get_facecolor()).upper() == COLORS[fmt.name]
        assert pale[row].get_alpha() < 1
    assert texts(ax)[3:6] == ["5.9605e-08", "6.1035e-05", "65504"]
    assert not crowded(ax)


@pytest.mark.parametrize("fmt", [MINI, *THREE[1:], *FEW], ids=lambda fmt: fmt.name)
def test_per_binade_counts_the_values(fmt):
    exponents = np.arange(-140, 130)
    values = fmt.values()
    counted, _ = np.histogram(values, np.ldexp(1.0, np.append(exponents, 130)))
    np.testing.assert_array_equal(bits.per_binade(fmt, exponents), counted)
    assert counted.sum() == (values > 0).sum()


def test_density_steps_hold_the_counts(ax):
    exponents = np.arange(-26, 18)
    bits.plot_density(THREE[1:], exponents, ax)
    for fmt, step in zip(THREE[1:], ax.patches, strict=True):
        counts, edges, _ = step.get_data()
        np.testing.assert_array_equal(counts, bits.per_binade(fmt, exponents))
        np.testing.assert_array_equal(edges, np.arange(-26, 19))
        assert to_hex(step.get_edgecolor()).upper() == COLORS[fmt.name]
    assert texts(ax) == ["float16", "bfloat16"] and ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low < 1 and high > 1024 and not crowded(ax)
