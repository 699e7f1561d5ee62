"""Runs that must agree to the last bit: stopped and resumed, our scaler and torch's.

All under deterministic algorithms (torch's notes on reproducibility): what still
differs is a fault of the checkpoint or of the scaler, not the order of a GPU's sums.
"""

import contextlib
import hashlib
import itertools
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpteach import comparison, gpt, loss_scaling, recipes, training
from mpteach.checkpoints import Checkpoint
from mpteach.data import Corpus
from mpteach.errors import require
from mpteach.records import Record
from mpteach.runs import Run, Settings

EXPERIMENT = "identity"
SEED = 0
SCALERS = "scalers"
# Far too large a scale at first, and growth every few steps: steps are skipped, the
# scale falls and rises, and a run may be stopped between two growths.
SCALING = {"init_scale": 2.0**26, "growth_interval": 5}
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True)
class Trace:
    """What a run is compared by; `losses` by step, as they were computed."""

    run: Run
    losses: dict[int, float]
    weights_sha256: str


class Stopped(Exception):
    """Ends a run as a kill would: nothing after it is kept."""


@contextlib.contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Let torch use deterministic algorithms alone, or raise where it has none.

    cuBLAS is told by an environment variable, which it reads once: enter this before
    the first use of CUDA. Raises InputError where that is too late.
    """
    before = os.environ.get(WORKSPACE)
    late = device == "cuda" and before is None and torch.cuda.is_initialized()
    require(not late, f"CUDA has started without {WORKSPACE}: begin a new process.")
    was = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        if before is None:
            del os.environ[WORKSPACE]


def begin(
    size: str, settings: Settings, corpus: Corpus, device: str, command: str
) -> Record:
    """Return an empty record; raise InputError for a bad size, device or text."""
    require(settings.steps > 1, "steps was 1: a run to be stopped needs at least 2.")
    empty = comparison.begin(size, settings, corpus, device, command, EXPERIMENT)
    every = recipes.RECIPES.items()
    reasons = {name: recipes.unavailable(recipe, device) for name, recipe in every}
    lacking = {name: reason for name, reason in reasons.items() if reason}
    return empty.with_data([], {"parts": {}, "unavailable": lacking})


def missing(record: Record) -> list[str]:
    """Return the parts to do: recipes to stop and resume; "scalers" where fp16 is."""
    able = [name for name in recipes.RECIPES if name not in record.data["unavailable"]]
    wanted = [*able, SCALERS] if "fp16" in able else able
    return [name for name in wanted if name not in record.data["parts"]]


def run(
    record: Record,
    corpus: Corpus,
    path: Path,
    on_part: Callable[[], Any] = lambda: None,
) -> Record:
    """Do the parts that `record` lacks, save it to `path` after each, return it.

    Call it within `deterministic`. Raises InputError where the record cannot be saved.
    """
    for name in missing(record):
        found = (
            scalers(record, corpus)
            if name == SCALERS
            else resumed(record, name, corpus)
        )
        parts = {**record.data["parts"], name: found}
        record = record.with_data([SEED], {**record.data, "parts": parts})
        record.save(path)
        on_part()
    return record


def resumed(record: Record, name: str, corpus: Corpus) -> dict[str, Any]:
    """Run recipe `name` once to its end, once stopped and resumed; return what differs.

    The run is kept after a step drawn at random, stopped one step later, and goes on
    from its file with a new model, optimizer and scaler. `kept_at` is None where the first
    step's loss was not finite, which leaves nothing to keep.
    """
    whole = _trace(record, name, corpus)
    # A string seeds the same draw in every process.
    last = max(1, len(whole.losses) - 1)
    kept_at = random.Random(f"{SEED} {name}").randint(1, last)
    losses: dict[int, float] = {}

    def stop(step: int) -> None:
        if step > kept_at:
            raise Stopped

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        kept = Checkpoint(path, kept_at, {"recipe": name, "seed": SEED})
        with contextlib.suppress(Stopped):
            _trace(record, name, corpus, kept, losses, stop)
        began = kept_at if path.exists() else None
        again = _trace(record, name, corpus, kept, losses)
    return {"kept_at": began, **_compare(whole, again)}


def scalers(record: Record, corpus: Corpus) -> dict[str, Any]:
    """Run fp16 with torch's GradScaler and with our own; return what differs."""
    theirs, ours = (
        _trace(record, "fp16", corpus, make_scaler=make)
        for make in (torch.amp.GradScaler, loss_scaling.GradScaler)
    )
    return _compare(theirs, ours)


