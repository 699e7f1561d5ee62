"""Studies: one question, the same model and text, a run for each variant and seed."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpteach import (
    collapse,
    comparison,
    epsilons,
    gpt,
    gradients,
    logits,
    scales,
    updates,
)
from mpteach.data import Corpus
from mpteach.errors import InputError
from mpteach.inputs import shown
from mpteach.records import Record
from mpteach.runs import Settings


@dataclass(frozen=True)
class Study:
    """What differs between studies.

    `variants(device)` names the runs of one seed. `one_run(variant, seed, model, corpus,
    settings, on_step)` trains a fresh model and returns a dict for the record.
    `left_out(device)` is a sentence on the variants that a device lacks, or "".
    """

    question: str
    variants: Callable[[str], list[str]]
    one_run: Callable[..., dict[str, Any]]
    left_out: Callable[[str], str] = lambda device: ""


STUDIES = {
    "gradients": Study(
        "where do gradients lie, and which losses of theirs in float16 matter?",
        gradients.variants,
        gradients.one_run,
    ),
    "updates": Study(
        "which updates does a bfloat16 weight swallow, and what does it cost?",
        updates.variants,
        updates.one_run,
    ),
    "epsilon": Study(
        "why do float16 weights under Adam fail, and what remains when it is cured?",
        epsilons.variants,
        epsilons.one_run,
    ),
    "logits": Study(
        "which forms of attention bear logits beyond float16's largest number?",
        logits.variants,
        logits.one_run,
    ),
    "collapse": Study(
        "what does a loss scale do when the gradient of one weight is always NaN?",
        collapse.variants,
        collapse.one_run,
    ),
    "scales": Study(
        "how far out of date may an fp8 scale be, and what fails first?",
        scales.variants,
        scales.one_run,
        scales.left_out,
    ),
}


def begin(
    name: str,
    size: str,
    settings: Settings,
    corpus: Corpus,
    device: str,
    command: str,
) -> Record:
    """Return an empty record of the study `name`; raise InputError for bad input."""
    if not isinstance(name, str) or name not in STUDIES:
        raise InputError(
            f"unknown study {shown(name)}: choose from {', '.join(STUDIES)}."
        )
    own = STUDIES[name].one_run.__module__.removeprefix("mpteach.")
    rooms = (*comparison.ROOMS, own)
    return comparison.begin(size, settings, corpus, device, command, name, rooms)


def missing(record: Record, seeds: Iterable[int]) -> list[tuple[int, str]]:
    """Return the (seed, variant) pairs that `record` lacks, seed by seed."""
    done = {(run["seed"], run["variant"]) for run in record.data["runs"]}
    names = STUDIES[record.experiment].variants(record.settings["device"])
    return [(s, name) for s in seeds for name in names if (s, name) not in done]


def run(
    record: Record,
    seeds: Iterable[int],
    corpus: Corpus,
    path: Path,
    on_step: Callable[[str, int, int], None] = lambda variant, seed, step: None,
) -> Record:
    """Do the runs that `record` lacks, save it to `path` after each, return it complete.

    `on_step(variant, seed, step)` is called after every step. Raises InputError where
    the record cannot be saved.
    """
    study = STUDIES[record.experiment]
    settings = Settings(**record.settings["training"])
    for seed, variant in missing(record, seeds):
        torch.manual_seed(seed)
        model = gpt.GPT(gpt.GPTConfig(**record.settings["model"]))
        model.to(record.settings["device"])

        def stepped(step: int, loss: float, run=(variant, seed)) -> None:
            on_step(*run, step)

        done = study.one_run(variant, seed, model, corpus, settings, stepped)
        runs = [*record.data["runs"], {"variant": variant, **done}]
        record = record.with_data(sorted({*record.seeds, seed}), {"runs": runs})
        record.save(path)
    return record


def table(record: Record) -> str:
    """Return medians over seeds as text: losses, how runs ended, what is left out."""
    lines = [f"{'variant':<18}{'seeds':>5}{'train':>9}{'held out':>10}  ended"]
    for name in dict.fromkeys(run["variant"] for run in record.data["runs"]):
        runs = [run for run in record.data["runs"] if run["variant"] == name]
        cells = [_median(runs, "final_loss"), _median(runs, "validation_loss")]
        stops = sorted({run["non_finite_step"] for run in runs} - {None})
        ended = (
            f"non-finite at step {', '.join(map(str, stops))}" if stops else "finite"
        )
        lines.append(f"{name:<18}{len(runs):>5}{cells[0]:>9}{cells[1]:>10}  {ended}")
    lines.append(STUDIES[record.experiment].left_out(record.settings["device"]))
    return "\n".join(filter(None, lines))


def _median(runs: list[dict], key: str) -> str:
    values = [run[key] for run in runs if run[key] is not None]
    return f"{statistics.median(values):.4f}" if values else "-"
