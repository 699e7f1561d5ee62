"""The `mpteach` command: one module a subcommand, one sentence and status 2 on bad input."""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mpteach import course
from mpteach.cli import (
    accumulate,
    bench,
    ceilings,
    compare,
    doctor,
    identity,
    lab,
    memory,
    parity,
    progress,
    study,
)
from mpteach.errors import InputError

COMMANDS = {
    "doctor": doctor,
    "lab": lab,
    "progress": progress,
    "compare": compare,
    "accumulate": accumulate,
    "bench": bench,
    "ceilings": ceilings,
    "memory": memory,
    "study": study,
    "parity": parity,
    "identity": identity,
}
INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError with argparse's message."""
        raise InputError(f"{message}; see '{self.prog} --help'.")


def parser() -> Parser:
    """Return the parser of every subcommand; each module describes its own arguments."""
    top = Parser(prog="mpteach", description="The course's own commands.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(
            commands.add_parser(name, help=summary, description=summary)
        )
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 0 done, 2 bad input, 130 Ctrl-C."""
    with _no_closed_outputs():
        return _status(argv)


@contextlib.contextmanager
def _no_closed_outputs() -> Iterator[None]:
    """Let nothing become of what is written to an output closed by e.g. `>&-`."""
    with contextlib.ExitStack() as stack, open(os.devnull, "w") as nowhere:
        if sys.stdout is None:
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        if sys.stderr is None:
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _status(argv: list[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except InputError as error:
        sentence = str(error)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; python would complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        sentence = (
            f"{error.name} cannot be loaded: run 'mpteach doctor' for the remedy."
        )
    except MemoryError:
        sentence = "this machine's memory is too small for it: ask for less."
    except OSError as error:
        what = error.filename or "the output"
        sentence = f"{what} cannot be used ({error.strerror}): free it or name another."
    except RuntimeError as error:
        # What pathlib raises for a link that leads back to itself, before Python 3.13.
        if not str(error).startswith("Symlink loop"):
            raise
        sentence = f"{error}: delete the link or name another."
    # The output for errors may be on the disk that is full.
    with contextlib.suppress(OSError):
        print(f"mpteach: {sentence}", file=sys.stderr)
    return 2


def _run(words: list[str]) -> int:
    args = parser().parse_args(words)
    course.require_current_folder()
    args.command_line = shlex.join(["mpteach", *map(_without_folders, words)])
    return COMMANDS[args.command].run(args)


def _without_folders(word: str) -> str:
    """Return `word`, of an absolute path its name: a record tells nobody's folders."""
    option, equals, value = word.rpartition("=")
    path = Path(value)
    return f"{option}{equals}{path.name}" if path.is_absolute() else word
