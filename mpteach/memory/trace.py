"""The memory of a training step, byte by byte, without a GPU and without the memory.

The step runs on fake tensors: they have shapes and dtypes and no data. Every storage is
noted when it is born and when it dies, and the sequence is replayed through a model of
CUDA's caching allocator.
"""

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from mpteach.errors import InputError, require
from mpteach.inputs import require_one_of, shown
from mpteach.memory import cuda, recipes
from mpteach.memory.recipes import Recipe
from mpteach.memory.refusals import refusal, require_plain
from mpteach.memory.scratch import scratch
from mpteach.memory.shapes import require_count
from mpteach.memory.step import (
    Loss,
    Trainer,
    in_dtype_of_weights,
    output_is_loss,
    with_weights_of,
)
from mpteach.memory.timeline import Storage, Timeline

STEPS = 2  # the first makes the optimizer's state, the second is as all that follow


def trace(
    make_model: Callable[[], nn.Module],
    make_batch: Callable[[], tuple],
    recipe: str = "fp32",
    optimizer: str = "adamw-fused",
    policy: str = "cuda",
    loss_fn: Loss = output_is_loss,
    micro_batches: int = 1,
    evaluate: bool = False,
    cublas_workspace: int | None = None,
) -> Timeline:
    """Follow two training steps of any module through memory; return the Timeline.

    `make_model()` and `make_batch()` (a tuple, on the CPU) are called where tensors take
    no memory. `loss_fn(model, *batch)` returns the loss; by default the model does. The
    names of recipes and optimizers are those of `recipes`. `policy`: "cuda" follows the
    kernels and the autocast of CUDA, "cpu" those of the CPU. `evaluate`: forward passes
    without gradients, and no optimizer. `cublas_workspace`: its bytes (None: measured on
    an H200). Raises InputError for what it cannot follow, and lets errors of the model
    through.

    Out of reach: what kernels take for themselves beyond what `scratch` knows, such as
    the reserve of cuDNN's recurrent layers; the fast path of torch's own encoder layers
    in evaluation; functions that a loss compiles; models that name a device.
    """
    found = recipes.get(recipe)
    recipes.optimizer(optimizer)
    require_one_of("policy", policy, ("cuda", "cpu"))
    require_count("micro_batches", micro_batches)
    if policy == "cpu":
        cublas_workspace = 0
    given = cublas_workspace is None or type(cublas_workspace) is int
    require(
        given and (cublas_workspace or 0) >= 0,
        f"cublas_workspace was {shown(cublas_workspace)}: give a number of bytes from 0.",
    )
    recorder = _Recorder(policy == "cuda", cublas_workspace)
    with _told():
        model = _built(make_model, found)
        with fake_tensor.FakeTensorMode() as mode:
            batches = [
                in_dtype_of_weights(_faked(make_batch(), mode), found)
                for _ in range(micro_batches)
            ]
            with recorder, recorder.naming(model):
                run = _Run(recorder, model, found, loss_fn)
                if evaluate:
                    run.evaluate(batches)
                else:
                    run.train(batches, optimizer)
                return recorder.timeline()  # before what is still in use dies


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say in a sentence what a trace cannot follow, instead of in torch's log."""
    log = logging.getLogger(fake_tensor.__name__)
    quiet, log.disabled = log.disabled, True
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if sentence := refusal(error):
            raise InputError(sentence) from error
        raise
    finally:
        log.disabled = quiet


def _built(make_model: Callable[[], nn.Module], recipe: Recipe) -> nn.Module:
    with torch.device("meta"):
        model = make_model()
    if not isinstance(model, nn.Module):
        raise InputError(f"make_model returned {shown(model)}: return a torch module.")
    require_plain(model)
    return with_weights_of(recipe, model)


def _faked(batch: Any, mode: fake_tensor.FakeTensorMode) -> Any:
    """Take the data off tensors that make_batch did not make but had."""

    def faked(one: Any) -> Any:
        real = isinstance(one, Tensor) and not isinstance(one, fake_tensor.FakeTensor)
        return mode.from_tensor(one) if real else one

    return tree_map(faked, batch)


class _Run:
    """The steps of one trace: what is told to the recorder, and when."""

    def __init__(
        self,
        recorder: "_Recorder",
        model: nn.Module,
        recipe: Recipe,
        loss_fn: Loss,
    ) -> None:
        self.recorder, self.model, self.recipe = recorder, model, recipe
        self.loss_fn = loss_fn
        compute = getattr(torch, recipe.compute) if recipe.compute else None
        if recorder.like_cuda:
            self.region = lambda: cuda.region(compute)
            self.backward = lambda: cuda.recomputation(compute)
        else:
            self.region = lambda: torch.autocast("cpu", compute, compute is not None)
            self.backward = contextlib.nullcontext
        cuda.place(model)
        recorder.classify((*model.parameters(), *model.buffers()), "parameters")

    def train(self, batches: list[tuple], optimizer: str) -> None:
        """Trace STEPS training steps."""
        self.trainer = trainer = Trainer(self.model, self.recipe, optimizer)
        if self.recipe.masters:
            self.recorder.classify(trainer.masters, "masters")
        self.batches = batches = [self._placed(batch) for batch in batches]
        self.scaler = scaler = _Scaler() if self.recipe.scales_loss else _NoScaler()
        on_host = "fused" not in recipes.optimizer(optimizer)[1]

        def phase(name: str) -> None:
            self._ends(trainer)
            self.recorder.phase, self.recorder.on_host = name, on_host and name == "step"

        for self.recorder.step in range(1, STEPS + 1):
            with self.backward():
                trainer.step(batches, self.loss_fn, self.region, scaler, phase)

    def evaluate(self, batches: list[tuple]) -> None:
        """Trace STEPS forward passes."""
        self.model.eval()
        self.batches = [self._placed(batch) for batch in batches]
        self.recorder.phase = "forward"
        for self.recorder.step in range(1, STEPS + 1):
            with torch.no_grad(), self.region():
                for batch in self.batches:
                    self.loss_fn(self.model, *batch)

    def _placed(self, batch: tuple) -> tuple:
        """Copy the tensors of a batch to the device."""
        placed = tree_map_only(Tensor, torch.empty_like, batch)
        tensors = (one for one in tree_leaves(placed) if isinstance(one, Tensor))
        self.recorder.classify(tensors, "batch")
        return placed

    def _ends(self, trainer: Trainer) -> None:
        """Say what the phase that ends here has left."""
        if self.recorder.phase == "forward":
            self.recorder.keep_activations()
        if self.recorder.phase == "backward":
            grads = (weight.grad for weight in trainer.weights)
            kept = [grad for grad in grads if grad is not None]
            self.recorder.classify(kept, "gradients")
        states = trainer.optimizer.state.values()
        held = [x for state in states for x in state.values() if isinstance(x, Tensor)]
        self.recorder.classify(held, "optimizer")


