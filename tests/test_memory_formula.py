"""The account of a step: against an H200, against saved tensors, and by hand."""

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpteach import gpt
from mpteach.memory import decoder
from mpteach.memory.formula import PRESETS, SYMBOLS, Account, Shape, formula

MEASURED = Path(__file__).with_name("h200_memory.csv")
GPT2 = PRESETS["gpt2"]
SMALL = Shape(layers=3, heads=4, hidden=128, vocabulary=300)
TODAY = Shape(
    layers=3,
    heads=4,
    hidden=128,
    vocabulary=300,
    kv_heads=2,
    mlp_hidden=352,
    norm="rmsnorm",
    mlp="swiglu",
    positions="rotary",
    tied=False,
    biases=False,
)


def _rows() -> list[dict[str, str]]:
    lines = MEASURED.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _name(row: dict[str, str]) -> str:
    keys = ("model", "batch", "recipe", "optimizer", "attention", "dropout")
    return "-".join(row[key] for key in keys)


def _account(row: dict[str, str]) -> Account:
    layers, heads, hidden, vocabulary = (
        int(row[key]) for key in ("layers", "heads", "hidden", "vocab")
    )
    return formula(
        Shape(layers, heads, hidden, vocabulary),
        row["recipe"],
        row["optimizer"],
        int(row["batch"]),
        int(row["sequence"]),
        row["attention"],
        float(row["dropout"]),
        cublas_workspace_bytes=int(row["cublas_workspace"]),
    )


@pytest.mark.parametrize("row", _rows(), ids=_name)
def test_activations_and_peak_are_those_of_an_h200_to_the_byte(row):
    account = _account(row)
    assert account.activations == int(row["activations_requested"])
    assert account.requested_peak == int(row["requested_peak"])


@pytest.mark.parametrize("row", _rows(), ids=_name)
def test_each_phase_takes_what_an_h200_allocated_less_its_rounding(row):
    account = _account(row)
    phases = ("forward", "backward", "step")
    peaks = {phase: int(row[f"peak_{phase}"]) for phase in phases}
    assert account.phase_of_peak == max(peaks, key=peaks.get)
    for phase, allocated in peaks.items():
        ours = max(one.bytes for one in account.moments if one.phase == phase)
        assert 0.97 * allocated < ours <= allocated


@pytest.mark.parametrize("row", _rows(), ids=_name)
def test_what_stays_is_what_an_h200_allocated_less_its_rounding(row):
    account = _account(row)
    for name in ("parameters", "gradients", "optimizer_state"):
        assert 0.93 * int(row[name]) < getattr(account, name) <= int(row[name])


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("mistral-7b", 7_241_732_096),
    ],
)
def test_presets_have_the_published_parameters(preset, parameters):
    account = formula(PRESETS[preset], "fp32", "sgd", 1, 1024)
    assert account.symbols["P"] == parameters


def test_parameters_are_the_textbook_sum():
    l, h, V, T = 12, 768, 50257, 256  # noqa: E741
    account = formula(GPT2, "fp32", "adamw", 1, T)
    assert account.symbols["P"] == 12 * l * h**2 + 13 * l * h + (V + T) * h + 2 * h
    assert account.parameters == account.gradients == 4 * account.symbols["P"]


@pytest.mark.parametrize("shape", [SMALL, TODAY], ids=["gpt2", "today"])
def test_parameters_and_tensors_are_those_of_the_module(shape):
    model = decoder.Decoder(shape, sequence=32)
    account = formula(shape, "fp32", "adamw-fused", 1, 32)
    weights = list(model.parameters())
    assert account.symbols["P"] == sum(one.numel() for one in weights)
    assert account.symbols["t"] == len(weights)
    held = sum(one.nbytes for one in (*weights, *model.buffers()))
    assert account.parameters == held


# --- what autograd saves, on the CPU


