"""Which updates a 16-bit weight swallows, by layer, while a model trains.

The same AdamW under several ways to store its weights: see `master_weights`.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mpteach import recipes, training
from mpteach.data import Corpus
from mpteach.master_weights import MasterWeights, swallowed
from mpteach.runs import Settings

# Variant: how the bfloat16 weights are stored; None is torch's AdamW, all in bfloat16.
STORES = {
    "bf16-pure": None,
    "bf16-nearest": "nearest",
    "bf16-kahan": "kahan",
    "bf16-stochastic": "stochastic",
    "bf16-master": "master",
}


class UpdateObserver:
    """Measures at chosen steps of an optimizer which updates left no trace.

    `steps` are those it looked at, from 1. `shares` has for each layer a list, an entry a
    step: the share of its weights that the step left bit-identical although their
    gradient was not zero. "all" is the share of the whole model.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, steps: Iterable[int]
    ) -> None:
        self._weights = dict(model.named_parameters())
        self.steps: list[int] = []
        self.shares: dict[str, list[float]] = {
            layer: [] for layer in ("all", *self._weights)
        }
        self._chosen, self._step = set(steps), 0
        self._before: dict[str, tuple[Tensor, Tensor]] = {}
        optimizer.register_step_pre_hook(self._keep)
        optimizer.register_step_post_hook(self._compare)

    def _keep(self, *_: Any) -> None:
        self._step += 1
        if self._step in self._chosen:
            self._before = {
                name: (weight.detach().clone(), _gradient(weight))
                for name, weight in self._weights.items()
            }

    def _compare(self, *_: Any) -> None:
        if not self._before:
            return
        self.steps.append(self._step)
        lost = count = 0.0
        for layer, (before, gradient) in self._before.items():
            share = swallowed(before, self._weights[layer].detach(), gradient)
            self.shares[layer].append(round(share, 4))
            lost, count = lost + share * before.numel(), count + before.numel()
        self.shares["all"].append(round(lost / count, 4))
        self._before = {}


def _gradient(weight: Tensor) -> Tensor:
    # A layer that is frozen or was not used has none: nothing of it was to move.
    return torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed: those of `STORES`, "bf16" and "tf32".

    A device without TF32 products has "fp32" in its place.
    """
    exact = "tf32" if not recipes.unavailable(recipes.get("tf32"), device) else "fp32"
    return [*STORES, "bf16", exact]


def one_run(
    variant: str,
    seed: int,
    model: nn.Module,
    corpus: Corpus,
    settings: Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run, and what was `seen`, as a dict.

    `seen` has the `steps` and `shares` of an UpdateObserver, at the steps at which
    gradients are sampled too; by layer for seed 0 only. The times are left out.
    """
    observers = []

    def observed(model: nn.Module, settings: Settings) -> Optimizer:
        optimizer = make_optimizer(STORES.get(variant), seed)(model, settings)
        steps = filter(settings.is_sampled, range(1, settings.steps + 1))
        observers.append(UpdateObserver(model, optimizer, steps))
        return optimizer

    recipe = recipes.get("bf16-pure" if variant in STORES else variant)
    done = training.train(
        model, corpus, recipe, settings, seed, on_step, make_optimizer=observed
    )
    (observer,) = observers
    layers = observer.shares if seed == 0 else ("all",)
    shares = {layer: observer.shares[layer] for layer in layers}
    seen = {"steps": observer.steps, "shares": shares}
    return {**asdict(replace(done, seconds=[])), "seen": seen}


def make_optimizer(
    store: str | None, seed: int, **options: Any
) -> Callable[[nn.Module, Settings], Optimizer]:
    """Return what makes AdamW for a model: `store` of MasterWeights, or None for torch's.

    `options` go to AdamW beside the learning rate and betas of the settings.
    """

    def made(model: nn.Module, settings: Settings) -> Optimizer:
        common = {"lr": settings.learning_rate, "betas": (0.9, settings.beta2)}
        if store is None:
            return torch.optim.AdamW(model.parameters(), **common, **options)
        kept = {"store": store, "seed": seed}
        return MasterWeights(torch.optim.AdamW, model, **kept, **common, **options)

    return made
