"""What a notebook calls: check an answer, show where a function comes from.

The checkers live in one module a subject (`bits`, `runs`); `check` finds them by id.
"""

from mpteach.exercises.registry import check
from mpteach.exercises.source import show_source

__all__ = ["check", "show_source"]
