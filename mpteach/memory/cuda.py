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
    """Calls what CUDA would: fused attention and norms, dropout by a mask of bools."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            # Its insides are called with this mode off.
            inside = {"scaled_dot_product_attention": _attention, "dropout": _dropout}
            with mock.patch.multiple(F, **inside):
                return func(*args, **kwargs)
        ours = {
            F.dropout: _dropout,
            F.scaled_dot_product_attention: _attention,
            F.rms_norm: _rms_norm,
        }
        return ours.get(func, func)(*args, **kwargs)


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **more
):
    compute, q, k, v = _computes[-1], query, key, value
    if compute is not None:
        q, k, v = (x.to(compute) for x in (q, k, v))
    grouped = q.ndim == 4 and q.shape[1] != k.shape[1]
    if q.ndim != 4 or (q.dtype == torch.float32 and grouped):
        # Fused kernels take four dimensions, and those of 16 bits alone share keys.
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
            if v.shape[-1] != q.shape[-1]:
                result = q.new_empty((batch, heads, rows, v.shape[-1]))
            seeds = q.new_empty(1, dtype=torch.int64), q.new_empty(1, dtype=torch.int64)
        ctx.save_for_backward(q, k, v, result, sums, mask, *seeds)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *_, mask = ctx.saved_tensors[:6]
        learned = mask is not None and mask.requires_grad
        read = (q, k, v, mask) if learned else (q, k, v)
        return (*(torch.empty_like(x) for x in read), *(() if learned else (None,)))


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


# What autocast computes in, here and outside of here; None where it is off.
_computes: list[torch.dtype | None] = [None]


@contextlib.contextmanager
def region(compute: torch.dtype | None) -> Iterator[None]:
    """Run a forward pass on fake CPU tensors as CUDA would, autocast to `compute`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(Kernels())
        stack.enter_context(policy.standing_in("cpu", "cuda"))
        stack.enter_context(mock.patch.multiple(torch.autocast, **_OF_MODELS))
        if compute is not None:
            stack.enter_context(_casting(compute))
        yield


@contextlib.contextmanager
def _casting(compute: torch.dtype, enabled: bool = True) -> Iterator[None]:
    _computes.append(compute if enabled else None)
    try:
        with autocast("cpu", compute, enabled):
            yield
    finally:
        _computes.pop()


def _init(self, device_type, dtype=None, enabled=True, cache_enabled=None):
    self.asked = dtype, enabled
    self.entered: list[contextlib.ExitStack] = []


def _enter(self):
    dtype, enabled = getattr(self, "asked", (self.__dict__.get("fast_dtype"), True))
    stack = contextlib.ExitStack()
    stack.enter_context(_casting(dtype or _computes[-1] or torch.float16, enabled))
    self.__dict__.setdefault("entered", []).append(stack)
    return self


def _exit(self, *error):
    self.entered.pop().close()


# torch.autocast as a model may use it: what it asks for any device is done here.
_OF_MODELS = {"__init__": _init, "__enter__": _enter, "__exit__": _exit}


@contextlib.contextmanager
def recomputation(compute: torch.dtype | None) -> Iterator[None]:
    """Within, a checkpoint that runs again does so in `region`.

    torch.utils.checkpoint enters torch.amp.autocast for it. A mode for functions that is
    entered outside of a backward pass sees nothing inside.
    """

    def entered(*args: Any, **kwargs: Any) -> contextlib.AbstractContextManager:
        if "cache_enabled" in kwargs:  # as a checkpoint says, and hardly a model
            return region(compute)
        return torch.autocast(*args, **kwargs)

    with mock.patch.object(torch.amp, "autocast", entered):
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
