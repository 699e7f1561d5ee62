"""The first inf or NaN of a training step: which operation made it, in which module."""

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mpteach.debugging.report import (
    ModuleRange,
    Report,
    TensorRange,
    has_numbers,
    is_finite,
    measure,
)
from mpteach.debugging.watch import Watch, tensors_of
from mpteach.errors import InputError
from mpteach.inputs import shown

__all__ = ["ModuleRange", "Report", "TensorRange", "first_nonfinite"]


def first_nonfinite(
    model: nn.Module,
    *inputs: Any,
    loss_fn: Callable[[Any], Tensor] | None = None,
    scale: float = 1.0,
    optimizer: torch.optim.Optimizer | None = None,
) -> Report | None:
    """Run one training step on copies; report the first inf or NaN made, None if none.

    Runs model(*inputs), then, where `loss_fn` maps the output to a loss, the backward
    pass of loss * `scale`, then, where an `optimizer` of this model is given, its step
    on the gradients / `scale`. Call it under `torch.autocast` to look at that.

    An operation is at fault if it gives NaN without having taken NaN, or inf where all
    it took was finite. It is not where the program asks for inf (an attention mask
    filled with -inf), nor where the function it is part of, or the backward formula,
    makes good what it gave. A `where` that throws an inf away comes too late: the inf
    is reported. Sparse and complex tensors are not looked at.

    Parameters, buffers and inputs are looked at first. -inf in an input, and inf in a
    buffer, may be masks, and pass. The model, its gradients, buffers and hooks, the
    optimizer and the random state stay as they were; other attributes that the model
    changes when it runs do change. Raises InputError for arguments that cannot be run,
    and lets errors of the model through.
    """
    _require_runnable(model, loss_fn, scale, optimizer)
    if report := _already_wrong(model, inputs):
        return report
    named = dict([*model.named_parameters(), *model.named_buffers()])
    held = {name: _copied(one) for name, one in named.items()}
    twins = {id(one): held[name] for name, one in named.items()}
    if optimizer is not None:
        optimizer = copy.deepcopy(optimizer, {**twins})
    watch = Watch(model, {id(one): name for name, one in held.items()})
    step = _Step(model, watch, loss_fn, scale, optimizer)
    given = tree_map_only(Tensor, _copied, inputs)
    devices = {one.device for one in [*held.values(), *tensors_of(given)]}
    cuda = sorted({one.index for one in devices if one.type == "cuda"})
    with torch.random.fork_rng(devices=cuda), watch.named_modules():
        try:
            inside = {name: twins[id(one)] for name, one in _places(step)}
            torch.func.functional_call(step, inside, given, tie_weights=False)
        except Exception:
            # A model may itself refuse the inf that is to be reported.
            if not (watch.report or watch.suspect):
                raise
    return watch.report or watch.suspect


class _Step(nn.Module):
    """One training step as a module, so that all of it sees the copied parameters."""

    def __init__(
        self,
        model: nn.Module,
        watch: Watch,
        loss_fn: Callable[[Any], Tensor] | None,
        scale: float,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        super().__init__()
        self.model, self.watch, self.loss_fn = model, watch, loss_fn
        self.scale, self.optimizer = scale, optimizer

    def forward(self, *inputs: Any) -> None:
        watch = self.watch
        with watch.during("forward"):
            output = self.model(*inputs)
        if self.loss_fn is not None and not watch.report:
            with watch.during("loss"):
                loss = self._scaled_loss(output)
            if not watch.report:
                self._backward(loss)
            if self.optimizer is not None and not watch.report:
                self._update(self.optimizer)

    def _scaled_loss(self, output: Any) -> Tensor:
        loss = self.loss_fn(output)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise InputError(
                f"loss_fn returned {shown(loss)}: it must return one number that "
                "depends on the parameters."
            )
        return loss * self.scale if self.scale != 1 else loss

    def _backward(self, loss: Tensor) -> None:
        # As everywhere: the backward pass keeps the dtypes that the forward pass chose.
        plain = torch.autocast(loss.device.type, enabled=False)
        with self.watch.during("backward"), plain:
            torch.autograd.backward(loss)

    def _update(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = list(self.model.parameters())
        for one in parameters:
            if one.grad is not None and self.scale != 1:
                one.grad.div_(self.scale)
        with self.watch.during("step"):
            optimizer.step()
        # What an optimizer computes and does not use is its own affair.
        self.watch.settle(not all(map(is_finite, parameters)))


def _already_wrong(model: nn.Module, inputs: tuple) -> Report | None:
    named = [(f"parameter {name}", x) for name, x in model.named_parameters()]
    named += [(f"buffer {name}", x) for name, x in model.named_buffers()]
    for position, given in enumerate(inputs):
        named += [(f"input {position}", x) for x in tensors_of(given)]
    for name, x in named:
        if not has_numbers(x) or is_finite(x):
            continue
        span = measure(x)
        masks = {"input": span.positive_inf, "buffer": 0, "parameter": span.inf}
        if span.nan or masks[name.split()[0]]:
            return Report("before", name, "", "", "", (), (span,), ())
    return None


def _copied(x: Tensor) -> Tensor:
    if not isinstance(x, nn.Parameter):
        return x.detach().clone().requires_grad_(x.requires_grad)
    twin = nn.Parameter(x.detach().clone(), x.requires_grad)
    if x.requires_grad:
        twin.grad_dtype = x.grad_dtype
    return twin


def _places(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter and buffer by the name of every module that holds it.

    Once for a module with several names: torch's own ties would put it back twice.
    """
    for name, one in module.named_modules():
        options = {"prefix": name, "recurse": False, "remove_duplicate": False}
        yield from one.named_parameters(**options)
        yield from one.named_buffers(**options)


def _require_runnable(model: Any, loss_fn: Any, scale: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model was {shown(model)}: give an nn.Module.")
    if loss_fn is not None and not callable(loss_fn):
        raise InputError(
            f"loss_fn was {shown(loss_fn)}: give a function of the model's output."
        )
    if not isinstance(scale, int | float) or not 0 < scale <= sys.float_info.max:
        raise InputError(f"scale was {shown(scale)}: give a positive number.")
    if optimizer is not None and loss_fn is None:
        raise InputError("optimizer was given without loss_fn: a step needs gradients.")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer was {shown(optimizer)}: give a torch optimizer.")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError("optimizer was LBFGS: give one that steps without a closure.")
