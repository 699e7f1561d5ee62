"""Master weights around every optimizer of torch, copied, resumed and written over."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from mpteach.master_weights import STORES, MasterWeights

BF16, HALVES = torch.bfloat16, (torch.bfloat16, torch.float16)
DENSE = [
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD"),
    *("Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"),
]


def network(dtype=BF16, seed=0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)
    return nn.Sequential(*layers).to(dtype)


def backward(model, step, scale=1.0):
    weight = next(model.parameters())
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
    (model(x.to(weight.dtype)).float().square().mean() * scale).backward()


def train(model, optimizer, steps):
    for step in steps:
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()


def same(first, second) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", DENSE)
def test_every_optimizer_of_torch_steps_as_on_float32(name, dtype):
    optimizer_class = getattr(torch.optim, name)
    model, plain = network(dtype), network(dtype)
    masters = [one.detach().clone().float() for one in plain.parameters()]
    optimizer = MasterWeights(optimizer_class, model)
    reference = optimizer_class([one.requires_grad_() for one in masters])
    for step in range(5):
        train(model, optimizer, [step])
        backward(plain, step)
        for master, weight in zip(masters, plain.parameters()):
            master.grad, weight.grad = weight.grad.float(), None
        reference.step()
        with torch.no_grad():
            for master, weight in zip(masters, plain.parameters()):
                weight.copy_(master)
        assert same(model, plain)
        own = optimizer.param_groups[0]["params"]
        assert all(torch.equal(*pair) for pair in zip(own, masters, strict=True))
    assert not same(model, network(dtype))


@pytest.mark.parametrize("scales", [False, True])
def test_sparse_gradients_reach_the_masters(scales):
    torch.manual_seed(0)
    model = nn.Embedding(6, 3, sparse=True).to(BF16)
    master = model.weight.detach().clone().float().requires_grad_()
    optimizer = MasterWeights(torch.optim.SparseAdam, model, lr=0.1)
    reference = torch.optim.SparseAdam([master], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scales)
    for step in range(3):
        scaler.scale(model(torch.tensor([step, 1])).float().square().sum()).backward()
        master.grad = model.weight.grad / scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        reference.step()
        assert torch.equal(optimizer.param_groups[0]["params"][0], master)
        assert torch.equal(model.weight, master.to(BF16))


def test_named_groups_are_taken_as_torch_takes_them():
    model, plain = network(), network()
    groups = [{"params": model.named_parameters(), "lr": 0.1}]
    optimizer = MasterWeights(torch.optim.SGD, model, groups)
    assert optimizer.param_groups[0]["param_names"] == ["0.weight", "2.weight"]
    train(model, optimizer, range(2))
    train(plain, MasterWeights(torch.optim.SGD, plain, lr=0.1), range(2))
    assert same(model, plain)


def test_a_closure_makes_the_gradients_and_gives_its_loss():
    model, plain = network(), network()
    optimizer = MasterWeights(torch.optim.SGD, model, lr=0.1)

    def closure():
        backward(model, 0)
        return 3.0

    assert optimizer.step(closure) == 3.0 and optimizer.step() is None
    alone = MasterWeights(torch.optim.SGD, plain, lr=0.1)
    backward(plain, 0)
    alone.step()
    alone.step()
    assert same(model, plain)


def scaled(model, optimizer):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(3):
        backward(model, step, scaler.scale(torch.ones(())))
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def accumulated(model, optimizer):
    for step in range(3):
        for micro in range(4):
            backward(model, 4 * step + micro)
        optimizer.step()
        optimizer.zero_grad()


def unpickled(pair):
    return pickle.loads(pickle.dumps(pair))


def torch_loaded(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("go_on", [scaled, accumulated])
@pytest.mark.parametrize("copied", [copy.deepcopy, unpickled, torch_loaded])
@pytest.mark.parametrize("store", STORES)
def test_a_model_copied_with_its_optimizer_trains_like_the_first(store, copied, go_on):
    model = network()
    optimizer = MasterWeights(torch.optim.Adam, model, store=store, lr=0.01)
    train(model, optimizer, range(2))
    copies = copied((model, optimizer))
    go_on(model, optimizer)
    go_on(*copies)
    assert same(model, copies[0])
    masters = [each.param_groups[0]["params"] for each in (optimizer, copies[1])]
    assert all(torch.equal(*pair) for pair in zip(*masters, strict=True))


@pytest.mark.parametrize("store", STORES)
def test_weights_loaded_into_the_model_are_not_overwritten(store):
    model, other = network(), network(seed=5)
    optimizer = MasterWeights(torch.optim.SGD, model, store=store, lr=0.0)
    train(model, optimizer, [0])
    model.load_state_dict(other.state_dict())
    train(model, optimizer, [1])
    assert same(model, other)


def test_only_what_was_written_over_leaves_its_master():
    model = nn.Linear(2, 1, bias=False, dtype=BF16)
    nn.init.ones_(model.weight)
    optimizer = MasterWeights(torch.optim.SGD, model, lr=2.0**-12)
    (master,) = optimizer.param_groups[0]["params"]
    x = -torch.ones(1, 2, dtype=BF16)
    for _ in range(2):
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.weight[0, 0] = 0.5
    # The second weight goes on from what bfloat16 does not show.
    assert master.tolist() == [[0.5 + 2.0**-12, 1 + 2.0**-11]]
    assert model.weight.tolist() == [[0.5, 1.0]]


def test_schedulers_of_momentum_and_of_the_loss_reach_the_inner_optimizer():
    for make in (
        lambda each: OneCycleLR(each, 0.1, total_steps=9),
        lambda each: ReduceLROnPlateau(each, patience=0),
    ):
        model, plain, seen = network(), network(torch.float32), []
        alone = torch.optim.AdamW(plain.parameters(), lr=0.01)
        wrapped = MasterWeights(torch.optim.AdamW, model, lr=0.01)
        for net, each in ((model, wrapped), (plain, alone)):
            scheduler, inner = make(each), getattr(each, "inner", each)
            rates = []
            for step in range(4):
                train(net, each, [step])
                known = isinstance(scheduler, ReduceLROnPlateau)
                scheduler.step(*([1.0] if known else []))
                group = inner.param_groups[0]
                rates.append((group["lr"], group["betas"]))
            seen.append(rates)
        assert seen[0] == seen[1] and len(set(seen[0])) > 1
