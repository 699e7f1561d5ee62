"""The `mpteach` command: one module a subcommand, one sentence and status 2 on bad input."""

import argparse
import shlex
import sys
from typing import NoReturn

from mpteach.cli import compare, doctor, lab
from mpteach.errors import InputError

COMMANDS = {"doctor": doctor, "lab": lab, "compare": compare}


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
    """Run one subcommand and return its exit status (0 done, 2 bad input)."""
    words = sys.argv[1:] if argv is None else argv
    try:
        args = parser().parse_args(words)
        args.command_line = shlex.join(["mpteach", *words])
        return COMMANDS[args.command].run(args)
    except InputError as error:
        print(f"mpteach: {error}", file=sys.stderr)
        return 2
