"""The exercise mechanism: one stable line for any answer, raising only when graded."""

import asyncio
import functools
import gc
import io
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from mpteach.errors import InputError
from mpteach.exercises import check, registry, show_source


@pytest.fixture(autouse=True)
def square(monkeypatch):
    """An exercise "99-1" asking for a function that squares, "99-2" for the value 4."""
    registry.names()  # loads every subject before the table is copied
    monkeypatch.setattr(registry, "_CHECKERS", dict(registry._CHECKERS))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)

    @registry.exercise("99-1")
    def by_calls(answer):
        for x in (3, 4):
            if answer(x) != x * x:
                return f"for {x} you say\n  {answer(x)}"
        return ""

    @registry.exercise("99-2")
    def by_value(answer):
        return "" if float(answer) == 4.0 else "look again"


def said(capsys, name, answer):
    check(name, answer)
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.count("\n") == 1
    return captured.out.rstrip("\n")


def stub(x): ...


def gives_dots(x):
    return ...


def forgets_a_branch(x):
    if x == 3:
        return 9


def leaves(x):
    sys.exit("bye")


def recurses(x):
    return recurses(x)


async def waits(x):
    return x * x


async def waits_in_turn(x):
    yield x * x


def hands_over_coroutines(base, own):
    return [waits(x) for x in base]


def drops_a_coroutine(base, own):
    waiting = waits(base[0])
    raise ValueError(f"{type(waiting).__name__} at hand")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Cancelled(BaseException):
    pass


def raises(error):
    def fails(x):
        raise error

    return fails


def nested(depth):
    inner = 4
    for _ in range(depth):
        inner = [inner]
    return inner


def endless():
    """A list that holds itself, next to a number."""
    answer = [4]
    answer.append(answer)
    return answer


class Squares:
    """Callable, but no function."""

    def __call__(self, x):
        return x * x


class Nameless:
    def __getattr__(self, name):
        raise ValueError(f"no {name}")

    def __call__(self, x):
        return x


def chatters(x):
    print("hello")
    print("trouble", file=sys.stderr)
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    return np.float64(x) ** 2 + 0 * np.exp(np.float64(-1e9))


