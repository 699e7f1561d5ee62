"""Recipes: names, what their products run in, and where they are refused."""

import pytest
import torch
from torch import nn

from mpteach import fp8, gpt, hardware, recipes
from mpteach.errors import InputError
from mpteach.master_adamw import MasterAdamW
from mpteach.runs import Settings
from tests.small import CONFIG

PRODUCTS = {
    "fp32": "float32",
    "tf32": "tfloat32",
    "fp16": "float16",
    "fp16-unscaled": "float16",
    "bf16": "bfloat16",
    "fp16-pure": "float16",
    "bf16-pure": "bfloat16",
    "fp16-master": "float16",
    "bf16-master": "bfloat16",
    "fp8-head": "bfloat16",
    "fp8": "float8_e4m3fn",
    "fp8-delayed": "float8_e4m3fn",
}


def test_each_recipe_multiplies_in_the_format_its_name_says():
    assert {r.name: r.products for r in recipes.RECIPES.values()} == PRODUCTS


def test_only_fp16_scales_its_loss():
    scaled = [r.name for r in recipes.RECIPES.values() if r.scale_loss]
    assert scaled == ["fp16", "fp16-master"]


def test_only_a_pure_16_bit_recipe_takes_its_loss_in_16_bits():
    narrow = {n: r.loss for n, r in recipes.RECIPES.items() if r.loss != torch.float32}
    assert narrow == {"fp16-pure": torch.float16, "bf16-pure": torch.bfloat16}


def linears(model):
    return {n: one for n, one in model.named_modules() if isinstance(one, nn.Linear)}


@pytest.mark.parametrize(
    ("name", "count"), [("bf16-master", 0), ("fp8-head", 1), ("fp8", 5)]
)
def test_a_recipe_prepares_weights_and_fp8_layers(name, count):
    model = gpt.GPT(CONFIG)
    recipes.get(name).prepare(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    eight = [n for n, one in linears(model).items() if isinstance(one, fp8.Linear8)]
    assert len(eight) == count and (count == 0 or "head" in eight)
    assert model.head.weight is model.tokens.weight


@pytest.mark.parametrize("name", PRODUCTS)
def test_an_optimizer_gets_the_settings_and_masters_where_the_recipe_has_them(name):
    model, recipe = gpt.GPT(CONFIG), recipes.get(name)
    recipe.prepare(model)
    optimizer = recipe.make_optimizer(model, Settings(learning_rate=2e-3, beta2=0.97))
    (group, *_) = optimizer.param_groups
    assert (group["lr"], group["betas"]) == (2e-3, (0.9, 0.97))
    kept = sum(len(group["params"]) for group in optimizer.param_groups)
    assert kept == len(list(model.parameters()))
    assert isinstance(optimizer, MasterAdamW) == recipe.masters
    assert recipe.masters or type(optimizer) is torch.optim.AdamW


@pytest.mark.parametrize("name", ["fp64", [], None])
def test_an_unknown_recipe_lists_the_names(name):
    with pytest.raises(InputError, match="choose from fp32, tf32, fp16") as refused:
        recipes.get(name)
    assert str(refused.value).startswith(f"unknown recipe {name!r}:")


NEEDED = {**PRODUCTS, "fp8-head": "float8_e4m3fn"}


@pytest.mark.parametrize("name", NEEDED)
def test_a_recipe_is_refused_exactly_where_its_format_is_not_native(name, monkeypatch):
    recipe = recipes.get(name)
    monkeypatch.setattr(hardware, "native", lambda dtype, device: True)
    assert recipes.unavailable(recipe, "cpu") == ""
    monkeypatch.setattr(hardware, "native", lambda dtype, device: dtype != NEEDED[name])
    reason = recipes.unavailable(recipe, "cpu")
    assert reason.startswith(f"{name}: ") and NEEDED[name] in reason
