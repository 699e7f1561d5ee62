"""The work of a step against torch's counter, and the bytes of a real cache."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count

from mpteach.errors import InputError
from mpteach.memory.decoder import Decoder
from mpteach.memory.flops import Product, flops, total
from mpteach.memory.kv_cache import kv_cache_bytes
from mpteach.memory.shapes import PRESETS, Shape

SMALL = Shape(layers=3, heads=4, hidden=128, vocabulary=300)
TODAY = replace(
    SMALL,
    kv_heads=2,
    mlp_hidden=352,
    norm="rmsnorm",
    mlp="swiglu",
    positions="rotary",
    tied=False,
    biases=False,
)
SHAPES = {
    "gpt2": SMALL,
    "today": TODAY,
    "one head of keys": replace(SMALL, kv_heads=1),
    "gated, learned positions": replace(SMALL, mlp="swiglu", mlp_hidden=100),
    "one layer": replace(TODAY, layers=1, kv_heads=4, tied=True),
}


def counted(shape, batch, sequence, checkpointing=False):
    with torch.device("meta"):
        model = Decoder(shape, sequence, "materialised", checkpointing=checkpointing)
        tokens = torch.randint(shape.vocabulary, (batch, sequence))
    with FlopCounterMode(display=False) as forward:
        loss = model(tokens, tokens)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 64), (5, 48)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_operation_of_torchs_counter_is_found(shape, size, checkpointing):
    products = flops(shape, *size, "materialised", checkpointing)
    ours = sum(one.forward for one in products), sum(one.backward for one in products)
    assert ours == counted(shape, *size, checkpointing)
    assert total(products) == sum(ours)


def test_the_counter_agrees_on_real_tensors_too():
    model, tokens = Decoder(TODAY, 16, "materialised"), torch.randint(300, (2, 16))
    with FlopCounterMode(display=False) as counter:
        model(tokens, tokens).backward()
    assert counter.get_total_flops() == total(flops(TODAY, 2, 16, "materialised"))


@pytest.mark.parametrize("shape", [SMALL, TODAY], ids=["gpt2", "today"])
def test_fused_attention_computes_its_scores_again(shape):
    batch, sequence, width = 2, 64, shape.hidden // shape.heads
    products = {one.name: one for one in flops(shape, batch, sequence, "sdpa")}
    whole = (batch, shape.heads, sequence, width)  # keys are repeated for each head
    theirs = shape.layers * sdpa_backward_flop_count(whole, whole, whole, whole)
    ours = products["scores"].backward + products["weighted values"].backward
    assert ours == theirs


def test_products_of_a_gpt_are_the_textbook_sum():
    b, s, h, l, V = 8, 1024, 768, 12, 50257  # noqa: E741
    products = flops(PRESETS["gpt2"], b, s, "materialised")
    forward = l * (24 * b * s * h**2 + 4 * b * s**2 * h) + 2 * b * s * V * h
    assert total(products) == 3 * forward


def test_a_product_moves_each_matrix_once():
    one = Product("product", 2, 3, 5, 7)
    assert one.forward == 2 * 2 * 3 * 5 * 7 and one.backward == 2 * one.forward
    assert one.moved(4) == 4 * 2 * (3 * 5 + 5 * 7 + 3 * 7)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("gpt2", 1, 1), "shape was 'gpt2': give a Shape."),
        ((SMALL, 0, 1), "batch was 0: give a whole number of at least 1."),
        ((SMALL, 1, 2.0), "sequence was 2.0: give a whole number of at least 1."),
        ((SMALL, 1, 1, "flash"), "flash"),
    ],
)
def test_bad_sizes_are_refused_in_a_sentence(given, said):
    with pytest.raises(InputError, match=said):
        flops(*given)


# --- the cache of keys and values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_cache_takes_what_its_tensors_take(shape, dtype):
    batch, tokens, width = 3, 10, shape.hidden // shape.heads
    model, cache = Decoder(shape, sequence=16).to(dtype), []
    heads = [shape.heads, *[shape.kv_heads or shape.heads] * 2]

    def keep(module, inputs, output):
        q, k, v = output.split([one * width for one in heads], dim=-1)
        cache.extend([k.clone(), v.clone()])

    for block in model.blocks:
        block.qkv.register_forward_hook(keep)
    read = torch.randint(shape.vocabulary, (batch, tokens))
    model(read, read)
    held = sum(one.nbytes for one in cache)
    assert kv_cache_bytes(shape, batch, tokens, dtype.itemsize) == held


def test_grouped_queries_divide_the_cache():
    shared = PRESETS["mistral-7b"]
    apart = replace(shared, kv_heads=32)
    assert kv_cache_bytes(apart, 1, 100) == 4 * kv_cache_bytes(shared, 1, 100)
    l, h, b, t = 32, 4096, 2, 5  # noqa: E741
    assert kv_cache_bytes(apart, b, t) == 4 * b * l * h * t


@pytest.mark.parametrize(
    "given", [("x", 1, 1), (SMALL, 0, 1), (SMALL, 1, 0), (SMALL, 1, 1, 0)]
)
def test_a_cache_of_nothing_is_refused(given):
    with pytest.raises(InputError, match="give a "):
        kv_cache_bytes(*given)
