"""Ways to store a 16-bit weight so that small updates are not lost.

Sources: Micikevicius et al. 2018 (arXiv 1710.03740), section 3.1, for master weights;
Zamirai et al. 2020 (arXiv 2010.06192) for Kahan sums and stochastic rounding.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpteach import formats, rounding
from mpteach.errors import InputError
from mpteach.formats import FloatFormat
from mpteach.inputs import reals, shown

STORES = ("master", "nearest", "kahan", "stochastic")


class MasterWeights(torch.optim.Optimizer):
    """Any torch optimizer, stepping in float32, for a model whose weights have 16 bits.

    Every step widens the weights to float32, lets `optimizer_class` update the wide
    copies, and stores them back. The stores differ in what survives of the wide copy:

    - "master": all of it; the 16-bit weight is its rounded image (4 bytes more).
    - "nearest": what rounding to the nearest 16-bit number leaves.
    - "kahan": that, and the rounding error in a second 16-bit number (2 bytes more).
    - "stochastic": what rounding up or down at random, by `seed`, leaves: unbiased.

    The three others keep float32 scratch all the same: they show the numbers, not the
    bytes, of what a fused kernel does in registers. Optimizer state is float32.

    Give a model that is already cast. Weights in float32 are stepped as they are, those
    that need no gradient and buffers are left alone, tied weights have one master.
    `groups` are parameter groups of the model's parameters, as in torch; `options` go
    to `optimizer_class`. Gradients that the model holds are dropped. Where someone else
    changes a weight between two steps, e.g. by loading it, its master follows.

    A backward pass computes gradients in 16 bits. They arrive in float32, so those of
    tied weights and of micro-batches add up in float32. Each master shares the gradient
    of its weight: what unscales or clips in place, be it through the model or through
    `param_groups`, acts on both. Raises InputError for what it cannot train.
    """

    def __init__(
        self,
        optimizer_class: type[torch.optim.Optimizer],
        model: nn.Module,
        groups: Iterable[dict[str, Any]] | None = None,
        store: str = "master",
        seed: int = 0,
        **options: Any,
    ) -> None:
        _require_optimizer(optimizer_class)
        if store not in STORES:
            raise InputError(
                f"store was {shown(store)}: choose from {', '.join(STORES)}."
            )
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed was {shown(seed)}: give an integer, 0 to 2^63-1.")
        trainable = _trainable(model)
        self.store, self.rng = store, torch.Generator().manual_seed(seed)
        self._wide: dict[Tensor, Tensor] = {}  # 16-bit weight: its float32 copy
        self._kept: dict[Tensor, Tensor] = {}  # 16-bit weight: what outlives a step
        groups = [{"params": trainable}] if groups is None else groups
        groups = groups if isinstance(groups, Iterable) else [groups]
        widened = [self._widened(group) for group in groups]
        if not any(group["params"] for group in widened):
            raise InputError("no group holds a parameter that needs a gradient.")
        self.inner = optimizer_class(widened, **options)
        self._mirror()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights by the model's gradients; weights without one stay.

        `closure`, if given, makes the gradients first; what it returns is returned.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for weight, wide in self._wide.items():
            if self.store == "master":
                is_image = weight == wide.to(weight.dtype)
                wide.copy_(torch.where(is_image, wide, weight))
            else:
                wide.copy_(weight)
            _share_gradient(wide, weight)
        self.inner.step()
        for weight, wide in self._wide.items():
            self._store(weight, wide)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of the model and the masters, or fill them with zeros."""
        self.inner.zero_grad(set_to_none)
        for weight, wide in self._wide.items():
            weight.grad = wide.grad

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take a further group of the model's parameters, as torch's method does."""
        self.inner.add_param_group(self._widened(param_group))

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state, and what is kept beside the weights."""
        kept = {"store": self.store, "kept": list(self._kept.values())}
        return {**self.inner.state_dict(), **kept, "rng": self.rng.get_state()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a `state_dict` of the same store; masters are cast into the model too.

        Raises InputError for one of another store or another model.
        """
        self._require_state(state_dict)
        self.inner.load_state_dict(state_dict)
        self._mirror()
        self.rng.set_state(state_dict["rng"].cpu())
        for (weight, held), saved in zip(self._kept.items(), state_dict["kept"]):
            held.copy_(saved)
            if self.store == "master":
                weight.copy_(held)

    def _require_state(self, given: Any) -> None:
        names = {"state", "param_groups", "store", "kept", "rng"}
        held = given if isinstance(given, dict) else {}
        if lacking := sorted(names - {*held}):
            raise InputError(
                f"the state dict lacks {', '.join(lacking)}: give what state_dict() of "
                "a MasterWeights returned."
            )
        if not isinstance(held["kept"], list) or not isinstance(held["rng"], Tensor):
            raise InputError(
                f"the state dict has {shown(held['kept'])} as kept and "
                f"{shown(held['rng'])} as rng: save it again."
            )
        kept, mine = held["kept"], list(self._kept.values())
        shapes = [[getattr(x, "shape", None) for x in each] for each in (kept, mine)]
        if held["store"] != self.store or shapes[0] != shapes[1]:
            raise InputError(
                f"the state dict was saved with store {held['store']!r} and "
                f"{len(kept)} kept tensors: give one of store {self.store!r} and the "
                f"same model, which keeps {len(mine)}."
            )

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler counts steps through a wrapper of the method, on this very object.
        return {name: held for name, held in vars(self).items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for weight, wide in self._wide.items():  # copied weights have no hooks
            _tie(weight, wide)

    def _mirror(self) -> None:
        inner = self.inner
        names = ("param_groups", "state", "defaults")
        super().__setstate__({name: getattr(inner, name) for name in names})

    def _widened(self, group: dict[str, Any]) -> dict[str, Any]:
        wide = [
            (*name, self._widen(weight)) if name else self._widen(weight)
            for *name, weight in _members(group)
            if weight.requires_grad
        ]
        return {**group, "params": wide}

    def _widen(self, weight: Tensor) -> Tensor:
        _require_width(weight)
        if weight.dtype == torch.float32:
            return weight
        if weight not in self._wide:
            self._wide[weight] = wide = nn.Parameter(weight.detach().float())
            weight.grad = None
            _tie(weight, wide)
            if self.store == "master":
                self._kept[weight] = wide
            elif self.store == "kahan":
                self._kept[weight] = torch.zeros_like(weight, requires_grad=False)
        return self._wide[weight]

    def _store(self, weight: Tensor, wide: Tensor) -> None:
        if self.store == "kahan":
            kahan_add_(weight, self._kept[weight], wide - weight)
            return
        if self.store == "stochastic":
            name = str(weight.dtype).removeprefix("torch.")
            wide = rounding.round_to(wide, name, "stochastic", rng=self.rng)
        weight.copy_(wide)


def kahan_add_(weight: Tensor, compensation: Tensor, update: Tensor) -> None:
    """Add `update` to `weight` in place; `compensation` takes what rounding added.

    All of one shape. Every operation rounds to the dtype of `weight`, the update first,
    as in Zamirai et al. 2020, section 4.
    """
    y = update.to(weight.dtype) - compensation
    total = weight + y
    compensation.copy_((total - weight) - y)
    weight.copy_(total)


def swallowed(before: Tensor, after: Tensor, gradient: Tensor) -> float:
    """Return the share of weights with a gradient that a step left as they were.

    `before` and `after` are the stored weights, compared by their bits; `gradient`, of
    the same shape, says by not being zero which were to move. 0.0 if none was. With
    momentum, weights without a gradient move too: they are not counted.
    Raises InputError unless the shapes and the dtypes of the weights agree.
    """
    for one in (before, after, gradient):
        if not isinstance(one, Tensor):
            raise InputError(f"{shown(one)} is no tensor: give three of one shape.")
    alike = before.shape == after.shape == gradient.shape
    if not alike or before.dtype != after.dtype:
        raise InputError(
            f"before is {_described(before)}, after {_described(after)}, the gradient "
            f"{_described(gradient)}: give one shape, and weights of one dtype."
        )
    integer = getattr(torch, f"int{8 * before.element_size()}")
    meant = gradient != 0
    kept = (before.view(integer) == after.view(integer)) & meant
    return int(kept.sum()) / max(1, int(meant.sum()))


def stall_ratio(fmt: FloatFormat | str, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the largest update/|weight| that rounding to nearest swallows, float64.

    That is half the distance to the next larger number: adding up to it leaves `weight`
    (a value of `fmt`) as it is. At exactly half, a tie, only even codes stay. Over a
    binade it falls from eps/2, at the power of two, to just above eps/4. Toward zero
    the limit is the same, but half of it at a power of two. Of zero it is inf.
    """
    size = np.abs(reals(weight))
    with np.errstate(divide="ignore"):
        return formats.get(fmt).ulp(size) / 2 / size


def _tie(weight: Tensor, wide: Tensor) -> None:
    """Let the gradients of `weight` arrive in float32, for `wide` too."""
    weight.grad_dtype = torch.float32
    # Before any scaler looks: nothing else runs between backward and unscale_.
    weight.register_post_accumulate_grad_hook(partial(_share_gradient, wide))


def _share_gradient(wide: Tensor, weight: Tensor) -> None:
    wide.grad = None if weight.grad is None else weight.grad.float()


def _require_optimizer(given: Any) -> None:
    if not isinstance(given, type) or not issubclass(given, torch.optim.Optimizer):
        raise InputError(
            f"optimizer_class was {shown(given)}: give a class such as "
            "torch.optim.AdamW."
        )
    if issubclass(given, torch.optim.LBFGS | MasterWeights):
        raise InputError(
            f"optimizer_class was {given.__name__}: give one that steps once, from "
            "gradients, such as torch.optim.AdamW."
        )


def _trainable(model: nn.Module) -> list[Tensor]:
    """Return the parameters that need gradients; raise InputError if unfit."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model was {shown(model)}: give an nn.Module.")
    floats = [one for one in model.parameters() if one.is_floating_point()]
    if not floats:
        raise InputError(
            f"{type(model).__name__} has no floating-point parameters to train."
        )
    trainable = [one for one in floats if one.requires_grad]
    if not trainable:
        raise InputError(
            f"all {len(floats)} parameters of {type(model).__name__} are frozen: call "
            "requires_grad_() on those to train."
        )
    devices = sorted({str(one.device) for one in trainable})
    if len(devices) > 1:
        raise InputError(
            f"the parameters lie on {' and '.join(devices)}: move the model to one."
        )
    for one in trainable:
        _require_width(one)
    return trainable


def _members(group: Any) -> list[tuple]:
    """Return the weights of a parameter group, each behind its name if it has one."""
    given = group.get("params") if isinstance(group, dict) else None
    given = [given] if isinstance(given, Tensor) else given
    # torch refuses sets too: their order would not outlive a saved state.
    if isinstance(given, Iterable) and not isinstance(given, set):
        members = [one if isinstance(one, tuple) else (one,) for one in given]
        if all(m and isinstance(m[-1], Tensor) and m[-1].is_leaf for m in members):
            return members
    raise InputError(
        f"a group was {shown(group)}: give a dict whose params are a list of the "
        "model's parameters."
    )


def _require_width(weight: Tensor) -> None:
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise InputError(
            f"a parameter is {_described(weight)}: cast the model to float16, "
            "bfloat16 or float32 first."
        )


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