def table(record: Record) -> str:
    """Return as text what was compared and where it first differs."""
    lines = [_row(name, found) for name, found in record.data["parts"].items()]
    return "\n".join([*lines, *record.data["unavailable"].values()])


def _row(name: str, found: dict[str, Any]) -> str:
    did = f"resumed after step {found.get('kept_at')}"
    if name == SCALERS:
        did = "our scaler and torch's in fp16"
    same = "identical" if found["identical"] else f"DIFFERENT: {found['differs']}"
    scales = found["loss_scale"]
    moved = f", {len(scales)} loss scales" if scales else ""
    return f"{name:<14} {did}: {found['steps']} steps{moved}, {same}"


def _trace(
    record: Record,
    name: str,
    corpus: Corpus,
    checkpoint: Checkpoint = Checkpoint(),
    losses: dict[int, float] | None = None,
    after: Callable[[int], None] = lambda step: None,
    make_scaler: Callable[..., Any] = torch.amp.GradScaler,
) -> Trace:
    """Train a new model; add its losses to `losses`, and call `after` each step."""
    losses = {} if losses is None else losses

    def on_step(step: int, loss: float) -> None:
        losses[step] = loss
        after(step)

    torch.manual_seed(SEED)
    model = gpt.GPT(gpt.GPTConfig(**record.settings["model"]))
    model.to(record.settings["device"])
    recipe, settings = recipes.get(name), Settings(**record.settings["training"])
    options = {"make_scaler": partial(make_scaler, **SCALING)}
    run = training.train(
        model, corpus, recipe, settings, SEED, on_step, checkpoint, **options
    )
    return Trace(run, losses, _digest(model))


def _compare(one: Trace, other: Trace) -> dict[str, Any]:
    """Return both traces' hashes and scales, and in `differs` what is not the same."""
    bits = [[loss.hex() for loss in trace.losses.values()] for trace in (one, other)]
    pairs = itertools.zip_longest(*bits)
    first = next((step for step, (a, b) in enumerate(pairs, 1) if a != b), None)
    differs = {
        "losses": first is not None,
        "validation loss": one.run.validation_loss != other.run.validation_loss,
        "weights": one.weights_sha256 != other.weights_sha256,
        "loss scales": one.run.loss_scale != other.run.loss_scale,
        "skipped steps": one.run.skipped_steps != other.run.skipped_steps,
    }
    return {
        "steps": len(one.losses),
        "identical": not any(differs.values()),
        "differs": [name for name, does in differs.items() if does],
        "first_difference": first,
        "losses_sha256": [_sha256(" ".join(words).encode()) for words in bits],
        "weights_sha256": [one.weights_sha256, other.weights_sha256],
        "losses": one.run.losses,
        "validation_loss": one.run.validation_loss,
        "loss_scale": one.run.loss_scale,
        "skipped_steps": one.run.skipped_steps,
    }


def _digest(model: nn.Module) -> str:
    """SHA-256 of the bits of all that the model's state holds, with one NaN."""
    return _sha256(b"".join(map(_bits, model.state_dict().values())))


def _bits(tensor: Tensor) -> bytes:
    one_nan = tensor.masked_fill(tensor.isnan(), torch.nan).cpu().contiguous()
    return one_nan.view(torch.uint8).numpy().tobytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
