"""What a recipe and an optimizer keep in memory: the names that all of `memory` shares.

They are those of the measurements: "amp" is torch's autocast, "pure" stores everything in
16 bits, "master" keeps float32 masters beside 16-bit weights, and copies the gradients up
to float32 at the step.
"""

from dataclasses import dataclass
from typing import Any

from mpteach.errors import InputError
from mpteach.inputs import shown


@dataclass(frozen=True)
class Recipe:
    """Where a training step rounds: dtypes are torch's names.

    `weights`: of parameters and their gradients. `compute`: what autocast casts to, or
    None. `masters`: whether the optimizer works on float32 copies. `scales_loss`: whether
    a GradScaler is on.
    """

    name: str
    weights: str = "float32"
    compute: str | None = None
    masters: bool = False
    scales_loss: bool = False


_ALL = (
    Recipe("fp32"),
    Recipe("tf32"),
    Recipe("amp-fp16", compute="float16", scales_loss=True),
    Recipe("amp-bf16", compute="bfloat16"),
    Recipe("pure-bf16", weights="bfloat16"),
    Recipe("fp16-master", weights="float16", masters=True),
    Recipe("bf16-master", weights="bfloat16", masters=True),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}

# torch's class and what makes it keep the state it is known for.
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
}
KERNELS = ("foreach", "fused")
OPTIMIZERS = [f"{name}-{kernel}" for name in _CLASSES for kernel in KERNELS]


def get(name: str) -> Recipe:
    """Return the recipe called `name`; raise InputError that lists the names."""
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(
            f"unknown recipe {shown(name)}: choose from {', '.join(RECIPES)}."
        )
    return RECIPES[name]


def optimizer(name: str) -> tuple[str, dict[str, Any]]:
    """Return the name of torch's class and its arguments for e.g. "adamw-fused".

    Without an ending it is "-foreach", torch's own choice on CUDA. Raises InputError that
    lists the names.
    """
    full = name if isinstance(name, str) and "-" in name else f"{name}-{KERNELS[0]}"
    if full not in OPTIMIZERS:
        raise InputError(
            f"unknown optimizer {shown(name)}: choose from {', '.join(OPTIMIZERS)}."
        )
    base, kernel = full.split("-")
    class_name, options = _CLASSES[base]
    return class_name, {**options, kernel: True}
