"""What a comparison allows to say: differences paired by seed, their intervals, costs.

Student 1908 (Biometrika 6): the interval of a mean of few pairs, whose spread is not
known but estimated. Losses in nats a token, times in seconds, energy in joules.
"""

import math
import statistics

from mpteach import comparison
from mpteach.errors import InputError
from mpteach.inputs import shown
from mpteach.records import Record

LEVEL = 0.95
WINDOW = 20  # losses whose mean counts as reached; `final_loss` is a mean of as many
DIGITS = 4


def base_of(record: Record) -> str:
    """Return the recipe that others are held against: fp32, else tf32, else the first.

    Raises InputError where the record has no runs.
    """
    present = comparison.recipes_in(record)
    if not present:
        raise InputError("the record has no runs: let mpteach compare finish one.")
    return next((name for name in ("fp32", "tf32") if name in present), present[0])


def interval(pairs: list[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Return the ends of Student's interval of the mean of `pairs`; None below two."""
    if len(pairs) < 2:
        return None
    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
    half = t_quantile(level, len(pairs) - 1) * error
    middle = statistics.fmean(pairs)
    return middle - half, middle + half


def t_quantile(level: float, freedom: int) -> float:
    """Return the t that |T| of `freedom` degrees stays under with probability `level`.

    `level` lies between 0 and 1. By bisection of `_within`.
    """
    if not 0 < level < 1:
        raise InputError(f"level was {shown(level)}: give a number between 0 and 1.")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _within(middle, freedom) < level else (low, middle)
        )
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < tan(angle) sqrt(freedom)): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for place in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * place / (place + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def sentence(pairs: list[float]) -> str:
    """Return what the paired differences allow to say at 95 %, ends rounded outward.

    Never that there is no difference: only how large one may be that was not seen.
    """
    found = interval(pairs)
    if found is None:
        return "nothing resolved: it takes two seeds that both recipes finished"
    low, high = found
    if low <= 0 <= high:
        return f"no difference larger than {_up(max(-low, high))} resolved"
    word = "higher" if low > 0 else "lower"
    near, far = sorted((abs(low), abs(high)))
    return f"{word} by {_down(near)} to {_up(far)}"


def sentences(record: Record) -> list[str]:
    """Return a line for each recipe beside the base: its held-out loss against the base's."""
    base = base_of(record)
    pairs = {
        name: comparison.differences(record, name, base)
        for name in comparison.recipes_in(record)
        if name != base
    }
    return [
        f"{name} against {base}, {len(own)} seeds: {sentence(own)}"
        for name, own in pairs.items()
    ]


def seconds_to(run: dict, loss: float) -> float | None:
    """Return the seconds of training until the mean of 20 losses in a row is `loss` or less.

    None where it never is. The seconds of a step are summed, those of samples too.
    """
    for end in range(WINDOW, len(run["losses"]) + 1):
        window = run["losses"][end - WINDOW : end]
        if None not in window and statistics.fmean(window) <= loss:
            return math.fsum(run["seconds"][:end])
    return None


def joules_per_token(record: Record, run: dict) -> float | None:
    """Return the energy of a run over the tokens of its steps; None where not known."""
    energy = run.get("energy_joules")  # records of before have none
    shape, training = record.settings["model"], record.settings["training"]
    tokens = len(run["losses"]) * training["batch"] * shape["sequence"]
    return energy / tokens if energy and tokens else None


def table(record: Record) -> str:
    """Return medians over seeds as text: losses, difference to the base, speed, costs.

    The difference is the mean over the pairs, with its 95 % interval.
    """
    base = base_of(record)
    head = (
        f"{'recipe':<14}{'seeds':>5}{'train':>8}{'held out':>10}{f'- {base}':>10}"
        f"{'95 % interval':>18}{'tokens/s':>11}{f'x {base}':>8}{'peak GiB':>10}"
        f"{'J/1k tokens':>13}  ended"
    )
    rows = [_row(record, name, base) for name in comparison.recipes_in(record)]
    return "\n".join([head, *rows])


def _row(record: Record, name: str, base: str) -> str:
    runs = comparison.runs_of(record, name)
    train, held_out, speed, peak = (
        comparison.median_of(record, name, key)
        for key in (
            "final_loss",
            "validation_loss",
            "tokens_per_second",
            "peak_allocated_bytes",
        )
    )
    pairs = [] if name == base else comparison.differences(record, name, base)
    ends = interval(pairs)
    spread = f"{ends[0]:+.{DIGITS}f}..{ends[1]:+.{DIGITS}f}" if ends else "-"
    costs = [joules_per_token(record, run) for run in runs]
    known = [1000 * cost for cost in costs if cost is not None]
    stops = sorted({run["non_finite_step"] for run in runs} - {None})
    ended = f"non-finite at step {', '.join(map(str, stops))}" if stops else "finite"
    return (
        f"{name:<14}{len(runs):>5}{_cell(train, '.3f'):>8}{_cell(held_out, '.3f'):>10}"
        f"{_cell(statistics.fmean(pairs) if pairs else None, f'+.{DIGITS}f'):>10}"
        f"{spread:>18}{_cell(speed, ',.0f'):>11}"
        f"{_cell(comparison.speed_up(record, name, base), '.2f'):>8}"
        f"{_cell(peak / 2**30 if peak else None, '.2f'):>10}"
        f"{_cell(statistics.median(known) if known else None, '.2f'):>13}  {ended}"
    )


def _cell(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)


def _up(value: float) -> str:
    return f"{math.ceil(value * 10**DIGITS) / 10**DIGITS:.{DIGITS}f}"


def _down(value: float) -> str:
    return f"{math.floor(value * 10**DIGITS) / 10**DIGITS:.{DIGITS}f}"
