"""MasterAdamW against torch's AdamW on float32 copies, and what it keeps and refuses."""

import copy
import io

import pytest
import torch
from torch import nn

from mpteach import gpt, recipes
from mpteach.errors import InputError
from mpteach.master_adamw import KEPT, MasterAdamW
from mpteach.master_weights import MasterWeights
from tests.small import CONFIG

HALVES = (torch.bfloat16, torch.float16)
OPTIONS = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-7, "weight_decay": 0.1}


def weights(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (64,), (3, 2, 4)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [nn.Parameter((one * 0.1).to(dtype)) for one in drawn]


def set_gradients(mine, step, scale=1.0):
    generator = torch.Generator().manual_seed(100 + step)
    for one in mine:
        drawn = torch.randn(one.shape, generator=generator) * 1e-2
        # Whole multiples of a power of two: exact in both formats at every scale.
        one.grad = ((drawn * 2**12).round().clamp(-255, 255) / 2**12 * scale).to(
            one.dtype
        )


def kept(optimizer, name, mine):
    return [optimizer.state[one][name] for one in mine]


def assert_close(found, expected, ulps=4):
    """Within a few units in the last place of the largest number of each tensor.

    The formula is the same, the order of its operations is not: torch divides the root
    before it adds eps, and corrects in float64; each float32 operation may round apart.
    """
    for one, other in zip(found, expected, strict=True):
        unit = other.abs().max() * torch.finfo(torch.float32).eps
        assert one.dtype == torch.float32 and (one - other).abs().max() <= ulps * unit


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("way", ["foreach", "fused", "for-loop"])
def test_masters_and_state_are_those_of_adamw_on_float32_copies(dtype, way):
    mine = weights(dtype)
    copies = [nn.Parameter(one.detach().float()) for one in mine]
    words = {"foreach": way == "foreach", "fused": way == "fused"}
    ours = MasterAdamW(mine, **OPTIONS)
    theirs = torch.optim.AdamW(copies, **OPTIONS, **words)
    for step in range(1, 31):
        set_gradients(mine, step)
        for one, own in zip(copies, mine, strict=True):
            one.grad = own.grad.float()
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 3e-3 * min(1, step / 10)
            optimizer.step()
        assert_close(kept(ours, "master", mine), [one.detach() for one in copies], 20)
        for name in ("exp_avg", "exp_avg_sq"):
            assert_close(kept(ours, name, mine), kept(theirs, name, copies))
        for one, master in zip(mine, kept(ours, "master", mine), strict=True):
            assert torch.equal(one, master.to(dtype))
    assert ours.steps == 30


class Slopes(nn.Module):
    """Weights whose gradients the caller chooses."""

    def __init__(self, dtype):
        super().__init__()
        self.weights = nn.ParameterList(weights(dtype))

    def forward(self, slopes):
        pairs = zip(self.weights, slopes, strict=True)
        return sum((weight * slope).float().sum() for weight, slope in pairs)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_it_trains_as_the_mechanism_for_any_optimizer(dtype):
    model, other = Slopes(dtype), Slopes(dtype)
    ours = MasterAdamW(model.parameters(), **OPTIONS)
    theirs = MasterWeights(torch.optim.AdamW, other, **OPTIONS)
    for step in range(30):
        slopes = weights(dtype, seed=step)
        for each, optimizer in ((model, ours), (other, theirs)):
            each(slopes).backward()
            optimizer.step()
            optimizer.zero_grad()
    masters = [one for group in theirs.param_groups for one in group["params"]]
    assert_close(kept(ours, "master", model.parameters()), masters, 20)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        # A master near the middle of two 16-bit numbers may round to the other one.
        torch.testing.assert_close(one, two, rtol=torch.finfo(dtype).eps, atol=0)


def test_a_small_update_reaches_the_weight_in_time():
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    ours = MasterAdamW([weight], lr=1e-4, weight_decay=0)
    plain = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    pure = torch.optim.AdamW([plain], lr=1e-4, weight_decay=0)
    for _ in range(100):  # each step of 1e-4 is below half a unit of bfloat16 at 1
        for one, optimizer in ((weight, ours), (plain, pure)):
            one.grad = torch.ones_like(one)
            optimizer.step()
    assert (plain == 1).all()
    assert weight.tolist() == torch.full((8,), 0.99).bfloat16().tolist()


def test_a_loss_scale_is_taken_out_and_a_power_of_two_changes_no_bit():
    mine, other = weights(torch.float16), weights(torch.float16)
    ours, plain = MasterAdamW(mine, **OPTIONS), MasterAdamW(other, **OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6, growth_interval=10**6)
    scaler.scale(torch.ones(()))
    for step in range(5):
        set_gradients(other, step)
        for one, own in zip(mine, other, strict=True):
            one.grad = own.grad * 2**6
        scaler.step(ours)
        scaler.update()
        plain.step()
    for name in KEPT:
        pairs = zip(kept(ours, name, mine), kept(plain, name, other), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("skipped", [{1}, {3}, {1, 2, 4}])
def test_an_overflow_skips_the_step_and_its_count(bad, skipped):
    mine, other = weights(torch.float16), weights(torch.float16)
    ours, plain = MasterAdamW(mine, **OPTIONS), MasterAdamW(other, **OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=10**6)
    scaler.scale(torch.ones(()))
    for step in range(1, 6):
        before = [one.detach().clone() for one in mine]
        set_gradients(mine, step, scaler.get_scale())
        if step in skipped:
            mine[1].grad[3] = bad
        scaler.step(ours)
        scaler.update()
        if step in skipped:
            assert all(torch.equal(a, b) for a, b in zip(before, mine, strict=True))
        else:
            set_gradients(other, step)
            plain.step()
    assert ours.steps == 5 - len(skipped) == plain.steps
    assert scaler.get_scale() == 8.0 / 2 ** len(skipped)
    for name in KEPT:
        assert_close(kept(ours, name, mine), kept(plain, name, other), 0)


def test_a_scaler_leaves_nothing_behind_on_the_optimizer():
    mine = weights(torch.float16)
    ours = MasterAdamW(mine, **OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    set_gradients(mine, 0)
    scaler.step(ours)
    assert not hasattr(ours, "grad_scale") and not hasattr(ours, "found_inf")


def test_a_state_dict_goes_on_bit_by_bit():
    mine, other = weights(torch.bfloat16), weights(torch.bfloat16, seed=9)
    ours, again = MasterAdamW(mine, **OPTIONS), MasterAdamW(other, lr=1.0)
    for step in range(7):
        set_gradients(mine, step)
        ours.step()
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.steps == 7 and again.param_groups[0]["lr"] == OPTIONS["lr"]
    for step in range(7, 12):
        for each, optimizer in ((mine, ours), (other, again)):
            set_gradients(each, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    for name in KEPT:
        assert_close(kept(again, name, other), kept(ours, name, mine), 0)


def test_a_loaded_state_is_a_copy():
    mine, other = weights(torch.bfloat16), weights(torch.bfloat16)
    ours, again = MasterAdamW(mine), MasterAdamW(other)
    again.load_state_dict(ours.state_dict())
    set_gradients(other, 0)
    again.step()
    masters = zip(kept(ours, "master", mine), mine, strict=True)
    assert all(torch.equal(master, one.float()) for master, one in masters)
    assert ours.steps == 0


def test_groups_have_options_of_their_own():
    mine = weights(torch.bfloat16)
    groups = [
        {"params": mine[:1], "lr": 0.0},
        {"params": mine[1:], "weight_decay": 0.5},
    ]
    ours = MasterAdamW(groups, **OPTIONS)
    copies = [nn.Parameter(one.detach().float()) for one in mine]
    groups = [
        {"params": copies[:1], "lr": 0.0},
        {"params": copies[1:], "weight_decay": 0.5},
    ]
    theirs = torch.optim.AdamW(groups, **OPTIONS)
    first = mine[0].detach().clone()
    for step in range(5):
        set_gradients(mine, step)
        for one, own in zip(copies, mine, strict=True):
            one.grad = own.grad.float()
        ours.step()
        theirs.step()
    assert torch.equal(mine[0], first)
    assert_close(kept(ours, "master", mine), [one.detach() for one in copies], 20)


def test_a_group_that_is_added_later_is_trained_too():
    mine = weights(torch.bfloat16)
    ours = MasterAdamW(mine[:2], **OPTIONS)
    ours.add_param_group({"params": mine[2:]})
    before = mine[2].detach().clone()
    set_gradients(mine, 0)
    ours.step()
    assert not torch.equal(before, mine[2])
    assert torch.equal(mine[2], ours.state[mine[2]]["master"].bfloat16())


def test_weights_without_a_gradient_stay():
    mine = weights(torch.bfloat16)
    ours = MasterAdamW(mine, **OPTIONS)
    set_gradients(mine, 0)
    mine[1].grad = None
    before = [one.detach().clone() for one in mine]
    ours.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, mine, strict=True)]
    assert moved == [True, False, True]
    assert (ours.state[mine[1]]["exp_avg_sq"] == 0).all()


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    ours = MasterAdamW([weight], lr=0.1)

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert ours.step(closure) == 4.0 and (weight < 1).all()


def test_float32_weights_have_masters_of_their_own():
    weight = nn.Parameter(torch.ones(4))
    ours = MasterAdamW([weight])
    assert ours.state[weight]["master"].data_ptr() != weight.data_ptr()


def test_compiled_is_the_same_function(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda of, **_: compiled.append(of) or of)
    for wanted in (False, True):
        mine = weights(torch.bfloat16)
        ours = MasterAdamW(mine, compiled=wanted)
        set_gradients(mine, 0)
        ours.step()
        assert len(compiled) == wanted and ours.steps == 1


def test_a_recipe_with_masters_gives_a_group_a_block():
    model = gpt.GPT(CONFIG).bfloat16()
    ours = recipes.get("bf16-master").make_optimizer(model, recipes.Settings())
    assert len(ours.param_groups) == CONFIG.layers + 1
    assert len(ours.state) == len(list(model.parameters()))


BAD = [
    ("lr", [-1e-3, float("nan"), float("inf"), 10**400, "fast", None]),
    ("eps", [-1e-8, "0"]),
    ("weight_decay", [-0.1, None]),
    ("betas", [0.9, (0.9,), (0.9, 1.0), (-0.1, 0.9), ("a", "b"), None]),
]


@pytest.mark.parametrize(("name", "values"), BAD)
def test_options_no_run_can_have_are_said(name, values):
    for value in values:
        for given in ({name: value}, {}):
            group = {
                "params": weights(torch.bfloat16),
                **({} if given else {name: value}),
            }
            with pytest.raises(InputError, match=f"{name} was .*: give .*number"):
                MasterAdamW([group], **given)


def test_weights_that_are_no_floats_are_said():
    with pytest.raises(InputError, match="a weight was torch.complex64: give 16-bit"):
        MasterAdamW([nn.Parameter(torch.ones(2).cfloat())])


ONE = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    "groups",
    [
        None,
        3,
        [],
        [None],
        [{}],
        [{"params": None}],
        [{"params": [None]}],
        [{"params": [ONE]}, {"params": [ONE]}],
        [ONE * 1],
    ],
)
def test_what_are_no_groups_is_one_sentence(groups):
    with pytest.raises(InputError, match="^these are no groups of weights .*: give") as it:
        MasterAdamW(groups)
    assert "\n" not in str(it.value)


def test_no_weight_and_one_given_twice_are_said():
    with pytest.raises(InputError, match="no weight in the groups"):
        MasterAdamW([{"params": []}])
    with (
        pytest.warns(UserWarning, match="duplicate"),
        pytest.raises(InputError, match="a weight twice"),
    ):
        MasterAdamW([ONE, ONE])


def test_a_state_of_another_kind_is_said_and_nothing_changes():
    mine = weights(torch.bfloat16)
    ours = MasterAdamW(mine, **OPTIONS)
    set_gradients(mine, 0)
    ours.step()
    before = copy.deepcopy(ours.state_dict())
    stepped = torch.optim.AdamW(mine)
    stepped.step()
    other = MasterAdamW([nn.Parameter(torch.ones(4, dtype=torch.bfloat16))])
    split = MasterAdamW([{"params": mine[:1]}, {"params": mine[1:]}])
    after = [one.detach().clone() for one in mine]
    cases = [(stepped.state_dict(), "no state of MasterAdamW"), ({}, "no state of")]
    cases += [(None, "no state of"), ({**before, "steps": "many"}, "no state of")]
    steps = ("3", float("nan"), -1, None, torch.ones(2))
    cases += [({**before, "steps": number}, "no state of") for number in steps]
    cases += [(one.state_dict(), "other shapes or groups") for one in (other, split)]
    for state, said in cases:
        with pytest.raises(InputError, match=said):
            ours.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(after, mine, strict=True))
    for number, one in enumerate(mine):
        for name in KEPT:
            assert torch.equal(ours.state[one][name], before["state"][number][name])
