"""Show the source of a function of the package where the code is the lesson."""

import functools
import inspect
import sys
import textwrap
from typing import Any

from mpteach.errors import InputError


def show_source(thing: Any) -> None:
    """Show the source of a function, method, property or class of the package.

    A notebook gets it highlighted by the front end's own theme, anything else plain
    text. Both hold the text and the module's name only: the same on every machine.
    Raises InputError for anything else, and for what has no Python source.
    """
    text = _source(thing)
    if not _in_notebook():
        print(text)
        return
    from IPython.display import display

    bundle = {"text/plain": text, "text/markdown": f"```python\n{text}\n```"}
    display(bundle, raw=True)


def _source(thing: Any) -> str:
    if isinstance(thing, property):
        thing = thing.fget
    if isinstance(thing, functools.cached_property):
        thing = thing.func
    try:
        lines, module = inspect.getsource(inspect.unwrap(thing)), thing.__module__
    except (TypeError, OSError, AttributeError, ValueError):
        called = getattr(thing, "__name__", f"{thing!r:.60}")
        raise InputError(
            f"{type(thing).__name__} {called} is no function, method or class "
            "written in Python: give one of mpteach."
        ) from None
    return f"# from {module}\n{textwrap.dedent(lines).rstrip()}"


def _in_notebook() -> bool:
    """Say whether a kernel runs this code; if so, IPython is already imported."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
