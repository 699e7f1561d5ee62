"""Which recipe to train in on which GPU: decided from the committed records alone.

A recipe is *right* where a comparison bounds its held-out loss to within the band that
seeds alone make, and no comparison resolves it worse than that. Among the right ones
that a GPU has products for, the fastest is taken, if it was faster than the record's
base in every pair that was timed; of several as fast, one without a loss scale. Speeds
and peaks are those of the records' GPU; what another GPU has in hardware, and what it
promises, is its datasheet's.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from mpteach import comparison, differences, gpt, recipes, records
from mpteach.claims import evidence
from mpteach.course import RECORDS
from mpteach.hardware import peaks
from mpteach.hardware.peaks import Processor
from mpteach.memory import formula
from mpteach.memory.shapes import Shape
from mpteach.records import Record
from mpteach.training_speed import BASELINE

RIGHT, WORSE, OPEN, FAILS = "right", "worse", "open", "fails"
# Of the base's loss: seeds that scatter more than this would excuse any recipe.
WIDEST_BAND = 0.02
# The names that `memory` has for recipes; it knows no fp8.
IN_MEMORY = {
    "fp32": "fp32",
    "tf32": "tf32",
    "fp16": "amp-fp16",
    "fp16-unscaled": "amp-fp16",
    "bf16": "amp-bf16",
    "bf16-pure": "pure-bf16",
    "fp16-master": "fp16-master",
    "bf16-master": "bf16-master",
}


@dataclass(frozen=True)
class Loss:
    """What a comparison says of a recipe's held-out loss; `verdict` as `loss_of` has it."""

    verdict: str
    sentence: str
    record: str


@dataclass(frozen=True)
class Source:
    """The speeds of one record at one size, as times its `base`'s, and peaks in bytes.

    `speeds` has (lowest, median, highest) by recipe; `peaks` lacks what is not known.
    """

    record: str
    size: str
    base: str
    gpu: str
    speeds: dict[str, tuple[float, float, float]]
    peaks: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """What to take on some GPUs at some sizes, and what says so.

    `speed` is that of `fastest` as times the source's base, `saved` the part of the
    base's peak that `smallest` saves. `promised`: the products of `fastest` as times
    those in float32 by the datasheets, lowest and highest of the GPUs.
    """

    gpus: tuple[str, ...]
    sizes: tuple[str, ...]
    fastest: str
    speed: tuple[float, float, float]
    smallest: str
    saved: float
    promised: tuple[float, float]
    source: Source


def band(record: Record) -> float:
    """Return how far apart the seeds put the base's held-out loss: worst less best, nats.

    At most `WIDEST_BAND` of the median seed's loss.
    """
    runs = comparison.runs_of(record, differences.base_of(record))
    losses = [run["validation_loss"] for run in runs]
    known = [loss for loss in losses if loss is not None]
    if not known:
        return 0.0
    return min(max(known) - min(known), WIDEST_BAND * statistics.median(known))


def verdict(record: Record, name: str) -> str:
    """Return what `record` says of the held-out loss of a recipe beside the base.

    "fails": a seed ended without a loss. "right": at 95 % its difference to the base is
    no more than `band`. "worse": it is above 0 and may be more. "open": neither.
    """
    ends = [run["validation_loss"] for run in comparison.runs_of(record, name)]
    if not ends or None in ends:
        return FAILS if ends else OPEN
    base = differences.base_of(record)
    found = differences.interval(comparison.differences(record, name, base))
    if name == base:
        return RIGHT
    if found is None:
        return OPEN
    low, high = found
    if high <= band(record):
        return RIGHT
    return WORSE if low > 0 else OPEN


@cache
def loss_of(name: str) -> Loss:
    """Return the verdict over all comparisons, with the sentence of the one that decides.

    One that fails or is worse decides against a recipe, whatever the others say; one
    that is right decides for it. Of several that of the longest training is named, of
    equally long ones the largest model's.
    """
    held = {
        size: record
        for size, record in evidence.comparisons().items()
        if comparison.runs_of(record, name)
    }
    beside = {s: one for s, one in held.items() if differences.base_of(one) != name}
    found = {size: verdict(one, name) for size, one in (beside or held).items()}
    for word in (FAILS, WORSE, RIGHT, OPEN):
        sizes = [size for size, said in found.items() if said == word]
        if sizes:
            longest = max(sizes, key=lambda one: held[one].settings["training"]["steps"])
            said = said_of(held[longest], name)
            return Loss(word, said, f"comparison of {longest}")
    return Loss(OPEN, "in no comparison", "")