class TestCheck:
    @pytest.mark.parametrize(
        "answer",
        [
            None,
            ...,
            stub,
            functools.partial(stub),
            gives_dots,
            (None, None),
            {"a": ..., "b": [None]},
        ],
    )
    def test_a_stub_is_not_attempted(self, capsys, answer):
        assert said(capsys, "99-1", answer) == "99-1: not attempted"

    @pytest.mark.parametrize("answer", [lambda x: x * x, chatters, Squares()])
    def test_a_right_function_is_correct_and_silent(self, capsys, answer):
        assert said(capsys, "99-1", answer) == "99-1: correct"

    @pytest.mark.parametrize(
        ("answer", "hint"),
        [
            (lambda x: x + 6, "for 4 you say 10"),
            (forgets_a_branch, "for 4 you say None"),
            (
                lambda x: x / 0,
                "<lambda>(3) raised ZeroDivisionError: division by zero.",
            ),
            (
                lambda x: [][x],
                "<lambda>(3) raised IndexError: list index out of range.",
            ),
            (leaves, "leaves(3) raised SystemExit: bye."),
            (recurses, "recurses(3) raised RecursionError: maximum recursion depth"),
            (lambda: 1, "raised TypeError: "),
            (raises(Unspeakable()), "fails(3) raised Unspeakable."),
            (raises(asyncio.CancelledError()), "fails(3) raised CancelledError."),
            (raises(GeneratorExit()), "fails(3) raised GeneratorExit."),
            (raises(Cancelled("own")), "fails(3) raised Cancelled: own."),
            (functools.partial(pow, 3), "for 3 you say 27"),
            (waits, "asynchronous, so that calling it computes nothing: write def"),
            (waits_in_turn, "for 3 you say <async_generator object"),
            (9, "an answer of type int is no function: give the function itself."),
            ([9], "an answer of type list is no function: give the function itself."),
        ],
    )
    def test_a_wrong_answer_gets_a_hint_of_its_own(self, capsys, answer, hint):
        line = said(capsys, "99-1", answer)
        assert line.startswith("99-1: not yet. ") and hint in line

    def test_an_object_that_refuses_to_be_looked_at_gets_a_hint(self, capsys):
        line = said(capsys, "99-1", Nameless())
        assert "type Nameless cannot be used here (ValueError: no __name__)" in line

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            ("four", "str"),
            ([4, 4], "list"),
            (len, "builtin_function_or_method"),
            (endless(), "list"),
            (nested(5000), "list"),
            ({"a": nested(5000)}, "dict"),
        ],
    )
    def test_a_value_of_the_wrong_kind_gets_a_hint(self, capsys, answer, kind):
        line = said(capsys, "99-2", answer)
        assert f"an answer of type {kind} cannot be used here" in line

    def test_an_address_is_never_printed(self, capsys):
        def shows(x):
            raise ValueError(f"bad {object()!r}")

        assert said(capsys, "99-1", shows).endswith("ValueError: bad <object object>.")

    def test_a_checker_that_gives_no_hint_never_says_correct(self, capsys):
        registry.exercise("99-3")(lambda answer: None)
        assert "the checker returned None" in said(capsys, "99-3", 1)

    def test_a_coroutine_for_an_answer_is_closed(self, capsys):
        assert "write def, not async def" in said(capsys, "99-2", waits(2))

    @pytest.mark.parametrize("answer", [hands_over_coroutines, drops_a_coroutine])
    def test_coroutines_are_gone_before_warnings_return(self, capsys, answer):
        gc.collect()
        gc.disable()
        try:
            line = said(capsys, "08-1", answer)
            with warnings.catch_warnings(record=True) as late:
                warnings.simplefilter("always")
                gc.collect()
        finally:
            gc.enable()
        assert f"{answer.__name__}([10.0, 10.0, 10.0], " in line and late == []

    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            ("99-1", lambda x: "x" * 10**6),
            ("99-1", raises(ValueError("x" * 10**6))),
            ("99-2", "x" * 10**6),
            ("01-5", lambda code: "x" * 10**6),
            ("template-2", lambda start, dtype: "x" * 10**6),
            ("x" * 10**6, 4),
        ],
    )
    def test_a_line_is_short(self, capsys, name, answer):
        assert len(said(capsys, name, answer)) < 400

    @pytest.mark.parametrize("name", [[], {}, None, 3])
    def test_an_id_of_the_wrong_kind_is_an_unknown_one(self, capsys, name):
        assert said(capsys, name, 1).startswith(f"{name}: no such exercise; there are ")

    @pytest.mark.parametrize(("encoding", "shown"), [
        ("utf-8", "\\udcff and é."), ("ascii", "\\udcff and \\xe9."),
    ])  # fmt: skip
    def test_what_the_output_cannot_print_is_escaped(
        self, monkeypatch, encoding, shown
    ):
        output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", output)
        check("99-1", raises(ValueError("\udcff and é")))
        output.flush()
        assert output.buffer.getvalue().decode(encoding).endswith(f"{shown}\n")

    def test_an_interrupt_reaches_the_student(self):
        with pytest.raises(KeyboardInterrupt):
            check("99-1", raises(KeyboardInterrupt()))

    def test_an_unknown_id_is_one_sentence_with_the_known_ones(self, capsys):
        line = said(capsys, "99-9", 1)
        assert (
            line.startswith("99-9: no such exercise; there are ")
            and "template-1" in line
        )

    def test_a_subject_that_cannot_load_is_named_and_stops_no_other(
        self, capsys, monkeypatch
    ):
        monkeypatch.setattr(registry, "_BROKEN", {})
        monkeypatch.setattr(registry, "_CHECKERS", {})
        real = registry.importlib.import_module

        def failing(name):
            if name.endswith(".template"):
                raise ImportError("no numpy here")
            return real(name)

        monkeypatch.setattr(registry.importlib, "import_module", failing)
        line = said(capsys, "template-1", 1)
        assert "template did not load (ImportError: no numpy here)" in line

    def test_two_subjects_cannot_share_an_id(self):
        def other(answer):
            return ""

        other.__module__ = "mpteach.exercises.other"
        with pytest.raises(ValueError, match="'99-1' is in .* and again in"):
            registry.exercise("99-1")(other)


def never_ends(x):
    while True:
        pass


def swallows_everything(x):
    while True:
        try:
            time.sleep(0.001)
        except:  # noqa: E722
            pass
        finally:
            x += 1


def does_not_end_at_last(x):
    try:
        raise ValueError
    finally:
        never_ends(x)


