"""The README's picture is the one that the record gives."""

import matplotlib
import numpy as np

from mpteach.figures import overview

matplotlib.use("agg")
plt = matplotlib.pyplot


def test_the_stored_picture_is_what_the_record_gives():
    figure = overview.draw()
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    stored = plt.imread(overview.PICTURE)[..., :3]
    plt.close(figure)
    assert stored.shape == drawn.shape
    # Other fonts or libraries move an edge by a shade; other data move whole lines.
    assert np.abs(stored - drawn).mean() < 0.002
