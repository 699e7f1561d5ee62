"""Register checkers under an id, and check an answer in one stable line.

A checker takes the answer and returns a hint, "" where the answer is correct:

    @exercise("01-1")
    def _significant_bits(answer: int) -> str:
        if answer == 10:
            return "you counted the stored bits; one more is implied"
        return "" if answer == 11 else "count the bits of 1.fraction"
"""

import contextlib
import functools
import importlib
import inspect
import io
import os
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

Checker = Callable[[Any], str]

_CHECKERS: dict[str, Checker] = {}
_BROKEN: dict[str, str] = {}
_MECHANISM = {"registry", "source"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LONGEST_MESSAGE = 200


class _NotAttempted(BaseException):
    """A stub answered; not an Exception, so that no checker swallows it."""


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
    "correct", or "not yet" with a hint. Nothing is raised, except under nbgrader, which
    sets NBGRADER_EXECUTION and takes an exception for a failed test: there anything but
    "correct" raises AssertionError.
    """
    verdict = _verdict(name, answer)
    print(f"{name}: {verdict}")
    if verdict != "correct" and "NBGRADER_EXECUTION" in os.environ:
        raise AssertionError(f"{name}: {verdict}")


def _verdict(name: str, answer: Any) -> str:
    checker = _find(name)
    if checker is None:
        return _unknown()
    if _is_blank(answer):
        return "not attempted"
    probe = _Probe(answer) if inspect.isroutine(answer) else None
    try:
        with _quiet():
            hint = checker(probe.function if probe else answer)
            if not isinstance(hint, str):
                raise TypeError(f"checker {name} returned {hint!r} instead of a hint")
    except _NotAttempted:
        return "not attempted"
    except (Exception, SystemExit) as error:
        hint = _hint_of(error, answer, probe)
    return f"not yet. {_one_line(hint)}" if hint else "correct"


def _unknown() -> str:
    there = f"no such exercise; there are {', '.join(names()) or 'none'}"
    broken = "; ".join(
        f"{module} did not load ({why})" for module, why in _BROKEN.items()
    )
    return _one_line(f"{there}; {broken}." if broken else f"{there}.")


def _find(name: str) -> Checker | None:
    """Import subjects until one of them registers `name`."""
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
                _BROKEN[module.name] = f"{type(error).__name__}: {error}"
            yield module.name


def _is_blank(answer: Any) -> bool:
    """Say whether nothing was filled in, also where an answer has several parts."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list | tuple) and answer:
        return all(_is_blank(part) for part in answer)
    return answer is None or answer is Ellipsis


class _Probe:
    """A student's function as the checker sees it; calls tell stubs from mistakes."""

    def __init__(self, student: Callable[..., Any]) -> None:
        self.raised: BaseException | None = None
        self.call = ""
        self._answered = False

        @functools.wraps(student)
        def function(*args: Any, **kwargs: Any) -> Any:
            return self._watch(student, args, kwargs)

        self.function = function

    def _watch(self, student: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        self.call = _call_text(student, args, kwargs)
        try:
            result = student(*args, **kwargs)
        except (Exception, SystemExit) as error:
            self.raised = error
            raise
        if not _is_blank(result):
            self._answered = True
        elif not self._answered:
            raise _NotAttempted
        return result


def _call_text(function: Callable[..., Any], args: tuple, kwargs: dict) -> str:
    parts = [repr(arg) for arg in args] + [
        f"{key}={value!r}" for key, value in kwargs.items()
    ]
    return _one_line(
        f"{getattr(function, '__name__', 'your function')}({', '.join(parts)})"
    )


def _hint_of(error: BaseException, answer: Any, probe: _Probe | None) -> str:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    what = _one_line(what)[:_LONGEST_MESSAGE].rstrip(".")
    if probe and error is probe.raised:
        return f"{probe.call[:_LONGEST_MESSAGE]} raised {what}."
    if probe:
        return (
            f"what {probe.call[:_LONGEST_MESSAGE]} returns cannot be used here "
            f"({what})."
        )
    return f"an answer of type {type(answer).__name__} cannot be used here ({what})."


def _one_line(text: str) -> str:
    return _ADDRESS.sub("", " ".join(text.split()))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow prints and warnings: a check is one line, and stderr costs points."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
