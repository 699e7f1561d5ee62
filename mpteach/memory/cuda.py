"""CUDA's ways on tensors without data: its kernels, its autocast policy, its workspace.

Fake tensors lie on the CPU, since a build of torch without CUDA cannot run a backward
pass over fake CUDA tensors. What differs there in memory is put right here.
Sources: aten/src/ATen/native/transformers/attention.cpp, native/Dropout.cpp,
native/layer_norm.cpp, cuda/CUDABlas.cpp of torch 2.11.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mpteach.autocast import autocast, policy

aten = torch.ops.aten
MIB = 2**20
# Each thread has handles of its own, and each handle a workspace from its first product
# on: the one that runs the forward pass, and autograd's. cublasLt serves products with a
# bias, and has one more. Measured on an H200.
WORKSPACE = {"product": 32 * MIB, "product with bias": 1 * MIB}
WORKSPACES_OF = {
    aten.mm.default: ("product",),
    aten.bmm.default: ("product",),
    aten.baddbmm.default: ("product",),
    aten.addmm.default: ("product", "product with bias"),
}


class Kernels(TorchFunctionMode):
    """Calls what CUDA would: fused attention, a mask of bools for dropout, fused norms.

    `compute` is the dtype of an autocast region around it, or None.
    """

    def __init__(self, compute: torch.dtype | None) -> None:
        super().__init__()
        self.compute = compute

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = {
            F.dropout: _dropout,
            F.scaled_dot_product_attention: self._attention,
            F.rms_norm: _rms_norm,
        }
        return ours.get(func, func)(*args, **kwargs)

    def _attention(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **more
    ):
        q, k, v = query, key, value
        if self.compute is not None:
            q, k, v = (x.to(self.compute) for x in (q, k, v))
        if q.dtype == torch.float32 and q.shape[1] != k.shape[1]:
            # Only 16-bit kernels share keys among heads.
            return aten._scaled_dot_product_attention_math(
                q, k, v, attn_mask, dropout_p, is_causal, **more
            )[0]
        return _Attention.apply(q, k, v, attn_mask)


class _Attention(torch.autograd.Function):
    """Allocates what fused attention does: the result, and a float32 number a row.

    Of 16 bits, as cuDNN: the result lies as the queries do, and seed and offset of the
    dropout are kept. Of float32, as the memory-efficient kernel: heads lie innermost.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        batch, heads, rows, _ = q.shape
        sums = q.new_empty((batch, heads, -(-rows // 32) * 32), dtype=torch.float32)
        if q.dtype == torch.float32:
            result = q.new_empty((batch, rows, heads, v.shape[-1])).transpose(1, 2)
            seeds: tuple[Tensor, ...] = ()
        else:
            result = torch.empty_like(q)
            seeds = q.new_empty(1, dtype=torch.int64), q.new_empty(1, dtype=torch.int64)
        ctx.save_for_backward(q, k, v, result, sums, mask, *seeds)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(x) for x in ctx.saved_tensors[:3]), None)


class _RMSNorm(torch.autograd.Function):
    """Allocates what the fused kernel does: the result and a float32 number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, rows: torch.Size) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(rows, dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = ctx.saved_tensors
        return (
            torch.empty_like(x),
            None if weight is None else torch.empty_like(weight),
            None,
        )


def _rms_norm(input, normalized_shape, weight=None, eps=None):
    rows = input.shape[: input.dim() - len(normalized_shape)]
    return _RMSNorm.apply(input, weight, rows)


def _dropout(input, p=0.5, training=True, inplace=False):
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


@contextlib.contextmanager
def region(compute: torch.dtype | None) -> Iterator[None]:
    """Run a forward pass on fake CPU tensors as CUDA would, autocast to `compute`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(Kernels(compute))
        if compute is not None:
            stack.enter_context(policy.standing_in("cpu", "cuda"))
            stack.enter_context(autocast("cpu", compute))
        yield


@contextlib.contextmanager
def recomputation(compute: torch.dtype | None) -> Iterator[None]:
    """Within, a checkpoint that runs again does so in `region`.

    torch.utils.checkpoint enters torch.amp.autocast for it. A mode for functions that is
    entered outside of a backward pass sees nothing inside.
    """
    with mock.patch.object(torch.amp, "autocast", lambda *_, **__: region(compute)):
        yield


def accumulates(func: Any, args: tuple, kwargs: dict | None) -> bool:
    """Whether this addition is autograd's of two gradients, which goes in place.

    With fake tensors it does not. A view is not written to: its base holds the memory.
    Source: torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace.
    """
    if func is not aten.add.Tensor or kwargs or torch.is_grad_enabled():
        return False
    first, second = args
    alike = isinstance(second, Tensor) and first.shape == second.shape
    return alike and first.dtype == second.dtype and not first._is_view()


def corrected(func: Any, result: Any) -> Any:
    """Return `result` of a CPU kernel in the dtypes that CUDA's kernel gives."""
    if func is aten.native_layer_norm.default:
        out, *statistics = result
        return out, *(one.float() for one in statistics)
    return result


def place(model: nn.Module) -> None:
    """Replace meta tensors by fake ones, in the order in which `model.to` copies them.

    Tied parameters stay tied.
    """
    made: dict[int, Tensor] = {}

    def faked(one: Tensor) -> Tensor:
        if id(one) not in made:
            empty = torch.empty(one.shape, dtype=one.dtype)
            if isinstance(one, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=one.requires_grad)
            made[id(one)] = empty
        return made[id(one)]

    def visit(module: nn.Module) -> None:
        for child in module.children():
            visit(child)
        for held in (module._parameters, module._buffers):
            held.update({k: faked(one) for k, one in held.items() if one is not None})

    visit(model)
