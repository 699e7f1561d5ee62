"""Widgets: what a reader of a chapter can touch, with a kernel and without one."""

from mpteach.widgets.explorer import BitExplorer

__all__ = ["BitExplorer"]
