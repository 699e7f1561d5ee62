"""What every checker says to answers that nobody foresaw: one line, no "correct"."""

import decimal
import fractions
import itertools
import re
import warnings

import numpy as np
import pytest
import torch

from mpteach.exercises import check, registry
from tests.test_exercises_all import FUNCTIONS, MISTAKES, RIGHT

# Of the wrong type, shape or dtype for whatever is asked.
ODD = {
    "text": "übung 授業 \udcff",
    "no text": "",
    "bytes": b"\xff\x00",
    "complex": 1 + 2j,
    "nan": float("nan"),
    "inf": float("inf"),
    "huge": 10**400,
    "fraction": fractions.Fraction(1, 3),
    "decimal": decimal.Decimal("NaN"),
    "set": {1, 2},
    "mapping": {"a": 1},
    "nested": [[1], [2, 3]],
    "range": range(3),
    "generator": (one for one in (1, 2)),
    "endless": itertools.count(),
    "class": int,
    "empty": np.array([]),
    "long": np.arange(100.0),
    "square": np.ones((7, 7)),
    "of objects": np.array([None, "a"], dtype=object),
    "of text": np.array(["a", "b"]),
    "of dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "of records": np.zeros(2, dtype=[("a", "f4")]),
    "tensor": torch.ones(3, 3),
    "bfloat16": torch.ones(2, dtype=torch.bfloat16),
    "of integers": torch.arange(5),
    "complex tensor": torch.ones(2, dtype=torch.complex64),
    "sparse": torch.eye(2).to_sparse(),
    "without data": torch.empty(2, device="meta"),
    "dtype": np.float16,
    "torch's dtype": torch.float16,
}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """What never ends is ended soon: no checker takes nearly so long."""
    monkeypatch.setattr(registry, "_MOST_SECONDS", 1)


def said(name, answer, capsys):
    check(name, answer)
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("name", registry.names())
def test_an_odd_value_is_one_line_and_not_correct(name, capsys):
    for kind, answer in ODD.items():
        line = said(name, answer, capsys)
        assert line.startswith(f"{name}: not yet. "), kind
        assert line.count("\n") == 1 and len(line) < 400, kind


@pytest.mark.parametrize("name", sorted({name for name, _ in FUNCTIONS}))
def test_a_function_that_returns_an_odd_value_is_one_line(name, capsys):
    for kind, answer in ODD.items():
        line = said(name, lambda *_, answer=answer: answer, capsys)
        assert line.startswith(f"{name}: not yet. "), kind
        assert line.count("\n") == 1 and len(line) < 400, kind


def raises(*_):
    raise RuntimeError("ümlaut \udcff\nin two lines")


@pytest.mark.parametrize("name", sorted({name for name, _ in FUNCTIONS}))
def test_a_function_that_raises_is_named_with_what_it_said(name, capsys):
    line = said(name, raises, capsys)
    assert line.startswith(f"{name}: not yet. raises(") and line.count("\n") == 1
    assert "raised RuntimeError: ümlaut \\udcff in two lines." in line


@pytest.mark.parametrize("name", sorted({name for name, _ in FUNCTIONS}))
def test_a_function_that_never_returns_is_ended(name, capsys, monkeypatch):
    monkeypatch.setattr(registry, "_MOST_SECONDS", 0.1)

    def endless(*_):
        while True:
            pass

    line = said(name, endless, capsys)
    assert line.startswith(f"{name}: not yet. ") and "was still running" in line


NUMBER = re.compile(r"(?<![\w.])-?(?:0x[0-9a-f]+|\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)")


@pytest.mark.parametrize(("name", "answer", "_hint"), MISTAKES)
def test_no_hint_holds_the_result_that_is_right(name, answer, _hint, capsys):
    """Of the call that the checker stopped at; but for numbers it shows anyway."""
    calls = []

    def watched(*args):
        calls.append((args, None))
        calls[-1] = (args, found := answer(*args))
        return found

    line = said(name, watched if callable(answer) else answer, capsys)
    right, shown = RIGHT[name][0], {str(answer)}
    if callable(right):
        if not calls:
            return
        args, found = calls[-1]
        with warnings.catch_warnings(action="ignore"):
            lengths = [len(one) for one in args if isinstance(one, list)]
            right, shown = right(*args), {f"{args}", f"{found}", f"{lengths}"}
    if np.ndim(right) or isinstance(right, str | bool):
        return
    # Zero stands in hints as a bound and for "none", as the questions have it.
    given = {0.0, *(value for text in shown for value in _values(text))}
    named = {value for value in _values(line.partition("not yet.")[2])} - given
    assert not any(value == float(right) for value in named), (right, line)


def _values(text: str) -> set[float]:
    found = (one.replace(",", "").rstrip(".") for one in NUMBER.findall(text))
    return {float(int(one, 16) if "0x" in one else one) for one in found}
