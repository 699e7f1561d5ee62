"""Master weights and the other stores: against plain torch, fractions and chance."""

import copy
import io
import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mpteach import formats, rounding
from mpteach.gpt import GPT, GPTConfig
from mpteach.loss_scaling import GradScaler
from mpteach.master_weights import (
    STORES,
    MasterWeights,
    kahan_add_,
    stall_ratio,
    swallowed,
)
from mpteach.training import cross_entropy

HALVES = (torch.bfloat16, torch.float16)
SCALERS = [partial(each, "cpu") for each in (torch.amp.GradScaler, GradScaler)]
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.05}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    "fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
}


def gpt(dtype, seed=0):
    torch.manual_seed(seed)
    return GPT(GPTConfig(1, 2, 16, 8, vocabulary=11)).to(dtype)


def batch(step):
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(11, (4, 9), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def backward(model, step, scale=1.0):
    tokens, targets = batch(step)
    (cross_entropy(model(tokens), targets) * scale).backward()


def train(model, optimizer, steps):
    for step in steps:
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()


def assert_same_bits(given, expected):
    given = list(given)
    assert given
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def masters_of(optimizer):
    return [one for group in optimizer.param_groups for one in group["params"]]


class Line(nn.Module):
    """Weights alone: the loss is -slope * sum(weights), its gradient -slope."""

    def __init__(self, weights, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights, dtype=dtype))

    def forward(self, slope):
        return -(self.weight * slope).sum()


def climb(line, optimizer, slope, steps):
    for _ in range(steps):
        line(slope).backward()
        optimizer.step()
        optimizer.zero_grad()
    return line.weight.detach()


class Untied(GPT):
    """The GPT whose head is a parameter of its own, so each use has its gradient."""

    def __init__(self, tied):
        super().__init__(tied.config)
        self.load_state_dict(tied.state_dict())
        self.to(tied.tokens.weight.dtype)
        self.head = nn.Parameter(tied.tokens.weight.detach().clone())

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return nn.functional.linear(self.norm(x), self.head)


def plain_step(plain, masters, optimizer):
    """One step written out: copy the gradients up, step, cast the masters down."""
    optimizer.zero_grad()
    for name, weight in plain.named_parameters():
        master, gradient = masters[name], weight.grad.float()
        master.grad = gradient if master.grad is None else master.grad + gradient
        weight.grad = None
    optimizer.step()
    for name, weight in plain.named_parameters():
        weight.data.copy_(masters[name])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masters_step_as_the_recipe_written_in_plain_torch(name, dtype):
    optimizer_class, options = OPTIMIZERS[name]
    model, plain = gpt(dtype), Untied(gpt(dtype))
    optimizer = MasterWeights(optimizer_class, model, **options)
    start = model.named_parameters()
    masters = {each: weight.detach().float() for each, weight in start}
    distinct = [*masters.values()]
    masters["head"] = masters["tokens.weight"]
    reference = optimizer_class(distinct, **options)
    for step in range(6):
        train(model, optimizer, [step])
        backward(plain, step)
        assert all(weight.grad.dtype == dtype for weight in plain.parameters())
        plain_step(plain, masters, reference)
        assert_same_bits(masters_of(optimizer), distinct)
        weights = [one.to(dtype) for one in distinct]
        assert_same_bits(model.parameters(), weights)
    assert any((m != w).any() for m, w in zip(distinct, weights))


@pytest.mark.parametrize("store", STORES)
def test_a_float32_model_trains_as_with_the_optimizer_alone(store):
    model, plain = gpt(torch.float32), gpt(torch.float32)
    optimizer = MasterWeights(torch.optim.AdamW, model, store=store, lr=0.01)
    train(model, optimizer, range(3))
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.01), range(3))
    assert_same_bits(model.parameters(), plain.parameters())


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_where_nothing_rounds_every_store_is_float32_training(store, dtype):
    start = [step / 8 for step in range(-16, 16)]
    line, plain = Line(start, dtype), Line(start, torch.float32)
    optimizer = MasterWeights(torch.optim.SGD, line, store=store, lr=0.25)
    alone = torch.optim.SGD(plain.parameters(), lr=0.25)
    for slope in (1.0, -0.5, 2.0, 1.0):
        given, expected = (
            climb(line, optimizer, slope, 1),
            climb(plain, alone, slope, 1),
        )
        assert torch.equal(given.float(), expected)
    assert expected.tolist() != start


