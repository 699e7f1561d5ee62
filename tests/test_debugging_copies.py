"""The step of `first_nonfinite` runs on copies, however a model shares its tensors."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mpteach.debugging import first_nonfinite
from mpteach.errors import InputError
from mpteach.master_weights import MasterWeights


def total(output):
    return output.float().square().sum()


def one_layer_thrice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Sequential(layer))


def one_weight_in_two_layers() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def one_norm_twice() -> nn.Module:
    norm = nn.BatchNorm1d(4)
    return nn.Sequential(norm, nn.Linear(4, 4), norm)


def a_buffer_that_is_a_weight() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].register_buffer("first", model[0].weight)
    return model


def state(model: nn.Module) -> list:
    held = [*model.named_parameters(remove_duplicate=False)]
    held += model.named_buffers(remove_duplicate=False)
    return [(name, id(one), one.detach().clone(), one.grad) for name, one in held]


SHARED = [
    one_layer_thrice,
    one_weight_in_two_layers,
    one_norm_twice,
    a_buffer_that_is_a_weight,
]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("make", SHARED)
def test_a_model_that_shares_is_left_as_it_was(make, wrapped):
    torch.manual_seed(0)
    model, x = make(), torch.randn(5, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    if wrapped:
        model, x = model.bfloat16(), x.bfloat16()
        optimizer = MasterWeights(torch.optim.AdamW, model)
    before = state(model)
    assert first_nonfinite(model, x, loss_fn=total, optimizer=optimizer) is None
    for (name, which, value, grad), after in zip(before, state(model), strict=True):
        assert (name, which) == after[:2]
        assert torch.equal(value, after[2]) and grad is after[3] is None


def test_a_fault_of_a_shared_layer_bears_its_first_name():
    model = one_layer_thrice().half()
    nn.init.constant_(model[0].weight, 6e4)
    report = first_nonfinite(model, torch.ones(1, 4).half(), loss_fn=total)
    assert (report.phase, report.module, report.kind) == ("forward", "0", "inf")


class Batch(NamedTuple):
    x: Tensor
    name: str


class OfBatches(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, batch):
        return self.layer(batch.x)


def test_a_named_tuple_stays_one_and_gets_no_gradient():
    x = torch.randn(3, 4, requires_grad=True)
    assert first_nonfinite(OfBatches(), Batch(x, "b"), loss_fn=total) is None
    assert x.grad is None
    packed = nn.utils.rnn.pack_padded_sequence(x[None], torch.tensor([3]), True)
    model = nn.LSTM(4, 2)
    model.register_forward_hook(lambda module, args, output: output[0].data)
    assert first_nonfinite(model, packed, loss_fn=total) is None


def test_lbfgs_and_a_scale_beyond_float64_are_refused():
    model = nn.Linear(4, 2)
    lbfgs = torch.optim.LBFGS(model.parameters())
    before = copy.deepcopy(model.state_dict())
    for options, said in (
        ({"optimizer": lbfgs}, "optimizer was LBFGS: give one that steps without"),
        ({"scale": 10**400}, "scale was 1000"),
    ):
        with pytest.raises(InputError, match=said):
            first_nonfinite(model, torch.ones(1, 4), loss_fn=total, **options)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