def said_of(record: Record, name: str) -> str:
    """Return in words how the runs of a recipe ended beside the base's."""
    runs, base = comparison.runs_of(record, name), differences.base_of(record)
    if name == base:
        return "the reference"
    stops = [run["non_finite_step"] for run in runs if run["validation_loss"] is None]
    if stops:
        steps = sorted({step for step in stops if step is not None})
        where = f" at step {', '.join(map(str, steps))}" if steps else ""
        return f"not finite{where}, {len(stops)} of {len(runs)} seeds"
    pairs = comparison.differences(record, name, base)
    return f"{differences.sentence(pairs)}, {len(pairs)} seeds"


@cache
def sources() -> tuple[Source, ...]:
    """Return what the committed records know of speed, the largest models first."""
    timed = [
        (path.stem, records.load(path)) for path in sorted(RECORDS.glob("speed_*.json"))
    ]
    found = [one for name, record in timed for one in _timed(name, record)]
    found += [_compared(record) for record in evidence.comparisons().values()]
    return tuple(sorted(found, key=lambda one: -evidence.weights(one.size)))


def _timed(name: str, record: Record) -> list[Source]:
    """One source for each size, of its largest batch: there most is to be gained."""
    rows = [row for row in record.data["rows"] if not row["reason"]]
    found = []
    for size in dict.fromkeys(row["size"] for row in rows):
        batch = max(row["batch"] for row in rows if row["size"] == size)
        own = {
            row["recipe"]: row
            for row in rows
            if (row["size"], row["batch"]) == (size, batch)
        }
        speeds = {
            key: (row["low"], row["speed_up"], row["high"]) for key, row in own.items()
        }
        memory = {
            key: row["peak_bytes"] for key, row in own.items() if row["peak_bytes"]
        }
        base = "fp32" if "fp32" in speeds else BASELINE
        if base != BASELINE:
            speeds = _rebased(speeds, base)
        gpu = evidence.gpu_of(record)
        found.append(Source(name, size, base, gpu, speeds, memory))
    return found


def _rebased(
    speeds: dict[str, tuple[float, float, float]], base: str
) -> dict[str, tuple[float, float, float]]:
    """Return speeds as times that of `base`, as wide as both ranges together allow."""
    least, middle, most = speeds[base]
    times = {
        name: (own[0] / most, own[1] / middle, own[2] / least)
        for name, own in speeds.items()
    }
    return times | {base: (1.0, 1.0, 1.0)}


def _compared(record: Record) -> Source:
    base, size = differences.base_of(record), record.settings["size"]
    speeds, memory = {}, {}
    for name in comparison.recipes_in(record):
        ratios = comparison.ratios(record, name, base)
        if ratios:
            speeds[name] = (min(ratios), statistics.median(ratios), max(ratios))
        peak = comparison.median_of(record, name, "peak_allocated_bytes")
        memory |= {name: peak} if peak else {}
    gpu = evidence.gpu_of(record)
    return Source(f"comparison of {size}", size, base, gpu, speeds, memory)


def runs_on(name: str, gpu: Processor) -> bool:
    """Say whether `gpu` has the products of the recipe `name` in hardware."""
    recipe = recipes.get(name)
    wanted = {recipe.products, "float8_e4m3fn" if recipe.fp8 else recipe.products}
    return all(gpu.peak(dtype) for dtype in wanted)


def promised(name: str, gpu: Processor) -> float:
    """Return the rate of the recipe's products as times that in float32, by datasheet."""
    return (gpu.peak(recipes.get(name).products) or 0.0) / gpu.float32


def eligible(source: Source, gpu: Processor) -> list[str]:
    """Return the recipes of `source` that are right, and that `gpu` can run."""
    return [
        name
        for name in source.speeds
        if runs_on(name, gpu) and loss_of(name).verdict == RIGHT
    ]


def nearest(size: str, gpu: Processor) -> Source | None:
    """Return the source to decide from at `size`: one whose base `gpu` can run.

    The nearest in size; of several the one with most recipes to choose from.
    """
    weights = evidence.weights(size)
    usable = [
        one
        for one in sources()
        if runs_on(one.base, gpu) and len(eligible(one, gpu)) > 1
    ]

    def rank(one: Source) -> tuple[float, int]:
        own = evidence.weights(one.size)
        return max(own / weights, weights / own), -len(eligible(one, gpu))

    return min(usable, key=rank, default=None)


