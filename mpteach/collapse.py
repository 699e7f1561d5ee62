"""A loss scale that falls to zero in silence: all losses finite, nothing learned.

One learned number multiplies the logits at position t by t^p, written exp(p log t). At
t = 0 the forward pass is right, 0, and the gradient of p is 0 times log 0: NaN. A
scaler skips every step for it. No scale helps: NaN is no overflow.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from mpteach import gpt, recipes, training
from mpteach.data import Corpus
from mpteach.runs import Settings

# Variant: recipe (None: the exact one of the device) and what is added to the position.
VARIANTS: dict[str, tuple[str | None, int]] = {
    "exact": (None, 0),
    "bf16": ("bf16", 0),
    "fp16": ("fp16", 0),
    "fp16-cured": ("fp16", 1),
}
POWER = 0.01  # at the start: the factor is between 1 and 1.07 at positions 1 to 512


class Observer:
    """Says which gradients of the first step are not finite, and how many weights moved.

    `non_finite` lists the names of the parameters with such a gradient. Call `stepped`
    after each step.
    """

    def __init__(self, model: nn.Module) -> None:
        named = dict(model.named_parameters())
        self.non_finite: list[str] = []
        self._start = {name: one.detach().clone() for name, one in named.items()}
        self._model = model
        self._handles = [
            one.register_post_accumulate_grad_hook(self._on_gradient(name))
            for name, one in named.items()
        ]

    def stepped(self, step: int) -> None:
        """Stop looking at gradients after the first step."""
        while self._handles:
            self._handles.pop().remove()

    def moved(self) -> int:
        """Return how many parameters differ from their start in any weight."""
        now = dict(self._model.named_parameters())
        return sum(not torch.equal(now[name], one) for name, one in self._start.items())

    def _on_gradient(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if not parameter.grad.isfinite().all():
                self.non_finite.append(name)

        return hook


def multiply_by_position(model: gpt.GPT, shift: int) -> None:
    """Make `model` multiply logits at position t by (t + `shift`)^p; p is learned."""
    device = next(model.parameters()).device
    model.power = nn.Parameter(torch.tensor(POWER, device=device))

    def hook(model: gpt.GPT, inputs: Any, logits: Tensor) -> Tensor:
        t = torch.arange(logits.shape[1], device=logits.device) + shift
        return logits * torch.exp(model.power * torch.log(t))[:, None]  # [B, T, V]

    model.register_forward_hook(hook)


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed."""
    return list(VARIANTS)


def one_run(
    variant: str,
    seed: int,
    model: gpt.GPT,
    corpus: Corpus,
    settings: Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run, and what was `seen`, as a dict.

    `seen` has the `non_finite` of an Observer, how many `parameters` there are (tensors,
    not numbers), how many `moved` from the first step to the last, and the last `power`.
    """
    name, shift = VARIANTS[variant]
    device = next(model.parameters()).device.type
    exact = "tf32" if not recipes.unavailable(recipes.get("tf32"), device) else "fp32"
    multiply_by_position(model, shift)
    observer = Observer(model)

    def stepped(step: int, loss: float) -> None:
        observer.stepped(step)
        on_step(step, loss)

    recipe = recipes.get(name or exact)
    done = training.train(model, corpus, recipe, settings, seed, stepped)
    power = model.power.item()
    seen = {
        "non_finite": observer.non_finite,
        "parameters": len(list(model.parameters())),
        "moved": observer.moved(),
        "power": power if math.isfinite(power) else None,
    }
    return {**asdict(replace(done, seconds=[])), "seen": seen}
