"""What CUDA's kernels take for themselves while they run, where it can be computed.

A dispatcher sees results, not this. The sizes follow from the shapes and, for sums, from
the number of multiprocessors. Sources, of torch 2.11: EmbeddingBackwardKernel.cu and
SoftMax.cu of aten/src/ATen/native/cuda; for convolutions, measured on an H200: cuDNN
copies what it gets to channels last.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mpteach.memory.reductions import BYTES_A_PART, parts

aten = torch.ops.aten
FLOAT = 4  # bytes of the float32 in which kernels add up
_FEWEST_ROWS = 3072  # up to here the gradient of an embedding needs no sorting
_ROWS_A_THREAD = 10


def scratch(func: Any, args: tuple, result: Any) -> int:
    """Return the bytes that the CUDA kernel of `func` takes beside its results.

    0 where it takes none, or nothing that is known.
    """
    if func is aten.convolution.default:
        return _convolution(result, *args)
    known = _KNOWN.get(func)
    return known(*args) if known else 0


def _sum_of_rows(x: Tensor, dims: list[int] | None, *_: Any) -> int:
    """A sum over the rows of a matrix, as for a bias: partial sums of many blocks."""
    if x.ndim != 2 or dims != [0]:
        return 0
    rows, columns = x.shape
    return BYTES_A_PART * columns * parts(rows, columns)


def _embedding_backward(grad: Tensor, indices: Tensor, words: int, *_: Any) -> int:
    """Partial sums of sorted rows: at most one for each word and for each ten rows."""
    rows = indices.numel()
    if rows <= _FEWEST_ROWS:
        return 0
    return FLOAT * grad.shape[-1] * (rows // _ROWS_A_THREAD + min(rows, words))


def _convolution(y: Tensor, x: Tensor, weight: Tensor, *_: Any) -> int:
    """Copies of input, weight and result with the channels last, padded to 16 bytes."""
    in_order = x.is_contiguous(memory_format=torch.channels_last)
    if in_order or weight.shape[2:].numel() == 1:
        return 0
    channels, multiple = x.shape[1], 16 // x.element_size()
    padded = x.nbytes // channels * (-(-channels // multiple) * multiple)
    return padded + y.nbytes + weight.nbytes


def _softmax_backward(grad: Tensor, *_: Any) -> int:
    """The product of the gradient and the result."""
    return grad.nbytes


_KNOWN: dict[Any, Callable[..., int]] = {
    aten.sum.dim_IntList: _sum_of_rows,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.convolution_backward.default: _convolution,
    aten._softmax_backward_data.default: _softmax_backward,
}
