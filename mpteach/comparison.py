"""Many runs, one record: each recipe with the same model, text and seeds."""

import gc
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from mpteach import checkpoints, files, gpt, hardware, recipes, records, training
from mpteach.checkpoints import Checkpoint
from mpteach.data import Corpus
from mpteach.errors import InputError
from mpteach.records import Record
from mpteach.runs import Run, Settings

EXPERIMENT = "comparison"
ROOMS = ("training", "gpt", "data")  # what decides a run's numbers


def begin(
    size: str,
    settings: Settings,
    corpus: Corpus,
    device: str,
    command: str,
    experiment: str = EXPERIMENT,
    rooms: tuple[str, ...] = ROOMS,
) -> Record:
    """Return an empty record; raise InputError for a bad size, device or text.

    `rooms` are the modules that decide its data.
    """
    _require_device(device)
    if settings.compiled and device == "cpu":
        raise InputError(
            f"compiled was {settings.compiled!r}, which needs a GPU: leave --compile out."
        )
    _require_vocabulary(corpus, size)
    shape = gpt.config(size)
    logits = 8 * settings.batch * shape.sequence * shape.vocabulary  # and their gradient
    require_memory(
        f"size {size} with batch {settings.batch}",
        state_bytes(size) + logits,
        device,
        "lower --batch or take a smaller --size",
    )
    # A text that is too short is told now, not in the first run.
    corpus.split("cpu", gpt.config(size).sequence)
    shared = {
        "size": size,
        "model": asdict(gpt.config(size)),
        "training": asdict(settings),
        "corpus": {
            "name": corpus.name,
            "size_bytes": corpus.size_bytes,
            "sha256": corpus.sha256,
            "dtype": corpus.dtype,
        },
        "device": device,
        "threads": torch.get_num_threads(),
    }
    empty = records.begin(experiment, shared, command, device, *rooms)
    return empty.with_data([], {"runs": [], "unavailable": {}})


def run(
    record: Record,
    names: Iterable[str],
    seeds: Iterable[int],
    corpus: Corpus,
    path: Path,
    on_step: Callable[[str, int, int, float], None] = lambda name, seed, step, loss: (
        None
    ),
    checkpoint_every: int = 0,
) -> Record:
    """Do the runs that `record` lacks, save it to `path` after each, return it complete.

    The run in progress is kept in `checkpoint_path(path)` after every `checkpoint_every`
    steps, 0 for never; where that file is, its run goes on. Nobody else may be writing.
    `on_step(recipe, seed, step, loss)` is called after every step. Recipes that the device
    lacks are noted in `data["unavailable"]` with the reason. Raises InputError where the
    record cannot be saved.
    """
    device = record.settings["device"]
    finished = {(run["recipe"], run["seed"]) for run in record.data["runs"]}
    in_progress = checkpoint_path(path)
    for one in (path, in_progress):
        files.discard_parts(one)
    if checkpoint_every or in_progress.exists():
        # Told now: the first save may be an hour away, and a pipe would be waited for.
        files.require_writable(in_progress)
    checkpoints.tidy(in_progress, finished)
    for seed, name in missing(record, names, seeds):
        kept = _checkpoint(record, name, seed, in_progress, checkpoint_every)
        done = _one_run(record, name, seed, corpus, on_step, kept)
        data = {**record.data, "runs": [*record.data["runs"], asdict(done)]}
        record = record.with_data(sorted({*record.seeds, seed}), data)
        record.save(path)
        kept.remove()
    reasons = {name: recipes.unavailable(recipes.get(name), device) for name in names}
    lacking = {name: reason for name, reason in reasons.items() if reason}
    known = record.data["unavailable"]
    if record.seeds and not lacking.items() <= known.items():
        data = {**record.data, "unavailable": {**known, **lacking}}
        record = record.with_data(record.seeds, data)
        record.save(path)
    return record


def join(record: Record, other: Record) -> Record:
    """Return `record` with the runs of `other`, which was begun alike; names both commands.

    A run that was joined before is passed over. Raises InputError where both hold runs
    of one recipe and seed that are not the same.
    """
    mine = record.data["runs"]
    theirs = [run for run in other.data["runs"] if run not in mine]
    held = {(run["recipe"], run["seed"]) for run in mine}
    for run in theirs:
        if (run["recipe"], run["seed"]) in held:
            raise InputError(
                f"both records hold {run['recipe']} with seed {run['seed']}: join records "
                "of different seeds or recipes."
            )
    if not theirs:
        return record
    lacking = record.data["unavailable"] | other.data["unavailable"]
    data = {"runs": [*mine, *theirs], "unavailable": lacking}
    joined = record.with_data(sorted({*record.seeds, *other.seeds}), data)
    commands = [*records.commands(record), *records.commands(other)]
    return replace(joined, command=" && ".join(dict.fromkeys(commands)))


def checkpoint_path(path: Path) -> Path:
    """Return where the run in progress is kept for the record at `path`."""
    return path.with_name(f"{path.name}.checkpoint")


