"""Recipes: names, what their products run in, and where they are refused."""

import pytest

from mpteach import hardware, recipes
from mpteach.errors import InputError

PRODUCTS = {
    "fp32": "float32",
    "tf32": "tfloat32",
    "fp16": "float16",
    "fp16-unscaled": "float16",
    "bf16": "bfloat16",
    "fp16-pure": "float16",
    "bf16-pure": "bfloat16",
}


def test_each_recipe_multiplies_in_the_format_its_name_says():
    assert {r.name: r.products for r in recipes.RECIPES.values()} == PRODUCTS


def test_only_fp16_scales_its_loss():
    assert [r.name for r in recipes.RECIPES.values() if r.scale_loss] == ["fp16"]


@pytest.mark.parametrize("name", ["fp64", [], None])
def test_an_unknown_recipe_lists_the_names(name):
    with pytest.raises(InputError, match="choose from fp32, tf32, fp16") as refused:
        recipes.get(name)
    assert str(refused.value).startswith(f"unknown recipe {name!r}:")


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_recipe_is_refused_exactly_where_its_format_is_not_native(name, monkeypatch):
    recipe = recipes.get(name)
    monkeypatch.setattr(hardware, "native", lambda dtype, device: True)
    assert recipes.unavailable(recipe, "cpu") == ""
    monkeypatch.setattr(
        hardware, "native", lambda dtype, device: dtype != PRODUCTS[name]
    )
    reason = recipes.unavailable(recipe, "cpu")
    assert reason.startswith(f"{name}: ") and PRODUCTS[name] in reason
