"""Slides: every chapter as a deck that a browser shows without a network.

`python -m mpteach.slides` is what `make slides` calls.
"""

from mpteach.slides.pages import build, deck

__all__ = ["build", "deck"]
