"""The memory of the same training step on a real GPU, by torch's own counters."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from mpteach import hardware
from mpteach.errors import InputError
from mpteach.memory import recipes
from mpteach.memory.recipes import Recipe
from mpteach.memory.shapes import require_count
from mpteach.memory.step import (
    Loss,
    Trainer,
    in_dtype_of_weights,
    output_is_loss,
    with_weights_of,
)

STEPS = 2  # as in a trace


def measure(
    make_model: Callable[[], nn.Module],
    make_batch: Callable[[], tuple],
    recipe: str = "fp32",
    optimizer: str = "adamw-fused",
    loss_fn: Loss = output_is_loss,
    micro_batches: int = 1,
    evaluate: bool = False,
) -> dict[str, int]:
    """Run two training steps on the GPU; return what they took, in bytes.

    Arguments are those of `trace`; model and batch are made on the CPU. Keys are those of
    Timeline.summary without `master_weights` and `phase_of_peak`, and
    `activations_requested`, the allocated peaks of the second step by phase
    (`peak_forward`, `peak_backward`, `peak_step`) and `outside_allocator`: what the
    device holds beside the allocator's segments, the CUDA context above all. The cache
    is emptied first, so that runs do not depend on each other. Raises InputError without
    a GPU.
    """
    if problem := hardware.cuda_problem():
        raise InputError(f"memory cannot be measured here ({problem}): trace it instead.")
    found = recipes.get(recipe)
    require_count("micro_batches", micro_batches)
    gauge = _Gauge()
    torch.set_float32_matmul_precision("high" if recipe == "tf32" else "highest")
    model = with_weights_of(found, make_model()).to("cuda")
    gauge.read("model")
    compute = getattr(torch, found.compute) if found.compute else None

    def region() -> torch.autocast:
        return torch.autocast("cuda", compute, enabled=compute is not None)

    if evaluate:
        batches = [_on_gpu(make_batch(), found) for _ in range(micro_batches)]
        for gauge.step in range(1, STEPS + 1):
            gauge.begin("forward")
            with torch.no_grad(), region():
                for batch in batches:
                    loss_fn(model.eval(), *batch)
            gauge.begin("end")
        return gauge.results()
    trainer = Trainer(model, found, optimizer)
    batches = [_on_gpu(make_batch(), found) for _ in range(micro_batches)]
    scaler = torch.amp.GradScaler("cuda", enabled=found.scales_loss)
    for gauge.step in range(1, STEPS + 1):
        trainer.step(batches, loss_fn, region, scaler, gauge.begin)
        gauge.begin("end")
    return gauge.results()


def _on_gpu(batch: tuple, recipe: Recipe) -> tuple:
    batch = in_dtype_of_weights(batch, recipe)
    return tree_map_only(torch.Tensor, torch.Tensor.cuda, batch)


class _Gauge:
    """Reads the allocator's counters where a phase of a step begins."""

    def __init__(self) -> None:
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.step, self._phase = 0, "build"
        self._at: dict[tuple[int, str], dict[str, int]] = {}
        self._peaks: dict[tuple[int, str], dict[str, int]] = {}
        self.read("start")

    def read(self, name: str) -> None:
        """Keep what is in use now, under this name and the step."""
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        kinds = {"allocated": "allocated_bytes", "requested": "requested_bytes"}
        self._at[self.step, name] = {
            kind: stats[f"{key}.all.current"] for kind, key in kinds.items()
        }

    def begin(self, phase: str) -> None:
        """End the phase before, keep its peaks, and begin `phase`."""
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        past = self._peaks.setdefault((self.step, self._phase), {})
        for kind in ("allocated", "requested", "reserved"):
            peak = stats[f"{kind}_bytes.all.peak"]
            past[kind] = max(past.get(kind, 0), peak)
        if (self.step, phase) not in self._at:  # of several micro-batches, the first
            self.read(phase)
        torch.cuda.reset_peak_memory_stats()
        self._phase = phase

    def results(self) -> dict[str, int]:
        """Return the figures of the run that ends here."""
        free, total = torch.cuda.mem_get_info()
        outside = total - free - torch.cuda.memory_reserved()
        before = torch.cuda.memory_allocated()
        torch._C._cuda_clearCublasWorkspaces()
        workspace = before - torch.cuda.memory_allocated()
        trained = (STEPS, "step") in self._at
        last = "backward" if trained else "end"
        found = {
            "parameters": self._grown((0, "start"), (0, "model")),
            "activations": self._grown((STEPS, "forward"), (STEPS, last)),
            "activations_requested": self._grown(
                (STEPS, "forward"), (STEPS, last), "requested"
            ),
        }
        if trained:
            found["gradients"] = self._grown((STEPS, "forward"), (STEPS, "step"))
            state = self._grown((1, "forward"), (1, "end")) - workspace
            found["optimizer_state"] = state
        for phase in ("forward", "backward", "step"):
            if peaks := self._peaks.get((STEPS, phase)):
                found[f"peak_{phase}"] = peaks["allocated"]
        for kind in ("requested", "allocated", "reserved"):
            found[f"{kind}_peak"] = max(one[kind] for one in self._peaks.values())
        return {**found, "cublas_workspace": workspace, "outside_allocator": outside}

    def _grown(self, start: tuple, end: tuple, kind: str = "allocated") -> int:
        return self._at[end][kind] - self._at[start][kind]
