"""Say where the memory of a training step goes, without a GPU, or measure it on one.

Bytes are traced through a model of CUDA's allocator. A model of your own is given as
FILE.py:FUNCTION; FUNCTION(batch) returns (make_model, make_batch) and, where the model
does not return its loss, a third: loss_fn(model, *batch).
"""

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpteach import files
from mpteach.errors import InputError, require
from mpteach.inputs import shown

SHAPE = ("layers", "hidden", "heads", "kv_heads", "vocab")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach memory`."""
    model = parser.add_argument_group("the model")
    model.add_argument("--model", metavar="NAME", help="a preset, such as gpt2 (gpt2)")
    model.add_argument(
        "--module",
        metavar="FILE.py:FUNCTION",
        help="one of your own: FUNCTION(batch) returns make_model, make_batch and, where "
        "the model does not return its loss, loss_fn(model, *batch)",
    )
    for name in SHAPE:
        option = f"--{name.replace('_', '-')}"
        model.add_argument(option, type=int, metavar="N", help="in place of the preset's")
    step = parser.add_argument_group("the step")
    step.add_argument("--seq", type=int, default=1024, metavar="N", help="tokens (1024)")
    step.add_argument("--batch", type=int, default=8, metavar="N", help="sequences (8)")
    step.add_argument(
        "--micro-batches", type=int, default=1, metavar="N", help="each of --batch (1)"
    )
    step.add_argument("--recipe", metavar="NAME", help="such as amp-bf16 (fp32)")
    step.add_argument("--optimizer", default="adamw-fused", metavar="NAME")
    step.add_argument("--attention", default="sdpa", help="sdpa or materialised (sdpa)")
    step.add_argument("--dropout", type=float, default=0.0, metavar="P", help="(0)")
    step.add_argument("--checkpointing", action="store_true", help="of each block")
    step.add_argument("--evaluate", action="store_true", help="forward passes alone")
    step.add_argument(
        "--cublas-workspace", type=int, metavar="BYTES", help="(as on an H200)"
    )
    parser.add_argument(
        "--fit", metavar="24GB", help="the largest batch that fits, for each recipe"
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure it on the GPU of this machine"
    )
    parser.add_argument(
        "--grid", action="store_true", help="with --measure: the course's whole grid"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the record to write")
    parser.add_argument("--json", action="store_true", help="bytes, for a script")


def run(args: argparse.Namespace) -> int:
    """Trace or measure what was asked for and print it; return 0."""
    given = args.grid or args.out
    require(args.measure or not given, "--grid and --out go with --measure.")
    require(not (args.measure and args.fit), "--fit is traced: leave out --measure.")
    require(
        args.optimizer != "adam8bit",
        "adam8bit is counted by mpteach.memory.formula alone, since torch has none to "
        "trace: choose another --optimizer.",
    )
    if args.measure:
        return _measure(args)
    if args.fit:
        return _fit(args)
    timeline = _trace(_case(args), args, args.recipe or "fp32")
    summary = timeline.summary()
    print(json.dumps(summary) if args.json else _table(timeline))
    return 0


def _setting(args: argparse.Namespace) -> Any:
    from mpteach.memory.cases import Setting

    return Setting(
        args.model or "gpt2",
        args.batch,
        args.seq,
        args.recipe or "fp32",
        args.optimizer,
        args.attention,
        args.dropout,
        args.checkpointing,
        args.micro_batches,
        args.evaluate,
    )


def _case(args: argparse.Namespace) -> Any:
    from mpteach.memory import cases, decoder

    setting = _setting(args)
    changed = {n: getattr(args, n) for n in SHAPE if getattr(args, n) is not None}
    if args.module:
        require(
            not (args.model or changed),
            "--module brings its own model: leave out --model and its sizes.",
        )
        return _of_user(args.module, args.batch)
    if setting.model not in cases.SHAPES:
        require(not changed, f"{setting.model} has one shape: leave out its sizes.")
        return cases.case(setting)
    if "vocab" in changed:
        changed["vocabulary"] = changed.pop("vocab")
    shape = cases.SHAPES[setting.model]
    if changed and "kv_heads" not in changed and "heads" in changed:
        changed["kv_heads"] = None
    if setting.attention not in decoder.ATTENTIONS:
        raise InputError(
            f"attention was {shown(setting.attention)}: choose from "
            f"{', '.join(decoder.ATTENTIONS)}."
        )
    return cases.decoder_case(
        replace(shape, **changed), (args.batch, args.seq), setting
    )


def _of_user(where: str, batch: int) -> Any:
    """Return the Case of a function in a file; its errors are told in a sentence."""
    from mpteach.memory.step import output_is_loss
    from mpteach.memory.zoo import Case

    path, _, name = where.rpartition(":")
    require(
        path and name.isidentifier(),
        f"--module was {where!r}: give FILE.py:FUNCTION.",
    )
    require(Path(path).is_file(), f"there is no file {path!r}: check the name.")
    spec = importlib.util.spec_from_file_location("module_of_user", path)
    require(spec, f"{path!r} is no Python file: give FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where e.g. dataclasses look it up
    folder = str(Path(path).resolve().parent)
    sys.path[:0] = [folder] if folder not in sys.path else []  # for what it imports
    _told(where, lambda: spec.loader.exec_module(module))
    require(hasattr(module, name), f"{path} has no {name}: check the name.")
    made = _told(where, lambda: getattr(module, name)(batch))
    good = isinstance(made, tuple) and len(made) in (2, 3) and all(map(callable, made))
    require(
        good,
        f"{where} returned {shown(made)}: return make_model, make_batch and, if the model "
        "does not return its loss, loss_fn.",
    )
    return Case(*made, *(() if len(made) == 3 else (output_is_loss,)))


def _told(where: str, call: Callable[[], Any]) -> Any:
    """Return what `call` returns; tell its error in a sentence, its prints to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return call()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        first = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{where} failed with {type(error).__name__}: {first or 'no message'}."
        ) from error


def _trace(case: Any, args: argparse.Namespace, recipe: str) -> Any:
    from mpteach.memory.trace import trace

    workspace = args.cublas_workspace
    require(
        workspace is None or workspace >= 0,
        f"--cublas-workspace was {workspace}: give a number of bytes from 0.",
    )
    return _told(
        args.module or "the model",
        lambda: trace(
            case.make_model,
            case.make_batch,
            recipe,
            args.optimizer,
            loss_fn=case.loss_fn,
            micro_batches=args.micro_batches,
            evaluate=args.evaluate,
            cublas_workspace=workspace,
        ),
    )


def _fit(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mpteach.memory import fit, recipes

    budget = fit.bytes_of(args.fit)
    names = [args.recipe] if args.recipe else list(recipes.RECIPES)
    found, smallest = {}, {}
    for name in tqdm(names, unit="recipe", disable=len(names) == 1):
        sizes: dict[int, int] = {}

        def need(batch: int, name: str = name, sizes: dict = sizes) -> int:
            if batch not in sizes:
                args.batch = batch
                traced = _trace(_case(args), args, name)
                sizes[batch] = traced.reserved_peak + fit.OUTSIDE_BYTES
            return sizes[batch]

        found[name] = fit.largest_batch(need, budget)
        smallest[name] = sizes[1]
    if not any(found.values()):
        least = min(smallest.values())
        raise InputError(
            f"batch 1 needs {least / 10**9:.2f} GB, more than {args.fit}: take a smaller "
            "model, shorter sequences or --checkpointing."
        )
    if args.json:
        print(json.dumps(found))
    else:
        outside = f"{fit.OUTSIDE_BYTES / 10**9:.2f} GB for CUDA"
        print(f"largest batch in {args.fit}, with {outside}")
        for name, batch in found.items():
            print(f"{name:<14}{batch or 'does not fit':>6}")
    return 0


def _measure(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mpteach import measurements, records

    chosen = args.grid and args.model
    require(not chosen, "--grid has its own models: leave out --model.")
    require(args.out, "--measure keeps a record: give --out FILE.")
    own = args.module or any(getattr(args, name) is not None for name in SHAPE)
    require(not own, "--measure takes a --model by name: leave out --module and sizes.")
    settings = measurements.grid() if args.grid else [_setting(args)]
    fresh = measurements.begin(settings, args.command_line)
    with files.only_writer(args.out):
        record = records.resume(fresh, args.out)
        todo = len(measurements.missing(record, settings))
        with tqdm(total=todo, unit="case", disable=not todo) as bar:
            record = measurements.run(record, settings, args.out, bar.update)
    print(record.text() if args.json else measurements.table(record))
    return 0


def _table(timeline: Any) -> str:
    peak = timeline.peak
    lines = [f"{'at the peak, in the ' + timeline.phase_of_peak:<34}{'MiB':>10}"]
    held = timeline.by_category(peak)
    for name in sorted(held, key=held.get, reverse=True):
        if held[name]:
            lines.append(f"  {name:<32}{held[name] / 2**20:>10,.1f}")
    for name in ("requested_peak", "allocated_peak", "reserved_peak"):
        lines.append(f"{name:<34}{getattr(timeline, name) / 2**20:>10,.1f}")
    return "\n".join(lines)
