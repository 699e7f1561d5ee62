"""Register checkers under an id, and check an answer in one stable line.

A checker takes the answer and returns a hint, "" where the answer is correct:

    @exercise("01-1")
    def _significant_bits(answer: int) -> str:
        if answer == 10:
            return "you counted the stored bits; one more is implied"
        return "" if answer == 11 else "count the bits of 1.fraction"
"""

import contextlib
import copy
import importlib
import inspect
import io
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from mpteach.exercises.limits import TooLate, within

Checker = Callable[[Any], str]

_CHECKERS: dict[str, Checker] = {}
_BROKEN: dict[str, str] = {}
_MECHANISM = {"registry", "source", "limits", "hidden", "cases"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# A right answer takes a tenth of a second.
_MOST_SECONDS = 10
_LONGEST_ID, _LONGEST_PART, _LONGEST_HINT = 40, 120, 300


class _Verdict(BaseException):
    """The answer needs no checker; not an Exception, so that no checker swallows it."""


def exercise(name: str) -> Callable[[Checker], Checker]:
    """Register the decorated checker as exercise `name`, e.g. "01-1".

    Raises ValueError where another checker already has the name.
    """

    def register(checker: Checker) -> Checker:
        known = _CHECKERS.get(name)
        if known is not None and known.__module__ != checker.__module__:
            raise ValueError(
                f"exercise {name!r} is in {known.__module__} and again in "
                f"{checker.__module__}: give one of them another id."
            )
        _CHECKERS[name] = checker
        return checker

    return register


def names() -> list[str]:
    """Return the ids of all exercises, sorted."""
    for _ in _load_subjects():
        pass
    return sorted(_CHECKERS)


def check(name: str, answer: Any) -> None:
    """Print how `answer` does in exercise `name`: one line, the same on any machine.

    The line says "not attempted" (None, ..., or a function that returns one of them),
    "correct", or "not yet" with a hint. A function that has not returned after 10
    seconds is ended. Nothing is raised, except under nbgrader, which
    sets NBGRADER_EXECUTION and takes an exception for a failed test: there anything but
    "correct" raises AssertionError. Ctrl-C ends a check as it ends anything else.
    """
    verdict = _verdict(name, answer)
    line = _encodable(f"{_clip(_text(name), _LONGEST_ID)}: {verdict}")
    print(line)
    if verdict != "correct" and "NBGRADER_EXECUTION" in os.environ:
        raise AssertionError(line)


def _verdict(name: str, answer: Any) -> str:
    checker = _find(name)
    if checker is None:
        return _unknown()
    with quiet():
        return _judged(checker, answer)


def _judged(checker: Checker, answer: Any) -> str:
    probe = _Probe(answer) if callable(answer) else None
    try:
        hint = within(_MOST_SECONDS, lambda: _hint(checker, answer, probe))
    except _Verdict as verdict:
        return str(verdict)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        try:
            # What an error says of itself is the student's code too.
            hint = within(_MOST_SECONDS, lambda: _hint_of(error, answer, probe))
        except TooLate as late:
            hint = _hint_of(late, answer, probe)
        # Frees what the failed calls hold, while warnings are still swallowed.
        BaseException.with_traceback(error, None)
    return f"not yet. {_clip(hint, _LONGEST_HINT)}" if hint else "correct"


def _hint(checker: Checker, answer: Any, probe: "_Probe | None") -> str:
    _stop_early(answer, attempted=False)
    hint = checker(probe.function if probe else answer)
    if not isinstance(hint, str):
        raise TypeError(f"the checker returned {hint!r} instead of a hint")
    return hint


def _stop_early(value: Any, attempted: bool) -> None:
    """Raise the verdict on an answer, or on what it returns, that no checker needs."""
    if not attempted and _is_blank(value):
        raise _Verdict("not attempted")
    if inspect.iscoroutine(value):
        value.close()
        raise _Verdict(
            "not yet. Your function is asynchronous, so that calling it computes "
            "nothing: write def, not async def."
        )


def _unknown() -> str:
    there = f"no such exercise; there are {', '.join(names()) or 'none'}"
    broken = "; ".join(
        f"{module} did not load ({why})" for module, why in _BROKEN.items()
    )
    return f"{there}; {broken}." if broken else f"{there}."


def _find(name: str) -> Checker | None:
    """Import subjects until one of them registers `name`."""
    if not isinstance(name, str):
        return None
    subjects = _load_subjects()
    while name not in _CHECKERS and next(subjects, None):
        pass
    return _CHECKERS.get(name)


def _load_subjects() -> Iterator[str]:
    """Import the subject modules in turn; one that cannot load must not stop others."""
    package = importlib.import_module("mpteach.exercises")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _MECHANISM:
            try:
                importlib.import_module(f"{package.__name__}.{module.name}")
            except Exception as error:
                _BROKEN[module.name] = _what(error)
            yield module.name


def _is_blank(answer: Any) -> bool:
    """Say whether nothing was filled in, also where an answer has several parts."""
    parts, seen = [answer], set()
    while parts:
        part = parts.pop()
        inner = list(part.values()) if isinstance(part, dict) else part
        if isinstance(inner, list | tuple) and inner:
            # A container may hold itself.
            parts.extend(inner if id(part) not in seen else ())
            seen.add(id(part))
        elif part is not None and part is not Ellipsis:
            return False
    return True


class _Probe:
    """A student's function as the checker sees it; calls tell stubs from mistakes."""

    def __init__(self, student: Callable[..., Any]) -> None:
        self.raised: BaseException | None = None
        self.call = ""
        self._answered = False

        def function(*args: Any, **kwargs: Any) -> Any:
            return self._watch(student, args, kwargs)

        self.function = function

    def _watch(self, student: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        try:
            self.call = _call_text(student, args, kwargs)
            # Copies: a function that changes its arguments must not change the
            # checker's, from which the right answer is computed.
            result = student(*copy.deepcopy(args), **copy.deepcopy(kwargs))
            _stop_early(result, self._answered)
        except BaseException as error:
            self.raised = error
            raise
        self._answered = True
        return result


def _call_text(function: Callable[..., Any], args: tuple, kwargs: dict) -> str:
    parts = [repr(arg) for arg in args] + [
        f"{key}={value!r}" for key, value in kwargs.items()
    ]
    called = getattr(function, "__name__", "your function")
    return _clip(f"{called}({', '.join(parts)})", _LONGEST_PART)


def _hint_of(error: BaseException, answer: Any, probe: _Probe | None) -> str:
    kind = type(answer).__name__
    called = probe.call if probe and probe.call else ""
    if isinstance(error, TooLate):
        return (
            f"{called or 'Your answer'} was still running after {_MOST_SECONDS} "
            "seconds: look for a loop that never ends."
        )
    if not probe and _text(error) == f"'{kind}' object is not callable":
        return f"an answer of type {kind} is no function: give the function itself."
    if not called:
        given = f"an answer of type {kind}"
    elif error is probe.raised:
        return f"{called} raised {_what(error)}."
    else:
        given = f"what {called} returns"
    return f"{given} cannot be used here ({_what(error)})."


def _what(error: BaseException) -> str:
    said = _text(error)
    kind = type(error).__name__
    return _clip(f"{kind}: {said}" if said else kind, _LONGEST_PART).rstrip(".")


def _text(thing: Any) -> str:
    try:
        return str(thing)
    except BaseException:
        return ""


def _clip(text: str, most: int) -> str:
    """Return `text` in one line, without addresses, of at most `most` characters."""
    text = _ADDRESS.sub("", " ".join(text.split()))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _encodable(line: str) -> str:
    """Return `line` with escapes for what the output cannot print, e.g. half a pair."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow prints and warnings: a check is one line, and stderr costs points."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