class _RMSNorm(torch.autograd.Function):
    """Saves what CUDA's fused kernel does: its input, and a float32 number a row."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        scale = x.float().square().mean(-1, keepdim=True).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None]:
        return None, None


def _saved_bytes(model: nn.Module, tokens: Tensor, loss: Callable) -> int:
    """Return the bytes of all storages that a forward pass saves, parameters excepted."""
    known = {one.untyped_storage().data_ptr() for one in model.parameters()}
    known |= {one.untyped_storage().data_ptr() for one in model.buffers()}
    known.add(tokens.untyped_storage().data_ptr())
    saved = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = (storage.nbytes(), x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kept = loss(model, tokens)
    del kept
    return sum(size for size, _ in saved.values())


def _next_token(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())


@pytest.mark.parametrize(
    ("recipe", "dtype"), [("fp32", "float32"), ("pure-bf16", "bfloat16")]
)
def test_activations_are_what_autograd_saves_of_a_gpt(recipe, dtype):
    config = gpt.GPTConfig(layers=3, heads=4, hidden=128, sequence=64, vocabulary=300)
    model = gpt.GPT(config).to(getattr(torch, dtype))
    tokens = torch.randint(300, (2, 64))
    ours = formula(SMALL, recipe, "sgd", 2, 64).activations
    width = model.norm.weight.element_size()
    ours -= width  # the loss itself: returned, not saved
    if recipe == "pure-bf16":  # the CPU's kernels: 16-bit statistics, and no seed
        ours -= 7 * 4 * 2 * 64 + 3 * 16
    assert _saved_bytes(model, tokens, _next_token) == ours


def test_activations_are_what_autograd_saves_of_a_model_of_today(monkeypatch):
    def fused(x: Tensor, shape: tuple, weight: Tensor, eps: float | None) -> Tensor:
        return _RMSNorm.apply(x, weight)

    monkeypatch.setattr(F, "rms_norm", fused)
    model = decoder.Decoder(TODAY, sequence=64).to(torch.bfloat16)
    tokens = torch.randint(300, (2, 64))
    ours = formula(TODAY, "pure-bf16", "sgd", 2, 64).activations - 2 - 3 * 16
    assert _saved_bytes(model, tokens, lambda model, x: model(x, x)) == ours


# --- the options, by hand

N, H, L, A, V, S = 8 * 64, 128, 3, 4, 300, 64
P = 12 * L * H**2 + 13 * L * H + (V + S) * H + 2 * H


def _small(recipe: str = "fp32", optimizer: str = "adamw", **options) -> Account:
    return formula(SMALL, recipe, optimizer, 8, S, cublas_workspace_bytes=0, **options)


@pytest.mark.parametrize(
    ("recipe", "optimizer", "bytes_a_parameter"),
    [
        ("fp32", "sgd", 8),
        ("fp32", "momentum-fused", 12),
        ("fp32", "adam-fused", 16),
        ("fp32", "adamw", 20),
        ("tf32", "adamw-foreach", 20),
        ("amp-fp16", "adamw-fused", 16),
        ("amp-bf16", "adam", 20),
        ("pure-bf16", "sgd-foreach", 4),
        ("pure-bf16", "momentum", 6),
        ("pure-bf16", "adamw-fused", 8),
        ("pure-bf16", "adamw", 10),
        ("fp16-master", "adamw-fused", 20),
        ("fp16-master", "adamw-foreach", 24),
        ("bf16-master", "momentum", 16),
        ("bf16-master", "sgd-fused", 12),
    ],
)
def test_bytes_a_parameter_at_the_step(recipe, optimizer, bytes_a_parameter):
    at_step = _small(recipe, optimizer).moment("the step of the optimizer")
    small = ("tokens and targets", "scalars at the step", "step counters")
    rest = sum(term.bytes for term in at_step.terms if term.name in small)
    assert at_step.bytes - rest == bytes_a_parameter * P


def test_adam_in_eight_bits_keeps_two_bytes_and_the_constants_of_its_blocks():
    account = _small("fp32", "adam8bit")
    assert account.optimizer_state == 2 * P + 8 * -(-P // 2048)
    assert account.moment("the step of the optimizer").bytes < 10.1 * P


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_an_optimizer_is_foreach_unless_it_says_fused(optimizer):
    assert _small(optimizer=optimizer) == _small(optimizer=f"{optimizer}-foreach")


def test_only_fused_adam_counts_its_steps_on_the_device():
    tensors = 12 * L + 4
    fused = _small(optimizer="adamw-fused").optimizer_state
    assert fused - _small(optimizer="adamw").optimizer_state == 4 * tensors
    assert _small(optimizer="sgd-fused").optimizer_state == 0


def test_dropout_adds_its_masks_of_one_byte():
    for recipe in ("fp32", "amp-bf16", "pure-bf16"):
        added = _small(recipe, dropout=0.1).activations - _small(recipe).activations
        assert added == (2 * L + 1) * N * H


@pytest.mark.parametrize(
    ("recipe", "dropout", "bytes_a_score", "instead"),
    [
        ("fp32", 0.0, 4, 0),
        ("fp32", 0.1, 4 + 1 + 4, 0),
        ("amp-fp16", 0.0, 4 + 2, 16),
        ("amp-fp16", 0.1, 4 + 1 + 2, 16),
        ("pure-bf16", 0.0, 2, 16),
        ("pure-bf16", 0.1, 2 + 1 + 2, 16),
    ],
)
def test_materialised_attention_keeps_its_scores(recipe, dropout, bytes_a_score, instead):
    flat = _small(recipe, dropout=dropout)
    scores = _small(recipe, dropout=dropout, attention="materialised")
    kept = L * (8 * A * S**2 * bytes_a_score - 4 * N * A - instead)
    assert scores.activations - flat.activations == kept
    assert scores.parameters - flat.parameters == L * S**2  # a byte of mask a pair


def test_the_kernel_of_float32_pads_its_log_sum_exp():
    kept = {s: formula(SMALL, "fp32", "sgd", 1, s).total("attention") for s in (33, 64)}
    assert kept[64] - kept[33] == L * 4 * 4 * H * (64 - 33)


def test_autocast_keeps_a_cast_of_every_matrix():
    assert _small("amp-bf16").total("weight casts") == 2 * (12 * L * H**2 + V * H)
    assert _small("fp32").total("weight casts") == 0


def test_checkpointing_keeps_the_input_of_each_block():
    plain, again = _small("fp32"), _small("fp32", checkpointing=True)
    assert again.total("residual stream") == (L + 1) * 4 * N * H
    assert again.symbols["B"] == 4 * N * H < plain.symbols["B"]
    assert again.requested_peak < plain.requested_peak
    assert _small("amp-bf16", checkpointing=True).total("weight casts") == 2 * V * H


def test_micro_batches_trade_activations_for_gradients_that_are_there_already():
    whole, parts = _small("fp32"), _small("fp32", micro_batches=4)
    loss = "the gradient of the loss"
    ours = parts.moment(loss).bytes - parts.gradients - parts.activations
    temporaries = 2 * 4 * (N // 4) * V + 4
    assert ours == parts.parameters + parts.optimizer_state + 16 * N + temporaries
    assert parts.total("residual stream") == whole.total("residual stream") // 4
    assert parts.gradients == whole.gradients


# --- where the peak lies

BIG_HEAD = Shape(layers=2, heads=4, hidden=128, vocabulary=20_000)
GATED = replace(TODAY, vocabulary=64)
SMALL_HEAD = Shape(layers=4, heads=4, hidden=128, vocabulary=64)


@pytest.mark.parametrize(
    ("shape", "run", "options", "name", "phase"),
    [
        (BIG_HEAD, ("fp32", "sgd", 8, 64), {}, "the gradient of the loss", "backward"),
        (GPT2, ("fp32", "adamw", 1, 16), {}, "the step of the optimizer", "step"),
        (
            BIG_HEAD,
            ("fp32", "sgd", 1, 8),
            {},
            "the gradient of the embedding",
            "backward",
        ),
        (
            SMALL_HEAD,
            ("fp32", "sgd", 64, 64),
            {},
            "the MLP of the last block",
            "backward",
        ),
        (
            SMALL_HEAD,
            ("fp32", "sgd", 2, 1024, "materialised"),
            {},
            "the attention of the last block",
            "backward",
        ),
        (
            SMALL_HEAD,
            ("fp32", "sgd", 8, 64),
            {"checkpointing": True},
            "the first product of the MLP of the first block",
            "backward",
        ),
        (
            PRESETS["gpt2-xl"],
            ("amp-bf16", "sgd", 8, 16),
            {"checkpointing": True, "micro_batches": 8},
            "the loss",
            "forward",
        ),
        (
            GATED,
            ("pure-bf16", "sgd", 64, 64),
            {},
            "the gate of the last block",
            "backward",
        ),
    ],
)
def test_the_peak_moves(shape, run, options, name, phase):
    account = formula(shape, *run, **options)
    assert (account.peak.name, account.phase_of_peak) == (name, phase)
    assert account.requested_peak == max(one.bytes for one in account.moments)
    assert account.why.startswith(f"Memory is fullest at {name}: ")
    assert account.why.endswith(".") and account.why.count(".") == 1


def test_the_gradient_of_a_tied_head_waits_and_is_added_apart_unless_cast():
    for recipe, copies, stream in (("fp32", 2, 0), ("amp-bf16", 1, 4 * 8 * 128)):
        account = formula(BIG_HEAD, recipe, "sgd", 1, 8, cublas_workspace_bytes=0)
        there = account.moment("the gradient of the embedding").bytes
        there -= account.parameters + account.gradients + 8 * 8 + 16 * 8 + stream
        assert there == copies * 4 * 20_000 * 128


# --- the account as something to read


@pytest.mark.parametrize("attention", ["sdpa", "materialised"])
@pytest.mark.parametrize("shape", [SMALL, TODAY], ids=["gpt2", "today"])
@pytest.mark.parametrize("recipe", ["fp32", "amp-fp16", "bf16-master"])
def test_every_term_is_its_equation_worked_out(shape, recipe, attention):
    account = formula(
        shape, recipe, "adamw", 4, 32, attention, 0.1, checkpointing=True, micro_batches=2
    )
    assert set(account.symbols) == set(SYMBOLS)
    for moment in account.moments:
        names = [term.name for term in moment.terms]
        assert len(names) == len(set(names))
        for term in moment.terms:
            assert eval(term.worked.replace(" x ", "*").replace("^", "**")) == term.bytes
            assert isinstance(term.bytes, int) and term.bytes >= 0


def test_an_equation_reads_as_on_paper():
    (term,) = (one for one in _small().terms if one.name == "attention weights")
    assert term.equation == "w l (2 h^2 + 2 h u)"
    assert term.worked == "4 x 3 x (2 x 128^2 + 2 x 128 x 128)"
    assert term.bytes == 4 * 3 * 4 * 128**2


def test_terms_are_listed_once_and_belong_to_known_groups():
    account = _small("amp-fp16", micro_batches=2)
    names = [term.name for term in account.terms]
    assert len(names) == len(set(names))
    groups = {term.group for term in account.terms}
    assert {"parameters", "gradients", "optimizer", "batch"} <= groups
    assert account.total("gradients") == account.gradients


def test_the_workspace_is_the_one_measured_unless_given():
    assert formula(SMALL, "fp32", "sgd", 1, 8).total("workspace") == 68_157_440
    assert formula(TODAY, "fp32", "sgd", 1, 8).total("workspace") == 64 * 2**20
    assert _small().total("workspace") == 0


def test_the_formula_needs_no_torch():
    program = "import sys, mpteach.memory.formula; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr
