"""What a device sums a matrix product in: exhibits that show it, kept in one record.

Each exhibit is a list of rows of plain data. A number that JSON lacks is kept as text
("inf", "nan"), so `float` reads every one. Sources: Fasi, Higham, Mikaitis and Pranesh
2021, PeerJ Computer Science 7:e330 (how to find a tensor core's accumulator by sums);
DeepSeek-AI 2024, arXiv 2412.19437, section 3.3.2 (float8 on Hopper); PyTorch's notes
"Numerical accuracy" and "CUDA semantics" for the flags.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product as combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mpteach import accumulation, formats, records
from mpteach.records import Record
from mpteach.rounding import round_to

EXPERIMENT = "accumulation"
ACCUMULATION_FLAG = "allow_fp16_accumulation"
# The flags of torch.backends.cuda.matmul, and the dtype whose products each changes.
FLAGS = {
    "allow_fp16_reduced_precision_reduction": "float16",
    "allow_bf16_reduced_precision_reduction": "bfloat16",
    ACCUMULATION_FLAG: "float16",
}
# The sizes of every exhibit. `shapes` are m, n, k: a small result of long sums is where
# a GPU splits the sum over blocks; `long` is a first term and the number of terms.
SETTINGS = {
    "lengths": [2**power for power in range(10, 17)],
    "tile": 64,
    "shapes": [
        [16, 16, 4096],
        [16, 16, 32768],
        [16, 16, 131072],
        [64, 64, 65536],
        [512, 512, 8192],
    ],
    "long": [2.0**24, 2**17],
    "powers": 31,
    "terms": 512,
    "seed": 0,
}


@dataclass(frozen=True)
class Product:
    """A way to multiply matrices of `dtype`; `result` is the dtype of what comes out.

    `flag` is one of `FLAGS` that is on meanwhile, `fast` torch._scaled_mm's
    use_fast_accum.
    """

    name: str
    dtype: str
    result: str
    flag: str | None = None
    fast: bool = False

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return [m, k] @ [k, n] -> [m, n]; `b` is stored column by column."""
        if not self.dtype.startswith("float8"):
            with _flag(self.flag, True) if self.flag else contextlib.nullcontext():
                return a @ b
        one = torch.ones((), device=a.device)
        dtype = getattr(torch, self.result)
        return torch._scaled_mm(
            a, b, one, one, out_dtype=dtype, use_fast_accum=self.fast
        )


PRODUCTS = {
    one.name: one
    for one in (
        Product("float32", "float32", "float32"),
        Product("float16", "float16", "float16"),
        Product("float16-in-float16", "float16", "float16", flag=ACCUMULATION_FLAG),
        Product("bfloat16", "bfloat16", "bfloat16"),
        Product("float8_e4m3fn", "float8_e4m3fn", "bfloat16"),
        Product("float8_e4m3fn-fast", "float8_e4m3fn", "bfloat16", fast=True),
    )
}
NARROW = tuple(name for name in PRODUCTS if name != "float32")

