"""How long a training step takes under each recipe, beside autocast to bfloat16.

A ratio is taken within one run: rounds of steps of the two take turns, nobody waits for
the device inside a round, and the median over the pairs of rounds counts. The work of a
step is that of Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B.
"""

import contextlib
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from mpteach import ceilings, data, gpt, hardware, recipes, records, training
from mpteach.comparison import require_memory, state_bytes
from mpteach.errors import InputError
from mpteach.kernels import OPTIMIZER, PLACES, by_place, kernels
from mpteach.meters import clock
from mpteach.records import Record
from mpteach.runs import Settings, require_count

EXPERIMENT = "training speed"
BASELINE = "bf16"
CEILINGS = "ceilings_h200"
SEED = 0
ROUND_STEPS, PROFILED_STEPS = 5, 2
HEAD = (
    f"{'size':<6}{'batch':>6} {'recipe':<14}{'ms/step':>9}{'x bf16':>8}"
    f"{'low':>7}{'high':>7}{'TFLOP/s':>9}{'ceiling':>9}{'GiB':>8}{'1st+2nd s':>12}"
) + "".join(f"{place:>12}" for place in PLACES)


class Trial:
    """A new model on one fixed batch, past its first steps, and what those took.

    A step is `training.Trainer`'s, but for the reading of the loss. `settings` are a
    record's. `first_steps` is the seconds of the first two; `peak_bytes`, None on a
    CPU, is what the third adds to the memory allocated before the model was made.
    """

    def __init__(self, settings: dict, size: str, batch: int, name: str) -> None:
        config, self.device = gpt.config(size), settings["device"]
        on_gpu = self.device == "cuda"
        before = torch.cuda.memory_allocated() if on_gpu else 0
        tokens, _ = data.standard_library().split(self.device, config.sequence)
        self.batch = data.Batches(tokens, config.sequence, batch, SEED).draw()
        torch.manual_seed(SEED)
        with torch.device(self.device):
            model = gpt.GPT(config)
        asked = Settings(batch=batch, compiled=settings["compiled"])
        self.rate = asked.learning_rate
        self.trainer = training.Trainer(model, recipes.get(name), asked)
        # Delayed scales have a graph of their own, from the second step on.
        self.first_steps = [self._step_seconds() for _ in range(2)]
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self._step_seconds()
        peak = torch.cuda.max_memory_allocated() - before if on_gpu else None
        self.peak_bytes = peak

    def step(self) -> None:
        """Do one step."""
        self.learn()
        self.update()

    def learn(self) -> None:
        """Do the forward and the backward pass."""
        with hardware.tf32(self.trainer.recipe.tf32):
            self.trainer.learn(*self.batch)

    def update(self) -> None:
        """Do the optimizer's step."""
        self.trainer.update(self.rate)

    def _step_seconds(self) -> float:
        start = clock(self.device)
        self.step()
        return clock(self.device) - start


def begin(
    sizes: Iterable[str],
    batches: Iterable[int],
    names: Iterable[str],
    device: str,
    command: str,
    compiled: str = "",
    rounds: int = 7,
    profiled: bool = True,
) -> Record:
    """Return an empty record of the recipes `names` at each size and batch.

    The baseline is always among them. Raises InputError for unknown names, counts below
    1, a device that is not there or lacks the baseline's products, and for `compiled`
    where torch.compile does not work.
    """
    sizes, batches = list(dict.fromkeys(sizes)), list(dict.fromkeys(batches))
    for what, given, such in (("size", sizes, "'tiny'"), ("batch", batches, 8)):
        if not given:
            raise InputError(f"no {what} was given: name one, such as {such}.")
    for size in sizes:
        both = 2 * state_bytes(size)  # the baseline's model and the recipe's
        require_memory(f"size {size}", both, device, "give smaller --sizes")
    for batch in batches:
        Settings(batch=batch, compiled=compiled)
    require_count("rounds", rounds)
    wanted = list(dict.fromkeys([BASELINE, *(recipes.get(one).name for one in names)]))
    settings = {
        "sizes": sizes,
        "batches": batches,
        "recipes": wanted,
        "device": device,
        "compiled": compiled,
        "rounds": rounds,
        "steps": ROUND_STEPS,
        "profiled": profiled,
        "seed": SEED,
    }
    empty = records.begin(EXPERIMENT, settings, command, device)
    if reason := recipes.unavailable(recipes.get(BASELINE), device):
        raise InputError(f"{reason}, and all are timed beside it: take another device.")
    if compiled:
        _require_compiler(device)
    settings["ceilings"] = highest_rates(empty.machine["gpu"])
    return empty.with_data([SEED], {"rows": []})