def test_small_updates_pile_up_except_where_rounding_swallows_them():
    slope, steps, eps = 2.0**-10, 1000, formats.get("bfloat16").eps
    final = {}
    for store in STORES:
        line = Line([1.0] * 4096, torch.bfloat16)
        optimizer = MasterWeights(torch.optim.SGD, line, store=store, lr=1.0)
        final[store] = climb(line, optimizer, slope, steps).double()
    exact = 1 + steps * slope
    assert (final["nearest"] == 1).all()
    assert (final["master"] == rounding.round_to(exact, "bfloat16")).all()
    assert ((final["kahan"] - exact).abs() <= eps).all()
    # One step moves by eps with probability slope / eps.
    share = slope / eps
    sigma = eps * math.sqrt(steps * share * (1 - share) / 4096)
    assert abs(final["stochastic"].mean() - exact) < 5 * sigma
    assert final["stochastic"].std() > sigma


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_stochastic_stores_are_unbiased(dtype, share):
    eps, count = torch.finfo(dtype).eps, 2**14
    line = Line([1.0] * count, dtype)
    # The update must not itself round: float32 holds share * eps above 1 to 2^-23.
    optimizer = MasterWeights(
        torch.optim.SGD, line, store="stochastic", lr=eps * share, seed=3
    )
    moved = climb(line, optimizer, 1.0, 1) == 1 + eps
    expected = round(share * eps * 2**23) / (eps * 2**23)
    sigma = math.sqrt(expected * (1 - expected) / count)
    assert abs(moved.double().mean() - expected) < 5 * sigma
    assert ((line.weight == 1) | moved).all()


def test_the_seed_decides_a_stochastic_run():
    finals = []
    for seed in (1, 1, 2):
        model = gpt(torch.bfloat16)
        optimizer = MasterWeights(
            torch.optim.AdamW, model, store="stochastic", seed=seed
        )
        train(model, optimizer, range(3))
        finals.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    assert torch.equal(finals[0], finals[1]) and not torch.equal(finals[0], finals[2])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_kahan_sum_is_that_of_fractions(name):
    fmt, dtype = formats.get(name), getattr(torch, name)
    generator = torch.Generator().manual_seed(5)

    def draw(low, high):
        exponent = torch.randint(low, high, (300,), generator=generator)
        return torch.randn(300, generator=generator) * 2.0**exponent

    def rounded(x):
        return rounding.exact(x, fmt)

    weight, compensation = draw(-3, 3).to(dtype), draw(-14, -9).to(dtype)
    for update in (draw(-14, 0), draw(-14, 0)):
        rows = zip(weight.tolist(), compensation.tolist(), update.tolist())
        expected = []
        for w, c, u in rows:
            y = rounded(rounded(Fraction(u)) - Fraction(c))
            total = rounded(Fraction(w) + y)
            expected.append((total, rounded(rounded(total - Fraction(w)) - y)))
        kahan_add_(weight, compensation, update)
        assert weight.tolist() == [total for total, _ in expected]
        assert compensation.tolist() == [rest for _, rest in expected]


def test_the_notes_update_moves_each_format_as_far_as_it_can():
    """0.001 less 0.00001 at learning rates 1, 0.1 and 0.01, by ulps of each format."""
    steps = {}
    for dtype in HALVES:
        fmt = formats.get(str(dtype).removeprefix("torch."))
        for rate in (1.0, 0.1, 0.01):
            line = Line([0.001], dtype)
            before = line.weight.item()
            optimizer = MasterWeights(torch.optim.SGD, line, store="nearest", lr=rate)
            after = climb(line, optimizer, -0.00001, 1).item()
            steps[dtype, rate] = (before - after) / float(fmt.ulp(after))
    assert [steps[torch.float16, rate] for rate in (0.1, 0.01)] == [1, 0]
    assert [steps[torch.bfloat16, rate] for rate in (0.1, 0.01)] == [0, 0]
    assert steps[torch.float16, 1.0] > steps[torch.bfloat16, 1.0] > 0


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_saved_run_goes_on_bit_for_bit(store, name):
    optimizer_class, options = OPTIMIZERS[name]
    model = gpt(torch.bfloat16)
    optimizer = MasterWeights(optimizer_class, model, store=store, seed=4, **options)
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file)
    resumed = gpt(torch.bfloat16, seed=9)
    other = MasterWeights(optimizer_class, resumed, store=store, seed=8, **options)
    if store != "master":  # masters bring the weights along
        resumed.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    train(model, optimizer, range(3, 6))
    train(resumed, other, range(3, 6))
    assert_same_bits(resumed.parameters(), model.parameters())
    if store in ("master", "kahan"):
        kept = [one.state_dict()["kept"] for one in (other, optimizer)]
        assert_same_bits(*kept)


