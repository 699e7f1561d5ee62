"""Why float16 weights under Adam go non-finite, and what remains when that is cured.

The same AdamW with other arithmetic, another eps, or float32 state and masters.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mpteach import recipes, training, updates
from mpteach.data import Corpus
from mpteach.updates import UpdateObserver

# Variant: store of the float16 weights (None: torch's AdamW, its state in float16 too)
# and options of AdamW. torch's default computes in the dtype of the weights, `fused` in
# float32. 1e-4 is the first power of ten that is a normal number of float16.
VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "fp16-pure": (None, {}),
    "fp16-fused": (None, {"fused": True}),
    "fp16-eps": (None, {"eps": 1e-4}),
    "fp16-nearest": ("nearest", {}),
    "fp16-master": ("master", {}),
}


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed: those of `VARIANTS`, and autocast."""
    return [*VARIANTS, "fp16"]


def one_run(
    variant: str,
    seed: int,
    model: nn.Module,
    corpus: Corpus,
    settings: training.Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run, and what was `seen`, as a dict.

    `seen` has the `steps` and the `shares` ("all") of an UpdateObserver, and at the same
    steps `second_moment_zero`: the share of weights with a gradient whose v is zero.
    Float32 state goes with a loss scale, which torch refuses for float16 gradients.
    """
    store, options = VARIANTS.get(variant, (None, {}))
    observers, zeros = [], []

    def observed(model: nn.Module, settings: training.Settings) -> Optimizer:
        optimizer = updates.make_optimizer(store, seed, **options)(model, settings)
        steps = filter(settings.is_sampled, range(1, settings.steps + 1))
        observers.append(observer := UpdateObserver(model, optimizer, steps))

        def look(*_: Any) -> None:
            if len(observer.steps) > len(zeros):
                zeros.append(second_moment_zero(optimizer))

        optimizer.register_step_post_hook(look)
        return optimizer

    recipe = recipes.get("fp16-pure" if variant in VARIANTS else variant)
    if store is not None:
        recipe = replace(recipe, name=variant, scale_loss=True)
    done = training.train(
        model, corpus, recipe, settings, seed, on_step, make_optimizer=observed
    )
    (observer,) = observers
    seen = {"steps": observer.steps, "shares": {"all": observer.shares["all"]}}
    seen["second_moment_zero"] = zeros
    return {**asdict(replace(done, seconds=[])), "seen": seen}


def second_moment_zero(optimizer: Optimizer) -> float:
    """Return the share of weights with a gradient other than zero whose v is zero.

    `optimizer` is an Adam that has stepped; 0.0 where no gradient differs from zero.
    """
    zero = count = 0
    for group in optimizer.param_groups:
        for weight in group["params"]:
            meant = weight.grad != 0
            v = optimizer.state[weight]["exp_avg_sq"]
            zero += int(((v == 0) & meant).sum())
            count += int(meant.sum())
    return round(zero / max(1, count), 4)
