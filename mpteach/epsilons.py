"""Why float16 weights under Adam go non-finite, and what remains when that is cured.

The same AdamW with other arithmetic, another eps, or float32 state and masters.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mpteach import recipes, training, updates
from mpteach.data import Corpus
from mpteach.runs import Settings
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
CHANGES = 30


class ChangeObserver:
    """Measures how far the first CHANGES steps of an Adam move a weight, where at most.

    `largest` has two lists, an entry a step that was made: the largest |new - old| over
    the learning rate of the weights whose v is zero ("v_zero") and of the "others"; None
    where there is no such weight, or not a finite one.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.largest: dict[str, list[float | None]] = {"v_zero": [], "others": []}
        self._optimizer, self._before = optimizer, []
        optimizer.register_step_pre_hook(self._keep)
        optimizer.register_step_post_hook(self._compare)

    def _keep(self, *_: Any) -> None:
        if len(self.largest["others"]) < CHANGES:
            self._before = [
                (weight, group["lr"], weight.detach().float().clone())
                for group in self._optimizer.param_groups
                for weight in group["params"]
            ]

    def _compare(self, *_: Any) -> None:
        if not self._before:
            return
        found: dict[str, list[float]] = {name: [] for name in self.largest}
        for weight, rate, before in self._before:
            change = (weight.detach().float() - before).abs() / rate
            v_zero = self._optimizer.state[weight]["exp_avg_sq"] == 0
            for name, those in (("v_zero", v_zero), ("others", ~v_zero)):
                found[name] += [change[those].max().item()] if those.any() else []
        for name, sizes in found.items():
            worst = max(sizes, default=math.inf)
            finite = all(map(math.isfinite, sizes)) and math.isfinite(worst)
            self.largest[name].append(float(f"{worst:.4g}") if finite else None)
        self._before = []


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed: those of `VARIANTS`, and autocast."""
    return [*VARIANTS, "fp16"]


def one_run(
    variant: str,
    seed: int,
    model: nn.Module,
    corpus: Corpus,
    settings: Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run, and what was `seen`, as a dict.

    `seen` has the `steps` and the `shares` ("all") of an UpdateObserver, and at the same
    steps `second_moment_zero`: the share of weights with a gradient whose v is zero.
    `largest_change` is that of a ChangeObserver.
    Float32 state goes with a loss scale, which torch refuses for float16 gradients.
    """
    store, options = VARIANTS.get(variant, (None, {}))
    observers, changes, zeros = [], [], []

    def observed(model: nn.Module, settings: Settings) -> Optimizer:
        optimizer = updates.make_optimizer(store, seed, **options)(model, settings)
        steps = filter(settings.is_sampled, range(1, settings.steps + 1))
        observers.append(observer := UpdateObserver(model, optimizer, steps))
        changes.append(ChangeObserver(optimizer))

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
    seen["largest_change"] = changes[0].largest
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
