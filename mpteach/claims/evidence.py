"""What the claims are judged by: the records of the course, each read once."""

from collections.abc import Mapping
from functools import cache

import torch

from mpteach import ceilings, comparison, differences, gpt, records
from mpteach.course import RECORDS
from mpteach.errors import require
from mpteach.hardware import peaks
from mpteach.memory.cases import Setting
from mpteach.records import Record


@cache
def record(name: str) -> Record:
    """Return the committed record `name`."""
    return records.committed(name)


@cache
def comparisons() -> dict[str, Record]:
    """Return the committed comparisons by the size of their model, the largest first.

    Of several of one size that of the longest training counts.
    """
    return _by_size(_committed())


@cache
def uncompiled() -> dict[str, Record]:
    """Return the comparisons as `comparisons` does, of those that torch did not compile."""
    plain = [one for one in _committed() if not one.settings["training"].get("compiled")]
    return _by_size(plain)


def _committed() -> list[Record]:
    return [records.load(path) for path in RECORDS.glob("comparison_*.json")]


def _by_size(found: list[Record]) -> dict[str, Record]:
    found.sort(key=lambda one: one.settings["training"]["steps"])
    found.sort(key=lambda one: weights(one.settings["size"]), reverse=True)
    return {one.settings["size"]: one for one in found}


def reference(compared: Mapping[str, Record] | None = None) -> Record:
    """Return the comparison of the largest model that was also trained in fp32.

    `compared` are the records to choose from, `comparisons()` unless given.
    """
    compared = comparisons() if compared is None else compared
    with_fp32 = (
        one for one in compared.values() if "fp32" in comparison.recipes_in(one)
    )
    found = next(with_fp32, None)
    require(found, "no comparison_*.json has fp32 runs: let mpteach compare make one.")
    return found


@cache
def weights(size: str) -> int:
    """Return how many weights a model of this size has."""
    with torch.device("meta"):  # all shapes, no numbers
        model = gpt.GPT(gpt.config(size))
    return sum(weight.numel() for weight in model.parameters())


def gpu_of(record: Record) -> str:
    """Return the GPU of a record by its name in the course's list, or its driver's."""
    name = record.machine["gpu"]
    return next((known for known in peaks.PROCESSORS if known in name), name)


def seconds(operation: str, dtype: str, size: int) -> float:
    """Return the recorded seconds of an operation on [size, size] numbers."""
    return ceilings.seconds(record("ceilings_h200"), operation, dtype, size)


def largest_size() -> int:
    """Return the largest width at which operations were timed."""
    return max(record("ceilings_h200").settings["sizes"])


def peak(setting: Setting) -> int:
    """Return the measured peak of a training step, in bytes."""
    return rows()[setting]["allocated_peak"]


@cache
def rows() -> dict[Setting, dict]:
    """Return the measured training steps that fitted, by their setting."""
    found = record("memory_h200").data["rows"]
    return {Setting(**row["setting"]): row for row in found if "allocated_peak" in row}


def is_worse(pairs: list[float]) -> bool:
    """Say whether paired losses are higher than the base's: their interval is above 0."""
    found = differences.interval(pairs)
    return bool(found) and found[0] > 0


def ends_worse(record: Record, name: str, base: str = "fp32") -> bool:
    """Say whether a recipe's runs end worse than the base's, or with no loss at all."""
    ends = [run["validation_loss"] for run in comparison.runs_of(record, name)]
    return None in ends or is_worse(comparison.differences(record, name, base))
