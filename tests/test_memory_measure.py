"""How a measurement reads the counters of a GPU: phases, peaks, differences.

The GPU is a stand-in that counts what the model, its loss and its optimizer are told to
take. What a real one counts is in the record that `memory_sweep` compares with.
"""

import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from mpteach import hardware
from mpteach.errors import InputError
from mpteach.memory.measure import measure
from mpteach.memory.recipes import RECIPES

MODEL, BATCH, WORKSPACE = 500, 64, 100
KEPT, GRADIENTS, STATE = 1000, 400, 800
IN_FORWARD, IN_BACKWARD, IN_STEP = 300, 3000, 30
CONTEXT, CAPACITY = 7_000, 10**6


class Counters:
    """The counters of torch.cuda; each requested byte takes two of a block."""

    def __init__(self):
        self.now = self.peak = self.reserved = self.workspace = 0

    def take(self, size, *, for_a_moment=0):
        self.now += size
        self.peak = max(self.peak, self.now + for_a_moment)
        self.reserved = max(self.reserved, 3 * self.peak)

    def memory_stats(self):
        now, peak = self.now, self.peak
        return {
            "requested_bytes.all.current": now,
            "requested_bytes.all.peak": peak,
            "allocated_bytes.all.current": 2 * now,
            "allocated_bytes.all.peak": 2 * peak,
            "reserved_bytes.all.peak": self.reserved,
        }

    def reset_peak_memory_stats(self):
        self.peak = self.now

    def memory_allocated(self):
        return 2 * self.now

    def memory_reserved(self):
        return self.reserved

    def mem_get_info(self):
        return CAPACITY - CONTEXT - self.reserved, CAPACITY

    def clear_workspaces(self):
        self.take(-self.workspace)
        self.workspace = 0


@pytest.fixture
def gpu(monkeypatch):
    """Let what would run on a GPU run here, and count for it."""
    counters = Counters()
    for name in ("memory_stats", "memory_allocated", "memory_reserved", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, getattr(counters, name))
    reset = counters.reset_peak_memory_stats
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    clear = counters.clear_workspaces
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", clear, raising=False)
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "")

    def placed(what, *_, **__):
        counters.take(MODEL if isinstance(what, nn.Module) else BATCH)
        return what

    monkeypatch.setattr(nn.Module, "to", placed)
    monkeypatch.setattr(torch.Tensor, "cuda", placed)
    seen = set()

    def before(optimizer, *_):
        fresh = 0 if id(optimizer) in seen else STATE
        seen.add(id(optimizer))
        counters.take(fresh, for_a_moment=IN_STEP)

    handles = [
        register_optimizer_step_pre_hook(before),
        register_optimizer_step_post_hook(lambda *_: counters.take(-GRADIENTS)),
    ]
    yield counters
    for handle in handles:
        handle.remove()
    torch.set_float32_matmul_precision("highest")


def loss_on(counters):
    """Return a loss that takes what a forward pass keeps, and then what it gives back."""

    def loss(model, x):
        if not counters.workspace:
            counters.workspace = WORKSPACE
            counters.take(WORKSPACE)
        counters.take(KEPT, for_a_moment=IN_FORWARD)
        fresh = GRADIENTS if model.weight.grad is None else 0

        def back(gradient):
            counters.take(0, for_a_moment=IN_BACKWARD)
            counters.take(fresh - KEPT)

        result = model(x).sum()
        if result.requires_grad:
            result.register_hook(back)
        return result

    return loss


def measured(gpu, **options):
    return measure(
        lambda: nn.Linear(4, 1, bias=False),
        lambda: (torch.ones(2, 4),),
        optimizer="sgd-foreach",
        loss_fn=loss_on(gpu),
        **options,
    )


ALWAYS = MODEL + BATCH + STATE + WORKSPACE


def test_a_step_is_read_phase_by_phase(gpu):
    assert measured(gpu) == {
        "parameters": 2 * MODEL,
        "activations": 2 * KEPT,
        "activations_requested": KEPT,
        "gradients": 2 * GRADIENTS,
        "optimizer_state": 2 * STATE,
        "peak_forward": 2 * (ALWAYS + KEPT + IN_FORWARD),
        "peak_backward": 2 * (ALWAYS + KEPT + IN_BACKWARD),
        "peak_step": 2 * (ALWAYS + GRADIENTS + IN_STEP),
        "requested_peak": ALWAYS + KEPT + IN_BACKWARD,
        "allocated_peak": 2 * (ALWAYS + KEPT + IN_BACKWARD),
        "reserved_peak": 3 * (ALWAYS + KEPT + IN_BACKWARD),
        "cublas_workspace": 2 * WORKSPACE,
        "outside_allocator": CONTEXT,
    }


def test_of_micro_batches_the_first_is_kept_and_all_peaks_count(gpu):
    found = measured(gpu, micro_batches=3)
    always = ALWAYS + 2 * BATCH
    assert found["activations"] == 2 * KEPT
    assert found["gradients"] == 2 * GRADIENTS
    # From the second on, gradients are there.
    assert found["peak_forward"] == 2 * (always + GRADIENTS + KEPT + IN_FORWARD)
    assert found["peak_backward"] == 2 * (always + GRADIENTS + KEPT + IN_BACKWARD)


def test_an_evaluation_has_a_forward_phase_alone(gpu):
    found = measured(gpu, evaluate=True)
    assert not {"gradients", "optimizer_state", "peak_backward", "peak_step"} & set(found)
    assert found["parameters"] == 2 * MODEL
    # This loss gives nothing back: the second pass finds what the first has kept.
    assert found["activations_requested"] == KEPT
    assert found["peak_forward"] == 2 * (
        MODEL + BATCH + WORKSPACE + 2 * KEPT + IN_FORWARD
    )


def test_what_was_there_before_is_not_the_models(gpu):
    gpu.take(10_000)
    gpu.workspace = 5_000  # of an earlier run
    found = measured(gpu)
    assert found["parameters"] == 2 * MODEL
    assert found["cublas_workspace"] == 2 * WORKSPACE
    assert found["optimizer_state"] == 2 * STATE
    assert found["requested_peak"] == 5_000 + ALWAYS + KEPT + IN_BACKWARD


def test_tf32_is_switched_on_for_its_recipe_alone(gpu):
    for recipe, precision in (("tf32", "high"), ("fp32", "highest")):
        measured(gpu, recipe=recipe)
        assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize("recipe", ["pure-bf16", "bf16-master"])
def test_the_weights_have_the_dtype_of_the_recipe(gpu, recipe):
    seen = []

    def loss(model, x):
        seen.extend((model.weight.dtype, x.dtype))
        return loss_on(gpu)(model, x)

    made = lambda: nn.Linear(4, 1, bias=False)  # noqa: E731
    measure(made, lambda: (torch.ones(2, 4),), recipe, "sgd-foreach", loss)
    assert {str(one) for one in seen} == {f"torch.{RECIPES[recipe].weights}"}


def test_without_a_gpu_it_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    said = r"memory cannot be measured here \(torch sees no GPU\): trace it instead."
    with pytest.raises(InputError, match=said):
        measure(lambda: nn.Linear(1, 1), tuple)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipe": "fp8"}, "unknown recipe 'fp8'"),
        ({"micro_batches": 0}, "micro_batches was 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(gpu, given, said):
    with pytest.raises(InputError, match=said):
        measured(gpu, **given)
    assert gpu.peak == 0
