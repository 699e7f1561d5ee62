"""The loop against torch written out by hand, and what a run notes of itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch._functorch.config
from torch import nn
from torch.nn import functional as F

from mpteach import gpt, recipes, training
from mpteach.data import windows
from tests.small import CONFIG, CORPUS, SETTINGS

pytestmark = pytest.mark.usefixtures("one_thread")


def fresh_model(seed=0):
    torch.manual_seed(seed)
    return gpt.GPT(CONFIG)


def run(name, settings=SETTINGS, seed=0, **kw):
    return training.train(
        fresh_model(), CORPUS, recipes.get(name), settings, seed, **kw
    )


def by_hand(recipe, scaled=False):
    """The same training in torch's own words, with one learning rate for each step."""
    model = fresh_model().to(getattr(torch, recipe.weights))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    tokens = torch.tensor(
        list(CORPUS.text[: CORPUS.size_bytes * 9 // 10]), dtype=torch.uint8
    )
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(1, SETTINGS.steps + 1):
        starts = torch.randint(len(tokens) - CONFIG.sequence, (4,), generator=generator)
        inputs, targets = windows(tokens, starts, CONFIG.sequence)
        optimizer.param_groups[0]["lr"] = 6e-4 * step / 50
        dtype = getattr(torch, recipe.compute or "bfloat16")
        with torch.autocast("cpu", dtype=dtype, enabled=recipe.compute is not None):
            loss = F.cross_entropy(model(inputs).view(-1, 256), targets.reshape(-1))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize("name", ["fp32", "bf16", "bf16-pure", "fp16", "fp16-unscaled"])
def test_losses_and_weights_are_those_of_torch_by_hand(name):
    recipe = recipes.get(name)
    losses, theirs = by_hand(recipe, scaled=recipe.scale_loss)
    ours = fresh_model()
    done = training.train(ours, CORPUS, recipe, SETTINGS, seed=0)
    assert done.losses == pytest.approx(losses, rel=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def masters_by_hand(dtype, scale):
    """Training on float32 copies with torch's AdamW, at a loss scale that stays."""
    model = fresh_model().to(dtype)
    copies = [p.detach().float() for p in model.parameters()]
    optimizer = torch.optim.AdamW(copies, lr=1.0, betas=(0.9, 0.95))
    tokens, _ = CORPUS.split("cpu", CONFIG.sequence)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(1, SETTINGS.steps + 1):
        starts = torch.randint(len(tokens) - CONFIG.sequence, (4,), generator=generator)
        inputs, targets = windows(tokens, starts, CONFIG.sequence)
        optimizer.param_groups[0]["lr"] = 6e-4 * step / 50
        logits = model(inputs).view(-1, 256).float()
        loss = F.cross_entropy(logits, targets.reshape(-1))
        (loss * scale).backward()
        for copy, weight in zip(copies, model.parameters(), strict=True):
            copy.grad = weight.grad.float() / scale
        optimizer.step()
        for copy, weight in zip(copies, model.parameters(), strict=True):
            weight.data.copy_(copy)
        model.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "scale"), [("bf16-master", 1), ("fp16-master", 2**16)]
)
def test_masters_train_as_float32_copies_do(name, scale):
    dtype = getattr(torch, recipes.get(name).weights)
    done = run(name)
    assert done.skipped_steps == []
    # A weight near the middle of two 16-bit numbers may round to the other one.
    assert done.losses == pytest.approx(masters_by_hand(dtype, scale), rel=1e-4)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_learns_the_verse(name):
    done = run(name, replace(SETTINGS, steps=30, learning_rate=0.02, warmup_steps=5))
    exact = run("fp32", replace(SETTINGS, steps=1))
    assert done.losses[0] == pytest.approx(exact.losses[0], rel=2e-2)
    if name != "fp16-pure":  # Adam's eps is zero there: see below
        assert done.validation_loss < done.losses[0] - 1


def test_the_same_seed_gives_the_same_run_and_another_does_not():
    first, again, other = run("fp32"), run("fp32"), run("fp32", seed=1)
    assert (
        first.losses == again.losses and first.validation_loss == again.validation_loss
    )
    assert first.losses[0] != other.losses[0]


def test_on_step_sees_every_step():
    seen = []
    done = run("fp32", on_step=lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == list(range(1, 13))
    assert [loss for _, loss in seen] == pytest.approx(done.losses, rel=1e-6)


def test_speed_counts_only_warm_steps_without_samples():
    done = run("fp32", replace(SETTINGS, steps=20, gradient_every=5))
    warm = [done.seconds[step - 1] for step in range(11, 20) if step != 15]
    assert done.tokens_per_second == pytest.approx(4 * 8 / np.median(warm), rel=1e-9)
    assert run("fp32", replace(SETTINGS, steps=10)).tokens_per_second is None


def test_on_a_cpu_no_peak_is_claimed():
    done = run("fp32")
    assert done.peak_allocated_bytes is None and done.peak_reserved_bytes is None


def test_16_bit_weights_end_non_finite_in_fp16_and_the_run_stops_there():
    done = run("fp16-pure", replace(SETTINGS, steps=40))
    assert done.non_finite_step == len(done.losses) < 40
    assert done.losses[-1] is None and None not in done.losses[:-1]
    assert done.validation_loss is None and done.tokens_per_second is None
    assert done.final_loss is None and done.forward_tokens_per_second is None


def test_patience_lets_a_run_go_on_until_so_many_losses_in_a_row_are_bad():
    settings = replace(SETTINGS, steps=40)
    first = run("fp16-pure", settings).non_finite_step
    patient = run("fp16-pure", replace(settings, patience=3))
    assert patient.non_finite_step == first and len(patient.losses) == first + 2
    endless = run("fp16-pure", replace(settings, patience=50))
    assert endless.non_finite_step is None and len(endless.losses) == 40
    assert endless.validation_loss is None and endless.final_loss is None


def test_a_model_that_breaks_in_its_last_step_has_no_held_out_loss():
    done = run("fp16-pure", replace(SETTINGS, steps=1))
    assert done.losses[0] is not None and done.validation_loss is None


def test_an_overflow_is_skipped_and_halves_the_scale():
    model = fresh_model()
    with torch.no_grad():
        model.norm.weight.mul_(100)
    weights = [p.clone() for p in model.parameters()]
    settings = replace(SETTINGS, steps=1)
    done = training.train(model, CORPUS, recipes.get("fp16"), settings, seed=0)
    assert done.skipped_steps == [1] and done.loss_scale == [(1, 65536.0)]
    assert all(
        torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True)
    )


def test_the_scale_in_use_is_noted_when_it_changes():
    model = fresh_model()
    with torch.no_grad():
        model.norm.weight.mul_(100)
    done = training.train(model, CORPUS, recipes.get("fp16"), SETTINGS, seed=0)
    skips = len(done.skipped_steps)
    assert (
        done.skipped_steps == list(range(1, skips + 1)) and 0 < skips < SETTINGS.steps
    )
    assert done.loss_scale == [(k, 2.0 ** (17 - k)) for k in range(1, skips + 2)]


def test_recipes_without_scaling_note_no_scale():
    assert run("fp16-unscaled").loss_scale == [] and run("bf16").skipped_steps == []


def test_gradients_are_sampled_at_the_steps_said():
    done = run("fp32")
    assert [row["step"] for row in done.gradients] == [1, 5, 10]
    assert all(
        0 <= row["below_subnormal"] <= row["below_normal"] <= 1
        for row in done.gradients
    )


def test_validation_is_the_mean_over_even_windows_in_float32():
    model, recipe = fresh_model(), recipes.get("bf16-pure")
    model.to(torch.bfloat16)
    _, held_out = CORPUS.split("cpu", CONFIG.sequence)
    starts = torch.linspace(0, len(held_out) - 9, 8).long()
    inputs, targets = windows(held_out, starts, CONFIG.sequence)
    logits = model(inputs).float().view(-1, 256)
    expected = F.cross_entropy(logits, targets.reshape(-1)).item()
    trainer = training.Trainer(model, recipe, SETTINGS)
    found, speed = trainer.evaluate(held_out, SETTINGS)
    assert speed > 0
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != float(torch.tensor(found).bfloat16())


def test_tf32_is_put_back_even_after_an_error():
    before = torch.get_float32_matmul_precision()
    seen = []

    def stop(step, loss):
        seen.append(torch.get_float32_matmul_precision())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("tf32", on_step=stop)
    assert seen == ["high"] and torch.get_float32_matmul_precision() == before


# What torch imports to compile warns of itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_graphs_are_not_kept_where_torch_takes_two_precisions_for_one():
    with torch._functorch.config.patch(enable_autograd_cache=True):
        training.Trainer(fresh_model(), recipes.get("fp32"), SETTINGS)
        assert torch._functorch.config.enable_autograd_cache
        settings = replace(SETTINGS, compiled="blocks")
        training.Trainer(fresh_model(), recipes.get("fp32"), settings)
        assert not torch._functorch.config.enable_autograd_cache


# What torch imports to compile warns of itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("part", "names"), [("", []), ("blocks", ["blocks.0", "head"]), ("whole", [""])]
)
def test_the_parts_named_are_compiled(part, names, monkeypatch):
    model, compiled = fresh_model(), []
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **_: compiled.append(module)
    )
    training.Trainer(model, recipes.get("fp32"), replace(SETTINGS, compiled=part))
    named = {module: name for name, module in model.named_modules()}
    assert [named[module] for module in compiled] == names
