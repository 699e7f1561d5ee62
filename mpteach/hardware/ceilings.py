"""How fast this machine really is: matrix products, element-wise operations, copies.

Every operation gets random numbers (a GPU draws less power on zeros, and so runs them
faster), is warmed up, and is called many times in a row between two readings of the
clock: the time of a call includes what it takes to launch it, where that is longer.
"""

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from mpteach import hardware
from mpteach.errors import InputError
from mpteach.hardware.roofline import ELEMENTWISE, Work
from mpteach.inputs import shown

SIZES = {
    "cpu": tuple(2**power for power in range(6, 11)),
    "cuda": tuple(2**power for power in range(8, 15)),
}
# A float32 matrix of this size takes 4 TiB.
LARGEST_SIZE = 2**20
# Rows of the products of a few rows with the largest matrix: a layer at small batches.
THIN = (1, 16, 64, 256, 1024)
# A row of measurements: blocks of calls that last about BLOCK_SECONDS, as many as fit
# into ROW_SECONDS, from FEWEST to MOST.
BLOCK_SECONDS, ROW_SECONDS = 0.005, 0.5
FEWEST, MOST, MOST_CALLS = 5, 20, 500
SEED = 0


def measure_ceilings(
    device: str, sizes: Sequence[int] | None = None, dtypes: Sequence[str] | None = None
) -> list[dict]:
    """Time each of `works(sizes, dtypes)` on `device`, "cpu" (on one core) or "cuda".

    Without `sizes` take `SIZES[device]`, without `dtypes` what the device multiplies in
    hardware. Each row is as `measure` returns it.
    """
    sizes = SIZES.get(device, ()) if sizes is None else sizes
    dtypes = native_dtypes(device) if dtypes is None else dtypes
    return [measure(work, device) for work in works(sizes, dtypes)]


def native_dtypes(device: str) -> list[str]:
    """Return the dtypes whose products `device` has in hardware."""
    return [dtype for dtype in hardware.DTYPES if hardware.native(dtype, device)]


def works(sizes: Sequence[int], dtypes: Sequence[str]) -> list[Work]:
    """Return all that is timed, for each n of `sizes` and each dtype that has it.

    Products [n, n] @ [n, n], products of few rows with the largest matrix, and all
    other operations on [n, n] numbers.

    Raises InputError for an unknown dtype and for sizes that are no multiples of 16,
    which float8 products need, or above `LARGEST_SIZE`.
    """
    for size in sizes:
        if type(size) is not int or not 16 <= size <= LARGEST_SIZE or size % 16:
            raise InputError(
                f"size was {shown(size)}: give multiples of 16 up to {LARGEST_SIZE}."
            )
    if not sizes:
        raise InputError("no size was given: give multiples of 16, such as 256.")
    largest = max(sizes)
    products = [Work("product", d, n, n) for d in dtypes for n in sizes]
    products += [
        Work("product", d, rows, largest)
        for d in dtypes
        for rows in THIN
        # A float8 product of a single row is refused by some versions of torch.
        if rows < largest and (rows >= 16 or not d.startswith("float8"))
    ]
    elementwise = itertools.product(ELEMENTWISE, dtypes, sizes)
    return products + [
        Work(name, dtype, n, n)
        for name, dtype, n in elementwise
        if dtype in _dtypes_of(name)
    ]


def measure(work: Work, device: str) -> dict:
    """Time `work` on `device` and return a row of plain data.

    `seconds` is the median time of a call, `low` and `high` are the quartiles; `flop`
    and `bytes` are what the call computes and has to move. Raises InputError where
    `device` cannot do it.
    """
    try:
        with _held(work, device):
            calls, times = _times(_call(work, device), device)
    except (RuntimeError, AttributeError) as error:
        raise InputError(_why_not(work, device, error)) from error
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return {
        "operation": work.operation,
        "dtype": work.dtype,
        "rows": work.rows,
        "columns": work.columns,
        "flop": work.flop,
        "bytes": work.bytes,
        "seconds": middle,
        "low": low,
        "high": high,
        "samples": len(times),
        "calls": calls,
    }