def fastest(source: Source, gpu: Processor) -> str:
    """Return the fastest right recipe, or the base.

    One counts that was faster than the base in every pair, and whose products `gpu`
    promises to be faster than in float32. The highest median wins; but one whose best
    pair reached it, and that has no loss scale to watch, is taken before one that has.
    """
    faster = [
        name
        for name in eligible(source, gpu)
        if source.speeds[name][0] > 1 and promised(name, gpu) > 1
    ]
    median = {name: source.speeds[name][1] for name in faster}
    top = max(median.values(), default=0.0)
    level = [name for name in faster if source.speeds[name][2] >= top]
    unscaled = [name for name in level if not recipes.get(name).scale_loss]
    return max(unscaled or level, key=median.get, default=source.base)


def smallest(source: Source, gpu: Processor) -> str:
    """Return the right recipe with the least peak memory; of equal ones the first."""
    known = [name for name in eligible(source, gpu) if name in source.peaks]
    return min(known, key=lambda name: source.peaks[name], default=source.base)


def choices(gpus: Iterable[Processor] = ()) -> list[Choice]:
    """Return what to take on each GPU of `peaks` and at each recorded size.

    GPUs of which all sizes say the same share a Choice, and so do sizes.
    """
    gpus = list(gpus) or [
        one for one in peaks.PROCESSORS.values() if not one.name.startswith("Xeon")
    ]
    sizes = dict.fromkeys(one.size for one in reversed(sources()))
    decided: dict[tuple, list[Processor]] = {}
    for gpu in gpus:
        groups: dict[tuple, list[str]] = {}
        for size in sizes:
            source = nearest(size, gpu)
            if source is not None:
                key = (source.record, source.size, fastest(source, gpu))
                groups.setdefault((*key, smallest(source, gpu)), []).append(size)
        said = tuple((key, tuple(own)) for key, own in groups.items())
        decided.setdefault(said, []).append(gpu)
    return [
        _choice(key, own, group) for said, group in decided.items() for key, own in said
    ]


def _choice(key: tuple, sizes: tuple[str, ...], group: list[Processor]) -> Choice:
    record, size, fast, small = key
    source = next(one for one in sources() if (one.record, one.size) == (record, size))
    rates = [promised(fast, gpu) for gpu in group]
    base = source.peaks.get(source.base)
    return Choice(
        gpus=tuple(gpu.name for gpu in group),
        sizes=sizes,
        fastest=fast,
        speed=source.speeds[fast],
        smallest=small,
        saved=1 - source.peaks[small] / base if base else 0.0,
        promised=(min(rates), max(rates)),
        source=source,
    )


class Table:
    """Choices as a table in Markdown, which a notebook shows as one."""

    HEAD = (
        "GPU",
        "model",
        "fastest",
        "measured",
        "its products, promised",
        "least memory",
        "loss against the reference",
        "speed from",
    )

    def __init__(self, rows: Iterable[Choice]) -> None:
        self.rows = list(rows)

    def __repr__(self) -> str:
        lines = [self.HEAD, ["---"] * len(self.HEAD), *map(self._row, self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    _repr_markdown_ = __repr__

    def _row(self, one: Choice) -> tuple[str, ...]:
        low, middle, high = one.speed
        loss, (least, most) = loss_of(one.fastest), one.promised
        rates = " to ".join(dict.fromkeys((f"{least:.1f}", f"{most:.1f}")))
        speed = f"{middle:.2f} x {one.source.base} ({low:.2f} to {high:.2f})"
        saved = f"`{one.smallest}`, {-one.saved:+.0%}"
        return (
            ", ".join(one.gpus),
            ", ".join(one.sizes),
            f"**`{one.fastest}`**",
            "the base" if one.fastest == one.source.base else speed,
            f"{rates} x float32",
            saved if one.saved else f"`{one.smallest}`",
            f"{loss.sentence} ({loss.record})",
            f"{one.source.record} ({one.source.gpu})",
        )


def predicted_peak(
    size: str, name: str, batch: int, optimizer: str = "adamw-fused"
) -> int | None:
    """Return the peak in bytes that `memory.formula` counts for an uncompiled step.

    None for a recipe that `memory` does not know.
    """
    if name not in IN_MEMORY:
        return None
    model = gpt.config(size)
    shape = Shape(model.layers, model.heads, model.hidden, model.vocabulary)
    account = formula.formula(
        shape, IN_MEMORY[name], optimizer, batch=batch, sequence=model.sequence
    )
    return account.requested_peak
