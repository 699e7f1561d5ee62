"""Budgets of the code: short modules and functions, all that is public typed."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpteach.course import NOTEBOOKS, ROOT

MODULE_LINES = 500
FUNCTION_LINES = 40
MEDIAN_FUNCTION_LINES = 10

PACKAGE = sorted((ROOT / "mpteach").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def breaches(name: str, source: str, is_package: bool) -> Iterator[str]:
    """Yield a sentence for each budget that module `name` exceeds."""
    lines = source.splitlines()
    if len(lines) > MODULE_LINES:
        yield f"{name} has {len(lines)} lines, at most {MODULE_LINES}: split it."
    for function in _functions(ast.parse(source)):
        if _length(function) > FUNCTION_LINES:
            yield (
                f"{name}: {function.name} has {_length(function)} lines, "
                f"at most {FUNCTION_LINES}: name its parts."
            )
    if is_package:
        yield from _undescribed(name, ast.parse(source))


def _functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def _length(function: Function) -> int:
    """Return the lines of a function without its docstring."""
    first = function.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    described = first.end_lineno - first.lineno + 1 if is_text else 0
    return function.end_lineno - function.lineno + 1 - described


def _undescribed(name: str, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield f"{name} has no docstring."
    for node in _public(tree):
        if not ast.get_docstring(node):
            yield f"{name}: {node.name} has no docstring."
        if isinstance(node, Function):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [
                argument.arg
                for argument in arguments
                if argument.annotation is None and argument.arg not in ("self", "cls")
            ]
            if untyped or node.returns is None:
                lacking = ", ".join(untyped) or "return"
                yield f"{name}: {node.name} lacks types: {lacking}."


def _public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Yield the public functions and classes, and the public methods of these."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    yield inner


@pytest.mark.parametrize("path", [*PACKAGE, *TESTS], ids=lambda path: path.stem)
def test_a_module_keeps_to_the_budgets(path: Path):
    name = path.relative_to(ROOT).as_posix()
    found = list(breaches(name, path.read_text(encoding="utf-8"), path in PACKAGE))
    assert not found, "\n".join(found)


def test_functions_of_the_package_are_short_in_the_median():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE]
    lengths = [_length(function) for tree in trees for function in _functions(tree)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def test_chapter_numbers_stand_in_notebook_names_alone():
    numbers = {path.stem[:2] for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")}
    named = [
        path.stem for path in PACKAGE if any(number in path.stem for number in numbers)
    ]
    assert named == [] and not [path for path in PACKAGE if path.stem[:2].isdigit()]


DESCRIBED = (
    '"""A module."""\n\n\ndef f(x: int) -> int:\n    """Return x."""\n    return x\n'
)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (DESCRIBED + "\n" * 500, "at most 500"),
        (DESCRIBED + "def _g():\n" + "    x = 1\n" * 40, "_g has 41 lines"),
        (DESCRIBED.replace('"""A module."""', ""), "has no docstring"),
        (DESCRIBED.replace('"""Return x."""', "..."), "f has no docstring"),
        (DESCRIBED.replace("x: int", "x"), "f lacks types: x"),
        (DESCRIBED.replace(" -> int", ""), "f lacks types: return"),
        (
            DESCRIBED + "class A:\n    'A.'\n    def g(self) -> int: ...",
            "g has no docstring",
        ),
    ],
)
def test_each_budget_bites(source, said):
    assert list(breaches("m.py", DESCRIBED, is_package=True)) == []
    (sentence,) = breaches("m.py", source, is_package=True)
    assert sentence.startswith("m.py") and said in sentence
