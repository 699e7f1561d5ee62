"""Many runs, one record: each recipe with the same model, text and seeds."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from mpteach import gpt, recipes, records, training
from mpteach.data import Corpus
from mpteach.errors import InputError
from mpteach.records import Record

EXPERIMENT = "comparison"


def begin(
    size: str,
    settings: training.Settings,
    corpus: Corpus,
    device: str,
    command: str,
    experiment: str = EXPERIMENT,
) -> Record:
    """Return an empty record; raise InputError for a bad size, device or text."""
    _require_device(device)
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
        },
        "device": device,
        "threads": torch.get_num_threads(),
    }
    empty = records.begin(experiment, shared, command, device)
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
) -> Record:
    """Do the runs that `record` lacks, save it to `path` after each, return it complete.

    `on_step(recipe, seed, step, loss)` is called after every step. Recipes that the device
    lacks are noted in `data["unavailable"]` with the reason. Raises InputError where the
    record cannot be saved.
    """
    device = record.settings["device"]
    for seed, name in missing(record, names, seeds):
        done = _one_run(record, name, seed, corpus, on_step)
        data = {**record.data, "runs": [*record.data["runs"], asdict(done)]}
        record = record.with_data(sorted({*record.seeds, seed}), data)
        record.save(path)
    reasons = {name: recipes.unavailable(recipes.get(name), device) for name in names}
    lacking = {name: reason for name, reason in reasons.items() if reason}
    known = record.data["unavailable"]
    if record.seeds and not lacking.items() <= known.items():
        data = {**record.data, "unavailable": {**known, **lacking}}
        record = record.with_data(record.seeds, data)
        record.save(path)
    return record


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


def table(record: Record) -> str:
    """Return medians over seeds as text: losses, speed, peak memory, and how runs ended."""
    head = f"{'recipe':<14}{'seeds':>5}{'train':>8}{'held out':>10}{'tokens/s':>11}{'x fp32':>8}"
    head += f"{'peak GiB':>10}  ended"
    return "\n".join([head, *(_row(record, name) for name in recipes_in(record))])


def _paired(
    record: Record, name: str, base: str, key: str
) -> list[tuple[float, float]]:
    by_seed = {run["seed"]: run[key] for run in runs_of(record, base)}
    pairs = [(run[key], by_seed.get(run["seed"])) for run in runs_of(record, name)]
    return [pair for pair in pairs if None not in pair]


def _row(record: Record, name: str) -> str:
    def cell(value: float | None, digits: str) -> str:
        return "-" if value is None else format(value, digits)

    train, held_out, speed, peak = (
        median_of(record, name, key)
        for key in (
            "final_loss",
            "validation_loss",
            "tokens_per_second",
            "peak_allocated_bytes",
        )
    )
    gib = peak / 2**30 if peak else None
    runs = runs_of(record, name)
    stops = sorted({run["non_finite_step"] for run in runs} - {None})
    ended = f"non-finite at step {', '.join(map(str, stops))}" if stops else "finite"
    return (
        f"{name:<14}{len(runs):>5}{cell(train, '.3f'):>8}{cell(held_out, '.3f'):>10}"
        f"{cell(speed, ',.0f'):>11}{cell(speed_up(record, name), '.2f'):>8}{cell(gib, '.2f'):>10}  {ended}"
    )


def _one_run(
    record: Record, name: str, seed: int, corpus: Corpus, on_step
) -> training.Run:
    settings = training.Settings(**record.settings["training"])
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


def _require_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: choose cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device 'cuda' is not there: torch sees no GPU; use --device cpu."
        )
