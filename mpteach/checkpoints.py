"""What a run needs to go on to the last bit, in one file that can run no code.

A file is `torch.save`'s, and after it the SHA-256 of all that: torch does not notice a
changed bit. It is read with `weights_only`, so it can hold numbers, text and tensors.
"""

import hashlib
import io
import json
from collections.abc import Container
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mpteach import files
from mpteach.errors import InputError, require
from mpteach.runs import Run

ANEW = "delete it, and the run begins anew"
KINDS = {"belongs": str, "run": dict, "model": dict, "optimizer": dict, "scaler": dict}
KINDS |= {"generator": torch.Tensor}
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """The file at `path` for one run, saved at every `every`-th step; 0, None: never.

    `belongs` is JSON's data that tells the run from others: a file with other data is
    refused. The run goes on in place, on fresh objects that were made in the same way.
    """

    path: Path | None = None
    every: int = 0
    belongs: dict[str, Any] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        """Return whether the run is to be kept after `step`."""
        return self.path is not None and self.every > 0 and step % self.every == 0

    def keep(
        self,
        run: Run,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: Any,
        generator: torch.Generator,
    ) -> None:
        """Put the run as it is in place of the file; InputError where that cannot be.

        `scaler` is a GradScaler, `generator` that of the batches. The old file stays
        until the new one is whole.
        """
        parts = {"model": model, "optimizer": optimizer, "scaler": scaler}
        states = {name: part.state_dict() for name, part in parts.items()}
        # As JSON: a value may be of a class that safe loading refuses, torch's version.
        states |= {"belongs": json.dumps(self.belongs), "run": asdict(run)}
        buffer = io.BytesIO()
        torch.save({**states, "generator": generator.get_state()}, buffer)
        buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
        try:
            files.write_atomically(self.path, buffer.getvalue())
        except OSError as error:
            raise InputError(
                f"the checkpoint {str(self.path)!r} could not be written "
                f"({error.strerror}): make room, and the same command goes on from "
                "what was kept before."
            ) from error

    def restore(
        self,
        run: Run,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: Any,
        generator: torch.Generator,
    ) -> None:
        """Bring all to where the file left them; without a file, do nothing.

        Raises InputError, and changes nothing, where the file is damaged, may hold
        code, or belongs to another run; and where another program made it up, then with
        some of the objects changed.
        """
        if self.path is None or not self.path.exists():
            return
        saved = _read(self.path)
        ours = json.loads(json.dumps(self.belongs))
        for what, begun, now in _differences(saved["belongs"], ours):
            raise InputError(
                f"{self.path.name} was begun with {what} {begun!r}, this run has "
                f"{now!r}: give the command that began it, or {ANEW}."
            )
        try:
            generator.set_state(saved["generator"])
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])
        except Exception as error:  # of many kinds: with the right sum, we did not write it
            raise InputError(
                f"{self.path.name} holds states that this run cannot have: {ANEW}."
            ) from error
        vars(run).update(saved["run"])

    def remove(self) -> None:
        """Delete the file, if there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def tidy(path: Path, finished: Container[tuple[str, int]]) -> None:
    """Delete what a killed process left at `path` and nobody needs.

    That is halves of files, and the checkpoint of a run among the (recipe, seed) pairs
    `finished`. Nobody else may be writing. Raises InputError for a damaged checkpoint.
    """
    files.discard_parts(path)
    if path.exists():
        belongs = _read(path)["belongs"]
        if (belongs.get("recipe"), belongs.get("seed")) in finished:
            path.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"the checkpoint {str(path)!r} cannot be read ({error.strerror})"
        raise InputError(f"{reason}: free it, or {ANEW}.") from error
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    whole = hashlib.sha256(body).digest() == digest
    require(whole, f"{path.name} is damaged or cut short (wrong checksum): {ANEW}.")
    try:
        saved = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: with the right sum, we did not write it
        raise InputError(
            f"{path.name} holds more than plain data, so nothing of it was loaded: "
            f"{ANEW}."
        ) from error
    try:
        kinds = {key: isinstance(saved[key], kind) for key, kind in KINDS.items()}
        ours = all(kinds.values()) and len(saved) == len(KINDS)
        own = json.loads(saved["belongs"]) if ours else None
        ours = isinstance(own, dict) and saved["run"].keys() == vars(Run("", 0)).keys()
    except (TypeError, KeyError, IndexError, ValueError):
        ours = False
    require(ours, f"{path.name} is no checkpoint of this course: {ANEW}.")
    return saved | {"belongs": own}


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return (name, old, new) for what differs, looking into dicts within dicts."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(name, old, new)]
    return [
        row
        for key in {**new, **old}
        for row in _differences(old.get(key), new.get(key), f"{name} {key}".strip())
    ]
