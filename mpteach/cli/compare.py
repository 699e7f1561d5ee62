"""Train one small GPT under several precisions and keep what each did in a record.

A record holds every finished run: after Ctrl-C or a crash the same command goes on.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

from mpteach import files
from mpteach.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach compare`."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the record"
    )
    parser.add_argument(
        "--recipes", nargs="+", metavar="NAME", help="default: all of them"
    )
    add_training_arguments(parser)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments that every command shares which trains models."""
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (3)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="steps a run (400)")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="windows of text a step (32)"
    )
    parser.add_argument(
        "--size", default="25M", help="shape of the model: tiny or 25M (25M)"
    )
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--text", metavar="PATH", help="file or folder (the standard library)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the record, not a table"
    )


def run(args: argparse.Namespace) -> int:
    """Run what the record lacks; return 0 when it is complete, 130 when interrupted."""
    # Loading torch takes a second: `mpteach --help` should not.
    from mpteach import comparison, recipes

    names = [recipes.get(name).name for name in args.recipes or recipes.RECIPES]
    size, settings, corpus, device = asked(args)
    fresh = comparison.begin(size, settings, corpus, device, args.command_line)
    with files.only_writer(args.out):
        finished = _complete(fresh, names, range(args.seeds), corpus, args.out)
    if finished:
        print(args.out.read_text() if args.json else _report(args.out))
    return 0 if finished else 130


def _complete(fresh, names: list[str], seeds: range, corpus, out: Path) -> bool:
    """Do what the record in `out` lacks; return False where Ctrl-C ended it."""
    from tqdm import tqdm

    from mpteach import comparison, records

    record, steps = records.resume(fresh, out), fresh.settings["training"]["steps"]
    _name_the_unavailable(names, fresh.settings["device"])
    todo = comparison.missing(record, names, seeds)
    bar = tqdm(total=len(todo) * steps, unit="step", disable=not todo)

    def on_step(name: str, seed: int, step: int, loss: float) -> None:
        bar.set_postfix_str(f"{name}, seed {seed}, loss {loss:.3f}", refresh=False)
        bar.update(1 if math.isfinite(loss) else steps - step + 1)

    try:
        with bar:
            comparison.run(record, names, seeds, corpus, out, on_step)
    except KeyboardInterrupt:
        kept = (
            f"{out} keeps every finished run" if out.exists() else "No run had finished"
        )
        print(f"Stopped. {kept}; the same command goes on.", file=sys.stderr)
        return False
    return True


def asked(args: argparse.Namespace) -> tuple:
    """Return size, settings, corpus and device as the command line has them."""
    import torch

    from mpteach import data, training

    training.require_count("seeds", args.seeds)
    names = ("steps", "batch", "final_rate")
    given = {name: getattr(args, name, None) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    settings = replace(training.Settings(), **given)
    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.text is None:
        return args.size, settings, data.standard_library(), device
    _require_apart(args.out, args.text)
    return args.size, settings, data.read_text(args.text), device


def _require_apart(out: Path, text: str) -> None:
    """Raise InputError where the record would become a part of the text."""
    if text and out.resolve().is_relative_to(Path(text).resolve()):
        raise InputError(
            f"--out {str(out)!r} lies in the text {text!r}: keep it elsewhere, or the "
            "text changes with every run."
        )


def _name_the_unavailable(names: list[str], device: str) -> None:
    from mpteach import recipes

    reasons = [recipes.unavailable(recipes.get(name), device) for name in names]
    if all(reasons):
        raise InputError(
            f"{'; '.join(reasons)}: choose another of --recipes or --device."
        )
    for reason in filter(None, reasons):
        print(f"{reason}; left out.", file=sys.stderr)


def _report(path: Path) -> str:
    from mpteach import comparison, records

    return f"{comparison.table(records.load(path))}\nThe record is in {path}."
