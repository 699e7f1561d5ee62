"""What tensors and modules held, and where the first inf or NaN came from."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mpteach import formats

LIMITS = ("float16", "bfloat16")
ROWS = 5  # of modules in the text of a report


@dataclass(frozen=True)
class TensorRange:
    """What a tensor held: magnitudes of its finite values but zero, and the others.

    `smallest` and `largest` are None where all values are zero or not finite.
    """

    dtype: str
    shape: tuple[int, ...]
    smallest: float | None
    largest: float | None
    nan: int
    positive_inf: int
    negative_inf: int

    @property
    def inf(self) -> int:
        """How many values are infinite."""
        return self.positive_inf + self.negative_inf

    def __str__(self) -> str:
        counts = ((self.nan, "NaN"), (self.positive_inf, "inf"))
        others = (*counts, (self.negative_inf, "-inf"))
        wrong = "".join(f", {count} {name}" for count, name in others if count)
        return f"{self.dtype} {list(self.shape)}, {_span(self)}{wrong}"


@dataclass(frozen=True)
class ModuleRange:
    """The magnitudes of all that one module computed, forward or backward."""

    phase: str
    module: str
    smallest: float
    largest: float

    def headroom(self, name: str) -> tuple[float, float]:
        """Return largest / max and smallest / smallest subnormal of the format `name`.

        Above 1 the first overflows; below 1/2 the second becomes 0.
        """
        fmt = formats.get(name)
        return self.largest / fmt.max, self.smallest / fmt.smallest_subnormal

    def binades_left(self, name: str) -> float:
        """Return the powers of two to the nearer limit of the format `name`."""
        top, bottom = self.headroom(name)
        return min(-math.log2(top), math.log2(bottom))


@dataclass(frozen=True)
class Report:
    """Where the first inf or NaN came from; `str` tells it in a few lines.

    `phase`: "before", "forward", "loss", "backward" or "step". `module`: the qualified
    name, or that of the parameter, buffer or input that it was found in. `operation`:
    the operation of torch's core (aten). `call`: the function that Python called, or
    backward the autograd node. `code`: the line of the model that called it. `modules`:
    what each module had computed until then, those nearest to float16's limits first.
    """

    phase: str
    module: str
    operation: str
    call: str
    code: str
    inputs: tuple[TensorRange, ...]
    outputs: tuple[TensorRange, ...]
    modules: tuple[ModuleRange, ...]

    @property
    def kind(self) -> str:
        """Return "NaN" or "inf": the worst of what the operation gave."""
        return "NaN" if any(one.nan for one in self.outputs) else "inf"

    def __str__(self) -> str:
        if self.phase == "before":
            return f"{self.module} already holds {self.kind}: {self.outputs[0]}."
        within = f" in {self.call}" if self.call not in ("", self.operation) else ""
        lines = [
            f"First {self.kind}: {self.phase}, {self.module}, {self.operation}{within}."
        ]
        lines += [f"  code    {self.code}"] if self.code else []
        lines += [f"  input   {one}" for one in self.inputs]
        lines += [f"  output  {one}" for one in self.outputs]
        if self.modules:
            title = ["Before, nearest to a limit:", "magnitudes", *LIMITS]
            lines.append(_columns(title))
        return "\n".join(lines + [_row(one) for one in self.modules[:ROWS]])


def measure(x: Tensor) -> TensorRange:
    """Return the range of a dense floating-point tensor, on any device."""
    x = x.detach()
    wide = x.float() if x.element_size() < 4 else x
    size = wide.abs()
    counted = size[wide.isfinite() & (size > 0)]
    limits = (
        (counted.min().item(), counted.max().item()) if len(counted) else (None,) * 2
    )
    dtype, inf = str(x.dtype).removeprefix("torch."), wide.isinf()
    positive, negative = ((inf & (wide > 0)), (inf & (wide < 0)))
    counts = [int(one.sum()) for one in (wide.isnan(), positive, negative)]
    return TensorRange(dtype, tuple(x.shape), *limits, *counts)


def has_numbers(x: Tensor) -> bool:
    """Whether `x` is a dense tensor of real floating-point numbers that can be read."""
    return (
        x.is_floating_point() and x.layout is torch.strided and x.device.type != "meta"
    )


def finite(x: Tensor) -> Tensor:
    """Return where `x` is finite, as a bool tensor of its shape."""
    x = x.detach()
    return (x.float() if x.element_size() < 2 else x).isfinite()


def is_finite(x: Tensor) -> bool:
    """Whether all numbers of `x` are finite; True for what holds no such numbers."""
    return not has_numbers(x) or bool(finite(x).all())


def _span(one: TensorRange | ModuleRange) -> str:
    if one.largest is None:
        return "no finite value but 0"
    return f"{one.smallest:.3g} to {one.largest:.3g}"


def _row(one: ModuleRange) -> str:
    """Return a line of the table: the range, and how far it is from the limits."""
    cells = [f"{one.phase} {one.module}", _span(one)]
    for name in LIMITS:
        top, bottom = one.headroom(name)
        cells.append(f"{top:.1g} of max, {bottom:.1g} of least")
    return _columns(cells)


def _columns(cells: list[str]) -> str:
    widths = (32, 22, 30, 30)
    return "  " + " ".join(map(str.ljust, cells, widths)).rstrip()
