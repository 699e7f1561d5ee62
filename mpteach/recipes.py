"""Precision as data: what a training recipe stores, multiplies in, and scales.

Sources: Micikevicius et al. 2018 (arXiv 1710.03740) for 16 bits, masters and loss scaling;
torch.amp's documentation; NVIDIA's on TF32; Micikevicius et al. 2022 (arXiv 2209.05433).
"""

from dataclasses import dataclass

import torch
from torch.optim import AdamW, Optimizer

from mpteach import fp8, hardware
from mpteach.errors import InputError
from mpteach.master_adamw import MasterAdamW
from mpteach.runs import Settings


@dataclass(frozen=True)
class Recipe:
    """How one training run uses precision.

    `weights`: dtype of parameters and gradients, and of the optimizer's state unless
    `masters` keeps that and float32 copies of the weights. `compute`: what autocast casts
    to, or None. `scale_loss`: whether a GradScaler is on. `tf32`: whether float32 products
    may use TF32. `fp8`: the linear layers with fp8 products, none (""), the "head" or
    "all"; `delayed`: whether their scales come from past steps. Dtypes are torch's names.
    """

    name: str
    summary: str
    weights: str = "float32"
    compute: str | None = None
    scale_loss: bool = False
    tf32: bool = False
    masters: bool = False
    fp8: str = ""
    delayed: bool = False

    @property
    def products(self) -> str:
        """The format in which matrix products take their inputs, but for an fp8 head's."""
        if self.fp8 == "all":
            return "float8_e4m3fn"
        return "tfloat32" if self.tf32 else self.compute or self.weights

    @property
    def loss(self) -> torch.dtype:
        """The dtype the loss is taken in: a pure recipe's own, else float32."""
        mixed = self.compute or self.masters
        return torch.float32 if mixed else getattr(torch, self.weights)

    def autocast(self, device: str) -> torch.autocast:
        """Return a context in which `device` casts as the recipe has it."""
        dtype = self.compute and getattr(torch, self.compute)
        return torch.autocast(device, dtype, enabled=bool(dtype))

    def prepare(self, model: torch.nn.Module) -> None:
        """Cast the weights of `model` in place, and give its layers fp8 products."""
        model.to(getattr(torch, self.weights))
        if self.fp8:
            fp8.convert(model, self.fp8, self.delayed)

    def make_optimizer(self, model: torch.nn.Module, settings: Settings) -> Optimizer:
        """Return AdamW for a prepared `model`: on masters, or torch's own."""
        options = {"lr": settings.learning_rate, "betas": (0.9, settings.beta2)}
        if not self.masters:
            options["fused"] = bool(settings.compiled) or None
            return AdamW(model.parameters(), **options)
        made = MasterAdamW(model.groups(), **options, compiled=bool(settings.compiled))
        if self.delayed:
            made.register_step_post_hook(lambda *_: fp8.roll(model))
        return made


_FP16 = {"weights": "float16", "scale_loss": True}
_BF16 = {"weights": "bfloat16", "masters": True}
_ALL = (
    Recipe("fp32", "everything in float32"),
    Recipe("tf32", "float32 storage, products in TF32", tf32=True),
    Recipe("fp16", "autocast to float16, loss scaling", "float32", "float16", True),
    Recipe("fp16-unscaled", "autocast to float16, no loss scaling", compute="float16"),
    Recipe("bf16", "autocast to bfloat16", compute="bfloat16"),
    Recipe("fp16-pure", "weights and all else in float16", "float16"),
    Recipe("bf16-pure", "weights and all else in bfloat16", "bfloat16"),
    Recipe("fp16-master", "float16, masters, loss scaling", **_BF16 | _FP16),
    Recipe("bf16-master", "bfloat16, masters in float32", **_BF16),
    Recipe("fp8-head", "the head's products in fp8", **_BF16, fp8="head", delayed=True),
    Recipe("fp8", "all layers' products in fp8", **_BF16, fp8="all"),
    Recipe("fp8-delayed", "fp8, scales of past steps", **_BF16, fp8="all", delayed=True),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}


def get(name: str) -> Recipe:
    """Return the recipe called `name`; raise InputError that lists the names."""
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}: choose from {', '.join(RECIPES)}.")
    return RECIPES[name]


def unavailable(recipe: Recipe, device: str) -> str:
    """Return why `device` ("cpu" or "cuda") cannot run `recipe` at its own name, or ""."""
    needed = "float8_e4m3fn" if recipe.fp8 else recipe.products
    if hardware.native(needed, device):
        return ""
    return f"{recipe.name}: this {device} has no {needed} products in hardware"
