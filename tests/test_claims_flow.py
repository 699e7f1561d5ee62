"""The flow of a step, held against tensors of plain torch and arithmetic by hand."""

import pytest
import torch
from torch.nn import functional as F

from mpteach import gpt, recipes
from mpteach.claims import flow
from mpteach.errors import InputError
from mpteach.figures.weights import BOXES

NAMES = ("fp32", "fp16", "fp16-master", "bf16", "bf16-master", "bf16-pure", "fp16-pure")


def plain(dtype, compute=None):
    """Return one followed matrix, its gradient and Adam's state, in plain torch."""
    torch.manual_seed(0)
    model, text = gpt.GPT(flow.CONFIG).to(dtype), torch.randint(64, (2, 9))
    with torch.autocast("cpu", compute, enabled=compute is not None):
        logits = model(text[:, :-1])
    F.cross_entropy(logits.flatten(0, 1).float(), text[:, 1:].flatten()).backward()
    weight = model.blocks[0].qkv.weight
    gradient, optimizer = weight.grad, torch.optim.AdamW([weight])
    optimizer.step()
    return weight, gradient, optimizer.state[weight]


@pytest.mark.parametrize(
    ("name", "dtype", "compute"),
    [
        ("fp32", torch.float32, None),
        ("fp16", torch.float32, torch.float16),
        ("bf16", torch.float32, torch.bfloat16),
        ("bf16-pure", torch.bfloat16, None),
        ("fp16-pure", torch.float16, None),
    ],
)
def test_dtypes_and_bytes_are_those_of_plain_torch(name, dtype, compute):
    weight, gradient, state = plain(dtype, compute)
    found = flow.observe(name)
    assert found.dtypes["kept"] == str(weight.dtype)[6:]
    assert found.dtypes["gradient"] == str(gradient.dtype)[6:]
    assert found.dtypes["moments"] == str(state["exp_avg"].dtype)[6:]
    own = weight.nbytes + gradient.nbytes + 2 * state["exp_avg"].nbytes
    assert found.state_bytes == own / weight.numel()
    assert found.dtypes["used"] == str(compute or dtype)[6:]
    brief = {kind for kind in found.sizes if kind.endswith("*")}
    assert brief == ({"copy*"} if compute else set())
    assert ("used" in found.held) == (compute is None)


@pytest.mark.parametrize(("name", "half"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_with_masters_the_model_is_16_bit_and_adam_is_not(name, half):
    found = flow.observe(f"{name}-master")
    assert found.sizes == {
        **{kind: (2, half) for kind in ("weights", "gradients")},
        **{kind: (4, "float32") for kind in ("masters", "m", "v")},
    }
    assert found.state_bytes == 2 + 2 + 4 + 4 + 4
    assert found.dtypes["gradient"] == half and found.dtypes["read"] == "float32"
    assert found.held == {"kept", "used", "moments"}


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_has_a_dtype_for_each_box_and_the_products_of_its_recipe(name):
    found, recipe = flow.observe(name), recipes.get(name)
    assert set(found.dtypes) == {*BOXES, "read"}
    products = ("used", "activation", "activation gradient", "product gradient")
    assert {found.dtypes[key] for key in products} == {recipe.products}
    assert (found.scale > 1) == recipe.scale_loss
    assert found.dtypes["loss"] == str(recipe.loss)[6:]


def test_an_unknown_recipe_is_refused():
    with pytest.raises(InputError, match="unknown recipe 'fp99'"):
        flow.observe("fp99")
