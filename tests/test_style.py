"""The look of figures: colours that stay apart, legible type, one display."""

import itertools

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex, to_rgb

from mpteach import formats, style

matplotlib.use("agg")


def test_every_format_has_a_colour_of_its_own():
    assert set(style.COLORS) >= set(formats.FORMATS)
    assert len(set(style.COLORS.values())) == len(style.COLORS)
    assert all(to_hex(color).upper() == color for color in style.COLORS.values())


@pytest.mark.parametrize(
    "pair", list(itertools.combinations(style.COLORS, 2)), ids="-".join
)
def test_colours_stay_apart_without_red_green_sight(pair):
    # Without one of the two kinds of cone, red and green fall together: their mean
    # and blue must tell the colours apart.
    one, other = (to_rgb(style.COLORS[name]) for name in pair)
    apart = [abs((one[0] + one[1]) - (other[0] + other[1])) / 2, abs(one[2] - other[2])]
    assert max(apart) > 0.2


def test_figures_are_wide_and_legible():
    with matplotlib.rc_context():
        style.use()
        figure, ax = plt.subplots()
        label = ax.set_xlabel("e")
        assert figure.get_size_inches()[0] == 8 and figure.dpi == 110
        assert label.get_fontsize() >= 11
        assert min(tick.get_fontsize() for tick in ax.get_xticklabels()) >= 11
        plt.close(figure)


def test_show_displays_once_with_the_sentence_and_closes(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(style, "display", lambda *args, **kw: shown.append((args, kw)))
    figure = plt.figure()
    style.show(figure, "Two lines that cross.")
    told = {"alt": "Two lines that cross.", "smallest_type": None}
    assert shown == [((figure,), {"metadata": {"image/png": told}})]
    assert plt.get_fignums() == [] and capsys.readouterr() == ("", "")


def test_the_smallest_type_is_that_of_what_is_seen():
    with matplotlib.rc_context():
        style.use()
        figure, ax = plt.subplots()
        assert style.smallest_type(figure) == style.SMALLEST_TYPE == 12
        ax.text(0, 0, "small", size=9.5)
        ax.text(0, 0, " ", size=3)
        ax.text(0, 0, "hidden", size=4, visible=False)
        assert style.smallest_type(figure) == 9.5
        ax.tick_params(labelsize=8)
        assert style.smallest_type(figure) == 8
        plt.close(figure)
