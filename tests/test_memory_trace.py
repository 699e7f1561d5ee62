"""What a trace notes of a step: births, deaths, categories, modules, kernels' own needs."""

import resource
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mpteach.memory import cuda, zoo
from mpteach.memory.cases import Setting, case, decoder_case, how
from mpteach.memory.formula import Shape, formula
from mpteach.memory.recipes import OPTIMIZERS, RECIPES
from mpteach.memory.timeline import CATEGORIES
from mpteach.memory.trace import trace


def two_layers():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))


def vectors():
    return torch.randn(16, 64), torch.randint(32, (16,))


def traced(make=two_layers, batch=vectors, recipe="fp32", optimizer="adamw-fused", **more):
    more = {"loss_fn": zoo.classify, **more}
    return trace(make, batch, recipe, optimizer, **more)


def held(timeline, phase, of="bytes"):
    """Return the bytes of each category at the end of a phase of the last step."""
    return timeline.by_category(timeline.events(phase)[-1], of)


# --- categories


PARAMETERS = 64 * 128 + 128 + 128 * 32 + 32


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_gradients_and_state_are_those_of_the_optimizer(optimizer):
    timeline = traced(optimizer=optimizer)
    states = {"sgd": 0, "momentum": 1}.get(optimizer.split("-")[0], 2)
    counters = 4 * 4 if states == 2 and optimizer.endswith("fused") else 0
    after = held(timeline, "step")
    assert after["parameters"] == 4 * PARAMETERS
    assert after["optimizer"] == 4 * states * PARAMETERS + counters
    assert after["gradients"] == 0  # dropped after the step
    assert held(timeline, "backward")["gradients"] == 4 * PARAMETERS


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_decides_the_bytes_of_weights_masters_and_casts(recipe):
    timeline = traced(recipe=recipe)
    found = RECIPES[recipe]
    width = 4 if found.weights == "float32" else 2
    begin, end = held(timeline, "forward"), held(timeline, "backward")
    assert begin["parameters"] == end["gradients"] == width * PARAMETERS
    assert begin["masters"] == (4 * PARAMETERS if found.masters else 0)
    # Not the first layer's: its input needs no gradient, so its cast is not kept.
    assert begin["weight casts"] == (2 * 128 * 32 if found.compute else 0)
    assert begin["batch"] == width * 16 * 64 + 8 * 16


def test_a_weight_cast_is_alive_from_its_forward_pass_to_its_backward_pass():
    timeline = traced(recipe="amp-bf16")
    casts = [
        one
        for one in timeline.storages
        if one.category == "weight casts" and one.bytes == 2 * 128 * 32
    ]
    assert [one.step for one in casts] == [1, 2]
    for one in casts:
        assert timeline.moments[one.born].phase == "forward"
        assert timeline.moments[one.died].phase == "backward"
        assert one.module == "2"


def test_frozen_parameters_have_no_gradient_and_no_state():
    def make():
        model = two_layers()
        model[0].requires_grad_(False)
        return model

    timeline = traced(make, recipe="bf16-master")
    trained = 128 * 32 + 32
    assert held(timeline, "backward")["gradients"] == 2 * trained
    assert held(timeline, "step")["masters"] == 4 * trained
    assert held(timeline, "step")["optimizer"] == 2 * 4 * trained + 2 * 4
    assert held(timeline, "step")["parameters"] == 2 * PARAMETERS


@pytest.mark.parametrize("persistent", [True, False])
def test_buffers_count_as_parameters(persistent):
    def make():
        model = two_layers()
        model.register_buffer("table", torch.zeros(1000), persistent=persistent)
        return model

    assert held(traced(make), "forward")["parameters"] == 4 * (PARAMETERS + 1000)


def test_evaluation_keeps_nothing_but_weights_and_has_one_phase():
    timeline = traced(evaluate=True)
    assert {moment.phase for moment in timeline.moments} == {"build", "forward"}
    summary = timeline.summary()
    assert summary["gradients"] == summary["optimizer_state"] == 0
    assert summary["phase_of_peak"] == "forward"
    assert not [one for one in timeline.storages if one.category == "gradients"]
    assert traced(evaluate=True, optimizer="sgd-fused").summary() == summary


def test_tied_weights_are_one():
    timeline = trace(*_reused())
    tied = 4 * (500 * 32 + 2 * 32 + 32 * 32 + 32)
    assert held(timeline, "forward")["parameters"] == tied
    assert held(timeline, "backward")["gradients"] == tied


def _reused():
    def batch():
        return torch.randint(500, (4, 8)), torch.randint(500, (4,))

    return lambda: zoo.Reused(500, 32), batch, "fp32", "sgd-fused", "cuda", zoo.classify


