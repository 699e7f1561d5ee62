"""The largest batch that fits, and what cannot be counted."""

import pytest

from mpteach.errors import InputError
from mpteach.memory.formula import PRESETS, Shape, fit, formula

GPT2 = PRESETS["gpt2"]
SMALL = Shape(layers=3, heads=4, hidden=128, vocabulary=300)


@pytest.mark.parametrize("recipe", ["fp32", "amp-bf16", "pure-bf16", "fp16-master"])
def test_fit_is_the_last_batch_below_the_budget(recipe):
    run = (GPT2, recipe, "adamw-fused")
    batch = fit(24 * 10**9, *run, 1024)
    assert formula(*run, batch, 1024).requested_peak <= 24 * 10**9
    assert formula(*run, batch + 1, 1024).requested_peak > 24 * 10**9


def test_fit_takes_the_options_of_the_formula():
    run = (24 * 10**9, GPT2, "fp32", "adamw-fused", 1024)
    assert fit(*run, attention="materialised") < fit(*run) < fit(*run, checkpointing=True)
    parts = fit(*run, micro_batches=16)
    assert parts > fit(*run) and parts % 16 == 0


def test_fit_is_exact_at_its_edges():
    one = formula(SMALL, "fp32", "sgd", 1, 64).requested_peak
    assert fit(one, SMALL, "fp32", "sgd", 64) == 1
    assert fit(one - 1, SMALL, "fp32", "sgd", 64) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"heads": 5}, "heads was 5: give a number that divides hidden, 128."),
        ({"kv_heads": 3}, "kv_heads was 3: give a number that divides heads, 4."),
        ({"layers": 0}, "layers was 0: give a whole number of at least 1."),
        ({"hidden": -128}, "hidden was -128: give a whole number of at least 1."),
        ({"heads": 4.0}, "heads was 4.0: give a whole number of at least 1."),
        ({"vocabulary": True}, "vocabulary was True: give a whole number of at least 1."),
        ({"kv_heads": 0}, "kv_heads was 0: give a whole number of at least 1."),
        ({"mlp_hidden": "1"}, "mlp_hidden was '1': give a whole number of at least 1."),
        ({"norm": "batch"}, "norm was 'batch': choose from layernorm, rmsnorm."),
        ({"mlp": "relu"}, "mlp was 'relu': choose from gelu, swiglu."),
        ({"positions": None}, "positions was None: choose from learned, rotary."),
        (
            {"heads": 128, "positions": "rotary"},
            "hidden / heads was 1: give an even one, rotary positions turn pairs.",
        ),
    ],
)
def test_a_shape_that_cannot_be_built(given, said):
    with pytest.raises(InputError) as caught:
        Shape(**{"layers": 3, "heads": 4, "hidden": 128, "vocabulary": 300, **given})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"config": "gpt2"}, "config was 'gpt2': give a Shape."),
        ({"recipe": "fp8"}, "unknown recipe 'fp8': choose from fp32, tf32, amp-fp16"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion': choose from sgd-foreach"),
        ({"optimizer": None}, "unknown optimizer None: choose from sgd-foreach"),
        ({"optimizer": "adam8bit-fused"}, "unknown optimizer 'adam8bit-fused'"),
        ({"attention": "flash"}, "attention was 'flash': choose from sdpa, material"),
        ({"batch": 0}, "batch was 0: give a whole number of at least 1."),
        ({"batch": 1.5}, "batch was 1.5: give a whole number of at least 1."),
        ({"sequence": -1}, "sequence was -1: give a whole number of at least 1."),
        ({"micro_batches": 0}, "micro_batches was 0: give a whole number of at least 1."),
        ({"micro_batches": 3}, "micro_batches was 3: give a divisor of the batch, 8."),
        ({"dropout": 1}, "dropout was 1: give a number from 0 to 1, 1 excluded."),
        ({"dropout": -0.1}, "dropout was -0.1: give a number from 0 to 1, 1 excluded."),
        ({"dropout": float("nan")}, "dropout was nan: give a number from 0 to 1"),
        ({"dropout": "0"}, "dropout was '0': give a number from 0 to 1, 1 excluded."),
        (
            {"cublas_workspace_bytes": -1},
            "cublas_workspace_bytes was -1: give a whole number from 0 on.",
        ),
    ],
)
def test_a_step_that_cannot_run(given, said):
    run = dict(config=SMALL, recipe="fp32", optimizer="sgd", batch=8, sequence=64)
    with pytest.raises(InputError) as caught:
        formula(**{**run, **given})
    assert str(caught.value).startswith(said) and str(caught.value).endswith(".")


def test_a_budget_that_is_none():
    with pytest.raises(InputError, match="budget_bytes was 0: give a whole number"):
        fit(0, SMALL, "fp32", "sgd", 64)


def test_a_moment_that_is_none():
    with pytest.raises(InputError, match="moment was 'noon': choose from the loss, "):
        formula(SMALL, "fp32", "sgd", 1, 8).moment("noon")