@pytest.mark.parametrize("make_scaler", SCALERS)
@pytest.mark.parametrize("clip", [False, True])
def test_a_scaler_sees_the_masters_gradients(make_scaler, clip):
    """In bfloat16 a power of two scales without rounding, so nothing may differ."""
    model, plain = gpt(torch.bfloat16), gpt(torch.bfloat16)
    optimizer = MasterWeights(torch.optim.AdamW, model, lr=0.01)
    alone = MasterWeights(torch.optim.AdamW, plain, lr=0.01)
    scaler = make_scaler(init_scale=2.0**10)
    for step in range(4):
        backward(model, step, scaler.scale(torch.ones(())))
        backward(plain, step)
        if clip:
            scaler.unscale_(optimizer)
            for one in (model, plain):
                norm = nn.utils.clip_grad_norm_(one.parameters(), 0.1)
            assert norm > 0.1
        scaler.step(optimizer)
        scaler.update()
        alone.step()
        for one in (optimizer, alone):
            one.zero_grad()
        assert_same_bits(masters_of(optimizer), masters_of(alone))
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("make_scaler", SCALERS)
@pytest.mark.parametrize("store", STORES)
def test_a_step_that_overflows_touches_nothing(store, make_scaler):
    model = gpt(torch.float16)
    optimizer = MasterWeights(torch.optim.AdamW, model, store=store)
    scaler = make_scaler(init_scale=2.0**24)
    skipped = 0
    for step in range(16):
        before = copy.deepcopy([optimizer.state_dict(), model.state_dict()])
        scale = scaler.get_scale()
        backward(model, step, scaler.scale(torch.ones(())))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if scaler.get_scale() == scale:
            break
        skipped += 1
        now = [optimizer.state_dict(), model.state_dict()]
        assert_same_bits(now[1].values(), before[1].values())
        assert now[0]["state"] == before[0]["state"] == {}
        for one, other in zip(now[0]["kept"], before[0]["kept"], strict=True):
            assert torch.equal(one, other)
    assert 0 < skipped < 16
    assert any((before[1][k] != v).any() for k, v in model.state_dict().items())


def test_schedulers_set_the_rate_of_the_masters():
    model, plain = gpt(torch.bfloat16), gpt(torch.float32)
    optimizer = MasterWeights(torch.optim.AdamW, model, lr=0.01)
    alone = torch.optim.AdamW(plain.parameters(), lr=0.01)
    rates = []
    for each, net in ((optimizer, model), (alone, plain)):
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(each, 5)
        seen = []
        for step in range(5):
            train(net, each, [step])
            scheduler.step()
            seen.append(each.param_groups[0]["lr"])
        rates.append(seen)
    assert rates[0] == rates[1] and len(set(rates[0])) == 5
    assert optimizer.inner.param_groups[0]["lr"] == rates[0][-1]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.inner.param_groups


def test_micro_batches_add_up_in_float32():
    line = Line([1.0], torch.bfloat16)
    optimizer = MasterWeights(torch.optim.SGD, line, lr=1.0)
    for slope in [1.0] + [2.0**-8] * 256:
        line(slope).backward()
    assert masters_of(optimizer)[0].grad.item() == -2.0
    optimizer.zero_grad(set_to_none=False)
    assert line.weight.grad is masters_of(optimizer)[0].grad
    assert line.weight.grad.item() == 0.0