class _NoScaler:
    """Stands in for a GradScaler that is off."""

    def scale(self, loss: Tensor) -> Tensor:
        return loss

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def update(self) -> None:
        pass


class _Scaler(_NoScaler):
    """Allocates what torch's GradScaler does; a trace has no numbers to look at."""

    def __init__(self) -> None:
        self.state: tuple[Tensor, ...] = ()

    def scale(self, loss: Tensor) -> Tensor:
        self.state = self.state or (torch.ones(()), torch.ones(()))  # scale, tracker
        return loss * self.state[0]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        found_inf, inverse = torch.ones(()), torch.ones(())
        optimizer.step()
        del found_inf, inverse


class _Recorder(TorchDispatchMode):
    """Notes every storage that the operations below autograd make, and its end."""

    def __init__(self, like_cuda: bool, workspace: int | None) -> None:
        super().__init__()
        self.like_cuda = like_cuda
        self.phase, self.step, self.modules = "build", 0, [""]
        self.on_host = False  # whether single numbers are kept on the CPU
        self._storages: list[Storage] = []
        self._phases: list[tuple[str, int]] = []
        self._alive: dict[int, tuple[weakref.ref, Storage]] = {}
        self._workspace = workspace
        self._taken: set[tuple[str, bool]] = set()  # kind, whether by autograd's thread

    def timeline(self) -> Timeline:
        """Return what was noted; what dies from here on is not."""
        self._alive.clear()
        return Timeline(self._storages, self._phases)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for kind in cuda.WORKSPACES_OF.get(func, ()):
            self._take_workspace(kind)
        if self.phase == "backward" and cuda.accumulates(func, args, kwargs):
            return args[0].add_(args[1])
        result = func(*args, **(kwargs or {}))
        if self.like_cuda:
            result = cuda.corrected(func, result)
        casts = func is cuda.aten._to_copy.default and isinstance(args[0], nn.Parameter)
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and not (self.on_host and one.ndim == 0):
                self._note(one, str(func), "weight casts" if casts else "temporaries")
        if self.like_cuda and (size := scratch(func, args, result)):
            self._dies(self._born(size, f"inside {func}", "temporaries"))
        return result

    def classify(self, tensors: Iterable[Tensor], category: str) -> None:
        """Say what the storages of `tensors` are for."""
        for one in tensors:
            if known := self._alive.get(one.untyped_storage()._cdata):
                known[1].category = category

    def keep_activations(self) -> None:
        """Call activations what this forward pass made and what is alive at its end."""
        for _, one in self._alive.values():
            if one.category == "temporaries" and one.phase == "forward":
                one.category = "activations"

    @contextlib.contextmanager
    def naming(self, model: nn.Module) -> Iterator[None]:
        """Within, note the name of the module whose forward pass makes a storage."""
        hooks = []
        for name, module in model.named_modules():

            def enter(*_: Any, name: str = name) -> None:
                self.modules.append(name)

            def leave(*_: Any) -> None:
                self.modules.pop()

            hooks.append(module.register_forward_pre_hook(enter))
            # Called after an error too: a checkpoint ends a second run by one.
            hooks.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, tensor: Tensor, operation: str, category: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or size == 0:
            return
        one = self._born(size, operation, category)

        def dies(_: Any) -> None:
            if self._alive.pop(key, None):
                self._dies(one)

        self._alive[key] = weakref.ref(storage, dies), one

    def _born(self, size: int, operation: str, category: str) -> Storage:
        where = self.phase, self.step, self.modules[-1]
        one = Storage(size, *where, operation, category, born=len(self._phases))
        self._storages.append(one)
        self._phases.append((self.phase, self.step))
        return one

    def _dies(self, one: Storage) -> None:
        one.died = len(self._phases)
        self._phases.append((self.phase, self.step))

    def _take_workspace(self, kind: str) -> None:
        given = self._workspace
        sizes = cuda.WORKSPACE if given is None else {"product": given}
        thread = kind, given is None and self.phase == "backward"
        if thread not in self._taken and (size := sizes.get(kind, 0)):
            self._born(size, kind, "workspace")
        self._taken.add(thread)
