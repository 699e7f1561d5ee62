"""Precision as data: what a training recipe stores, multiplies in, and scales.

Sources: Micikevicius et al. 2018 (arXiv 1710.03740) for 16-bit compute with loss scaling;
torch.amp's documentation for autocast and GradScaler; NVIDIA's TF32 documentation.
"""

from dataclasses import dataclass

from mpteach import hardware
from mpteach.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """How one training run uses precision.

    `weights`: dtype of parameters, gradients and optimizer state. `compute`: the dtype
    autocast casts to, or None for no autocast. `scale_loss`: whether a GradScaler is on.
    `tf32`: whether float32 products may use TF32. Dtypes are torch's names.
    """

    name: str
    summary: str
    weights: str = "float32"
    compute: str | None = None
    scale_loss: bool = False
    tf32: bool = False

    @property
    def products(self) -> str:
        """The format in which the recipe's matrix products take their inputs."""
        return "tfloat32" if self.tf32 else self.compute or self.weights


_ALL = (
    Recipe("fp32", "everything in float32"),
    Recipe("tf32", "float32 storage, products in TF32", tf32=True),
    Recipe(
        "fp16", "autocast to float16, loss scaling", compute="float16", scale_loss=True
    ),
    Recipe("fp16-unscaled", "autocast to float16, no loss scaling", compute="float16"),
    Recipe("bf16", "autocast to bfloat16", compute="bfloat16"),
    Recipe("fp16-pure", "weights and all else in float16", weights="float16"),
    Recipe("bf16-pure", "weights and all else in bfloat16", weights="bfloat16"),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}


def get(name: str) -> Recipe:
    """Return the recipe called `name`; raise InputError that lists the names."""
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}: choose from {', '.join(RECIPES)}.")
    return RECIPES[name]


def unavailable(recipe: Recipe, device: str) -> str:
    """Return why `device` ("cpu" or "cuda") cannot run `recipe` at its own name, or ""."""
    if hardware.native(recipe.products, device):
        return ""
    return f"{recipe.name}: this {device} has no {recipe.products} products in hardware"
