"""What master weights refuse: a sentence names the value and the remedy."""

import copy

import pytest
import torch
from torch import nn

from mpteach.errors import InputError
from mpteach.gpt import GPT, GPTConfig
from mpteach.master_weights import MasterWeights, stall_ratio, swallowed

SGD = torch.optim.SGD


def linear(dtype=torch.bfloat16):
    return nn.Linear(2, 2, dtype=dtype)


WIDE = nn.Parameter(torch.ones(3, dtype=torch.float64))
MIXED = nn.ModuleList([linear(), nn.Linear(2, 2, device="meta")])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: (SGD, nn.Flatten()), "Flatten has no floating-point"),
        (lambda: (SGD, linear().requires_grad_(False)), "are frozen"),
        (lambda: (SGD, MIXED), "lie on cpu and meta: move"),
        (lambda: (SGD, linear(torch.float64)), "is float64 [2, 2]: cast"),
        (lambda: (nn.Linear, linear()), "give a class such as torch.optim.AdamW"),
        (lambda: ("adam", linear()), "optimizer_class was 'adam'"),
        (lambda: (torch.optim.LBFGS, linear()), "LBFGS: give one that steps once"),
        (lambda: (SGD, linear(), []), "no group holds a parameter"),
        (lambda: (SGD, linear(), None, "fp32"), "choose from master"),
        (lambda: (SGD, nn.Linear), "torch.nn.modules.linear.Linear'>: give an nn.Mod"),
        (lambda: (SGD, linear().parameters()), "give an nn.Module"),
        (lambda: (SGD, linear(), 3), "a group was 3: give a dict"),
        (lambda: (SGD, linear(), linear().parameters()), "a group was Parameter"),
        (lambda: (SGD, linear(), {"params": []}), "a group was 'params'"),
        (lambda: (SGD, linear(), [{"lr": 1.0}]), "a group was {'lr': 1.0}"),
        (lambda: (SGD, linear(), [{"params": None}]), "a group was {'params': None}"),
        (lambda: (SGD, linear(), [{"params": [1]}]), "a group was {'params': [1]}"),
        (lambda: (SGD, linear(), [{"params": {linear().bias}}]), "are a list of"),
        (lambda: (SGD, linear(), [{"params": linear().bias * 2}]), "are a list of"),
        (lambda: (SGD, linear(), [{"params": WIDE}]), "is float64 [3]: cast"),
        (lambda: (SGD, linear(), None, "master", "x"), "seed was 'x': give an integer"),
        (lambda: (SGD, linear(), None, "master", 1.5), "seed was 1.5"),
        (lambda: (SGD, linear(), None, "master", 2**63), "an integer, 0 to 2^63-1"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_sentence(make, said):
    with pytest.raises(InputError) as error:
        MasterWeights(*make())
    assert said in str(error.value) and str(error.value).endswith(".")


def test_a_state_of_another_store_or_model_is_refused():
    kahan = MasterWeights(SGD, linear(), store="kahan").state_dict()
    larger = GPT(GPTConfig(1, 2, 16, 8, vocabulary=11)).bfloat16()
    other = MasterWeights(SGD, larger).state_dict()
    optimizer = MasterWeights(SGD, linear())
    for state, said in ((kahan, "'kahan'"), (other, "kept tensors")):
        with pytest.raises(InputError, match=said):
            optimizer.load_state_dict(state)


BROKEN = {
    "of torch's own": (SGD(linear().parameters()).state_dict(), "lacks kep"),
    "none": (None, "lacks kept, param_groups, rng, state, store: give what"),
    "no rng": ({"rng": ...}, "lacks rng: give what"),
    "rng of another kind": ({"rng": None}, "None as rng"),
    "kept of another kind": ({"kept": 3}, "has 3 as kept"),
    "kept words": ({"kept": ["a", "b"]}, "2 kept tensors"),
    "kept of other shapes": ({"kept": [torch.ones(3), torch.ones(3)]}, "same model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_state_is_refused_and_changes_nothing(name):
    changes, said = BROKEN[name]
    optimizer, model = trained(), linear()
    mine = MasterWeights(torch.optim.Adam, model)
    before = copy.deepcopy(everything(mine, model))
    state = changes
    if isinstance(changes, dict) and "param_groups" not in changes:
        state = {**optimizer.state_dict(), **changes}
        state = {key: value for key, value in state.items() if value is not ...}
    with pytest.raises(InputError, match=said):
        mine.load_state_dict(state)
    torch.testing.assert_close(everything(mine, model), before, rtol=0, atol=0)


def everything(optimizer, model):
    state = optimizer.state_dict()
    state.pop("store")
    return [state, model.state_dict()]


def trained():
    model = linear()
    optimizer = MasterWeights(torch.optim.Adam, model)
    model(torch.ones(1, 2).bfloat16()).sum().backward()
    optimizer.step()
    return optimizer


def test_weights_of_two_kinds_cannot_be_compared():
    with pytest.raises(InputError, match=r"float16 \[2\].* one shape"):
        swallowed(torch.ones(2).half(), torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("given", [None, [1.0], 1.0])
def test_what_is_no_tensor_cannot_be_swallowed(given):
    for each in ((given, given, given), (torch.ones(1), torch.ones(1), given)):
        with pytest.raises(InputError, match="is no tensor: give three"):
            swallowed(*each)


@pytest.mark.filterwarnings("error")
def test_stall_ratios_of_zero_and_of_tensors_come_without_a_warning():
    assert stall_ratio("float16", 0.0) == float("inf")
    ratios = stall_ratio("float16", torch.ones(2, dtype=torch.float16))
    assert ratios.tolist() == [2.0**-11] * 2
    with pytest.raises(InputError, match="no real number"):
        stall_ratio("float16", "1")