# Where small terms stand among n: behind 2^k and before -2^k, which cancels it. Given
# are the first small term, the one behind the last, and -2^k, then the small term. What
# becomes of 1.75, where it is too fine, tells rounding from cutting off.
PLACEMENTS = {
    "together": lambda n: (1, 2, 2, 1.0),
    "next": lambda n: (1, 2, n - 1, 1.0),
    "apart": lambda n: (n // 2, n // 2 + 1, n - 1, 1.0),
    "many": lambda n: (1, n - 1, n - 1, 1.0),
    "apart-1.75": lambda n: (n // 2, n // 2 + 1, n - 1, 1.75),
}


class Exhibit(NamedTuple):
    """The rows of one exhibit, listed by `cases(settings, usable)`, measured by `row`.

    `usable` names the products that the device has; `row(case, settings)` returns one.
    """

    cases: Callable[[dict, list[str]], list[tuple]]
    row: Callable[[tuple, dict], dict]


def begin(device: str, command: str) -> Record:
    """Return an empty record; raise InputError for a device that is not there."""
    empty = records.begin(EXPERIMENT, {**SETTINGS, "device": device}, command, device)
    reasons = {name: unavailable(name, device) for name in PRODUCTS}
    lacking = {name: reason for name, reason in reasons.items() if reason}
    return empty.with_data([], {"unavailable": lacking})


def run(
    record: Record, path: Path | None = None, on_row: Callable[[], None] = lambda: None
) -> Record:
    """Measure the exhibits that `record` lacks and return it complete.

    It is saved to `path`, if there is one, after each exhibit. `on_row()` is called
    after every row.
    """
    for name, cases in missing(record).items():
        rows = []
        for case in cases:
            rows.append(EXHIBITS[name].row(case, record.settings))
            on_row()
        data = {**record.data, name: rows}
        record = record.with_data([record.settings["seed"]], data)
        if path:
            record.save(path)
    return record


def missing(record: Record) -> dict[str, list[tuple]]:
    """Return the cases of each exhibit that `record` still lacks."""
    usable = [name for name in PRODUCTS if name not in record.data["unavailable"]]
    return {
        name: exhibit.cases(record.settings, usable)
        for name, exhibit in EXHIBITS.items()
        if name not in record.data
    }


def unavailable(name: str, device: str) -> str:
    """Return why `device` lacks the product called `name`, "" where it has it."""
    product = PRODUCTS[name]
    if product.flag and device != "cuda":
        return f"{name}: {product.flag} is a flag of CUDA's products"
    try:
        _entry(product, np.ones(32), np.ones(32), 16, device)
    except (RuntimeError, AttributeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        return f"{name}: this {device} cannot multiply it ({said[0][:100]})"
    return ""


def survives(values: list[float | str], expected: float) -> int | None:
    """Return the largest k up to which all `values`, by power k, are as `expected`."""
    lost = (k for k, value in enumerate(values) if float(value) != expected)
    first_lost = next(lost, len(values))
    return first_lost - 1 if first_lost else None


def table(record: Record) -> str:
    """Return the exhibits as text: sums of ones, long sums, flags, what survives."""
    return "\n".join(
        [
            *_ones_lines(record.data["ones"], record.settings["lengths"]),
            "",
            *_order_lines(record.data["order"]),
            "",
            *_flags_lines(record.data["flags"]),
            "",
            *_survival_lines(record.data["survival"]),
            *record.data["unavailable"].values(),
        ]
    )


def _ones_lines(rows: list[dict], lengths: list[int]) -> list[str]:
    lines = [_line(f"{r['name']}, {r['kind']}", r["values"]) for r in rows]
    return [_line("sum of n ones, n =", lengths), *lines]


def _order_lines(rows: list[dict]) -> list[str]:
    columns = ("first", "length", "result", "running_sum", "float32_accumulator")
    lines = [_line(r["name"], [r[column] for column in columns]) for r in rows]
    heads = ("first", "n", "product", "in dtype", "in float32")
    return [_line("first term, then n - 1 ones", heads), *lines]


def _flags_lines(rows: list[dict]) -> list[str]:
    if not rows:
        return ["CUDA's flags change nothing on this device."]
    states = ("rounded", "off", "on")
    lines = [
        _line(
            f"{row['flag'].removeprefix('allow_')}, {row['values']}",
            [
                "x".join(map(str, row["shape"])),
                *(f"{float(row[state]['rms_ulps']):.4g}" for state in states),
                row["differing"],
            ],
        )
        for row in rows
    ]
    heads = ("m x n x k", "rounded once", "off", "on", "differing")
    return [_line("rms error in ulps of the result", heads), *lines]


def _survival_lines(rows: list[dict]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        cells = [row["largest_power"] for row in own]
        lines.append(_line(name, [*cells, own[-1]["beyond"]]))
    heads = [*PLACEMENTS, "it becomes"]
    return [_line("kept beside 2^k up to k =", heads), *lines]


def _line(title: str, cells: Iterable[Any]) -> str:
    shown = [f"{c:.8g}" if isinstance(c, float) else str(c) for c in cells]
    return f"{title:<46}" + "".join(f"{cell:>14}" for cell in shown)


def _ones_cases(settings: dict, usable: list[str]) -> list[tuple]:
    # A vector times a vector is another program; _scaled_mm has none for float8.
    rows = [(name, rows) for name in usable for rows in (1, settings["tile"])]
    able = [(n, r) for n, r in rows if r > 1 or not n.startswith("float8")]
    dtypes = dict.fromkeys(PRODUCTS[name].dtype for name in usable if name in NARROW)
    sums = [
        (name, kind)
        for name in dtypes
        for kind in ("sum", "cumsum")
        if not name.startswith("float8")
    ]
    kinds = ("running_sum", "float32_accumulator")
    return [*able, *sums, *combinations(dtypes, kinds)]


def _ones_row(case: tuple, settings: dict) -> dict:
    name, kind = case
    lengths, device = settings["lengths"], settings["device"]
    if kind in ("running_sum", "float32_accumulator"):
        within = name if kind == "running_sum" else "float32"
        partial = _partial_sums_of_ones(within, max(lengths))
        result = PRODUCTS[name].result
        values = [round_to(float(partial[n - 1]), result) for n in lengths]
    elif kind in ("sum", "cumsum"):
        ones = torch.ones(max(lengths), dtype=getattr(torch, name), device=device)
        values = [
            (ones[:n].sum() if kind == "sum" else ones[:n].cumsum(0)[-1]).item()
            for n in lengths
        ]
    else:
        kind, rows = f"product of {kind} x n", kind
        values = [
            _entry(PRODUCTS[name], np.ones(n), np.ones(n), rows, device)
            for n in lengths
        ]
    return {"name": name, "kind": kind, "values": [_plain(v) for v in values]}


@cache
def _partial_sums_of_ones(within: str, n: int) -> np.ndarray:
    return accumulation.cumsum(np.ones(n), within)


def _order_cases(settings: dict, usable: list[str]) -> list[tuple]:
    narrow = [name for name in usable if name in NARROW]
    stalls = {name: 2 / formats.get(PRODUCTS[name].dtype).eps for name in narrow}
    long = [(name, *settings["long"]) for name in narrow if name == "bfloat16"]
    return [*((name, stall, int(stall)) for name, stall in stalls.items()), *long]


def _order_row(case: tuple, settings: dict) -> dict:
    name, first, length = case
    product = PRODUCTS[name]
    x, y = np.ones(length), np.ones(length)
    x[0], y[0] = _factors(int(math.log2(first)))
    running = accumulation.sum(x * y, product.dtype)
    wide = accumulation.sum(x * y, product.result, accumulator="float32")
    return {
        "name": name,
        "first": first,
        "length": length,
        "result": _plain(_entry(product, x, y, settings["tile"], settings["device"])),
        "running_sum": _plain(running),
        "float32_accumulator": _plain(wide),
    }


def _flags_cases(settings: dict, usable: list[str]) -> list[tuple]:
    if settings["device"] != "cuda":
        return []
    kinds = ("ones", "uniform", "normal")
    return list(combinations(FLAGS, kinds, settings["shapes"]))


def _flags_row(case: tuple, settings: dict) -> dict:
    """Compare the product with the flag off and on with the float64 product."""
    flag, kind, (m, n, k) = case
    dtype, device = FLAGS[flag], settings["device"]
    generator = torch.Generator().manual_seed(settings["seed"])
    a, b = (
        _drawn(kind, rows, k, generator).to(getattr(torch, dtype)).to(device)
        for rows in (m, n)
    )
    exact = (a.double() @ b.t().double()).cpu().numpy()
    results = {}
    for state in (False, True):
        with _flag(flag, state):
            results[state] = (a @ b.t()).double().cpu().numpy()
    return {
        "flag": flag,
        "values": kind,
        "shape": [m, n, k],
        "rounded": _errors(round_to(exact, dtype), exact, dtype),
        "off": _errors(results[False], exact, dtype),
        "on": _errors(results[True], exact, dtype),
        "differing": int((results[False] != results[True]).sum()),
    }


def _drawn(kind: str, rows: int, k: int, generator: torch.Generator) -> torch.Tensor:
    if kind == "ones":
        return torch.ones(rows, k)
    draw = {"uniform": torch.rand, "normal": torch.randn}[kind]
    return draw(rows, k, generator=generator)


def _errors(got: np.ndarray, exact: np.ndarray, dtype: str) -> dict:
    """Return the errors of `got` in ulps of `exact`, and relative in the 2-norm."""
    ulps = np.abs(got - exact) / formats.get(dtype).ulp(exact)
    relative = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    return {
        "max_ulps": _plain(ulps.max()),
        "rms_ulps": _plain(np.sqrt(np.mean(ulps**2))),
        "relative": _plain(relative),
    }


def _survival_cases(settings: dict, usable: list[str]) -> list[tuple]:
    return list(combinations(usable, PLACEMENTS))


def _survival_row(case: tuple, settings: dict) -> dict:
    """Put small terms between 2^k and -2^k, for each k; `values` are what is left."""
    name, placement = case
    dtype, powers = PRODUCTS[name].dtype, settings["powers"]
    largest = math.frexp(formats.get(dtype).max)[1] - 1
    # A narrow dtype's small terms are 2^-2h, so that 2^k is among its products.
    h = max(0, math.ceil((powers - 1) / 2) - largest)
    values = []
    for k in range(powers):
        x, y, expected = sandwich(placement, k, settings["terms"], h)
        entry = _entry(PRODUCTS[name], x, y, settings["tile"], settings["device"])
        values.append(_plain(entry * 4.0**h))
    kept = survives(values, expected)
    after = 0 if kept is None else kept + 1
    return {
        "name": name,
        "placement": placement,
        "expected": expected,
        "values": values,
        "largest_power": kept,
        "beyond": values[after] if after < powers else None,
    }


def sandwich(
    placement: str, k: int, n: int, h: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return x and y [n], and 4^h times their exact dot product, the small terms alone.

    Of the products x[i] y[i] times 4^h the first is 2^k, the last other than 0 is
    -2^k, and the small ones stand as `PLACEMENTS` has them.
    """
    first, behind, last, term = PLACEMENTS[placement](n)
    x, y = np.zeros(n), np.zeros(n)
    x[first:behind], y[first:behind] = term * 2.0**-h, 2.0**-h
    x[0], y[0] = _factors(k - 2 * h)
    x[last], y[last] = -x[0], y[0]
    return x, y, term * (behind - first)


EXHIBITS = {
    "ones": Exhibit(_ones_cases, _ones_row),
    "order": Exhibit(_order_cases, _order_row),
    "flags": Exhibit(_flags_cases, _flags_row),
    "survival": Exhibit(_survival_cases, _survival_row),
}


def _entry(
    product: Product, x: np.ndarray, y: np.ndarray, rows: int, device: str
) -> float:
    """Return entry [0, 0] of [rows, k] @ [k, rows], where all rows are x, columns y."""
    dtype = getattr(torch, product.dtype)
    a, b = (
        torch.from_numpy(one).float().to(dtype).to(device).repeat(rows, 1)
        for one in (x, y)
    )
    return product(a, b.t())[0, 0].item()


def _factors(k: int) -> tuple[float, float]:
    """Return two powers of two, as equal as can be, whose product is 2^k."""
    return 2.0 ** (k - k // 2), 2.0 ** (k // 2)


def _plain(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


@contextlib.contextmanager
def _flag(name: str, state: bool) -> Iterator[None]:
    """Hold a flag of CUDA's products at `state`."""
    flags = torch.backends.cuda.matmul
    before = getattr(flags, name)
    setattr(flags, name, state)
    try:
        yield
    finally:
        setattr(flags, name, before)