class Odd(nn.Module):
    """Tied, frozen and float32 parameters, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, dtype=torch.bfloat16)
        self.norm = nn.LayerNorm(4)
        self.last = nn.Linear(4, 4, dtype=torch.bfloat16)
        self.last.weight = self.first.weight
        self.last.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.bfloat16))

    def forward(self, x):
        self.calls += 1
        x = self.norm(self.first(x.bfloat16()).float())
        return self.last(x.bfloat16()).float().square().sum()


def test_tied_frozen_and_float32_parameters_and_buffers():
    model = Odd()
    before = copy.deepcopy(model.state_dict())
    optimizer = MasterWeights(torch.optim.SGD, model, lr=0.01)
    assert len(masters_of(optimizer)) == 4  # weight, bias, norm weight, norm bias
    assert any(one is model.norm.weight for one in masters_of(optimizer))
    for seed in range(3):
        torch.manual_seed(seed)
        model(torch.randn(3, 4)).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(one.grad is None for one in model.parameters())
    after = model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {*before} - {"last.bias"} and after["calls"] == 3
    assert model.last.weight is model.first.weight


def test_groups_keep_their_own_options():
    finals = []
    for late in (False, True):
        model = gpt(torch.bfloat16)
        start = [one.detach().clone() for one in model.parameters()]
        matrices = [one for one in model.parameters() if one.dim() == 2]
        vectors = (one for one in model.parameters() if one.dim() < 2)
        groups = [{"params": matrices, "weight_decay": 0.5}]
        groups += [{"params": vectors, "lr": 0.0}]
        first = groups[: 2 - late]
        optimizer = MasterWeights(torch.optim.AdamW, model, first, lr=0.01)
        if late:
            optimizer.add_param_group(groups[1])
        train(model, optimizer, range(2))
        for before, after in zip(start, model.parameters()):
            assert torch.equal(before, after) == (after.dim() < 2)
        finals.append(model.parameters())
    assert_same_bits(*finals)


def test_weights_without_a_gradient_stay_after_the_models_own_zero_grad():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]).bfloat16()
    optimizer = MasterWeights(torch.optim.SGD, model, lr=0.1)
    for used in (0, 1):
        before = model[0].weight.detach().clone()
        model[used](torch.ones(1, 2).bfloat16()).sum().backward()
        optimizer.step()
        model.zero_grad()
        assert torch.equal(model[0].weight, before) == (used == 1)


def test_a_copy_of_the_optimizer_steps_like_the_first():
    line = Line([1.0, 2.0], torch.bfloat16)
    optimizer = MasterWeights(torch.optim.Adam, line, store="kahan", lr=0.01)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    climb(line, optimizer, 1.0, 2)
    other = copy.deepcopy(line)
    twin = copy.deepcopy(optimizer, {id(line.weight): other.weight})
    for net, each in ((line, optimizer), (other, twin)):
        climb(net, each, 1.0, 3)
    assert_same_bits(other.parameters(), line.parameters())


def test_swallowed_counts_weights_that_were_to_move():
    before = torch.tensor([1.0, 1.0, 1.0, 0.0, math.nan]).bfloat16()
    after = torch.tensor([1.0, 1.5, 1.0, -0.0, math.nan]).bfloat16()
    gradient = torch.tensor([1e-30, 1.0, 0.0, 1.0, 1.0])
    assert swallowed(before, after, gradient) == 2 / 4
    assert swallowed(before, after, torch.zeros(5)) == 0.0


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn"])
def test_stall_ratio_is_where_rounding_begins_to_move(name):
    fmt = formats.get(name)
    weights = fmt.values()[(fmt.values() >= 1) & (fmt.values() < 2)]
    ratios = stall_ratio(fmt, weights)
    for weight, ratio in zip(weights.tolist(), ratios.tolist()):
        update = Fraction(weight) * Fraction(ratio)
        # The quotient is a float64, half an ulp of which is 2^-53 of it.
        below, above = (update * (1 + Fraction(side, 2**50)) for side in (-1, 1))
        assert rounding.exact(Fraction(weight) + below, fmt) == weight
        assert rounding.exact(Fraction(weight) + above, fmt) > weight
    assert ratios.max() == stall_ratio(name) == fmt.eps / 2
    assert fmt.eps / 4 < ratios.min() < fmt.eps / 4 * (1 + fmt.eps)
    assert np.array_equal(stall_ratio(fmt, -4 * weights), ratios)