def run(
    record: Record,
    keep: Callable[[Record], Any] = lambda record: None,
    on_row: Callable[[dict], Any] = lambda row: None,
) -> Record:
    """Time every recipe, on a CPU on one core; return the record with a row for each.

    A row has `size`, `batch`, `recipe` and `reason`: why there is no more in it, or "".
    `step_ms` is the median over rounds; `speed_up`, `low` and `high` are median, lowest
    and highest of baseline over own within a pair of rounds, where the baseline's row
    is a second one beside the first; `model_tflops` is 10^12 FLOP/s by `step_flop`, and
    `ceiling_share` its part of the best product's rate; `peak_bytes` is what a step's
    memory adds to what was allocated before the model was made; `first_step_s` and
    `second_step_s` include compilation with the caches that torch finds on the disk;
    `kernel_ms` is the time of a step's kernels by `PLACES`. None: not known.
    `keep(record)` and `on_row(row)` are called after each row.
    """
    settings = record.settings
    on_cpu = settings["device"] == "cpu"
    with hardware.one_thread() if on_cpu else contextlib.nullcontext():
        for shape in itertools.product(settings["sizes"], settings["batches"]):
            for row in _rows(settings, *shape):
                rows = [*record.data["rows"], row]
                record = record.with_data([SEED], {"rows": rows})
                keep(record)
                on_row(row)
    return record


def step_flop(model: gpt.GPT, batch: int) -> int:
    """Return the FLOP of the products of a training step of `batch` windows.

    6 N + 12 L H T a token, with N all parameters but the positions, which multiply
    nothing. Attention counts in full, though half of its scores are masked; what a
    kernel computes again does not count.
    """
    parameters = sum(one.numel() for one in model.parameters())
    parameters -= model.positions.weight.numel()
    config = model.config
    token = 6 * parameters + 12 * config.layers * config.hidden * config.sequence
    return token * batch * config.sequence


def interleaved(
    calls: Sequence[Callable[[], None]],
    rounds: int,
    steps: int,
    now: Callable[[], Any] = time.perf_counter,
) -> list[list[float]]:
    """Return for each round the seconds of one of `steps` calls of each, by turns.

    What `now()` returns is subtracted once all is done, so it may be a GPU's event.
    """
    moments = []
    for _ in range(rounds):
        for call in calls:
            start = now()
            for _ in range(steps):
                call()
            moments.append((start, now()))
    seconds = [(end - start) / steps for start, end in moments]
    count = len(calls)
    return [seconds[at : at + count] for at in range(0, len(seconds), count)]


def highest_rates(gpu: str | None) -> dict[str, float]:
    """Return the highest FLOP/s of products by dtype that the course measured on `gpu`.

    Empty for another GPU than the committed record's.
    """
    record = records.committed(CEILINGS)
    if record.machine["gpu"] != gpu:
        return {}
    best: dict[str, float] = {}
    for row in record.data["rows"]:
        if row["operation"] == "product":
            rate = ceilings.flop_rate(row)
            best[row["dtype"]] = max(rate, best.get(row["dtype"], 0.0))
    return best


def table(record: Record) -> str:
    """Return the rows as text; times of kernels are ms a step."""
    return "\n".join([HEAD, *map(line, record.data["rows"])])


