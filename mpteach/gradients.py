"""Where gradients lie, by layer, and which of their losses in float16 does the harm.

An `Observer` counts exponents while a model trains. An `Alteration` trains under loss
scaling, so that nothing is lost, and then takes from every 16-bit gradient on its way
back just what float16 without scaling would have taken: the numbers that become zero,
the digits of the subnormal ones, or both.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from mpteach import formats, recipes, training
from mpteach.data import Corpus
from mpteach.errors import InputError
from mpteach.inputs import require_one_of, shown
from mpteach.runs import Settings

HALF = formats.get("float16")
# Half of the smallest subnormal number: from here down float16 has zero only.
VANISHES = HALF.smallest_subnormal / 2
LOWEST, HIGHEST = -100, 40


def exponents(x: Tensor) -> dict[str, Any]:
    """Count the elements of `x` by exponent, floor(log2 |x|): a dict for a record.

    `lowest` is the exponent of the first entry of `counts`; `zeros` and `non_finite`
    elements are counted apart. Exponents below -100 and above 40 count as these.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{shown(x)} is no tensor: give one.")
    size = x.detach().abs().double().flatten()
    finite = torch.isfinite(size)
    numbers = size[finite & (size > 0)]
    bins = (torch.frexp(numbers).exponent.long() - 1).clamp(LOWEST, HIGHEST) - LOWEST
    counts = torch.bincount(bins, minlength=HIGHEST - LOWEST + 1).tolist()
    held = [place for place, count in enumerate(counts) if count] or [0]
    return {
        "lowest": LOWEST + held[0],
        "counts": counts[held[0] : held[-1] + 1],
        "zeros": int((size == 0).sum()),
        "non_finite": int((~finite).sum()),
    }


def shares(histogram: dict[str, Any], log2_scale: int = 0) -> dict[str, float]:
    """Return what float16 would make of the counted numbers, times 2^`log2_scale`.

    Shares of all elements that are not zero: `zero` (below half of the smallest subnormal
    number), `subnormal`, `normal` and `infinite` (2^16 and up; the few between `max` and
    2^16 count as normal).
    """
    counts = dict(enumerate(histogram["counts"], histogram["lowest"] + log2_scale))
    total = sum(counts.values()) or 1
    limits = {"zero": -25, "subnormal": -14, "normal": 16, "infinite": None}
    result, start = {}, None
    for name, end in limits.items():
        inside = (
            count
            for e, count in counts.items()
            if (start is None or e >= start) and (end is None or e < end)
        )
        result[name], start = sum(inside) / total, end
    return result


class Observer:
    """Counts exponents of a model's activations and gradients at chosen training steps.

    `seen` lists dicts: step (from 1), layer, kind ("activation", "activation gradient"
    or "weight gradient") and the fields of `exponents`. Gradients are those of the loss
    as it is handed to backward: train without a loss scale.
    """

    def __init__(self, model: nn.Module, steps: Iterable[int]) -> None:
        self.seen: list[dict[str, Any]] = []
        self._steps, self._step = set(steps), 0
        model.register_forward_pre_hook(self._begin)
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._on_output(name))
        learns = [p for p in model.named_parameters() if p[1].requires_grad]
        for name, parameter in learns:
            parameter.register_hook(self._on_gradient(name, "weight gradient"))

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self._step += torch.is_grad_enabled()

    def _on_output(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if torch.is_grad_enabled() and self._step in self._steps:
                self._note(name, "activation", output)
                if output.requires_grad:
                    hook = self._on_gradient(name, "activation gradient")
                    output.register_hook(hook)

        return hook

    def _on_gradient(self, name: str, kind: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self._step in self._steps:
                self._note(name, kind, gradient)

        return hook

    def _note(self, layer: str, kind: str, x: Tensor) -> None:
        self.seen.append(
            {"step": self._step, "layer": layer, "kind": kind, **exponents(x)}
        )


def vanish(gradient: Tensor) -> Tensor:
    """Return `gradient` with 0 where float16 would have 0, else unchanged."""
    return torch.where(gradient.abs() <= VANISHES, 0.0, gradient)


def coarsen(gradient: Tensor) -> Tensor:
    """Return `gradient` on float16's subnormal grid, but where that would give 0."""
    size = gradient.abs()
    on_grid = gradient.half().to(gradient.dtype)
    subnormal = (size > VANISHES) & (size < HALF.smallest_normal)
    return torch.where(subnormal, on_grid, gradient)


ALTERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda gradient: gradient,
    "zeros": vanish,
    "subnormals": coarsen,
    "both": lambda gradient: coarsen(vanish(gradient)),
}


class Alteration:
    """Alters every float16 gradient of a model on its way back, as if it were unscaled.

    Give `make_scaler` to `training.train`. The hooks sit on every node of the graph below
    the logits, so activations' gradients and weights' gradients are altered alike.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        require_one_of("name", name, tuple(ALTERATIONS))
        self._alter = ALTERATIONS[name]
        self._scaler: Any = None
        model.register_forward_hook(self._hook_the_graph)

    def make_scaler(self, device: str, enabled: bool) -> torch.amp.GradScaler:
        """Return torch's scaler and remember it, for its scale."""
        self._scaler = torch.amp.GradScaler(device, enabled=enabled)
        return self._scaler

    def _hook_the_graph(self, module: nn.Module, inputs: Any, logits: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        if self._scaler is None:
            raise InputError("the Alteration has no scaler: call make_scaler first.")
        scale, todo, met = self._scaler.get_scale(), [logits.grad_fn], set()
        while todo:
            node = todo.pop()
            if node is None or node in met:
                continue
            met.add(node)
            node.register_prehook(lambda gradients: self._altered(gradients, scale))
            todo += [before for before, _ in node.next_functions]

    def _altered(self, gradients: tuple, scale: float) -> tuple:
        return tuple(
            (self._alter(g.float() / scale) * scale).half()
            if g is not None and g.dtype == torch.float16
            else g
            for g in gradients
        )


def variants(device: str) -> list[str]:
    """Return the names of the runs of one seed, in order.

    The first has every gradient as it is: float32, with TF32 products where they are.
    """
    exact = "tf32" if not recipes.unavailable(recipes.get("tf32"), device) else "fp32"
    return [exact, "fp16-unscaled", *ALTERATIONS]


def one_run(
    variant: str,
    seed: int,
    model: nn.Module,
    corpus: Corpus,
    settings: Settings,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train `model` as the variant says; return the Run as a dict, and what was `seen`.

    `seen` is an Observer's, at the first, a middle and the last step, in the exact run
    of seed 0; in the others it is empty. The times are left out: hooks slow a run down.
    """
    make_scaler, seen = torch.amp.GradScaler, []
    if variant in ALTERATIONS:
        make_scaler = Alteration(model, variant).make_scaler
    elif variant != "fp16-unscaled" and seed == 0:
        seen = Observer(model, (1, settings.steps // 2, settings.steps)).seen
    recipe = recipes.get("fp16" if variant in ALTERATIONS else variant)
    done = training.train(
        model, corpus, recipe, settings, seed, on_step, make_scaler=make_scaler
    )
    return {**asdict(replace(done, seconds=[])), "seen": seen}