def test_micro_batches_add_to_the_gradients_in_place():
    parts_ = traced(micro_batches=4)
    assert held(parts_, "backward")["gradients"] == 4 * PARAMETERS
    assert held(parts_, "forward")["batch"] == 4 * (4 * 16 * 64 + 8 * 16)
    found = [
        one
        for one in parts_.storages
        if one.category == "gradients" and one.step == 2 and one.died is not None
    ]
    assert sum(one.bytes for one in found) == 4 * PARAMETERS


@pytest.mark.parametrize("recipe", ["fp32", "amp-fp16", "bf16-master"])
def test_all_bytes_belong_to_a_category_and_the_second_step_begins_as_it_ends(recipe):
    timeline = traced(recipe=recipe)
    assert {one.category for one in timeline.storages} <= set(CATEGORIES)
    for event, moment in enumerate(timeline.moments):
        assert sum(timeline.by_category(event).values()) == moment.allocated
    ends = [timeline.events("step", step)[-1] for step in (1, 2)]
    first, second = (timeline.moments[event].requested for event in ends)
    assert first == second
    assert timeline.steps == 2


# --- modules and operations


def test_storages_name_their_module_and_operation():
    timeline = traced()
    made = {(one.module, one.operation) for one in timeline.storages if one.step == 2}
    assert {("0", "aten.addmm.default"), ("1", "aten.relu.default")} <= made
    assert {m for m, operation in made if "threshold_backward" in operation} == {""}


def test_after_a_checkpoint_the_backward_pass_is_outside_of_all_modules():
    timeline = trace(*_checkpointed())
    modules = [one.module for one in timeline.storages if one.phase == "backward"]
    again = {one.module for one in timeline.storages if "gelu.default" in one.operation}
    assert modules[-1] == "" and again == {"0.2", "1.2"}


def _checkpointed():
    def make():
        return zoo.Checkpointed(part(), part())

    def part():
        inner = nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)
        return nn.Sequential(nn.LayerNorm(64), *inner)

    return make, vectors, "fp32", "sgd-foreach", "cuda", zoo.classify


def test_a_checkpoint_keeps_the_inputs_of_its_parts_alone():
    kept = held(trace(*_checkpointed()), "forward")["activations"]
    rows = 4 * 16 * 64  # an input of a part, and the logits' log-probabilities
    assert kept == 2 * rows + 2 * 4


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("recipe", ["fp32", "amp-bf16"])
def test_both_kinds_of_checkpoint_recompute_as_cuda_would(reentrant, recipe):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 32)
            self.inner = nn.Sequential(nn.Linear(64, 256), nn.Dropout(0.1))

        def forward(self, x):
            x = self.first(x)
            x = checkpoint(self.inner, x, use_reentrant=reentrant)
            return self.last(x[:, :64])

    masks = [
        one
        for one in traced(Model, recipe=recipe).storages
        if one.operation == "aten.native_dropout.default" and one.bytes == 16 * 256
    ]
    assert {one.phase for one in masks} == {"forward", "backward"}


# --- nothing real


