"""AdamW on float32 masters of 16-bit weights, in one pass over the memory a step.

Loshchilov and Hutter 2019 (arXiv 1711.05101); Micikevicius et al. 2018 (arXiv
1710.03740), section 3.1. `master_weights` shows the mechanism for any optimizer; this is
its fast form for one: compiled, it holds no float32 gradient.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mpteach.errors import InputError, require
from mpteach.inputs import shown

KEPT = ("master", "exp_avg", "exp_avg_sq")


class MasterAdamW(torch.optim.Optimizer):
    """torch's AdamW for 16-bit weights whose masters and state are float32.

    `groups` as in torch, on one device; gradients come in the weights' dtype. With
    `compiled`, torch.compile makes the kernels of a group's update, and groups of like
    shapes share them. torch's GradScaler leaves unscaling and skipping to the step.
    """

    # Then torch's GradScaler sets `grad_scale` and `found_inf` before a step.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        compiled: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        with _torch_refuses():
            super().__init__(groups, options)
        require(self._weights(), "there is no weight in the groups: give one at least.")
        self._update = torch.compile(_update, dynamic=False) if compiled else _update
        device = self._weights()[0].device
        # On the device: a skipped step is not counted, and nobody waits to be told.
        self.steps = torch.zeros((), dtype=torch.float64, device=device)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as in torch; its weights get masters. InputError for bad options."""
        with _torch_refuses():
            _require_options({**self.defaults, **param_group})
            super().add_param_group(param_group)
        weights = self.param_groups[-1]["params"]
        once = len(set(map(id, weights))) == len(weights)
        require(once, "a group has a weight twice: give each once.")
        for weight in weights:
            if not weight.is_floating_point():
                raise InputError(f"a weight was {weight.dtype}: give 16-bit floats.")
            master = weight.detach().to(torch.float32, copy=True)
            zeros = torch.zeros_like(master), torch.zeros_like(master)
            self.state[weight] = dict(zip(KEPT, (master, *zeros)))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update masters and weights by the gradients; weights without one stay.

        The corrections of m and v count the steps of the optimizer, not of each weight.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        zero = self.steps.new_zeros((), dtype=torch.float32)
        skip = getattr(self, "found_inf", zero)
        scale = getattr(self, "grad_scale", None)
        scale = zero + 1 if scale is None else scale
        self.steps += 1 - skip
        for group in self.param_groups:
            weights = [one for one in group["params"] if one.grad is not None]
            parts = [[one, one.grad, *self.state[one].values()] for one in weights]
            first, second = ((1 - beta**self.steps).float() for beta in group["betas"])
            # Tensors: for each new number the kernels would be compiled again.
            rate = torch.full_like(zero, group["lr"])
            scalars = rate, rate / first, second.sqrt(), scale, skip
            constants = *group["betas"], group["eps"], group["weight_decay"]
            self._update(parts, *scalars, *constants)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return masters and state by the number of the weight, the groups, the steps."""
        return {**super().state_dict(), "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a `state_dict` of the same groups; the weights become the masters' images.

        Raises InputError, and changes nothing, where it is not of these weights.
        """
        self._require_own(state_dict)
        super().load_state_dict(state_dict)
        self.steps.copy_(state_dict["steps"])
        # torch's method has rounded the float32 state to the dtype of the weights.
        for number, weight in enumerate(self._weights()):
            saved = state_dict["state"][number]
            kept = {name: saved[name].to(weight.device, copy=True) for name in KEPT}
            self.state[weight] = kept
            weight.copy_(kept["master"])

    def _require_own(self, state_dict: dict[str, Any]) -> None:
        try:
            each = [state_dict["state"][n] for n in range(len(state_dict["state"]))]
            shapes = [[kept[name].shape for name in KEPT] for kept in each]
            counts = [len(group["params"]) for group in state_dict["param_groups"]]
            if not 0 <= torch.as_tensor(state_dict["steps"]).item() < math.inf:
                raise ValueError("a count of steps that is none")
        except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
            raise InputError(
                "this is no state of MasterAdamW: give what its state_dict returned."
            ) from error
        own = [[weight.shape] * len(KEPT) for weight in self._weights()]
        if shapes != own or counts != [len(one["params"]) for one in self.param_groups]:
            raise InputError(
                "the state belongs to weights of other shapes or groups: make the "
                "optimizer for the model that the state is from."
            )

    def _weights(self) -> list[Tensor]:
        return [one for group in self.param_groups for one in group["params"]]


@contextlib.contextmanager
def _torch_refuses() -> Iterator[None]:
    """Make one sentence of what torch says against groups of weights."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"these are no groups of weights ({error}): give parameters of a model, or "
            "dicts that have some as params."
        ) from error


def _require_options(group: dict[str, Any]) -> None:
    """Raise InputError unless the numbers of `group` are in torch's ranges for AdamW."""
    for name in ("lr", "eps", "weight_decay"):
        value = group[name]
        if not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
            raise InputError(f"{name} was {shown(value)}: give a number from 0 up.")
    betas = group["betas"]
    pair = betas if isinstance(betas, tuple | list) and len(betas) == 2 else (1, 1)
    if not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in pair):
        raise InputError(
            f"betas was {shown(betas)}: give two numbers from 0 to below 1."
        )


def _update(
    parts: list[list[Tensor]],
    rate: Tensor,
    size: Tensor,
    root: Tensor,
    scale: Tensor,
    skip: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Step the parts (weight, gradient, master, m, v) in place, unless `skip` is 1.

    `size` is the rate over the correction of m, `root` the root of that of v.
    """
    for weight, gradient, master, m, v in parts:
        g = gradient.float() / scale
        new_m = torch.lerp(m, g, 1 - beta1)
        new_v = torch.addcmul(v * beta2, g, g, value=1 - beta2)
        decayed = master * (1 - rate * weight_decay)
        moved = decayed - size * new_m / (new_v.sqrt() / root + eps)
        for old, new in ((m, new_m), (v, new_v), (master, moved)):
            old.copy_(torch.where(skip == 0, new, old))
        weight.copy_(master)
