"""Failures: logits beyond float16, a scale that falls to zero, stale fp8 scales."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mpteach import collapse, epsilons, fp8, gpt, hardware, logits, scales, studies
from mpteach.errors import InputError
from mpteach.runs import Settings
from tests.small import CORPUS

CONFIG = gpt.GPTConfig(layers=2, heads=2, hidden=32, sequence=16)
SETTINGS = Settings(steps=12, batch=4, warmup_steps=2, validation_batches=1)

pytestmark = pytest.mark.usefixtures("one_thread")


def run(study, variant, settings=SETTINGS):
    torch.manual_seed(0)
    model = gpt.GPT(CONFIG)
    done = study.one_run(variant, 0, model, CORPUS, settings, lambda *_: None)
    assert done["seconds"] == []
    return done


@pytest.mark.parametrize("form", ["written", "scaled-first"])
def test_attention_written_out_is_torchs(form):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 9, 8, dtype=torch.float64).unbind()
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    theirs = [x.clone().requires_grad_() for x in (q, k, v)]
    y = logits.attention(*ours, form)
    expected = F.scaled_dot_product_attention(*theirs, is_causal=True)
    assert torch.allclose(y, expected, rtol=0, atol=1e-10)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-10)


def test_an_unknown_form_of_attention_is_told():
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(InputError, match="written"):
        logits.attention(x, x, x, "flash")


def test_logits_seen_are_those_of_numpy():
    torch.manual_seed(0)
    model = gpt.GPT(CONFIG)
    logits.grow(model, 1500)
    observer = logits.Observer(model, "fused", SETTINGS, None)
    tokens = torch.randint(256, (3, 16))
    model(tokens)
    block = model.blocks[0]
    x = model.tokens(tokens) + model.positions.weight
    qkv = block.qkv(block.attention_norm(x)).detach().double().numpy()
    q, k, _ = qkv.reshape(3, 16, 3, 2, 16).transpose(2, 0, 3, 1, 4)
    sizes = np.abs(np.tril(q @ k.swapaxes(-1, -2)))
    (seen,) = observer.seen
    allowed = sizes[..., np.tri(16, dtype=bool)]
    assert seen["step"] == 1 and len(seen["before"]) == 2
    assert seen["before"][0] == pytest.approx(sizes.max(), rel=1e-4)
    assert seen["after"][0] == pytest.approx(sizes.max() / 4, rel=1e-4)
    share = (allowed > 65504).mean()
    assert seen["beyond"][0] == pytest.approx(share, rel=1e-4) and share > 0
    with torch.no_grad():
        model(tokens)
    observer.stepped(1, 5.0)
    model(tokens)
    assert len(observer.seen) == 1  # neither without gradients nor at step 2


@pytest.fixture
def large(monkeypatch):
    """Factors for this file's small model, whose logits are small."""
    grown = {
        name: (recipe, form, 900 if factor == logits.LARGE else 200)
        for name, (recipe, form, factor) in logits.VARIANTS.items()
    }
    monkeypatch.setattr(logits, "VARIANTS", grown)


def test_only_float16_written_out_overflows_and_the_scale_cannot_help(large):
    settings = Settings(steps=60, batch=4, warmup_steps=2, validation_batches=1)
    done = run(logits, "fp16-written", settings)
    assert done["non_finite_step"] == 1
    assert done["losses"] == [None] * logits.PATIENCE
    scale_by_step = [[n, 2.0 ** (17 - n)] for n in range(1, logits.PATIENCE + 1)]
    assert [list(one) for one in done["loss_scale"]] == scale_by_step
    assert done["skipped_steps"] == list(range(1, logits.PATIENCE + 1))
    first = done["seen"]["first"]
    told = [first[key] for key in ("step", "phase", "module", "operation", "kind")]
    assert told == [1, "forward", "blocks.0", "bmm", "inf"]
    assert all("inf" not in one for one in first["inputs"])
    seen = done["seen"]["logits"]
    assert [one["step"] for one in seen] == [1, 10, 20, 30, 40]
    assert all(one["before"][0] > 65504 > one["after"][0] for one in seen)
    assert all(one["beyond"][0] > 0 for one in seen)


@pytest.mark.parametrize("variant", [*logits.VARIANTS])
def test_other_dtypes_forms_and_factors_train(variant, large):
    if variant == "fp16-written":
        return
    done = run(logits, variant)
    assert None not in done["losses"] and done["losses"][-1] < done["losses"][0]
    assert done["seen"]["first"] is None and done["validation_loss"] is not None
    beyond = done["seen"]["logits"][0]["before"][0] > 65504
    assert beyond == (variant != "fp16-written-small")


def test_one_gradient_that_is_nan_stops_all_learning_in_silence():
    settings = Settings(steps=170, batch=2, warmup_steps=2, validation_batches=1)
    done = run(collapse, "fp16", settings)
    assert None not in done["losses"] and done["validation_loss"] is not None
    assert done["seen"]["non_finite"] == ["power"] and done["seen"]["moved"] == 0
    halvings = [2.0 ** (17 - n) for n in range(1, 167)]
    # The smallest float32 is 2^-149.
    assert [scale for _, scale in done["loss_scale"]] == [*halvings, 0.0]


def test_without_a_scaler_it_is_loud_and_a_shift_cures_it():
    for variant in ("exact", "bf16"):
        done = run(collapse, variant)
        assert done["non_finite_step"] == 2 and done["seen"]["power"] is None
    cured = run(collapse, "fp16-cured")
    assert cured["skipped_steps"] == [] and cured["seen"]["non_finite"] == []
    assert cured["losses"][-1] < cured["losses"][0] - 0.1
    assert cured["seen"]["moved"] == cured["seen"]["parameters"]