def _dtypes_of(operation: str) -> tuple[str, ...]:
    return {
        "copy": ("float32", "float16", "bfloat16", "float8_e4m3fn"),
        "cast": ("float16", "bfloat16"),
    }.get(operation, ("float32", "float16", "bfloat16"))


@contextlib.contextmanager
def _held(work: Work, device: str) -> Iterator[None]:
    """One core on a CPU; TF32 on or off as the dtype says; no gradients."""
    one = hardware.one_thread() if device == "cpu" else contextlib.nullcontext()
    before = torch.get_float32_matmul_precision()
    wanted = "high" if work.dtype == "tfloat32" else "highest"
    with one, torch.no_grad():
        torch.set_float32_matmul_precision(wanted)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def _times(call: Callable[[], object], device: str) -> tuple[int, list[float]]:
    """Return the calls in a block, and the seconds of a call in each timed block."""
    seconds = _gpu_seconds if device == "cuda" else _cpu_seconds
    seconds(call, 2)  # loads kernels, fills caches
    once = seconds(call, 1)
    calls = min(max(1, math.ceil(BLOCK_SECONDS / once)), MOST_CALLS)
    block = calls * seconds(call, calls)  # wakes up the clocks
    samples = min(max(FEWEST, math.ceil(ROW_SECONDS / block)), MOST)
    return calls, [seconds(call, calls) for _ in range(samples)]


def _cpu_seconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _gpu_seconds(call: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def _call(work: Work, device: str) -> Callable[[], object]:
    """Return `work` as a call on random numbers that already lie on `device`."""
    generator = torch.Generator(device=device).manual_seed(SEED)

    def drawn(rows: int, dtype: str) -> torch.Tensor:
        shape = (rows, work.columns)
        numbers = torch.randn(shape, generator=generator, device=device)
        return numbers.to(_torch_dtype(dtype))

    x = drawn(work.rows, "float32" if work.operation == "cast" else work.dtype)
    match work.operation:
        case "product":
            return _product(x, drawn(work.columns, work.dtype))
        case "copy" | "cast":
            out = torch.empty_like(x, dtype=_torch_dtype(work.dtype))
            return lambda: out.copy_(x)
        case "add":
            y, out = drawn(work.rows, work.dtype), torch.empty_like(x)
            return lambda: torch.add(x, y, out=out)
        case "gelu":
            return lambda: torch.nn.functional.gelu(x)
        case "softmax":
            return lambda: torch.softmax(x, -1)
        case "layer_norm":
            return lambda: torch.layer_norm(x, x.shape[1:])
    weight = torch.nn.Parameter(x)
    weight.grad = drawn(work.rows, work.dtype)
    # A large eps: in float16 a small one is zero.
    return torch.optim.AdamW([weight], lr=1e-6, eps=1e-3, fused=True).step


def _product(a: torch.Tensor, b: torch.Tensor) -> Callable[[], torch.Tensor]:
    """[m, k] @ [k, k] -> [m, k]; float8 wants the second stored column by column."""
    if a.dtype != torch.float8_e4m3fn:
        return lambda: torch.mm(a, b)
    one, columns = torch.ones((), device=a.device), b.t()
    return lambda: torch._scaled_mm(a, columns, one, one, out_dtype=torch.bfloat16)


def _torch_dtype(dtype: str) -> torch.dtype:
    return getattr(torch, "float32" if dtype == "tfloat32" else dtype)


def _why_not(work: Work, device: str, error: Exception) -> str:
    hardware.native("float32", device)  # refuses an unknown device
    if device == "cuda" and (problem := hardware.cuda_problem()):
        return f"device 'cuda' cannot be used ({problem}): take 'cpu'."
    said = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in said[0]:
        return (
            f"{work.operation} in {work.dtype} at size {work.columns} does not fit into"
            f" the memory of this {device}: give smaller sizes."
        )
    return (
        f"this {device} cannot time {work.operation} in {work.dtype} at size "
        f"{work.columns} ({said[0]:.100}): take another dtype, size or device."
    )