def recurses_twice(x):
    return recurses_twice(x - 1) + recurses_twice(x - 1) if x > -60 else 1


class Sticks:
    """A value that takes forever to become a number."""

    def __float__(self):
        return never_ends(4)


class TestTimeLimit:
    @pytest.fixture(autouse=True)
    def hurried(self, monkeypatch):
        monkeypatch.setattr(registry, "_MOST_SECONDS", 0.5)

    @pytest.mark.parametrize(
        "answer",
        [never_ends, swallows_everything, does_not_end_at_last, recurses_twice],
    )
    def test_a_function_that_never_returns_gets_a_hint(self, capsys, answer):
        assert said(capsys, "99-1", answer) == (
            f"99-1: not yet. {answer.__name__}(3) was still running after 0.5 seconds: "
            "look for a loop that never ends."
        )

    def test_a_value_that_takes_forever_gets_a_hint(self, capsys):
        line = said(capsys, "99-2", Sticks())
        assert "not yet. Your answer was still running after 0.5 seconds" in line

    def test_an_error_that_never_says_what_it_is_gets_a_hint(self, capsys):
        class Mute(Exception):
            def __str__(self):
                return never_ends(4)

        def raises(x):
            raise Mute

        assert "raises(3) was still running after 0.5" in said(capsys, "99-1", raises)

    def test_it_holds_in_any_thread(self, capsys):
        thread = threading.Thread(target=check, args=("99-1", swallows_everything))
        thread.start()
        thread.join(60)
        assert "was still running" in capsys.readouterr().out

    def test_a_check_leaves_no_alarm_behind(self, capsys):
        for answer in (never_ends, lambda x: x * x, never_ends):
            said(capsys, "99-1", answer)
        # Longer than the limit, and than the time after which an end comes again.
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            said(capsys, "99-2", 4)

    def test_it_is_a_failed_test_when_graded(self, capsys, monkeypatch):
        monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
        with pytest.raises(AssertionError, match="99-1: not yet. never_ends"):
            check("99-1", never_ends)


class TestGraded:
    @pytest.mark.parametrize("value", ["validate", "autograde", ""])
    @pytest.mark.parametrize(
        ("name", "answer", "verdict"),
        [
            ("99-2", 5, "not yet"),
            ("99-2", None, "not attempted"),
            ("99-9", 1, "no such"),
        ],
    )
    def test_all_but_correct_raises(
        self, capsys, monkeypatch, value, name, answer, verdict
    ):
        monkeypatch.setenv("NBGRADER_EXECUTION", value)
        with pytest.raises(AssertionError, match=f"{name}: {verdict}"):
            check(name, answer)
        assert capsys.readouterr().err == ""

    def test_correct_does_not(self, capsys, monkeypatch):
        monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
        assert said(capsys, "99-2", 4) == "99-2: correct"


def test_the_package_imports_neither_nbgrader_nor_jupyter_to_check():
    program = (
        "import sys; from mpteach.exercises import check, show_source;"
        "check('template-1', 151);"
        "show_source(check);"
        "print({'nbgrader', 'IPython', 'ipykernel'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = ran.stdout.splitlines()
    assert (
        lines[0] == "template-1: correct"
        and lines[1] == "# from mpteach.exercises.registry"
    )
    assert lines[-1] == "set()"


class TestShowSource:
    def test_a_function_is_shown_with_its_module(self, capsys):
        show_source(check)
        shown = capsys.readouterr().out
        assert shown.startswith(
            "# from mpteach.exercises.registry\ndef check(name: str"
        )

    def test_a_method_and_a_property_stand_at_the_margin(self, capsys):
        class Box:
            @property
            def size(self):
                return 1

            def fill(self):
                return 2

        show_source(Box.size)
        show_source(Box.fill)
        shown = capsys.readouterr().out
        assert "\n@property\ndef size(self):" in shown and "\ndef fill(self):" in shown

    @pytest.mark.parametrize(
        ("thing", "named"),
        [
            (len, "builtin_function_or_method len is"),
            (3, "int 3 is"),
            (None, "NoneType None is"),
            (np, "module numpy is"),
            (property(), "NoneType None is"),
        ],
    )
    def test_what_has_no_source_is_refused(self, thing, named):
        with pytest.raises(InputError, match=f"^{named} no function, method or class"):
            show_source(thing)
