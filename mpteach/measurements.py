"""Measure the memory of a grid of training steps on a GPU, and keep it in a record."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mpteach import records
from mpteach.memory.cases import Setting, case, how
from mpteach.memory.measure import measure
from mpteach.records import Record

EXPERIMENT = "memory"
_ALL = ("fp32", "tf32", "amp-fp16", "amp-bf16", "pure-bf16", "fp16-master", "bf16-master")
_FEW = ("fp32", "amp-bf16", "pure-bf16")
_ZOO = {"mlp": 256, "convnet": 64, "reused": 256, "frozen": 256, "checkpointed": 4096}


# The largest batches of gpt2 that `mpteach memory --fit 24GB` gave, to be checked: these
# and the next larger ones are measured.
FIT_24GB = {"fp32": 15, "amp-bf16": 18, "pure-bf16": 31, "bf16-master": 30}


def grid() -> list[Setting]:
    """Return the course's own grid: decoders, and models that are none."""
    return [*_gpt2(), *_other_decoders(), *_no_decoders()]


def _gpt2() -> Iterator[Setting]:
    for recipe in _ALL:
        yield Setting("gpt2", 8, recipe=recipe)
    for name in ("sgd", "momentum", "adam"):
        for kernel in ("foreach", "fused"):
            yield Setting("gpt2", 8, optimizer=f"{name}-{kernel}")
    for recipe in (*_FEW, "bf16-master"):
        for kernel in ("foreach", "fused"):
            yield Setting("gpt2", 1, 256, recipe, f"adamw-{kernel}")
    for recipe in _FEW:
        yield Setting("gpt2", 8, recipe=recipe, optimizer="adamw-foreach")
        yield Setting("gpt2", 8, recipe=recipe, dropout=0.1)
        yield Setting("gpt2", 4, recipe=recipe, attention="materialised")
        yield Setting("gpt2", 8, recipe=recipe, checkpointing=True)
        yield Setting("gpt2", 4, recipe=recipe, micro_batches=4)
        yield Setting("gpt2", 8, recipe=recipe, evaluate=True)
    yield Setting("gpt2", 4, recipe="amp-bf16", attention="materialised", dropout=0.1)
    for recipe, batch in FIT_24GB.items():
        yield Setting("gpt2", batch, recipe=recipe)
        yield Setting("gpt2", batch + 1, recipe=recipe)


def _other_decoders() -> Iterator[Setting]:
    for recipe in (*_FEW, "bf16-master"):
        yield Setting("small", 32, 512, recipe)
        yield Setting("modern", 4, recipe=recipe)
    for recipe in _FEW:
        yield Setting("small", 32, 512, recipe, dropout=0.1)
        yield Setting("small", 8, 512, recipe, attention="materialised")
    yield Setting("modern", 4, recipe="amp-bf16", checkpointing=True)
    yield Setting("gpt2-medium", 8, recipe="amp-fp16", optimizer="adamw-foreach")
    yield Setting("gpt2-xl", 2, recipe="amp-bf16")


def _no_decoders() -> Iterator[Setting]:
    for name, batch in _ZOO.items():
        for recipe in ("fp32", "pure-bf16"):
            yield Setting(name, batch, recipe=recipe, optimizer="adamw-foreach")
        yield Setting(name, batch, recipe="amp-bf16")
        yield Setting(name, batch, recipe="fp16-master", optimizer="momentum-fused")
        yield Setting(
            name, batch, recipe="amp-fp16", optimizer="sgd-foreach", micro_batches=3
        )
        yield Setting(name, batch, recipe="amp-bf16", evaluate=True)


def begin(settings: Iterable[Setting], command: str) -> Record:
    """Return an empty record of these settings on this machine's GPU."""
    names = [setting.name for setting in settings]
    return records.begin(EXPERIMENT, {"device": "cuda", "cases": names}, command, "cuda")


def missing(record: Record, settings: Iterable[Setting]) -> list[Setting]:
    """Return the settings that `record` lacks, in order."""
    done = [row["setting"] for row in record.data.get("rows", [])]
    return [setting for setting in settings if asdict(setting) not in done]


def run(
    record: Record,
    settings: Iterable[Setting],
    path: Path,
    on_row: Callable[[], Any] = lambda: None,
) -> Record:
    """Measure what `record` lacks, save it to `path` after each, return it complete.

    A row has the `setting` and the figures of `measure`, in bytes. What does not fit is a
    row too: `out_of_memory` is true.
    """
    for setting in missing(record, settings):
        torch.manual_seed(0)
        made = case(setting)
        try:
            found: dict[str, Any] = measure(
                made.make_model, made.make_batch, loss_fn=made.loss_fn, **how(setting)
            )
        except torch.OutOfMemoryError:
            found = {"out_of_memory": True}
        rows = [*record.data.get("rows", []), {"setting": asdict(setting), **found}]
        record = record.with_data([0], {"rows": rows})
        record.save(path)
        on_row()
    return record


def table(record: Record) -> str:
    """Return the measured peaks as text, in MiB."""
    lines = [f"{'':<58}{'allocated':>10}{'reserved':>10}"]
    for row in record.data.get("rows", []):
        peaks = [row.get(f"{kind}_peak") for kind in ("allocated", "reserved")]
        cells = (f"{peak / 2**20:>10,.1f}" if peak else f"{'-':>10}" for peak in peaks)
        lines.append(f"{Setting(**row['setting']).name:<58}{''.join(cells)}")
    return "\n".join(lines)