@pytest.mark.parametrize("role, dtype", [(0, "float8_e4m3fn"), (2, "float8_e5m2")])
def test_counts_of_a_stale_scale_are_those_of_numpy(role, dtype):
    torch.manual_seed(0)
    x = torch.randn(64, 32) * torch.logspace(-6, 3, 32)
    x[0] = 0
    largest = fp8.LARGEST[role]
    scaled = np.abs(x.numpy()) * np.float32(64)
    rounded = scaled.astype(getattr(ml_dtypes, dtype))
    finite = np.isfinite(rounded.astype(np.float32))
    zero = (rounded.astype(np.float32) == 0) & (scaled > 0)
    saturated, at_zero, broken, fill = scales.counted(x, role, torch.tensor(64.0))
    # Numpy's cast does not saturate: it gives NaN, or inf in e5m2.
    assert saturated == (~finite).sum() > 0 and at_zero == zero.sum() > 0
    assert fill == pytest.approx(scaled.max() / largest, rel=1e-6)
    # torch's cast to e4m3 saturates too, from some version on.
    assert broken in (0, saturated) and scales.counted(x, role)[2] == 0
    assert scales.counted(x, role)[0] == 0
    assert scales.counted(x, role)[3] == pytest.approx(1)


def test_a_stale_scale_stays_what_the_first_step_made_it():
    first = run(scales, "fp8-delayed", Settings(steps=1, batch=4, validation_batches=1))
    torch.manual_seed(0)
    model = gpt.GPT(CONFIG)
    scales.one_run("fp8-grown-4", 0, model, CORPUS, SETTINGS, lambda *_: None)
    magnitudes = model.fp8_history.amax(-1)
    assert (model.fp8_history != 0).sum(-1).max() == 1  # one step was measured
    layers = [one for one in model.modules() if isinstance(one, fp8.Linear8)]
    for one, amax in zip(layers, magnitudes, strict=True):
        limits = torch.tensor(fp8.LARGEST)
        assert torch.allclose(one.scales, 4 * limits / amax)
    assert first["seen"]["factor"] is None


def test_scales_out_of_date_saturate_or_lose_and_the_others_do_not():
    settings = Settings(steps=20, batch=4, warmup_steps=2, validation_batches=1)
    names = (*scales.KEPT, *scales.STALE)
    seen = {name: run(scales, name, settings)["seen"] for name in names}
    assert seen["bf16-master"]["steps"] == []
    assert seen["fp8"]["steps"] == [1, 10, 20]
    weights = {name: seen[name]["weight"] for name in names[1:]}
    last = {
        key: {name: one[key][-1] for name, one in weights.items()}
        for key in ("saturated", "zero", "fill")
    }
    assert last["saturated"]["fp8"] == 0 and last["fill"]["fp8"] == pytest.approx(1)
    assert last["saturated"]["fp8-delayed"] < 0.01
    assert 0.1 < last["saturated"]["fp8-grown-4"] < last["saturated"]["fp8-grown-16"]
    assert last["saturated"]["fp8-shrunk-65536"] == 0
    assert last["zero"]["fp8-shrunk-65536"] > 0.2 > last["zero"]["fp8-shrunk-1024"]
    assert last["fill"]["fp8-grown-16"] == pytest.approx(16, rel=0.3)
    for one in seen.values():
        assert all(0 <= share <= 1 for share in one["gradient"]["saturated"])


def test_a_device_without_fp8_leaves_its_variants_out_and_says_so(tmp_path):
    lacking = not hardware.native("float8_e4m3fn", "cpu")
    every = [*scales.KEPT, *scales.STALE]
    assert scales.variants("cpu") == (["bf16-master"] if lacking else every)
    words = "mpteach study scales"
    begun = studies.begin("scales", "tiny", SETTINGS, CORPUS, "cpu", words)
    said = studies.table(begun)
    assert ("Left out are fp8, fp8-delayed, fp8-stale" in said) == lacking
    assert ("this cpu has no float8_e4m3fn products in hardware" in said) == lacking


def test_the_largest_change_is_where_v_is_zero():
    weight = torch.zeros(3, dtype=torch.float16, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=2.0**-10, betas=(0.0, 0.5), eps=2.0**-10)
    observer = epsilons.ChangeObserver(optimizer)
    for gradient in ([2.0**-13, 1.0, 0.0], [2.0**-13, 1.0, 0.0]):
        weight.grad = torch.tensor(gradient, dtype=torch.float16)
        optimizer.step()
    # v = 2^-27 is 0 in float16, so the first moves by 2^-13 / 2^-10 of the rate.
    assert observer.largest["v_zero"] == pytest.approx([2**-3, 2**-3], rel=0.01)
    assert observer.largest["others"] == pytest.approx([1, 1], rel=0.01)
    with torch.no_grad():
        weight.fill_(math.inf)
    optimizer.step()
    assert observer.largest["others"][-1] is None
    assert len(observer.largest["v_zero"]) == 3


def test_fused_adam_moves_far_only_where_v_is_zero():
    done = run(epsilons, "fp16-fused")
    found = done["seen"]["largest_change"]
    assert len(found["others"]) == len(found["v_zero"]) <= epsilons.CHANGES
    assert max(found["v_zero"]) > 50 * max(found["others"])
    exact = run(epsilons, "fp16")["seen"]["largest_change"]["others"]
    assert all(0.9 < one < 5 for one in exact)  # Adam's steps, with float32 v
