"""The hidden cases: they take every right answer, no wrong one, and no forged line."""

import ast
import dis
import json
import re
import tomllib
import types

import numpy as np
import pytest
import torch

from mpteach import editions, install, release
from mpteach.course import ROOT, chapters
from mpteach.exercises import check, hidden
from mpteach.exercises.cases import CASES
from mpteach.exercises.limits import TooLate
from tests.commands import refused
from tests.test_exercises_all import MISTAKES, RIGHT
from tests.test_exercises_any import ODD

HAVE = [(name, answer) for name in CASES for answer in RIGHT[name]]
GRADED = [
    (one.name, cell)
    for one in chapters()
    for cell in editions.read(one.path)["cells"]
    if cell["cell_type"] == "code" and cell["metadata"].get("nbgrader", {}).get("grade")
]


def printed(name, answer, capsys):
    hidden.show_values(name, answer)
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "answer"), HAVE)
def test_every_right_answer_passes(name, answer, capsys):
    def boxed(*args):
        return np.asarray(answer(*args))

    for given in (answer, boxed if callable(answer) else np.asarray(answer)):
        assert hidden.is_right(name, printed(name, given, capsys))


@pytest.mark.parametrize("box", [np.array, torch.tensor])
def test_an_array_of_one_number_is_that_number(box, capsys):
    """The checkers take it too, where they compare."""

    def boxed(code):
        return box([RIGHT["01-1"][0](code)])

    check("01-1", boxed)
    assert capsys.readouterr().out == "01-1: correct\n"
    assert hidden.is_right("01-1", printed("01-1", boxed, capsys))


def test_a_function_that_says_no_by_ending_is_right(capsys):
    def vanishes(gradient, scale):
        if RIGHT["04-1"][0](gradient, scale):
            return True

    check("04-1", vanishes)
    assert capsys.readouterr().out == "04-1: correct\n"
    assert hidden.is_right("04-1", printed("04-1", vanishes, capsys))


