"""Matrix products in fp8 with one scale a tensor, over torch's scaled product.

Micikevicius et al. 2022 (arXiv 2209.05433): e4m3 for what flows forward, e5m2 for
gradients. Nothing is emulated: it needs a device that multiplies fp8.
Letters in the shapes: M rows of the input, K its features, N features of the output.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mpteach.errors import InputError
from mpteach.inputs import require_one_of, shown

HISTORY = 16  # steps whose largest magnitudes decide a delayed scale
FORMATS = (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float8_e5m2)
TINY = 1e-12  # stands in for the largest magnitude of a tensor of zeros
MULTIPLE = 16  # of which the hardware wants every side of a product
LARGEST = tuple(torch.finfo(dtype).max for dtype in FORMATS)


class Product(torch.autograd.Function):
    """x [M, K] @ weight [N, K] transposed, plus bias [N] or None: [M, N], and its gradients.

    `scales` [3] multiply x, weight and the gradient before the cast; None: each tensor's
    own, which puts its largest magnitude at the format's largest number. `amax` [3], or
    None, gets these magnitudes as its gradient: so they leave the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scales: Tensor | None,
        amax: Tensor | None,
    ) -> Tensor:
        """Return the product in the dtype of x. M, N and K are multiples of 16."""
        x8, x8_t, x_unit, x_amax = _quantize(x, 0, scales)
        w8, w8_t, w_unit, w_amax = _quantize(weight, 1, scales)
        ctx.save_for_backward(x8_t, x_unit, x_amax, w8_t, w_unit, w_amax, scales)
        ctx.measured, ctx.biased = amax is not None, bias is not None
        return _multiply(x8, w8.t(), x_unit, w_unit, x.dtype, bias, fast=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias, and the magnitudes as amax's."""
        x8_t, x_unit, x_amax, w8_t, w_unit, w_amax, scales = ctx.saved_tensors
        g8, g8_t, g_unit, g_amax = _quantize(gradient, 2, scales)
        # The hardware reads second factors by columns: [N, K] and [M, K] as transposes.
        dtype = gradient.dtype
        of_x = _multiply(g8, w8_t.t(), g_unit, w_unit, dtype)  # [M, N] @ [N, K]
        of_w = _multiply(g8_t, x8_t.t(), g_unit, x_unit, dtype)  # [N, M] @ [M, K]
        of_bias = gradient.sum(0) if ctx.biased else None
        of_amax = torch.stack([x_amax, w_amax, g_amax]) if ctx.measured else None
        return of_x, of_w, of_bias, None, of_amax


def cast(
    x: Tensor, scale: Tensor, dtype: torch.dtype, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x [M, N] times scale [] in fp8, the transpose of that, and `largest` of x.

    What is beyond `limit` becomes `limit`.
    """
    # Clamp first: beyond its largest number a cast to e4m3 makes NaN in torch 2.11.
    x8 = (x.float() * scale).clamp(-limit, limit).to(dtype)
    return x8, x8.t().contiguous(), largest(x)


def largest(x: Tensor) -> Tensor:
    """Return the largest magnitude in x, float32 []."""
    return x.abs().amax().float()


def _quantize(x: Tensor, role: int, scales: Tensor | None) -> tuple[Tensor, ...]:
    """Return x in fp8, its transpose, the unit they count in, and `largest` of x."""
    cast_by, largest_by = cast, largest
    if x.is_cuda:  # where Triton comes with torch
        from mpteach.fp8.kernel import cast as cast_by
        from mpteach.fp8.kernel import largest as largest_by
    x = x.contiguous()
    if scales is None:
        scale = LARGEST[role] / largest_by(x).clamp(min=TINY)
    else:
        scale = scales[role]
    x8, x8_t, amax = cast_by(x, scale, FORMATS[role], LARGEST[role])
    return x8, x8_t, 1 / scale, amax


def _multiply(a, b, a_unit, b_unit, dtype, bias=None, fast=False) -> Tensor:
    return torch._scaled_mm(
        a, b, a_unit, b_unit, bias, out_dtype=dtype, use_fast_accum=fast
    )


class Linear8(nn.Linear):
    """nn.Linear with fp8 products; `scales` and `amax` as in Product."""

    scales: Tensor | None = None
    amax: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N]; the rows must be a multiple of 16, and some."""
        fits = x.shape[-1:] == (self.in_features,) and x.numel() > 0
        if not fits or x.numel() // self.in_features % MULTIPLE:
            raise InputError(
                f"an input was {list(x.shape)}: fp8 products take {self.in_features} "
                f"features here, in rows that are a multiple of {MULTIPLE}; change the "
                "batch or the sequence."
            )
        rows = x.reshape(-1, self.in_features)
        y = Product.apply(rows, self.weight, self.bias, self.scales, self.amax)
        return y.unflatten(0, x.shape[:-1])


def convert(model: nn.Module, layers: str, delayed: bool = False) -> None:
    """Give linear layers of `model` fp8 products, in place: its "head", or "all" of them.

    With `delayed`, call `roll` after every step. The first step takes each tensor's own
    scale; its magnitudes, and those of up to `HISTORY` steps, decide the next ones'. The
    model keeps them in a buffer, so a state dict goes on with the same scales. Raises
    InputError where there are no such layers, or they do not fit fp8 products.
    """
    require_one_of("layers", layers, ("head", "all"))
    if not isinstance(model, nn.Module):
        raise InputError(f"the model was {shown(model)}: give an nn.Module.")
    chosen = [_head_of(model)] if layers == "head" else list(model.modules())
    chosen = [one for one in chosen if type(one) is nn.Linear]
    _require_fit(chosen)
    for one in chosen:
        one.__class__ = Linear8
    if not delayed:
        return
    history = torch.zeros(len(chosen), len(FORMATS), HISTORY)
    model.register_buffer("fp8_history", history.to(chosen[0].weight.device))
    for one in chosen:
        one.amax = torch.zeros(3, device=model.fp8_history.device, requires_grad=True)
    model.register_load_state_dict_post_hook(_take_scales)


def _head_of(model: nn.Module) -> nn.Module:
    if not isinstance(head := getattr(model, "head", None), nn.Module):
        raise InputError('the model has no layer called head: give layers="all".')
    return head


def _require_fit(layers: list[nn.Linear]) -> None:
    if not layers:
        raise InputError("there is no plain nn.Linear to convert: give a model with some.")
    for one in layers:
        if one.in_features % MULTIPLE or one.out_features % MULTIPLE:
            raise InputError(
                f"{one} does not fit fp8 products: its features must be multiples of "
                f"{MULTIPLE}."
            )
        if one.weight.dtype not in (torch.bfloat16, torch.float16):
            raise InputError(
                f"the weights were {one.weight.dtype}: cast the model to bfloat16 or "
                "float16 first."
            )


@torch.no_grad()
def roll(model: nn.Module) -> None:
    """Take the magnitudes of the last backward pass into the history; renew the scales.

    Raises InputError where a layer had none since the last call.
    """
    layers = _layers(model)
    found = [getattr(one.amax, "grad", None) for one in layers]
    if not found or any(one is None for one in found):
        raise InputError(
            "a layer has no new magnitudes: convert with delayed=True, and call roll once "
            "after each backward pass."
        )
    newest = torch.stack(found)[..., None]  # [layers, 3, 1]
    model.fp8_history.copy_(torch.cat([model.fp8_history[..., 1:], newest], -1))
    for one in layers:
        one.amax.grad = None
    _renew_scales(model)


def _take_scales(model: nn.Module, _: Any) -> None:
    for one in _layers(model):
        one.scales = None  # a state saved before the first step has none
    _renew_scales(model)


def _renew_scales(model: nn.Module) -> None:
    amax = model.fp8_history.amax(-1)  # [layers, 3]
    layers = _layers(model)
    if layers[0].scales is None:
        if not amax.any():
            return
        for one, own in zip(layers, torch.ones_like(amax)):
            one.scales = own
    limits = torch.stack([torch.full_like(amax[:, 0], most) for most in LARGEST], -1)
    torch._foreach_copy_([one.scales for one in layers], list(limits / amax.clamp(min=TINY)))


def _layers(model: nn.Module) -> list[Linear8]:
    return [one for one in model.modules() if isinstance(one, Linear8)]
