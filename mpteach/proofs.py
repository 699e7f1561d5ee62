"""Our mechanisms beside torch's on this machine, and the autocast policy it has.

The comparisons are those of the tests; here they are kept as a record, from a GPU too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mpteach import records
from mpteach.autocast import autocast, policy
from mpteach.autocast_probe import parity, probe
from mpteach.records import Record
from mpteach.scaler_parity import scaler_parity

EXPERIMENT = "parity"
SEED = 0


def begin(device: str, steps: int, command: str) -> Record:
    """Return an empty record for `device` ("cpu" or "cuda"), `steps` of the scalers."""
    policy.require_device(device)
    settings = {"device": device, "steps": steps, "seed": SEED}
    return records.begin(EXPERIMENT, settings, command, device)


def missing(record: Record) -> list[str]:
    """Return the names of the parts that `record` lacks, in order."""
    return [name for name in _parts(record) if name not in record.data]


def run(
    record: Record, path: Path, on_part: Callable[[], Any] = lambda: None
) -> Record:
    """Do the parts that `record` lacks, save it to `path` after each, return it.

    "scaler": `scaler_parity`. "autocast": `autocast_parity`. "policy": the policy by
    operation. "probe": the rows of `probe`, by dtype. "copies": the bytes of weight
    copies alive, of our autocast and of torch's. Raises InputError where the record
    cannot be saved.
    """
    parts = _parts(record)
    for name in missing(record):
        record = record.with_data([SEED], {**record.data, name: parts[name]()})
        record.save(path)
        on_part()
    return record


def table(record: Record) -> str:
    """Return as text what was compared and what differs."""
    scaler, cast = record.data["scaler"], record.data["autocast"]
    lines = [
        f"loss scalers: {scaler['steps']:,} steps, mismatches {scaler['mismatches']}",
        f"autocast: {cast['operations']} operations, {cast['cases']} cases, "
        f"{len(cast['unequal'])} unequal",
    ]
    lines += [f"    {row}" for row in cast["unequal"]]
    lines += [f"GPT in {name}: {found}" for name, found in cast["models"].items()]
    return "\n".join(lines)


def _parts(record: Record) -> dict[str, Callable[[], Any]]:
    device, steps = record.settings["device"], record.settings["steps"]
    regions = {"ours": autocast, "torch": torch.autocast}
    return {
        "scaler": lambda: scaler_parity(steps, device, SEED),
        "autocast": lambda: parity.autocast_parity(device),
        "policy": lambda: policy.read(device),
        "probe": lambda: {
            str(d).split(".")[1]: probe(device, d) for d in parity.HALVES
        },
        "copies": lambda: {
            who: parity.copies_alive(region(device), device)
            for who, region in regions.items()
        },
    }
