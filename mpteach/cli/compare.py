"""Train one small GPT under several precisions and keep what each did in a record.

A record holds every finished run, and a checkpoint beside it the one in progress: after
Ctrl-C or a crash the same command goes on.
"""

import argparse
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
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        default=200,
        metavar="N",
        help="keep the run in progress after every N steps; 0: never (200)",
    )
    parser.add_argument(
        "--compile",
        dest="compiled",
        metavar="PART",
        help="what torch.compile gets on a GPU: blocks or whole (nothing)",
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, metavar="N", help="count seeds from here (0)"
    )
    parser.add_argument(
        "--join",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="first take in the runs of other parts of this comparison, made side by side",
    )
    add_training_arguments(parser)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments that every command shares which trains models."""
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="how many seeds (3)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="steps a run (400)")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="windows of text a step (32)"
    )
    parser.add_argument(
        "--size",
        default="25M",
        metavar="NAME",
        help="shape of the model: tiny, 25M, 124M, 350M or 1.3B (25M)",
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="X", help="its peak (0.0006)"
    )
    parser.add_argument(
        "--warmup-steps", type=int, metavar="N", help="steps until that peak (50)"
    )
    parser.add_argument(
        "--final-rate",
        type=float,
        metavar="X",
        help="learning rate at the last step, as a share of its peak (1)",
    )
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--text", metavar="PATH", help="file or folder (the standard library)"
    )
    source.add_argument(
        "--tokens", metavar="FILE", help="a tokenizer's ids, an integer array in .npy"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the record, not a table"
    )


def run(args: argparse.Namespace) -> int:
    """Run what the record lacks; return 0 when it is complete, 130 when interrupted."""
    # Loading torch takes a second: `mpteach --help` should not.
    from mpteach import comparison, recipes, records, runs

    every = args.checkpoint_every
    runs.require_count("checkpoint_every", every, lowest=0)
    runs.require_count("first_seed", args.first_seed, lowest=0)
    names = [recipes.get(name).name for name in args.recipes or recipes.RECIPES]
    size, settings, corpus, device = asked(args)
    fresh = comparison.begin(size, settings, corpus, device, args.command_line)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    with files.only_writer(args.out):
        record = _joined(records.resume(fresh, args.out), fresh, args)
        finished = _complete(record, names, seeds, corpus, args.out, every)
    if finished:
        print(args.out.read_text() if args.json else _report(args.out))
    return 0 if finished else 130


def _joined(record, fresh, args: argparse.Namespace):
    """Return `record` with the runs of the records to join, saved where there are new."""
    from mpteach import comparison, records

    joined = record
    for path in args.join:
        if not path.exists():
            raise InputError(f"there is no record {str(path)!r} to join: check the name.")
        joined = comparison.join(joined, records.resume(fresh, path))
    if joined is not record:
        joined.save(args.out)
    return joined


def _complete(
    record, names: list[str], seeds: range, corpus, out: Path, checkpoint_every: int
) -> bool:
    """Do what the record in `out` lacks; return False where Ctrl-C ended it."""
    from tqdm import tqdm

    from mpteach import comparison

    steps = record.settings["training"]["steps"]
    _name_the_unavailable(names, record.settings["device"])
    todo = comparison.missing(record, names, seeds)
    bar = tqdm(total=len(todo) * steps, unit="step", disable=not todo)

    def on_step(name: str, seed: int, step: int, loss: float) -> None:
        bar.set_postfix_str(f"{name}, seed {seed}, loss {loss:.3f}", refresh=False)
        # A run may begin at its checkpoint and end early.
        bar.update(todo.index((seed, name)) * steps + step - bar.n)

    try:
        with bar:
            comparison.run(record, names, seeds, corpus, out, on_step, checkpoint_every)
    except KeyboardInterrupt:
        kept = (
            f"{out} keeps every finished run" if out.exists() else "No run had finished"
        )
        if comparison.checkpoint_path(out).exists():
            kept += ", but one is kept as far as its checkpoint"
        print(f"Stopped. {kept}; the same command goes on.", file=sys.stderr)
        return False
    return True


def asked(args: argparse.Namespace) -> tuple:
    """Return size, settings, corpus and device as the command line has them."""
    import torch

    from mpteach import data, runs

    runs.require_count("seeds", args.seeds)
    names = "steps batch learning_rate warmup_steps final_rate compiled".split()
    given = {name: getattr(args, name, None) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    settings = replace(runs.Settings(), **given)
    device = args.device
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.tokens is not None:
        _require_apart(args.out, args.tokens)
        return args.size, settings, data.read_tokens(args.tokens), device
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
    from mpteach import differences, records

    record = records.load(path)
    lines = [differences.table(record), *differences.sentences(record)]
    return "\n".join([*lines, f"The record is in {path}."])
