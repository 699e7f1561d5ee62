"""Loss scaling: multiply the loss so that small gradients survive in float16."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from mpteach.errors import require
from mpteach.inputs import positive_float32


@dataclass(eq=False)
class GradScaler:
    """A loss scale that backs off after an inf or NaN gradient, else grows in time.

    Bits are those of torch.amp.GradScaler (with a fused optimizer: for powers of two).
    Wrong value or order: InputError. Micikevicius et al. 2018, arXiv 1710.03740, 3.2.
    """

    SAVED = ("growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
    device: str = "cuda"
    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    enabled: bool = True

    def __post_init__(self) -> None:
        self._scale, self._growth_tracker = positive_float32(self.init_scale), 0
        self._has_scaled, self._clean, self._stepped = False, {}, set()
        whole = isinstance(self.growth_interval, int) and self.growth_interval > 0
        factors = self.growth_factor, self.backoff_factor
        real = all(isinstance(factor, int | float) for factor in factors)
        good = real and whole and math.inf > factors[0] > 1 > factors[1] > 0
        require(good, f"{self} needs growth > 1 > backoff > 0, a whole interval > 0.")

    def is_enabled(self) -> bool:
        """Return whether anything is scaled or skipped."""
        return self.enabled

    def get_scale(self) -> float:
        """Return the scale, or 1.0 where disabled."""
        return self._scale.item() if self.enabled else 1.0

    def scale(self, outputs: Tensor) -> Tensor:
        """Return the loss times the scale; a NaN passes, and its step is skipped."""
        require(isinstance(outputs, Tensor), f"loss was {outputs!r:.9}: give a tensor.")
        self._has_scaled = True
        return outputs * self._scale.to(outputs.device) if self.enabled else outputs

    @torch.no_grad()
    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, in place; else step() does it."""
        if not self.enabled:
            return
        require(self._has_scaled, "call scale(loss) before unscale_() and step().")
        require(optimizer not in self._clean, "call update() before unscale_() again.")
        grads = [w.grad for group in optimizer.param_groups for w in group["params"]]
        grads = [grad for grad in grads if grad is not None]
        require(grads, "no weight has a gradient: call backward() before step().")
        half = any(grad.dtype == torch.float16 for grad in grads)
        require(not half, "gradients are float16: keep the weights in float32.")
        grads = [grad._values() if grad.is_sparse else grad for grad in grads]
        flags = [grad.isfinite().all().to(grads[0].device) for grad in grads]
        self._clean[optimizer] = torch.stack(flags).all().item()
        for grad in grads:
            grad.mul_(self._scale.double().reciprocal().float())

    def step(self, optimizer: Optimizer, *args: object, **kwargs: object) -> object:
        """Return optimizer.step(), or None without it after an inf or NaN."""
        if not self.enabled:
            return optimizer.step(*args, **kwargs)
        require(not (args or "closure" in kwargs), "step() takes no closure: drop it.")
        require(optimizer not in self._stepped, "call update() before step() again.")
        if optimizer not in self._clean:
            self.unscale_(optimizer)
        self._stepped.add(optimizer)
        return optimizer.step(**kwargs) if self._clean[optimizer] else None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """End the iteration: back off, or grow, or set the scale to `new_scale`."""
        if not self.enabled:
            return
        ready = self._clean if new_scale is None else self._has_scaled
        require(ready, "call scale(loss) and step(optimizer) before update().")
        if new_scale is not None:
            self._scale = positive_float32(new_scale)
        elif not all(self._clean.values()):
            self._multiply(self.backoff_factor)
        elif self._growth_tracker + 1 == self.growth_interval:
            self._multiply(self.growth_factor)
        else:
            self._growth_tracker += 1
        self._clean, self._stepped = {}, set()

    def state_dict(self) -> dict[str, float]:
        """Return the state under torch's keys, {} where disabled."""
        saved = {key: getattr(self, key) for key in self.SAVED}
        return {"scale": self.get_scale(), **saved} if self.enabled else {}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from the state that this class or torch's returned."""
        if self.enabled:
            known = set(state_dict) if isinstance(state_dict, dict) else set()
            whole = {"scale", *self.SAVED} <= known
            require(whole, "a key is missing: load an enabled scaler's state.")
            *numbers, tracker = (state_dict[key] for key in self.SAVED)
            counted = isinstance(tracker, int) and tracker >= 0
            require(counted, f"_growth_tracker was {tracker!r:.9}: give a whole number.")
            # Made to be refused where the numbers are none of a scaler's.
            self._scale = GradScaler(self.device, state_dict["scale"], *numbers)._scale
            vars(self).update({key: state_dict[key] for key in self.SAVED})

    def _multiply(self, factor: float) -> None:
        scale = (self._scale.double() * factor).float()
        self._scale = scale if scale.isfinite() else self._scale
        self._growth_tracker = 0


class StaticScaler(GradScaler):
    """A GradScaler whose scale stays `init_scale`: it does not back off or grow."""

    def update(self) -> None:
        """End the iteration; the scale stays as it is."""
        super().update(self._scale)
