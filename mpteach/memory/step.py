"""One training step as `trace` follows it and `measure` runs it: the same code for both."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mpteach.errors import InputError
from mpteach.inputs import shown
from mpteach.memory import recipes
from mpteach.memory.recipes import Recipe

Loss = Callable[..., Tensor]


def output_is_loss(model: nn.Module, *batch: Any) -> Tensor:
    """The loss of a model that returns it."""
    return model(*batch)


def in_dtype_of_weights(batch: Any, recipe: Recipe) -> tuple:
    """Return `batch` with its float tensors in the dtype of the recipe's weights.

    Raises InputError unless it is a tuple.
    """
    if not isinstance(batch, tuple):
        raise InputError(f"make_batch returned {shown(batch)}: return a tuple.")
    dtype = getattr(torch, recipe.weights)

    def cast(one: Tensor) -> Tensor:
        return one.to(dtype) if one.is_floating_point() else one

    return tree_map_only(Tensor, cast, batch)


def with_weights_of(recipe: Recipe, model: nn.Module) -> nn.Module:
    """Turn the floats of `model` into the recipe's dtype, in place, and return it.

    Unlike `model.to` it leaves complex numbers what they are.
    """
    dtype = getattr(torch, recipe.weights)
    return model._apply(lambda one: one.to(dtype) if one.is_floating_point() else one)


class Trainer:
    """A model with its optimizer, and its float32 masters where the recipe has them."""

    def __init__(self, model: nn.Module, recipe: Recipe, optimizer: str) -> None:
        self.model, self.recipe = model, recipe
        self.weights = [one for one in model.parameters() if one.requires_grad]
        if not self.weights:
            raise InputError(
                f"{type(model).__name__} has no parameter that needs a gradient: "
                "give one to train, or trace its evaluation."
            )
        self.masters = self.weights
        if recipe.masters:
            self.masters = [nn.Parameter(one.detach().float()) for one in self.weights]
        name, options = recipes.optimizer(optimizer)
        self.optimizer = getattr(torch.optim, name)(self.masters, lr=1e-4, **options)

    def step(
        self,
        batches: list[tuple],
        loss_fn: Loss,
        region: Callable[[], AbstractContextManager],
        scaler: Any,
        phase: Callable[[str], None],
    ) -> None:
        """Accumulate the gradients of all micro-batches, step, and drop the gradients.

        `region()` is what the forward pass runs in. `phase(name)` is told what begins.
        """
        for batch in batches:
            phase("forward")
            with region():
                loss = _require_loss(loss_fn(self.model, *batch))
                loss = loss / len(batches) if len(batches) > 1 else loss
            phase("backward")
            # Not loss.backward(), from within which a mode for functions sees nothing.
            torch.autograd.backward(scaler.scale(loss))
            del loss
        phase("step")
        with self._gradients_of_masters():
            scaler.step(self.optimizer)
            scaler.update()
        for weight in self.weights:
            weight.grad = None

    @contextmanager
    def _gradients_of_masters(self) -> Iterator[None]:
        """Copy gradients up to the masters, and afterwards the masters down."""
        if not self.recipe.masters:
            yield
            return
        for master, weight in zip(self.masters, self.weights):
            master.grad = None if weight.grad is None else weight.grad.float()
        yield
        with torch.no_grad():
            for master, weight in zip(self.masters, self.weights):
                weight.copy_(master)
                master.grad = None


def _require_loss(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise InputError(
            f"the loss was {shown(loss)}: return one number that depends on the "
            "parameters."
        )
    return loss