def test_a_model_of_seven_billion_takes_no_memory():
    setting = Setting("mistral-7b", 1, recipe="pure-bf16")
    made = case(setting)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timeline = trace(
        made.make_model, made.make_batch, loss_fn=made.loss_fn, **how(setting)
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 500 * 1024
    tables = 2 * 1024 * 128
    assert held(timeline, "forward")["parameters"] == 2 * 7_241_732_096 + tables
    assert timeline.allocated_peak > 57e9


def test_a_batch_that_was_there_already_is_taken_for_its_shape():
    ready = vectors()
    assert traced(batch=lambda: ready).summary() == traced().summary()


def test_tensors_in_dicts_are_part_of_the_batch():
    def batch():
        x, labels = vectors()
        return ({"x": x, "labels": labels, "note": "text"},)

    def loss(model, batch):
        return zoo.classify(model, batch["x"], batch["labels"])

    whole = traced(batch=batch, loss_fn=loss, recipe="pure-bf16")
    assert whole.summary() == traced(recipe="pure-bf16").summary()


# --- as the formula counts


@pytest.mark.parametrize(
    ("shape", "batch", "sequence", "options"),
    [
        ((2, 4, 128, 65), 16, 256, {"recipe": "fp32", "dropout": 0.1}),
        ((2, 4, 128, 65), 16, 128, {"recipe": "amp-bf16", "checkpointing": True}),
        ((2, 6, 192, 65), 8, 256, {"recipe": "pure-bf16", "attention": "materialised"}),
        (
            (2, 8, 256, 300),
            2,
            256,
            {"recipe": "fp16-master", "attention": "materialised", "dropout": 0.1},
        ),
        ((2, 8, 256, 5000), 1, 1024, {"recipe": "pure-bf16", "checkpointing": True}),
        ((2, 4, 256, 256), 8, 512, {"recipe": "amp-fp16", "micro_batches": 2}),
        (
            (2, 4, 128, 256),
            8,
            512,
            {"recipe": "bf16-master", "checkpointing": True, "dropout": 0.1},
        ),
        ((2, 8, 512, 256), 1, 512, {"recipe": "tf32", "attention": "materialised"}),
    ],
)
def test_a_trace_of_a_shape_that_was_never_measured_is_what_the_formula_says(
    shape, batch, sequence, options
):
    options = {"attention": "sdpa", "dropout": 0.0, "checkpointing": False, **options}
    recipe, parts_ = options.pop("recipe"), options.get("micro_batches", 1)
    account = formula(Shape(*shape), recipe, "adamw", batch, sequence, **options)
    size = batch // parts_, sequence
    made = decoder_case(Shape(*shape), size, SimpleNamespace(**options))
    timeline = trace(
        made.make_model,
        made.make_batch,
        recipe,
        "adamw-foreach",
        loss_fn=made.loss_fn,
        micro_batches=parts_,
    )
    left = held(timeline, "forward")
    assert account.activations == left["activations"] + left["weight casts"]
    assert account.requested_peak == pytest.approx(timeline.requested_peak, rel=5e-4)


# --- CUDA's ways


def attend(q_heads, kv_heads, width=16, dims=4, mask=None, **options):
    """Return a model of attention over 16 vectors of 64 numbers."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(64, q_heads * 16)
            self.k = nn.Linear(64, kv_heads * 16)
            self.v = nn.Linear(64, kv_heads * width)
            self.mask = None if mask is None else nn.Parameter(torch.zeros(mask))

        def forward(self, x):
            if dims == 3:
                q, k, v = self.q(x), self.k(x), self.v(x)
            else:
                layers = (self.q, q_heads), (self.k, kv_heads), (self.v, kv_heads)
                q, k, v = (
                    layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)
                    for layer, heads in layers
                )
            y = F.scaled_dot_product_attention(q, k, v, self.mask, **options)
            return y.square().mean()

    return Model


def sequences():
    return (torch.randn(2, 24, 64),)


@pytest.mark.parametrize("recipe", ["fp32", "amp-bf16", "pure-bf16"])
@pytest.mark.parametrize(
    "model",
    [
        attend(4, 4, dropout_p=0.1, is_causal=True),
        attend(4, 2, enable_gqa=True),
        attend(4, 4, width=32),
        attend(1, 1, dims=3),
        attend(4, 4, mask=(4, 24, 24)),
    ],
)
def test_attention_of_any_kind_gives_every_parameter_its_gradient(model, recipe):
    timeline = trace(model, sequences, recipe, "sgd-fused")
    weights = held(timeline, "forward")["parameters"]
    assert held(timeline, "backward")["gradients"] == weights


def test_fused_attention_keeps_a_number_a_row_and_others_their_scores():
    scores = 4 * 2 * 24 * 24
    flat = held(trace(attend(4, 4), sequences, "pure-bf16"), "forward")["activations"]
    kept = held(trace(attend(1, 1, dims=3), sequences, "pure-bf16"), "forward")
    assert flat < 2 * 2 * 24 * (64 + 4 * 64) + scores
    assert kept["activations"] > 2 * 24 * 24


def test_multihead_attention_runs_the_fused_kernel_inside():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(64, 4, dropout=0.1, batch_first=True)

        def forward(self, x):
            return self.inner(x, x, x, need_weights=False)[0].square().mean()

    operations = {one.operation for one in trace(Model, sequences, "fp32").storages}
    assert not any("softmax" in one or "bernoulli" in one for one in operations)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_models_own_autocast_is_followed(device):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 32)

        def forward(self, x):
            with torch.autocast(device, torch.float16):
                x = self.first(x.detach().requires_grad_())
            with torch.autocast(device, enabled=False):
                return self.last(x.float())

    for recipe in ("fp32", "amp-bf16"):
        casts = held(traced(Model, recipe=recipe), "forward")["weight casts"]
        assert casts == 2 * 64 * 64
    assert isinstance(torch.autocast("cpu", enabled=False), torch.autocast)
    assert torch.autocast.__init__.__module__.startswith("torch")


def test_the_policy_of_the_cpu_can_be_asked_for():
    summary = traced(recipe="amp-bf16", policy="cpu").summary()
    assert summary["cublas_workspace"] == 0
    assert summary["activations"] != traced(recipe="amp-bf16").summary()["activations"]


def test_the_workspace_is_taken_at_the_first_product_of_each_thread():
    product, biased = cuda.WORKSPACE.values()
    assert traced().summary()["cublas_workspace"] == 2 * product + biased
    assert traced(evaluate=True).summary()["cublas_workspace"] == product + biased
    for given in (0, 10**12):
        summary = traced(cublas_workspace=given).summary()
        assert summary["cublas_workspace"] == given
        assert summary["allocated_peak"] > given