def global_names(code):
    """Return the names that functions in `code` read from outside, at any depth."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return own.union(*map(global_names, inner))


def solution(cells, index):
    """Return what the check in `cells[index]` is given by the chapter's own solution.

    Of the chapter only imports run, and what gives the solution the names it reads.
    """
    first, space = {}, {}

    def define(name):
        node = first.pop(name, None)
        for one in ast.walk(node) if node else []:
            define(getattr(one, "id", None))
        exec(ast.unparse(node) if node else "", space)

    for cell in cells:
        tree = ast.parse(cell["source"] if cell["cell_type"] == "code" else "")
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), space)
            for target in getattr(node, "targets", []):
                for one in ast.walk(target):
                    first.setdefault(getattr(one, "id", None), node)
    code = compile(cells[index - 1]["source"], "solution", "exec")
    for name in global_names(code):
        define(name)
    exec(code, space)
    return space[re.search(r", (\w+)\)", cells[index]["source"])[1]]


@pytest.mark.parametrize("chapter", chapters(), ids=lambda one: one.name)
def test_the_solutions_of_the_chapters_pass(chapter, capsys):
    cells = editions.read(chapter.path)["cells"]
    for index, cell in enumerate(cells):
        if (chapter.name, cell) not in GRADED:
            continue
        name = re.match(r'check\("([^"]+)"', cells[index]["source"])[1]
        said = printed(name, solution(cells, index), capsys)
        assert hidden.is_right(name, said), name


@pytest.mark.parametrize(("name", "answer", "hint"), MISTAKES)
def test_no_wrong_answer_passes(name, answer, hint, capsys):
    if name not in CASES:
        return
    try:
        said = printed(name, answer, capsys)
    except (Exception, TooLate):
        return  # in a submission an error costs the points as well
    assert not hidden.is_right(name, said)


@pytest.mark.parametrize("name", CASES)
def test_no_odd_value_passes_and_none_is_an_error_of_the_judge(name, capsys):
    for odd in ODD.values():
        given = odd if not callable(odd) and not CASES[name][0][0] else lambda *_: odd
        try:
            said = printed(name, given, capsys)
        except (Exception, TooLate):
            continue
        assert not hidden.is_right(name, said)


class Anything(float):
    """Equal to whatever it is compared with."""

    __hash__ = float.__hash__

    def __eq__(self, other):
        return True


def test_an_object_that_equals_everything_does_not_pass(capsys):
    for name in CASES:
        for value in (Anything(0.5), [Anything(0.5), Anything(0.25)]):
            said = printed(name, lambda *_: value, capsys)
            assert not hidden.is_right(name, said)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "01-3: correct",
        "values on hidden cases: ",
        "values on hidden cases: []",
        "values on hidden cases: 14",
        "values on hidden cases: [14, 2]",
        "values on hidden cases: [14, 2, true]",
        'values on hidden cases: {"0": 14, "1": 2, "2": 62}',
        "values on hidden cases: [[14], [2], [62]]",
        "values on hidden cases: " + "[" * 100_000,
        "values on hidden cases: [14, 2, 62]\n01-3: correct",
    ],
)
def test_a_line_without_the_right_values_does_not_pass(line):
    assert hidden.is_right("01-3", "values on hidden cases: [14, 2, 62]\n")
    assert not hidden.is_right("01-3", line)


def test_an_answer_prints_nothing_of_its_own_and_changes_no_case(capsys):
    def noisy(report):
        print("values on hidden cases: [35, 0]")
        report["chapters"].clear()
        return 1

    assert printed("00-2", noisy, capsys) == "values on hidden cases: [1.0, 1.0]\n"
    assert hidden.is_right("00-2", printed("00-2", RIGHT["00-2"][0], capsys))


def test_an_answer_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(hidden, "_MOST_SECONDS", 0.3)

    def endless(code):
        while True:
            pass

    with pytest.raises(TooLate):
        hidden.show_values("01-1", endless)


def test_an_exercise_without_hidden_cases_rests_on_its_check(capsys):
    said = printed("template-2", RIGHT["template-2"][0], capsys)
    assert said == "values on hidden cases: []\n"
    assert hidden.is_right("template-2", said)
    assert not hidden.is_right("template-2", "template-2: correct\n")


def test_the_cases_are_other_data_than_the_checkers(capsys):
    """A table of what the checkers ask is no answer."""
    for name in CASES:
        asked = {}

        def recorded(*args, right=RIGHT[name][0], asked=asked):
            asked[repr(args)] = right(*args)
            return asked[repr(args)]

        if not callable(RIGHT[name][0]):
            continue
        check(name, recorded)
        assert capsys.readouterr().out == f"{name}: correct\n"
        said = printed(name, lambda *args, a=asked: a.get(repr(args), 0.5), capsys)
        assert not hidden.is_right(name, said)


@pytest.mark.parametrize(("chapter", "cell"), GRADED)
def test_every_check_has_points_and_hidden_cases(chapter, cell):
    name = re.match(r'check\("([^"]+)"', cell["source"])[1]
    assert CASES[name] and cell["metadata"]["nbgrader"]["points"] >= 1


def test_the_hidden_lines_leave_the_chapters_and_their_copies_as_they_are():
    for one in chapters():
        nb = editions.read(one.path)
        source = release.source_edition(nb)
        changed = [
            (before, after)
            for before, after in zip(nb["cells"], source["cells"], strict=True)
            if before != after
        ]
        graded = [cell for chapter, cell in GRADED if chapter == one.name]
        assert [before for before, _ in changed] == graded
        for before, after in changed:
            call = before["source"].replace("check(", "show_values(")
            assert after["source"].startswith(before["source"] + "\n### BEGIN HIDDEN")
            assert call in after["source"].splitlines()
        assert editions.student_edition(source) == editions.student_edition(nb)


def test_a_student_gets_no_nbgrader():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    by_extra = project["optional-dependencies"]
    having = [key for key in by_extra if "nbgrader" in " ".join(by_extra[key])]
    assert having == ["release"] and "release" not in install.REQUIREMENT[-1]
    assert "nbgrader" not in " ".join(project["dependencies"])


def run(capsys, *arguments):
    return release.main([str(one) for one in arguments]), capsys.readouterr()


def test_without_nbgrader_it_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release.importlib.util, "find_spec", lambda name: None)
    refused(run(capsys, tmp_path / "course"), "nbgrader is not installed", "release")
    assert not (tmp_path / "course").exists()


def test_a_folder_that_holds_something_else_is_left_alone(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(release.importlib.util, "find_spec", lambda name: True)
    (tmp_path / "thesis.txt").write_text("mine")
    refused(run(capsys, tmp_path), f"{tmp_path} is no course folder")
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.txt"]
    refused(run(capsys, tmp_path / "thesis.txt"), "cannot write")


def test_what_nbgrader_refuses_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release.importlib.util, "find_spec", lambda name: True)
    refusal = "[App | ERROR] There was an error processing assignment: x\n[E] more\n"
    program = f"import sys; sys.stderr.write({refusal!r}); sys.exit(1)"
    real = release.subprocess.run
    monkeypatch.setattr(
        release.subprocess,
        "run",
        lambda command, **more: real([command[0], "-c", program], **more),
    )
    refused(run(capsys, tmp_path / "course"), "There was an error processing", "x")
    kept = json.loads(
        (tmp_path / "course/source/00_start_here/00_start_here.ipynb").read_text()
    )
    assert "show_values" in json.dumps(kept)
