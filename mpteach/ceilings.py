"""The ceilings of a machine in a record: its rates by operation, dtype and size."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mpteach import hardware, records
from mpteach.errors import InputError
from mpteach.hardware import ceilings
from mpteach.hardware.roofline import OPERATIONS, Work, stored_bytes
from mpteach.records import Record

EXPERIMENT = "ceilings"


def begin(device: str, sizes: Sequence[int] | None, command: str) -> Record:
    """Return an empty record; `sizes` are those of `ceilings.SIZES` unless given.

    A size given twice is timed once. Raises InputError for a device that is not there,
    for a size that is no multiple of 16, and for one that a CPU's memory cannot hold.
    """
    dtypes = ceilings.native_dtypes(device)
    sizes = ceilings.SIZES[device] if sizes is None else sizes
    ceilings.works(sizes, dtypes)  # refuses a size that cannot be timed
    sizes = sorted(set(sizes))
    if device == "cpu":
        _require_memory(sizes[-1])
    settings = {
        "device": device,
        "sizes": sizes,
        "dtypes": dtypes,
        "thin": list(ceilings.THIN),
        "seed": ceilings.SEED,
    }
    lacking = {
        dtype: f"{dtype}: this {device} has no products of it in hardware"
        for dtype in hardware.DTYPES
        if dtype not in dtypes
    }
    empty = records.begin(EXPERIMENT, settings, command, device)
    return empty.with_data([ceilings.SEED], {"unavailable": lacking, "rows": []})


def missing(record: Record) -> list[Work]:
    """Return what `record` still lacks, in the order of measuring."""
    done = {work_of(row) for row in record.data["rows"]}
    settings = record.settings
    every = ceilings.works(settings["sizes"], settings["dtypes"])
    return [work for work in every if work not in done]


def run(
    record: Record, path: Path | None = None, on_row: Callable[[], None] = lambda: None
) -> Record:
    """Time what `record` lacks and return it complete.

    It is saved to `path`, if there is one, after each row; `on_row()` is called then.
    """
    for work in missing(record):
        row = ceilings.measure(work, record.settings["device"])
        rows = [*record.data["rows"], row]
        record = record.with_data(record.seeds, {**record.data, "rows": rows})
        if path:
            record.save(path)
        on_row()
    return record


def work_of(row: dict) -> Work:
    """Return what a row timed."""
    return Work(row["operation"], row["dtype"], row["rows"], row["columns"])


def seconds(
    record: Record, operation: str, dtype: str, columns: int, rows: int | None = None
) -> float:
    """Return the median seconds of a call; `rows` is `columns` unless given.

    Raises InputError where the record has no such row.
    """
    wanted = Work(operation, dtype, columns if rows is None else rows, columns)
    for row in record.data["rows"]:
        if work_of(row) == wanted:
            return row["seconds"]
    raise InputError(
        f"the record has no {operation} in {dtype} of {wanted.rows} x {columns}: its "
        f"sizes are {record.settings['sizes']}, its dtypes {record.settings['dtypes']}."
    )


def flop_rate(row: dict) -> float:
    """Return the FLOP/s of a row."""
    return row["flop"] / row["seconds"]


def byte_rate(row: dict) -> float:
    """Return the bytes/s of a row, by the bytes that have to be moved."""
    return row["bytes"] / row["seconds"]


def table(record: Record) -> str:
    """Return the rates as text: TFLOP/s of products, GB/s of all else, by size."""
    sizes = record.settings["sizes"]
    lines = []
    for operation in OPERATIONS:
        rows = [r for r in record.data["rows"] if r["operation"] == operation]
        square = [row for row in rows if row["rows"] == row["columns"]]
        unit = "TFLOP/s" if operation == "product" else "GB/s"
        lines += ["", _line(f"{operation}, {unit}, n =", map(str, sizes))]
        lines += _lines(square, "columns", sizes)
        thin = [row for row in rows if row["rows"] != row["columns"]]
        if thin:
            title = f"few rows x {sizes[-1]}, {unit}, rows ="
            few = sorted({row["rows"] for row in thin})
            lines += ["", _line(title, map(str, few)), *_lines(thin, "rows", few)]
    return "\n".join([*lines[1:], *record.data["unavailable"].values()])


def _require_memory(size: int) -> None:
    """A GPU says when its memory is full; on a CPU the system may end the process."""
    free = hardware.free_memory_bytes()
    # AdamW holds most: weight, gradient and two means.
    needed = 4 * stored_bytes("float32") * size**2
    if free is not None and needed > free:
        raise InputError(
            f"size {size} needs {needed / 2**30:,.1f} GiB of memory and "
            f"{free / 2**30:,.1f} GiB are free: give smaller sizes."
        )


def _lines(rows: list[dict], key: str, places: Sequence[int]) -> list[str]:
    lines = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = {row[key]: row for row in rows if row["dtype"] == dtype}
        cells = [_rate(own[place]) if place in own else "-" for place in places]
        lines.append(_line(dtype, cells))
    return lines


def _rate(row: dict) -> str:
    is_product = row["operation"] == "product"
    rate = flop_rate(row) / 1e12 if is_product else byte_rate(row) / 1e9
    return f"{rate:.4g}"


def _line(title: str, cells: Sequence[str]) -> str:
    return f"{title:<34}" + "".join(f"{cell:>10}" for cell in cells)
