"""What watches a training step: every operation, the call and the module it is for."""

import contextlib
import linecache
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mpteach.debugging.report import (
    ModuleRange,
    Report,
    TensorRange,
    finite,
    has_numbers,
    is_finite,
    measure,
)


class _Label(NamedTuple):
    module: str
    call: str
    code: str


class Watch(TorchDispatchMode):
    """Looks at all that torch's core is asked to compute, and for which module."""

    def __init__(self, model: nn.Module, tensors: dict[int, str]) -> None:
        super().__init__()
        self.names = {id(one): name for name, one in model.named_modules()}
        self.names[id(model)] = type(model).__name__
        self.tensors = tensors
        self.phase = "forward"
        self.modules: list[nn.Module] = []  # that are running, innermost last
        self.call: _Label | None = None  # the Python function that is running
        self.nodes: dict[Any, _Label] = {}  # of the graph, by the call that made them
        self.running: list[_Label] = []  # nodes of the backward pass, innermost last
        self.last = _Label("loss_fn", "", "")
        self.handles: list[Any] = []
        self.ranges: dict[tuple[str, str], list[float]] = {}
        self.suspect: Report | None = None  # until the call around it has ended
        self.report: Report | None = None

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Look at what is computed in this context, as part of `phase`."""
        self.phase = phase
        # Afterwards no Python calls torch but an optimizer, whose operations name the
        # parameter, and a model that is run again, whose modules are known.
        is_called = phase in ("forward", "loss")
        with Calls(self) if is_called else contextlib.nullcontext(), self:
            yield

    @contextlib.contextmanager
    def named_modules(self) -> Iterator[None]:
        """Follow which module runs; forget all that was hung up for it at the end."""

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if module not in self.modules:
                return
            label = _Label(self.names[id(module)], "", "")
            for one in tensors_of(output):
                self.label_nodes(one.grad_fn, label)
            while self.modules.pop() is not module:
                pass

        def enter(module: nn.Module, args: Any) -> None:
            if id(module) in self.names:
                self.modules.append(module)

        self.handles.append(module_hooks.register_module_forward_pre_hook(enter))
        self.handles.append(
            module_hooks.register_module_forward_hook(leave, always_call=True)
        )
        try:
            yield
        finally:
            for handle in self.handles:
                handle.remove()
            self.nodes.clear()

    def module_name(self) -> str:
        """Return the qualified name of the module that is running."""
        return self.names[id(self.modules[-1])] if self.modules else "loss_fn"

    def settle(self, is_fault: bool) -> None:
        """End a call or a node: what it hid is forgiven, what it gave away is not."""
        self.report = self.report or (self.suspect if is_fault else None)
        self.suspect = None

    def label_nodes(self, root: Any, label: _Label) -> None:
        """Note for the new nodes behind `root` which call made them."""
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node is None or node in self.nodes:
                continue
            name = self.tensors.get(id(getattr(node, "variable", None)), label.module)
            self.nodes[node] = mine = _Label(
                name, node.name().split("::")[-1], label.code
            )
            self.handles.append(node.register_prehook(self._entering(mine)))
            self.handles.append(node.register_hook(self._leave_node))
            waiting += [following for following, _ in node.next_functions]

    def _entering(self, label: _Label) -> Callable[[Any], None]:
        return lambda gradients: self.running.append(label)

    def _leave_node(self, gradients: Any, _: Any) -> None:
        given = list(tensors_of(gradients))
        self.settle(not given or not all(map(is_finite, given)))
        if self.running:
            self.last = self.running.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.report or self.suspect or _computes_nothing(func):
            return func(*args, **kwargs)
        asked = Asked(func, args, kwargs)
        output = func(*args, **kwargs)
        self._look(asked, asked.outputs(output))
        return output

    def _look(self, asked: "Asked", outputs: list[Tensor]) -> None:
        ranges = [measure(one) for one in outputs]
        label = self._label(asked, outputs, ranges)
        if asked.is_fault(outputs, ranges):
            self.suspect = Report(
                phase=self.phase,
                module=label.module,
                operation=asked.name,
                call=label.call,
                code=label.code,
                inputs=tuple(asked.ranges()),
                outputs=tuple(ranges),
                modules=tuple(self._sorted_ranges()),
            )
            waits = self.call or self.running or self.phase == "step"
            if not waits:
                self.settle(True)
        for one in ranges if self.phase != "step" else ():
            if one.largest is not None:
                key = (self.phase, label.module)
                low, high = self.ranges.get(key, (math.inf, 0.0))
                self.ranges[key] = [min(low, one.smallest), max(high, one.largest)]

    def _label(
        self, asked: "Asked", outputs: list[Tensor], ranges: list[TensorRange]
    ) -> _Label:
        if self.phase == "step":
            wrong = [x for x, one in zip(outputs, ranges) if one.nan or one.inf]
            names = [self.tensors.get(id(x)) for x in wrong + asked.inputs]
            return _Label(next(filter(None, names), "optimizer"), "", "")
        if self.call or self.modules:
            return self.call or _Label(self.module_name(), "", _code())
        if self.phase == "backward":
            # Between two nodes the engine adds gradients that meet.
            return self.running[-1] if self.running else self.last
        return _Label(self.module_name(), "", _code())

    def _sorted_ranges(self) -> list[ModuleRange]:
        found = [ModuleRange(*key, *span) for key, span in self.ranges.items()]
        return sorted(found, key=lambda one: one.binades_left("float16"))


class Calls(TorchFunctionMode):
    """Tells the watch which function of torch Python calls, and labels its nodes."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        watch, before, earlier = self.watch, self.watch.call, self.watch.suspect
        name = getattr(func, "__name__", str(func)).strip("_")
        if watch.report or name in ("get", "set"):  # of an attribute
            return func(*args, **(kwargs or {}))
        watch.call = label = _Label(watch.module_name(), name, _code())
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            watch.call = before
        given = list(tensors_of(result))
        if watch.suspect is not earlier:
            watch.settle(not given or not all(map(is_finite, given)))
        for one in given:
            watch.label_nodes(one.grad_fn, label)
        return result


