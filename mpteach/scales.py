"""What an fp8 scale that is out of date does: numbers cut off above, or lost below.

A delayed scale follows the tensors. A stale one is taken after the first step and kept;
`STALE` then has every tensor grow or shrink at once, to see how much of that is borne.
Micikevicius et al. 2022 (arXiv 2209.05433), on scales and saturation.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mpteach import formats, fp8, recipes, training
from mpteach.data import Corpus
from mpteach.runs import Settings

# Variant: how many times as large as for its first step's tensors the kept scale is: it
# is as if they had grown so many times since. A power of two: no digit changes.
STALE = {
    "fp8-stale": 1.0,
    "fp8-grown-4": 4.0,
    "fp8-grown-16": 16.0,
    "fp8-shrunk-1024": 2.0**-10,
    "fp8-shrunk-65536": 2.0**-16,
}
KEPT = ("bf16-master", "fp8", "fp8-delayed")
ROLES = ("x", "weight", "gradient")
COUNTS = ("saturated", "zero", "non_finite")
EVERY = 10  # steps from one look to the next, after the first


class Observer:
    """Counts at chosen steps what the scales of a model's fp8 layers do, by role.

    Roles are those of `fp8.Product`: x, weight, gradient. `seen` has the `steps` and
    for each role lists with an entry a step: of all elements of all layers the shares
    `saturated`, cut off to the largest number, `zero`, made 0 although they are not,
    and `non_finite`, which this torch would make NaN or inf without the clamp before
    the cast; `fill`, the largest ratio of a layer's largest magnitude to the largest
    that its scale allows, and its `layer`.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        keys = (*COUNTS, "fill", "layer")
        self.seen: dict[str, Any] = {"steps": []}
        self.seen |= {role: {key: [] for key in keys} for role in ROLES}
        self._settings, self._step = settings, 1
        self._counts: dict[str, list] = {role: [] for role in ROLES}
        for name, module in model.named_modules():
            if isinstance(module, fp8.Linear8):
                module.register_forward_hook(self._on_layer(name))

    def stepped(self, step: int) -> None:
        """Take note that `step` is done: sum up what was counted in it."""
        if self._counts["gradient"]:
            self.seen["steps"].append(step)
            for role, counts in self._counts.items():
                self._sum_up(self.seen[role], counts)
        self._counts = {role: [] for role in ROLES}
        self._step = step + 1

    def _on_layer(self, name: str) -> Callable[..., None]:
        def hook(layer: fp8.Linear8, inputs: tuple[Tensor], output: Tensor) -> None:
            if torch.is_grad_enabled() and self._settings.is_sampled(self._step):
                self._count(name, layer, 0, inputs[0])
                self._count(name, layer, 1, layer.weight)
                output.register_hook(lambda g: self._count(name, layer, 2, g))

        return hook

    def _count(self, name: str, layer: fp8.Linear8, role: int, x: Tensor) -> None:
        scale = None if layer.scales is None else layer.scales[role]
        self._counts[ROLES[role]].append((name, x.numel(), *counted(x, role, scale)))

    def _sum_up(self, lists: dict[str, list], counts: list[tuple]) -> None:
        names, sizes, *columns, fills = zip(*counts)
        for key, column in zip(COUNTS, columns):
            lists[key].append(_number(sum(column) / sum(sizes)))
        fullest = max(range(len(fills)), key=lambda place: fills[place])
        lists["fill"].append(_number(fills[fullest]))
        lists["layer"].append(names[fullest])


@torch.no_grad()
def counted(
    x: Tensor, role: int, scale: Tensor | None = None
) -> tuple[int, int, int, float]:
    """Return (saturated, zero, non_finite, fill) of `x`, as an Observer has them.

    `role` is its place in ROLES; without a `scale` it is x's own. Elements count as
    saturated where rounding would take them beyond the format's largest number.
    """
    dtype, largest = fp8.FORMATS[role], fp8.LARGEST[role]
    sizes = x.detach().abs().float()
    amax = sizes.max()
    if scale is None:
        scale = largest / amax.clamp(min=fp8.TINY)
    scaled = sizes * scale
    fmt = formats.get(str(dtype).removeprefix("torch."))
    limit = fmt.max + fmt.ulp(fmt.max).item() / 2  # 464 in e4m3, 61440 in e5m2
    at_zero = (scaled.clamp(max=largest).to(dtype).float() == 0) & (sizes > 0)
    broken = ~scaled.to(dtype).float().isfinite()
    counts = [int(one.sum()) for one in (scaled > limit, at_zero, broken)]
    return *counts, (amax * scale / largest).item()


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed; those in fp8 where `device` has it."""
    return ["bf16-master"] if left_out(device) else [*KEPT, *STALE]


def left_out(device: str) -> str:
    """Return a sentence on the variants that `device` lacks, and why; "" for none."""
    reason = recipes.unavailable(recipes.get("fp8"), device)
    names = ", ".join([*KEPT[1:], *STALE])
    return f"Left out are {names}; {reason}." if reason else ""


def make_stale(factor: float) -> Callable[[nn.Module, Settings], Optimizer]:
    """Return what makes the optimizer of "fp8", and keeps scales after its first step.

    They are that step's, times `factor`.
    """

    def made(model: nn.Module, settings: Settings) -> Optimizer:
        optimizer = recipes.get("fp8").make_optimizer(model, settings)
        layers = [one for one in model.modules() if isinstance(one, fp8.Linear8)]

        def keep(*_: Any) -> None:
            fp8.roll(model)
            for one in layers:
                one.scales.mul_(factor)
                one.amax = None  # measured no more
            handle.remove()

        handle = optimizer.register_step_post_hook(keep)
        return optimizer

    return made


def one_run(
    variant: str,
    seed: int,
    model: nn.Module,
    corpus: Corpus,
    settings: Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run, and what was `seen`, as a dict.

    `seen` is an Observer's, EVERY so many steps, and the `factor` of a stale scale.
    """
    factor = STALE.get(variant)
    recipe = recipes.get("fp8-delayed" if factor else variant)
    make = make_stale(factor) if factor else recipe.make_optimizer
    observers = []

    def observed(model: nn.Module, settings: Settings) -> Optimizer:
        often = replace(settings, gradient_every=EVERY)
        observers.append(Observer(model, often))  # the layers are fp8 by now
        return make(model, settings)

    def stepped(step: int, loss: float) -> None:
        observers[0].stepped(step)
        on_step(step, loss)

    done = training.train(
        model, corpus, recipe, settings, seed, stepped, make_optimizer=observed
    )
    seen = {"factor": factor, **observers[0].seen}
    return {**asdict(replace(done, seconds=[])), "seen": seen}


def _number(x: float) -> float | None:
    return float(f"{x:.5g}") if math.isfinite(x) else None
