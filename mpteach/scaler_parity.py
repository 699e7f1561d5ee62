"""Our loss scalers beside torch's: the same steps through both, compared bit by bit."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, optim
from torch.nn import functional as F

from mpteach import loss_scaling
from mpteach.errors import InputError

STEPS_A_RUN = 40
FAULTS = (float("inf"), float("-inf"), float("nan"))
WEIGHTS = (
    ((6, 3), torch.float32),
    ((), torch.float32),
    ((5,), torch.bfloat16),
    ((4,), torch.float64),
)
OPTIMIZERS: dict[str, Callable[[list[Tensor]], list[optim.Optimizer]]] = {
    "sgd": lambda weights: [optim.SGD(weights, lr=0.1)],
    "sgd, momentum": lambda weights: [optim.SGD(weights, lr=0.1, momentum=0.9)],
    "sgd, sparse": lambda weights: [optim.SGD(weights, lr=0.1)],
    "adam": lambda weights: [optim.Adam(weights)],
    "adamw, foreach": lambda weights: [optim.AdamW(weights, foreach=True)],
    "adamw, for-loop": lambda weights: [optim.AdamW(weights, foreach=False)],
    "adamw, fused": lambda weights: [optim.AdamW(weights, fused=True)],
    "two groups": lambda weights: [
        optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.01}])
    ],
    "two optimizers": lambda weights: [optim.SGD(weights[:2]), optim.Adam(weights[2:])],
}
ANY = {
    "init_scale": (2.0**16, 1000.1, 3e38, 1e-30, 1e-40),
    "growth_factor": (2.0, 1.1, 3.7, 1e9),
    "backoff_factor": (0.5, 0.9, 0.3, 1e-9),
    "new_scale": (1024.0, 0.3, 77777.7, 3e38, 1e-39),
}
# torch lets a fused optimizer divide by the scale, where unscale_() multiplies by the
# inverse: the same bits only where the inverse is exact.
POWERS_OF_TWO = {
    "init_scale": (2.0**16, 1.0, 2.0**100, 2.0**-60),
    "growth_factor": (2.0, 4.0),
    "backoff_factor": (0.5, 0.25),
    "new_scale": (2.0**10, 2.0**-3),
}


@dataclass(frozen=True)
class _Settings:
    device: str
    optimizer: str
    arguments: dict[str, Any]  # of the scaler
    is_static: bool
    clips: bool
    in_half: bool  # products in float16, which overflow by themselves


@dataclass(frozen=True)
class _Step:
    gradients: list[list[Tensor | None]]  # for each backward pass, for each weight
    optimizers: int  # how many of them step
    new_scale: float | Tensor | None


class _Side:
    """Ours or torch's: a scaler, the weights and the optimizers that it serves."""

    def __init__(self, settings: _Settings, start: list[Tensor], is_ours: bool) -> None:
        self.settings, self.is_ours, self.taken = settings, is_ours, 0
        self.weights = [weight.clone().requires_grad_() for weight in start]
        self.optimizers = OPTIMIZERS[settings.optimizer](self.weights)
        for optimizer in self.optimizers:
            optimizer.register_step_pre_hook(self._count)
        self.scaler = self._new_scaler()

    def run(self, step: _Step) -> None:
        """Do one iteration of training in which the gradients are those of `step`."""
        for gradients in step.gradients:
            losses = map(self._loss, self.weights, gradients)
            self.scaler.scale(sum(losses)).backward()
        for optimizer in self.optimizers[: step.optimizers]:
            if self.settings.clips:
                self.scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(self._dense(optimizer), max_norm=0.5)
            self.scaler.step(optimizer)
        self._update(step.new_scale)
        for weight in self.weights:
            weight.grad = None

    def resume(self, state: dict[str, Any]) -> None:
        """Go on with a new scaler that has loaded `state`."""
        self.scaler = self._new_scaler()
        self.scaler.load_state_dict(state)

    def bits(self) -> Tensor:
        """Return the bits of all weights in float64, which is exact, with one NaN."""
        flat = torch.cat(
            [one.detach().flatten().double().cpu() for one in self.weights]
        )
        return flat.masked_fill(flat.isnan(), torch.nan).view(torch.int64)

    def _new_scaler(self) -> Any:
        ours = loss_scaling.GradScaler
        if self.settings.is_static:
            ours = loss_scaling.StaticScaler
        make = ours if self.is_ours else torch.amp.GradScaler
        return make(self.settings.device, **self.settings.arguments)

    def _count(self, optimizer: optim.Optimizer, *_: Any) -> None:
        # torch always calls a fused optimizer, and tells it by found_inf to do nothing.
        self.taken += not getattr(optimizer, "found_inf", False)

    def _loss(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """Return a loss that has this gradient, or a constant where it is None."""
        total = torch.zeros((), device=self.settings.device)
        if gradient is None:
            return total
        if self.settings.optimizer == "sgd, sparse" and weight.ndim == 2:
            rows = torch.tensor([0, 4, 4, 1], device=weight.device)
            weight, gradient = F.embedding(rows, weight, sparse=True), gradient[rows]
        if self.settings.in_half:
            weight, gradient = weight.half(), gradient.half()
        return total + (weight * gradient).sum().to(total.device)

    def _dense(self, optimizer: optim.Optimizer) -> list[Tensor]:
        weights = [one for group in optimizer.param_groups for one in group["params"]]
        return [
            one for one in weights if one.grad is not None and not one.grad.is_sparse
        ]

    def _update(self, new_scale: float | Tensor | None) -> None:
        if not self.settings.is_static:
            self.scaler.update(new_scale)
        elif self.is_ours:
            self.scaler.update()
        else:
            self.scaler.update(self.scaler.get_scale())  # keeps torch's scale constant


def scaler_parity(steps: int, device: str, seed: int) -> dict[str, Any]:
    """Drive our scalers and torch's through `steps` random steps on "cpu" or "cuda".

    Runs of 40 steps draw static or dynamic scaling, the scaler's arguments up to the
    limits of float32, an optimizer, clipping, and products in float16. Steps draw
    finite, inf and NaN gradients, weights without one, two backward passes, new scales,
    and the exchange of both sides' states. After each, state, steps taken and every bit
    of the weights are compared. Returns plain data: counts of what happened, the
    `mismatches` by kind, and the settings of the first. Raises InputError for another
    device.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: choose cpu or cuda.")
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    counts, optimizers, mismatches = Counter(), Counter(), Counter()
    first = None
    while counts["steps"] < steps:
        settings = _draw_settings(draw, device)
        sides = _draw_sides(draw, generator, settings)
        began = counts["steps"]
        for _ in range(min(STEPS_A_RUN, steps - began)):
            found = _compare_step(sides, _draw_step(draw, generator, sides), counts)
            mismatches.update(found)
            if found:
                first = first or {**asdict(settings), "step": counts["steps"]}
                break  # from here on they differ for that reason alone
            if draw.random() < 0.05:
                counts["states exchanged"] += _exchange(*sides)
        done = counts["steps"] - began
        optimizers[settings.optimizer] += done
        counts["static"] += done * settings.is_static
        counts["disabled"] += done * (not settings.arguments["enabled"])
    return {
        "device": device,
        "seed": seed,
        **counts,
        "optimizers": dict(optimizers),
        "mismatches": dict(mismatches),
        "first_mismatch": first,
    }


def _draw_settings(draw: random.Random, device: str) -> _Settings:
    optimizer = draw.choice(list(OPTIMIZERS))
    choices = _choices(optimizer)
    names = ("init_scale", "growth_factor", "backoff_factor")
    arguments = {name: draw.choice(choices[name]) for name in names}
    arguments |= {
        "growth_interval": draw.randint(1, 5),
        "enabled": draw.random() < 0.95,
    }
    is_static, clips, in_half = (draw.random() < share for share in (0.2, 0.3, 0.3))
    return _Settings(device, optimizer, arguments, is_static, clips, in_half)


def _choices(optimizer: str) -> dict[str, tuple[float, ...]]:
    return POWERS_OF_TWO if "fused" in optimizer else ANY


def _draw_sides(
    draw: random.Random, generator: torch.Generator, settings: _Settings
) -> tuple[_Side, _Side]:
    # Three things on CUDA are torch's own. Beside a weight on the CPU, it copies scale and
    # flag there without waiting, and the copy may land on what was found since (pytorch
    # pull request 176429). It has no kernel that unscales bfloat16 gradients. And it takes
    # float64 gradients beyond the largest float32 for infinite. So: float32, one device.
    on_cpu = settings.device == "cpu"
    start = [
        torch.randn(shape, generator=generator).to(
            settings.device, dtype if on_cpu else torch.float32
        )
        for shape, dtype in WEIGHTS
    ]
    return _Side(settings, start, is_ours=True), _Side(settings, start, is_ours=False)


def _draw_step(
    draw: random.Random, generator: torch.Generator, sides: tuple[_Side, _Side]
) -> _Step:
    settings, weights = sides[0].settings, sides[0].weights
    size = 10 ** draw.uniform(-8, 2)
    passes = 1 + (draw.random() < 0.1)
    gradients = [
        [_draw_gradient(draw, generator, weight, size) for weight in weights]
        for _ in range(passes)
    ]
    new_scale = None
    if draw.random() < 0.05:
        new_scale = draw.choice(_choices(settings.optimizer)["new_scale"])
        if draw.random() < 0.5:
            new_scale = torch.tensor(new_scale, device=settings.device)
    return _Step(gradients, draw.choice((1, 2, 2)), new_scale)


def _draw_gradient(
    draw: random.Random, generator: torch.Generator, weight: Tensor, size: float
) -> Tensor | None:
    if weight.shape == WEIGHTS[-1][0] and draw.random() < 0.1:
        return None
    gradient = torch.randn(weight.shape, generator=generator) * size
    if draw.random() < 0.04:
        gradient.view(-1)[draw.randrange(weight.numel())] = draw.choice(FAULTS)
    return gradient.to(weight.device, weight.dtype)


def _compare_step(
    sides: tuple[_Side, _Side], step: _Step, counts: Counter
) -> list[str]:
    """Run one step on both sides, count what happened, return what differs."""
    ours, theirs = sides
    before, taken = ours.scaler.get_scale(), ours.taken
    for side in sides:
        side.run(step)
    after = ours.scaler.get_scale()
    counts["steps"] += 1
    asked = min(step.optimizers, len(ours.optimizers))
    counts["skipped"] += asked - (ours.taken - taken)
    counts["new scales"] += step.new_scale is not None
    counts["growths"] += step.new_scale is None and after > before
    counts["backoffs"] += step.new_scale is None and after < before
    states = [side.scaler.state_dict() for side in sides]
    keys = {key for state in states for key in state}
    found = [key for key in sorted(keys) if states[0].get(key) != states[1].get(key)]
    if ours.taken != theirs.taken:
        found.append("steps taken")
    if not torch.equal(ours.bits(), theirs.bits()):
        found.append("weights")
    return found


def _exchange(ours: _Side, theirs: _Side) -> bool:
    # A scale that backed off to zero is dead: ours refuses to load it.
    if ours.scaler.get_scale() == 0:
        return False
    states = ours.scaler.state_dict(), theirs.scaler.state_dict()
    ours.resume(states[1])
    theirs.resume(states[0])
    return True