class Asked:
    """One operation and what it was given, seen before it overwrites any of that."""

    def __init__(self, func: Any, args: tuple, kwargs: dict) -> None:
        self.func, self.name = func, func.overloadpacket.__name__
        self.scalars = [x for x in _leaves([args, kwargs]) if isinstance(x, float)]
        declared = func._schema.arguments
        given = dict(zip((one.name for one in declared), args)) | kwargs
        written = [one.name for one in declared if one.is_write]
        self.written = [x for name in written for x in tensors_of(given.get(name))]
        # What is overwritten unread is no input.
        unread = [one.name for one in declared if one.is_write and one.kwarg_only]
        unread += ["self"] if self.name == "copy_" else []
        read = [value for name, value in given.items() if name not in unread]
        self.inputs = [x for x in tensors_of(read) if has_numbers(x)]
        writes = {id(x) for x in self.written}
        self.before = {
            id(x): (measure(x), finite(x)) for x in self.inputs if id(x) in writes
        }

    def outputs(self, result: Any) -> list[Tensor]:
        """Return the tensors that hold what the operation computed."""
        found = list(tensors_of(result)) or self.written
        if "scaled_dot_product" in self.name and "backward" not in self.name:
            found = found[:1]  # the rest is for the backward pass, and padded
        return [x for x in found if has_numbers(x)]

    def ranges(self) -> list[TensorRange]:
        """Return what the inputs held before the operation."""
        return [
            self.before[id(x)][0] if id(x) in self.before else measure(x)
            for x in self.inputs
        ]

    def is_fault(self, outputs: list[Tensor], ranges: list[TensorRange]) -> bool:
        """Whether the operation made NaN, or inf, of what held none."""
        if not any(one.nan or one.inf for one in ranges):
            return False
        given = self.ranges()
        took_nan = any(one.nan for one in given) or any(map(math.isnan, self.scalars))
        if any(one.nan for one in ranges) and not took_nan:
            return True
        if took_nan or any(map(math.isinf, self.scalars)):
            return False
        if not any(one.inf for one in given):
            return True
        # Here masks of -inf are among the inputs: they may only stay where they are.
        if torch.Tag.pointwise not in self.func.tags or len(outputs) != 1:
            return False
        known = torch.ones((), dtype=torch.bool, device=outputs[0].device)
        for x in self.inputs:
            _, before = self.before.get(id(x), (None, None))
            known = known & (finite(x) if before is None else before)
        return bool((~finite(outputs[0]) & known).any())


def _computes_nothing(func: Any) -> bool:
    """Whether `func` gives uninitialised memory, or another view of a tensor."""
    name = func.overloadpacket.__name__
    returns = [one.alias_info for one in func._schema.returns]
    is_view = any(alias is not None and not alias.is_write for alias in returns)
    return is_view or "empty" in name or name == "resize_"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    return (one for one in _leaves(value) if isinstance(one, Tensor))


def _code() -> str:
    """Return the line of the model or the loss that asked torch for what runs now."""
    inside, frame = (str(Path(torch.__file__).parent), __file__), sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(inside):
        frame = frame.f_back
    if frame is None or Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        return ""
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
