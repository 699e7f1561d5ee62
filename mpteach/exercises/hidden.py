"""Answers tried on data that no check shows: what the marks of a submission rest on.

A notebook can undo its own checks: redefine `check`, patch this package, hush its
kernel. So a marked copy only prints what an answer gives on the hidden cases
(`show_values`), and `is_right` judges that outside of the kernel, where only right
values pass.
"""

import copy
import itertools
import json
import math
from collections.abc import Iterable
from typing import Any

from mpteach.exercises.cases import CASES, JUDGES, agrees
from mpteach.exercises.limits import within
from mpteach.exercises.registry import quiet

_MARK = "values on hidden cases: "
_MOST_SECONDS = 10
_MOST_PARTS = 1000  # of one value; some never end


def show_values(name: str, answer: Any) -> None:
    """Print in one line of JSON what `answer` gives on the hidden cases of `name`.

    Raises what the answer raises, and TooLate after 10 seconds.
    """
    with quiet():
        values = within(_MOST_SECONDS, lambda: _values(name, answer))
    print(_MARK + json.dumps(values))


def is_right(name: str, printed: str) -> bool:
    """Return whether `printed` ends with right values on the hidden cases of `name`.

    An exercise without hidden cases asks for an empty list: it rests on its check.
    """
    last = printed.rstrip("\n").rsplit("\n", 1)[-1]
    if not last.startswith(_MARK):
        return False
    try:
        values = json.loads(last.removeprefix(_MARK))
    except (ValueError, RecursionError):
        return False
    cases = CASES.get(name, [])
    if not isinstance(values, list) or len(values) != len(cases):
        return False
    judge = JUDGES.get(name, _all_agree)
    return judge(cases, values)


def _values(name: str, answer: Any) -> list[Any]:
    cases = CASES.get(name, [])
    if not callable(answer):
        return [_plain(answer) for _ in cases]
    return [_plain(answer(*copy.deepcopy(args))) for args, _ in cases]


def _plain(value: Any) -> Any:
    """Return `value` as what JSON holds: arrays as lists, numbers as floats.

    An array of one number is that number, as it is where Python compares it.
    """
    if hasattr(value, "tolist"):
        is_one = math.prod(getattr(value, "shape", (0,))) == 1
        value = value.item() if is_one else value.tolist()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Iterable):
        return [_plain(part) for part in itertools.islice(value, _MOST_PARTS)]
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _all_agree(cases: list[tuple], values: list[Any]) -> bool:
    return all(agrees(found, right) for found, (_, right) in zip(values, cases))
