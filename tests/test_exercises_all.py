"""What every checker owes: its own right answers, whoever holds or changes what."""

import copy
import importlib

import numpy as np
import pytest

from mpteach.course import ROOT
from mpteach.exercises import check, registry

# One module a subject: RIGHT and WRONG answers of its checkers, with the hints.
SUBJECTS = [
    importlib.import_module(f"tests.{path.stem}")
    for path in sorted((ROOT / "tests").glob("answers_*.py"))
]
RIGHT = {name: rights for module in SUBJECTS for name, rights in module.RIGHT.items()}
WRONG = {name: wrongs for module in SUBJECTS for name, wrongs in module.WRONG.items()}
ANSWERS = {name: texts for module in SUBJECTS for name, texts in module.ANSWERS.items()}
MISTAKES = [(name, *case) for name, cases in WRONG.items() for case in cases]
CASES = [(name, answer) for name in sorted(RIGHT) for answer in RIGHT[name]]
FUNCTIONS = [(name, answer) for name, answer in CASES if callable(answer)]
VALUES = [(name, answer) for name, answer in CASES if not callable(answer)]


def said(name, answer, capsys):
    check(name, answer)
    return capsys.readouterr().out.rstrip("\n")


def test_every_checker_has_right_and_wrong_answers_to_test():
    assert sorted(RIGHT) == sorted(WRONG) == sorted(ANSWERS) == registry.names()


@pytest.mark.parametrize("name", WRONG)
def test_every_checker_meets_five_wrong_answers(name):
    assert len(WRONG[name]) >= 5


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_right_answers(name, answer, capsys):
    assert said(name, answer, capsys) == f"{name}: correct"


@pytest.mark.parametrize(("name", "answer", "hint"), MISTAKES)
def test_wrong_answers_get_their_hint_and_not_the_answer(name, answer, hint, capsys):
    line = said(name, answer, capsys)
    assert line.startswith(f"{name}: not yet. ") and hint in line
    assert not any(text in line for text in ANSWERS[name])


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("blank", [None, ..., lambda *_: ..., lambda *_: None])
def test_a_stub_is_not_attempted(name, blank, capsys):
    takes_functions = any(name == one for one, _ in FUNCTIONS)
    if takes_functions or not callable(blank):
        assert said(name, blank, capsys) == f"{name}: not attempted"


@pytest.mark.parametrize("name", sorted({name for name, _ in FUNCTIONS}))
def test_an_answer_that_is_no_function(name, capsys):
    for answer, kind in ((3, "int"), (1.5, "float"), ("f", "str")):
        hint = f"an answer of type {kind} is no function: give the function itself."
        assert said(name, answer, capsys) == f"{name}: not yet. {hint}"


def spoil(thing):
    """Change a list, dict or array in place, all the way down."""
    if isinstance(thing, np.ndarray):
        thing[...] = 1
    elif isinstance(thing, dict | list):
        for part in thing.values() if isinstance(thing, dict) else thing:
            spoil(part)
        thing.clear()


@pytest.mark.parametrize(("name", "answer"), FUNCTIONS)
def test_a_function_that_changes_its_arguments_changes_no_checker(name, answer, capsys):
    def spoils(*args):
        result = answer(*copy.deepcopy(args))
        for arg in args:
            spoil(arg)
        return result

    for tried in (spoils, answer):
        assert said(name, tried, capsys) == f"{name}: correct"


def ones(gradients):
    gradients[:] = 1.0
    return 1.0


def equal_speeds(base, own):
    base[:] = own[:] = [1.0]
    return 1.0


def equal_losses(values, factor):
    values[:] = [0.0] * len(values)
    return 0.0


def empties(report):
    report["chapters"].clear()
    return 0


@pytest.mark.parametrize(
    ("name", "answer"),
    [("08-4", ones), ("08-1", equal_speeds), ("08-3", equal_losses), ("00-2", empties)],
)
def test_nobody_makes_a_wrong_answer_right(name, answer, capsys):
    for _ in range(2):
        assert said(name, answer, capsys).startswith(f"{name}: not yet. ")


@pytest.mark.parametrize("boxed", [lambda x: np.asarray(x)[()], np.asarray])
@pytest.mark.parametrize(("name", "answer"), FUNCTIONS)
def test_numpys_numbers_are_as_good_as_what_python_returns(name, answer, boxed, capsys):
    def boxes(*args):
        return boxed(answer(*args))

    assert said(name, boxes, capsys) == f"{name}: correct"


@pytest.mark.parametrize("boxed", [np.int64, np.float32, np.array])
@pytest.mark.parametrize(("name", "answer"), VALUES)
def test_numpys_numbers_are_as_good_as_pythons(name, answer, boxed, capsys):
    assert said(name, boxed(answer), capsys) == f"{name}: correct"


@pytest.mark.parametrize("true", [True, np.True_, np.array(True)])
def test_a_truth_value_counts_as_one(true, capsys):
    assert "you went down" in said("01-5", lambda code: true, capsys)
    assert "the scale 1 still loses" in said("08-4", lambda g: true, capsys)
