"""Loss scaling: multiply the loss so that small gradients survive in float16."""

from dataclasses import dataclass

import torch
from torch.optim import Optimizer

from mpteach.errors import require

SAVED = ("growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


@dataclass(eq=False)
class GradScaler:
    """A loss scale that backs off after an inf or NaN gradient, else grows in time.

    Names, defaults, order of calls and every bit are those of torch.amp.GradScaler; with
    a fused optimizer, whose kernel divides by the scale, where that is a power of two.
    `device` decides nothing: the scale follows the tensors. Wrong values and wrong order
    raise InputError. Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2.
    """

    device: str = "cuda"
    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    enabled: bool = True

    def __post_init__(self) -> None:
        self._scale, self._growth_tracker = _float32(self.init_scale), 0
        self._has_scaled, self._clean, self._stepped = False, {}, set()
        whole = isinstance(self.growth_interval, int) and self.growth_interval > 0
        good = whole and self.growth_factor > 1 > self.backoff_factor > 0
        require(good, f"{self} needs growth > 1 > backoff > 0, a whole interval > 0.")

    def is_enabled(self) -> bool:
        """Return whether anything is scaled or skipped."""
        return self.enabled

    def get_scale(self) -> float:
        """Return the scale, or 1.0 where disabled."""
        return self._scale.item() if self.enabled else 1.0

    def scale(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the loss times the scale; a NaN passes, and its step is skipped."""
        if not self.enabled:
            return outputs
        kind = type(outputs).__name__
        is_tensor = isinstance(outputs, torch.Tensor)
        require(is_tensor, f"scale() got a {kind}: give a tensor.")
        self._has_scaled = True
        return outputs * self._scale.to(outputs.device)

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
        inverse = self._scale.double().reciprocal().float()
        for grad in grads:
            grad.mul_(inverse)

    def step(self, optimizer: Optimizer, *args: object, **kwargs: object) -> object:
        """Return optimizer.step(), or None without it after an inf or NaN."""
        if not self.enabled:
            return optimizer.step(*args, **kwargs)
        closure = args or "closure" in kwargs
        require(not closure, "step() takes no closure: call scale(loss) before it.")
        require(optimizer not in self._stepped, "call update() before step() again.")
        if optimizer not in self._clean:
            self.unscale_(optimizer)
        self._stepped.add(optimizer)
        return optimizer.step(**kwargs) if self._clean[optimizer] else None

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """End the iteration: back off, or grow, or set the scale to `new_scale`."""
        if not self.enabled:
            return
        ready = self._clean if new_scale is None else self._has_scaled
        require(ready, "call scale(loss) and step(optimizer) before update().")
        if new_scale is not None:
            self._scale = _float32(new_scale)
        elif not all(self._clean.values()):
            self._multiply(self.backoff_factor)
        elif self._growth_tracker + 1 == self.growth_interval:
            self._multiply(self.growth_factor)
        else:
            self._growth_tracker += 1
        self._clean, self._stepped = {}, set()

    def state_dict(self) -> dict[str, float]:
        """Return the state under torch's keys, {} where disabled."""
        state = {"scale": self.get_scale()} | {key: getattr(self, key) for key in SAVED}
        return state if self.enabled else {}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from the state that this class or torch's returned."""
        if self.enabled:
            known = {"scale", *SAVED} <= set(state_dict)
            require(known, "a key is missing: load an enabled scaler's state.")
            self._scale = _float32(state_dict["scale"])
            vars(self).update({key: state_dict[key] for key in SAVED})

    def _multiply(self, factor: float) -> None:
        scale = (self._scale.double() * factor).float()
        self._scale = scale if scale.isfinite() else self._scale
        self._growth_tracker = 0


class StaticScaler(GradScaler):
    """A GradScaler whose scale stays `init_scale`: it does not back off or grow."""

    def update(self) -> None:
        """End the iteration; the scale stays as it is."""
        super().update(self._scale)


def _float32(value: float | torch.Tensor) -> torch.Tensor:
    number = value if isinstance(value, int | float | torch.Tensor) else 0
    scale = torch.as_tensor(number, dtype=torch.float32, device="cpu")
    good = scale.numel() == 1 and 0 < scale < torch.inf and not scale.requires_grad
    require(good, f"the scale was {value}: give one number above 0 in float32.")
    return scale.clone().reshape(())