def line(row: dict) -> str:
    """Return one row as text, under `HEAD`."""
    about = f"{row['size']:<6}{row['batch']:>6} {row['recipe']:<14}"
    if row["reason"]:
        return f"{about}  {row['reason']}"
    peak = row["peak_bytes"] and row["peak_bytes"] / 2**30
    times = row["kernel_ms"] or dict.fromkeys(PLACES)
    return (
        f"{about}{row['step_ms']:>9.2f}{row['speed_up']:>8.3f}"
        f"{row['low']:>7.3f}{row['high']:>7.3f}{row['model_tflops']:>9.4g}"
        f"{_cell(row['ceiling_share'], '.1%'):>9}{_cell(peak, '.2f'):>8}"
        f"{row['first_step_s']:>7.1f}+{row['second_step_s']:<4.1f}"
    ) + "".join(f"{_cell(times[place], '.2f'):>12}" for place in PLACES)


def _cell(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)


def _rows(settings: dict, size: str, batch: int) -> Iterator[dict]:
    """Build the baseline; then build, time and drop each recipe beside it."""
    # The graphs of every shape would add up, to torch's limit for one code object.
    torch.compiler.reset()
    _drop_models()
    base, reason = _attempt(lambda: Trial(settings, size, batch, BASELINE))
    for name in settings["recipes"]:
        lacking = recipes.unavailable(recipes.get(name), settings["device"])
        row = {"size": size, "batch": batch, "recipe": name, "reason": lacking}
        if base is None:
            row["reason"] = row["reason"] or f"{BASELINE}, the baseline: {reason}"
        elif not row["reason"]:
            found, row["reason"] = _attempt(lambda: _figures(settings, row, base))
            row |= found or {}
        yield row


def _attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """Return what `work` returns, or None and that memory ran out."""
    try:
        return work(), ""
    except RuntimeError as error:
        # torch tells of memory in two ways: its own error on a GPU, words on a CPU.
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and "DefaultCPUAllocator" not in str(error):
            raise
    finally:
        _drop_models()
    return None, "out of memory"


def _drop_models() -> None:
    """Free the memory of models that nothing but themselves refers to."""
    gc.collect()  # a compiled model does refer to itself
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _figures(settings: dict, row: dict, base: Trial) -> dict:
    """Return what `run` adds to a row; the baseline's first steps are `base`'s."""
    size, batch, name = row["size"], row["batch"], row["recipe"]
    own = Trial(settings, size, batch, name)
    first, second = (base if name == BASELINE else own).first_steps
    now = _Moment if own.device == "cuda" else time.perf_counter
    calls = base.step, own.step
    pairs = interleaved(calls, settings["rounds"], settings["steps"], now)
    ratios = [base_s / own_s for base_s, own_s in pairs]
    step = statistics.median(own_s for _, own_s in pairs)
    rate = step_flop(own.trainer.model, batch) / step
    ceiling = settings["ceilings"].get(own.trainer.recipe.products)
    return {
        "step_ms": step * 1e3,
        "baseline_ms": statistics.median(base_s for base_s, _ in pairs) * 1e3,
        "speed_up": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "model_tflops": rate / 1e12,
        "ceiling_share": ceiling and rate / ceiling,
        "peak_bytes": own.peak_bytes,
        "first_step_s": first,
        "second_step_s": second,
        "kernel_ms": _kernel_ms(own) if settings["profiled"] else None,
    }


class _Moment:
    """When the GPU comes to this place in its queue; their difference is in seconds."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: "_Moment") -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


def _kernel_ms(trial: Trial) -> dict[str, float] | None:
    """Return ms a step by place, None where the profiler saw no kernel."""
    total = dict.fromkeys(PLACES, 0.0)
    for _ in range(PROFILED_STEPS):
        learning = by_place(kernels(trial.learn, trial.device))
        update = kernels(trial.update, trial.device)
        learning[OPTIMIZER] = sum(ms for _, ms in update)
        for place, ms in learning.items():
            total[place] += ms / PROFILED_STEPS
    return total if any(total.values()) else None


def _require_compiler(device: str) -> None:
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # torch has no common class for what may lack
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"torch.compile does not work on this {device} ({said[0]:.100}): leave out "
            "--compile, or install what it needs."
        ) from error
