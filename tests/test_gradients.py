"""Histograms of exponents against numpy, alterations against torch's own float16."""

import math

import numpy as np
import pytest
import torch

from mpteach import gpt, gradients, training
from mpteach.errors import InputError
from mpteach.gradients import Alteration, Observer, exponents, shares


def sizes() -> torch.Tensor:
    """Return numbers around every limit of float16, both signs."""
    limits = 2.0 ** torch.arange(-30, 20, dtype=torch.float64)
    near = torch.cat([limits, limits * (1 + 2**-12), limits * (1 - 2**-12)])
    return torch.cat([near, -near, torch.zeros(2, dtype=torch.float64)])


def test_exponents_are_those_of_numpy():
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)) ** 9
    x[:3] = torch.tensor([0.0, math.inf, math.nan])
    found = exponents(x)
    assert (found["zeros"], found["non_finite"]) == (1, 2)
    wanted = np.frexp(x[3:].abs().numpy())[1] - 1
    for exponent, count in enumerate(found["counts"], found["lowest"]):
        assert count == (wanted == exponent).sum()
    assert sum(found["counts"]) == 3997


def test_shares_say_what_float16_keeps():
    found = shares(exponents(torch.tensor([2.0**-26, 2.0**-20, 1.0, 2.0**16])))
    assert found == {"zero": 0.25, "subnormal": 0.25, "normal": 0.25, "infinite": 0.25}
    scaled = shares(exponents(torch.tensor([2.0**-26, 2.0**-20])), log2_scale=12)
    assert scaled["normal"] == 1.0 and sum(scaled.values()) == 1


def test_both_alterations_together_are_float16_below_its_normal_numbers():
    x = sizes().float()
    altered = gradients.ALTERATIONS["both"](x)
    low = x.abs() < gradients.HALF.smallest_normal
    torch.testing.assert_close(altered[low], x[low].half().float(), rtol=0, atol=0)
    assert torch.equal(altered[~low], x[~low])


def test_each_alteration_takes_its_own_share_only():
    x = sizes().float()
    gone = x.half() == 0
    vanished, coarse = gradients.vanish(x), gradients.coarsen(x)
    assert torch.equal(vanished[~gone], x[~gone]) and not vanished[gone].any()
    assert torch.equal(coarse[gone], x[gone]) and (coarse != x).any()
    assert torch.equal(gradients.ALTERATIONS["nothing"](x), x)


def test_an_observer_sees_every_layer_at_its_steps_and_changes_nothing():
    plain, watched = (small_model() for _ in range(2))
    observer = Observer(watched, steps=[2])
    tokens = torch.arange(16).reshape(2, 8)
    for _ in range(2):
        for model in (plain, watched):
            model.zero_grad()
            training.cross_entropy(model(tokens), tokens).backward()
    kinds = {row["kind"] for row in observer.seen}
    assert kinds == {"activation", "activation gradient", "weight gradient"}
    assert {row["step"] for row in observer.seen} == {2}
    for one, other in zip(plain.parameters(), watched.parameters()):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("name", gradients.ALTERATIONS)
def test_an_alteration_reaches_the_weights(name):
    model = small_model()
    scaler = Alteration(model, name).make_scaler("cpu", enabled=True)
    tokens = torch.arange(16).reshape(2, 8)
    with torch.autocast("cpu", torch.float16):
        loss = training.cross_entropy(model(tokens), tokens) * 2.0**-14
    scaler.scale(loss).backward()
    grads = [p.grad / scaler.get_scale() for p in model.parameters()]
    lost = sum(int((grad == 0).sum()) for grad in grads)
    assert (lost > 1000) == (name in ("zeros", "both"))


def test_exponents_of_float64_are_not_rounded_first():
    x = torch.tensor([1e-300, 2.0**-70, 1e300], dtype=torch.float64)
    found = exponents(x)
    assert (found["zeros"], found["non_finite"], sum(found["counts"])) == (0, 0, 3)
    assert (found["lowest"], found["counts"][30], found["counts"][-1]) == (-100, 1, 1)


def test_an_observer_passes_what_is_frozen():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    model[0].requires_grad_(False)
    observer = Observer(model, steps=[1])
    model(torch.ones(1, 3)).sum().backward()
    seen = {(row["layer"], row["kind"]) for row in observer.seen}
    assert ("0", "activation") in seen and ("0", "activation gradient") not in seen
    assert ("1.weight", "weight gradient") in seen and len(seen) == 5


def test_bad_input_is_told_in_a_sentence():
    with pytest.raises(InputError, match=r"\[1.0\] is no tensor: give one"):
        exponents([1.0])
    for name in ("x", None, []):
        with pytest.raises(InputError, match="name was .*: choose from nothing"):
            Alteration(small_model(), name)
    model = small_model()
    Alteration(model, "both")
    with pytest.raises(InputError, match="call make_scaler first"):
        model(torch.arange(8)[None])


def small_model() -> gpt.GPT:
    """Return the same small GPT each time."""
    torch.manual_seed(0)
    return gpt.GPT(gpt.GPTConfig(layers=1, heads=2, hidden=32, sequence=8))
