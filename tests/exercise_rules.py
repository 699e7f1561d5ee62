"""What the exercises of a notebook must keep to; `notebook_rules` asks for it."""

import ast
from collections.abc import Iterator

from mpteach import editions
from mpteach.errors import InputError
from tests.notebook_cells import Cell, Notebook

FEWEST_EXERCISES = 3


def exercises_complete(nb: Notebook) -> Iterator[str]:
    """At least three checked exercises, one open, one hard, all solved as stored."""
    practise = [section for section in nb.sections if section.title == "Practise"]
    prose = "".join(section.prose for section in practise)
    checks = [cell for cell in nb.code if cell.checked]
    where = practise[0].cells[0].where if practise else nb.cells[-1].where
    if len({cell.checked for cell in checks}) < FEWEST_EXERCISES:
        yield (
            f"{where}: {len(checks)} checked exercises, at least {FEWEST_EXERCISES} "
            "are needed."
        )
    for label in ("(open)", "(hard)"):
        if label not in prose:
            yield f"{where}: no exercise is labelled {label}."
    prefix = nb.name.removesuffix(".ipynb").split("_")[0]
    for cell in checks:
        yield from _bad_check(cell, nb.cells[cell.index - 1], prefix)
    grade_ids = [
        cell.marks["grade_id"] for cell in nb.cells if "grade_id" in cell.marks
    ]
    for name in sorted({name for name in grade_ids if grade_ids.count(name) > 1}):
        yield f"{where}: nbgrader's grade_id {name} is used twice."
    try:
        editions.student_edition(nb.raw)
    except InputError as error:
        yield f"{error}"


def _bad_check(cell: Cell, answer: Cell, prefix: str) -> Iterator[str]:
    name = cell.checked
    if len(cell.tree.body) != 1:
        yield f"{cell.where} must hold the call check({name!r}, ...) and nothing else."
    if cell.printed.strip() != f"{name}: correct":
        yield f"{cell.where} does not store '{name}: correct': mend the solution."
    if not name.startswith(f"{prefix}-"):
        yield (
            f"{cell.where} checks {name}: the ids of this notebook start with "
            f"{prefix}-."
        )
    points = cell.marks.get("points")
    if not (_has_marks(cell, grade=True) and isinstance(points, int) and points > 0):
        yield (
            f"{cell.where} lacks nbgrader metadata: grade and locked true, solution "
            "false, points."
        )
    if "### BEGIN SOLUTION" not in answer.source or not _has_marks(answer, grade=False):
        yield (
            f"{answer.where} must hold the answer to {name}: solution markers and "
            "metadata."
        )


def _has_marks(cell: Cell, grade: bool) -> bool:
    wanted = {
        "grade": grade,
        "solution": not grade,
        "locked": grade,
        "schema_version": 3,
    }
    agree = all(cell.marks.get(key) == value for key, value in wanted.items())
    return (
        agree and bool(cell.marks.get("grade_id")) and cell.marks.get("task") is False
    )


def answers_stay_local(nb: Notebook) -> Iterator[str]:
    """No cell but its check leans on an answer: a student may leave any open."""
    open_names: dict[str, Cell] = {}
    for cell in nb.code:
        bound, used = _names(cell.tree)
        if not cell.checked:
            for name in sorted((used - bound) & open_names.keys()):
                yield (
                    f"{cell.where} uses {name}, the answer of {open_names[name].where}."
                )
        for name in bound:
            open_names.pop(name, None)
            if cell.marks.get("solution"):
                open_names[name] = cell


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the names a cell binds at its top level, and those it reads anywhere."""
    bound, used = set(), set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {
                (alias.asname or alias.name).split(".")[0] for alias in node.names
            }
        else:
            bound |= {n.id for n in ast.walk(node) if _is_name(n, ast.Store)}
    used = {node.id for node in ast.walk(tree) if _is_name(node, ast.Load)}
    return bound, used


def _is_name(node: ast.AST, context: type) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, context)
