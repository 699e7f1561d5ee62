"""How long rounding takes, beside a copy of the same numbers and other libraries.

A ratio is taken within one run: each contender is timed right after a copy of float32
numbers into a buffer that is reused, and the median of these pairs counts.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product as combinations
from typing import Any, NamedTuple

import numpy as np
import torch

from mpteach import hardware, libraries, records, rounding
from mpteach.errors import InputError
from mpteach.formats import FORMATS, FloatFormat, get
from mpteach.records import Record
from mpteach.rounding import round_to

EXPERIMENT = "rounding speed"
OURS = "mpteach"
CASE = ("device", "format", "rounding", "input")
# At most so many times as long as the copy, for each format of 16 and of 8 bits.
TARGETS = {"nearest_even": 1.5, "stochastic": 2.5}
NARROW = tuple(name for name, fmt in FORMATS.items() if fmt.bits <= 16)
INPUTS = {
    "normal": lambda rng, n: rng.standard_normal(n) * 1e-3,
    "log-uniform": lambda rng, n: (
        10 ** rng.uniform(-12, 6, n) * rng.choice([-1.0, 1.0], n)
    ),
}
# gfloat is some hundred times slower than the others: it gets fewer numbers.
GFLOAT_SHARE = 200
# A GPU's copy is over before the clock that times it is read.
GPU_CALLS = 20
MOST = 10**9


class Contender(NamedTuple):
    """What is timed: `call` rounds `elements` numbers there and back."""

    library: str
    call: Callable[[], Any]
    elements: int


def begin(
    formats: list[str], elements: int, repeats: int, command: str
) -> tuple[Record, list[tuple]]:
    """Return an empty record and the cases: device, format, rounding, input.

    A format named twice is timed once. Raises InputError for an unknown format and for counts below 1 or beyond `MOST`.
    """
    for what, given in (("elements", elements), ("repeats", repeats)):
        if not 1 <= given <= MOST:
            raise InputError(f"{what} was {given}: give a number from 1 to {MOST:,}.")
    names = list(dict.fromkeys(get(name).name for name in formats))
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    settings = {
        "elements": elements,
        "repeats": repeats,
        "formats": names,
        "inputs": list(INPUTS),
        "targets": TARGETS,
        "threads": 1,
        "seed": 0,
    }
    record = records.begin(EXPERIMENT, settings, command, devices[-1])
    return record, list(combinations(devices, names, TARGETS, INPUTS))


def run(
    record: Record,
    cases: list[tuple],
    on_case: Callable[[], None] = lambda: None,
) -> Record:
    """Time each case and return the record with one row for each contender.

    A row holds the case, `library` ("mpteach", "numpy", ...), `ns` an element,
    `copy_ns`, the `ratio` to the copy, and for our own in formats of 16 and 8 bits on
    the CPU `target` and `met`. `on_case()` is called after each case.
    """
    elements = record.settings["elements"]
    rng = np.random.default_rng(record.settings["seed"])
    inputs = {
        name: draw(rng, elements).astype(np.float32) for name, draw in INPUTS.items()
    }
    rows = []
    with hardware.one_thread(), np.errstate(all="ignore"):
        for mode in TARGETS:
            _warm_up(mode)
        for case in cases:
            rows += _rows(case, inputs[case[-1]], record.settings["repeats"])
            on_case()
    return record.with_data([record.settings["seed"]], {"rows": rows})


def table(record: Record) -> str:
    """Return the rows as text: ns an element and times as long as the copy."""
    settings = record.settings
    lines = [
        f"float32 -> format -> float32, {settings['elements']:,} numbers, medians of "
        f"{settings['repeats']}, CPU on one thread.",
        "In brackets: how many times as long as the copy of float32 numbers before it.",
    ]
    heads = set()
    for case, rows in _by_case(record.data["rows"]):
        device, _, mode, _ = case
        if (device, mode) not in heads:
            heads.add((device, mode))
            lines += ["", f"{device}, {mode}, ns an element", _heads()]
        lines.append(_line(case, rows))
    return "\n".join(lines)


def _by_case(rows: list[dict]) -> Iterator[tuple[tuple, list[dict]]]:
    """Yield the rows of each case, the cases of one device and mode together."""
    cases: dict[tuple, list[dict]] = {}
    for row in rows:
        cases.setdefault(tuple(row[key] for key in CASE), []).append(row)
    yield from sorted(cases.items(), key=lambda pair: (pair[0][0], pair[0][2]))


def _heads() -> str:
    columns = "".join(f"{library:>17}" for library in (OURS, *libraries.LIBRARIES))
    return f"{'format':<16}{'input':<13}{'copy':>7}{columns}"


def _line(case: tuple, rows: list[dict]) -> str:
    by_library = {row["library"]: row for row in rows}
    cells = [f"{case[1]:<16}{case[3]:<13}{rows[0]['copy_ns']:7.3f}"]
    for library in (OURS, *libraries.LIBRARIES):
        row = by_library.get(library)
        cells.append(f"{row['ns']:.3f} ({row['ratio']:.3g})" if row else "-")
    ours = by_library[OURS]
    if ours["target"]:
        verdict = "met" if ours["met"] else "missed"
        cells.append(f"  {ours['target']} {verdict}")
    return cells[0] + "".join(f"{cell:>17}" for cell in cells[1:])


def _rows(case: tuple, x: np.ndarray, repeats: int) -> list[dict]:
    device, name, mode, kind = case
    fmt = get(name)
    x = x if fmt.signed else abs(x)
    if device == "cpu":
        contenders, buffer = _on_cpu(x, fmt, mode)
        times = _times(contenders, lambda: np.copyto(buffer, x), repeats, _seconds)
    else:
        given = torch.from_numpy(x).to(device)
        contenders, buffer = _on_gpu(given, fmt, mode)
        times = _times(contenders, lambda: buffer.copy_(given), repeats, _gpu_seconds)
    aimed = device == "cpu" and fmt.bits in (8, 16)
    about = dict(zip(CASE, case, strict=True))
    return [
        {
            **about,
            **_figures(contender, pairs, x.size, TARGETS[mode] if aimed else None),
        }
        for contender, pairs in zip(contenders, times, strict=True)
    ]


def _figures(
    contender: Contender,
    pairs: list[tuple[float, float]],
    copied: int,
    target: float | None,
) -> dict:
    library, _, elements = contender
    target = target if library == OURS else None
    ratio = statistics.median(own / base for base, own in pairs) * copied / elements
    return {
        "library": library,
        "ns": statistics.median(own for _, own in pairs) / elements * 1e9,
        "copy_ns": statistics.median(base for base, _ in pairs) / copied * 1e9,
        "ratio": ratio,
        "target": target,
        "met": None if target is None else ratio <= target,
    }


def _times(
    contenders: list[Contender],
    copy: Callable[[], Any],
    repeats: int,
    seconds: Callable[[Callable[[], Any]], float],
) -> list[list[tuple[float, float]]]:
    """Return for each contender its (copy, own) pairs, taken in turns."""
    for _, call, _ in contenders:
        call()
    rounds = [
        [(seconds(copy), seconds(call)) for _, call, _ in contenders]
        for _ in range(repeats)
    ]
    return [list(pairs) for pairs in zip(*rounds, strict=True)]


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _gpu_seconds(call: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(GPU_CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / GPU_CALLS


def _warm_up(mode: str) -> None:
    """Have so many numbers rounded that what can be compiled is."""
    rng = np.random.default_rng(0)
    x = np.zeros(rounding.WARM, np.float32)
    round_to(x, "float16", mode, rng=rng, out=x)


def _on_cpu(
    x: np.ndarray, fmt: FloatFormat, mode: str
) -> tuple[list[Contender], np.ndarray]:
    """Return the contenders and the buffer that all of them write."""
    buffer, rng = np.zeros_like(x), np.random.default_rng(0)
    ours = Contender(OURS, lambda: round_to(x, fmt, mode, rng=rng, out=buffer), x.size)
    able = [
        library
        for library in libraries.LIBRARIES
        if libraries.holds(fmt.name, library)
        and (mode == "nearest_even" or library == "gfloat")
    ]
    make = {
        "numpy": lambda: _numpy_cast(x, buffer, getattr(np, fmt.name)),
        "ml_dtypes": lambda: _ml_dtypes_cast(x, buffer, fmt.name),
        "torch": lambda: _torch_cast(*map(torch.from_numpy, (x, buffer)), fmt.name),
        "gfloat": lambda: _gfloat_rounding(x, buffer, fmt, mode),
    }
    sizes = {"gfloat": min(x.size, max(1, x.size // GFLOAT_SHARE))}
    others = [
        Contender(library, make[library](), sizes.get(library, x.size))
        for library in able
    ]
    return [ours, *others], buffer


def _on_gpu(
    x: torch.Tensor, fmt: FloatFormat, mode: str
) -> tuple[list[Contender], torch.Tensor]:
    buffer = torch.zeros_like(x)
    rng = torch.Generator(device=x.device).manual_seed(0)
    contenders = [
        Contender(OURS, lambda: round_to(x, fmt, mode, rng=rng, out=buffer), x.numel())
    ]
    if mode == "nearest_even" and libraries.holds(fmt.name, "torch"):
        cast = _torch_cast(x, buffer, fmt.name)
        contenders.append(Contender("torch", cast, x.numel()))
    return contenders, buffer


def _numpy_cast(x: np.ndarray, buffer: np.ndarray, dtype: type) -> Callable[[], None]:
    held = np.empty(x.shape, dtype)

    def cast() -> None:
        np.copyto(held, x, casting="unsafe")
        np.copyto(buffer, held, casting="unsafe")

    return cast


def _ml_dtypes_cast(x: np.ndarray, buffer: np.ndarray, name: str) -> Callable[[], None]:
    import ml_dtypes

    return _numpy_cast(x, buffer, getattr(ml_dtypes, name))


def _torch_cast(x: torch.Tensor, buffer: torch.Tensor, name: str) -> Callable[[], None]:
    held = torch.empty_like(x, dtype=getattr(torch, name))

    def cast() -> None:
        held.copy_(x)
        buffer.copy_(held)

    return cast


def _gfloat_rounding(
    x: np.ndarray, buffer: np.ndarray, fmt: FloatFormat, mode: str
) -> Callable[[], None]:
    import gfloat
    from gfloat import formats

    part = x[: max(1, x.size // GFLOAT_SHARE)]
    info = getattr(formats, f"format_info_{libraries.GFLOAT_NAMES[fmt.name]}")
    rng, saturate = np.random.default_rng(0), fmt.specials == "finite"

    def nearest() -> None:
        rounded = gfloat.round_ndarray(info, part, sat=saturate)
        buffer[: part.size] = rounded

    def stochastic() -> None:
        bits = rng.integers(0, 2**16, part.size)
        how = gfloat.RoundMode.Stochastic
        rounded = gfloat.round_ndarray(info, part, how, saturate, bits, 16)
        buffer[: part.size] = rounded

    return stochastic if mode == "stochastic" else nearest
