"""A matrix and its transpose in fp8, read once: GPU kernels in Triton.

They compute what `fp8.cast` and `fp8.largest` say in torch's words. torch.compile makes
of those words kernels that do the work of the layer before them a second time for the
maximum, and that write the transpose byte by byte.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

TILE = 128
ROW = 8192


@triton.jit
def _fp8_cast(
    x, scale, out, out_t, amax, M, N, LARGEST: tl.constexpr, T: tl.constexpr
):
    row, column = tl.program_id(0), tl.program_id(1)
    # 64 bits: the logits of a large batch are more than 2**31.
    rows = row.to(tl.int64) * T + tl.arange(0, T)
    columns = column.to(tl.int64) * T + tl.arange(0, T)
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    value = tl.load(x + rows[:, None] * N + columns[None, :], inside, 0.0)
    value = value.to(tl.float32)
    place = row * tl.num_programs(1) + column
    tl.store(amax + place, tl.max(tl.max(tl.abs(value), 1), 0))
    scaled = value * tl.load(scale)
    scaled = tl.clamp(scaled, -LARGEST, LARGEST, tl.PropagateNan.ALL)
    scaled = scaled.to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * N + columns[None, :], scaled, inside)
    transposed = out_t + columns[:, None] * M + rows[None, :]
    tl.store(transposed, tl.trans(scaled), tl.trans(inside))


@triton.jit
def _fp8_amax(x, amax, size, T: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)
    value = tl.load(x + places, places < size, 0.0).to(tl.float32)
    tl.store(amax + tl.program_id(0), tl.max(tl.abs(value), 0))


@triton_op("mpteach::fp8_cast", mutates_args={})
def cast(
    x: Tensor, scale: Tensor, dtype: torch.dtype, largest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the work of `fp8.cast`, x contiguous."""
    rows, columns = x.shape
    grid = (triton.cdiv(rows, TILE), triton.cdiv(columns, TILE))
    out = torch.empty((rows, columns), dtype=dtype, device=x.device)
    out_t = torch.empty((columns, rows), dtype=dtype, device=x.device)
    amax = torch.empty(grid, dtype=torch.float32, device=x.device)
    wrap_triton(_fp8_cast)[grid](
        x, scale, out, out_t, amax, rows, columns, largest, TILE, num_warps=8
    )
    return out, out_t, amax.amax()


@triton_op("mpteach::fp8_largest", mutates_args={})
def largest(x: Tensor) -> Tensor:
    """Do the work of `fp8.largest`, x contiguous."""
    grid = (triton.cdiv(x.numel(), ROW),)
    amax = torch.empty(grid, dtype=torch.float32, device=x.device)
    wrap_triton(_fp8_amax)[grid](x, amax, x.numel(), ROW, num_warps=8)
    return amax.amax()