def missing(
    record: Record, names: Iterable[str], seeds: Iterable[int]
) -> list[tuple[int, str]]:
    """Return the (seed, recipe) pairs still to run, seed by seed, as `names` has them."""
    device = record.settings["device"]
    done = {(run["seed"], run["recipe"]) for run in record.data["runs"]}
    once = dict.fromkeys(names)
    able = [name for name in once if not recipes.unavailable(recipes.get(name), device)]
    return [(s, name) for s in seeds for name in able if (s, name) not in done]


def runs_of(record: Record, name: str) -> list[dict]:
    """Return the runs of the recipe `name`, ordered by seed."""
    runs = [run for run in record.data["runs"] if run["recipe"] == name]
    return sorted(runs, key=lambda run: run["seed"])


def recipes_in(record: Record) -> list[str]:
    """Return the names of the recipes that have runs, in the order of `recipes.RECIPES`."""
    present = {run["recipe"] for run in record.data["runs"]}
    return [name for name in recipes.RECIPES if name in present]


def median_of(record: Record, name: str, key: str) -> float | None:
    """Median over seeds of one figure of a run, or None where no run of `name` has it."""
    values = [run[key] for run in runs_of(record, name) if run[key] is not None]
    return statistics.median(values) if values else None


def differences(
    record: Record, name: str, base: str = "fp32", key: str = "validation_loss"
) -> list[float]:
    """Return `name` minus `base` for each seed both ran: same start, same batches."""
    return [own - other for own, other in _paired(record, name, base, key)]


def speed_up(
    record: Record, name: str, base: str = "fp32", key: str = "tokens_per_second"
) -> float | None:
    """Return how many times as fast as `base` the recipe `name` is: median over seeds.

    `key` may be "forward_tokens_per_second", which leaves out backward pass and step.
    """
    paired = ratios(record, name, base, key)
    return statistics.median(paired) if paired else None


def ratios(
    record: Record, name: str, base: str = "fp32", key: str = "tokens_per_second"
) -> list[float]:
    """Return `name` over `base` for each seed both ran, in the order of the seeds."""
    return [own / other for own, other in _paired(record, name, base, key)]


def _paired(
    record: Record, name: str, base: str, key: str
) -> list[tuple[float, float]]:
    by_seed = {run["seed"]: run[key] for run in runs_of(record, base)}
    pairs = [(run[key], by_seed.get(run["seed"])) for run in runs_of(record, name)]
    return [pair for pair in pairs if None not in pair]


def _checkpoint(
    record: Record, name: str, seed: int, path: Path, every: int
) -> Checkpoint:
    belongs = {**record.settings, **record.machine, "package sources": record.sources}
    return Checkpoint(path, every, {"recipe": name, "seed": seed, **belongs})


def _one_run(
    record: Record,
    name: str,
    seed: int,
    corpus: Corpus,
    on_step,
    kept: Checkpoint,
) -> Run:
    settings = Settings(**record.settings["training"])
    # A model refers to itself: until it is collected, it counts in the next one's peak.
    gc.collect()
    torch.manual_seed(seed)
    model = gpt.GPT(gpt.GPTConfig(**record.settings["model"]))
    try:
        return training.train(
            model.to(record.settings["device"]),
            corpus,
            recipes.get(name),
            settings,
            seed,
            lambda step, loss: on_step(name, seed, step, loss),
            kept,
        )
    except RuntimeError as error:
        # torch tells of memory in two ways: its own error on a GPU, words on a CPU.
        on_cpu = "DefaultCPUAllocator" in str(error)
        if not (on_cpu or isinstance(error, torch.OutOfMemoryError)):
            raise
        peak = torch.cuda.max_memory_allocated() / 2**30
        reached = f"the GPU ran out of memory in {name} after a peak of {peak:.2f} GiB"
        if on_cpu:
            reached = f"this machine has too little memory for {name}"
        raise InputError(
            f"{reached}: lower --batch (it was {settings.batch}) or take a smaller --size."
        ) from error


def _require_vocabulary(corpus: Corpus, size: str) -> None:
    held = gpt.config(size).vocabulary
    largest = int(corpus.ids.max(initial=0))
    if largest < held:
        return
    fitting = [name for name, one in gpt.SIZES.items() if one.vocabulary > largest]
    raise InputError(
        f"{corpus.name!r} holds the id {largest}, and size {size!r} has ids below {held}: "
        f"choose {' or '.join(fitting) or 'a tokenizer of fewer ids'}."
    )


def state_bytes(size: str) -> int:
    """Return the bytes of weights, gradients and AdamW's two means of a model in float32."""
    with torch.device("meta"):
        model = gpt.GPT(gpt.config(size))
    return 16 * sum(one.numel() for one in model.parameters())


def require_memory(what: str, needed: int, device: str, remedy: str) -> None:
    """Raise InputError where `what` needs more bytes than a CPU's memory has free.

    A GPU says when its memory is full; on a CPU the system may end the process.
    """
    free = hardware.free_memory_bytes() if device == "cpu" else None
    if free is not None and needed > free:
        raise InputError(
            f"{what} needs at least {needed / 2**30:,.1f} GiB of memory and "
            f"{free / 2**30:,.1f} GiB are free: {remedy}."
        )


def _require_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: choose cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device 'cuda' is not there: torch sees no GPU; use --device cpu."
        )
