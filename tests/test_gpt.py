"""The GPT against torch's own transformer layer, its formula of sizes, and causality."""

import pytest
import torch
from torch import nn

from mpteach import gpt
from mpteach.errors import InputError

SMALL = gpt.GPTConfig(layers=2, heads=2, hidden=16, sequence=12, vocabulary=31)


def copy_into(layer: nn.TransformerEncoderLayer, block: gpt.Block) -> None:
    pairs = [
        (layer.self_attn.in_proj_weight, block.qkv.weight),
        (layer.self_attn.in_proj_bias, block.qkv.bias),
        (layer.self_attn.out_proj.weight, block.project.weight),
        (layer.self_attn.out_proj.bias, block.project.bias),
        (layer.linear1.weight, block.expand.weight),
        (layer.linear1.bias, block.expand.bias),
        (layer.linear2.weight, block.contract.weight),
        (layer.linear2.bias, block.contract.bias),
        (layer.norm1.weight, block.attention_norm.weight),
        (layer.norm1.bias, block.attention_norm.bias),
        (layer.norm2.weight, block.mlp_norm.weight),
        (layer.norm2.bias, block.mlp_norm.bias),
    ]
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.copy_(ours)


def test_block_equals_torchs_transformer_layer():
    torch.manual_seed(0)
    block = gpt.Block(SMALL).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    layer = nn.TransformerEncoderLayer(
        SMALL.hidden,
        SMALL.heads,
        4 * SMALL.hidden,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    ).double()
    copy_into(layer, block)
    x = torch.randn(3, SMALL.sequence, SMALL.hidden, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(
        SMALL.sequence, dtype=torch.float64
    )
    torch.testing.assert_close(
        block(x), layer(x, src_mask=mask), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("config", [SMALL, *gpt.SIZES.values()])
def test_parameter_count_is_the_formulas(config):
    with torch.device("meta"):
        model = gpt.GPT(config)
    layers, hidden = config.layers, config.hidden
    per_layer = 12 * hidden**2 + 13 * hidden
    ends = (config.vocabulary + config.sequence) * hidden + 2 * hidden
    assert sum(p.numel() for p in model.parameters()) == layers * per_layer + ends


def weights_by_torch(config):
    """The weights as torch draws them, in the order of the layers; biases are zero."""
    hidden, drawn = config.hidden, {}
    drawn["tokens.weight"] = nn.Embedding(config.vocabulary, hidden)
    drawn["positions.weight"] = nn.Embedding(config.sequence, hidden)
    widths = {"qkv": (1, 3), "project": (1, 1), "expand": (1, 4), "contract": (4, 1)}
    for number in range(config.layers):
        for name, (wide, out) in widths.items():
            layer = nn.Linear(wide * hidden, out * hidden)
            drawn[f"blocks.{number}.{name}.weight"] = layer
    narrow = 0.02 / (2 * config.layers) ** 0.5
    for name, layer in drawn.items():
        nn.init.normal_(layer.weight, std=0.02)
        if name.endswith("contract.weight"):
            project = drawn[name.replace("contract", "project")]
            nn.init.normal_(project.weight, std=narrow)
            nn.init.normal_(layer.weight, std=narrow)
    return {name: layer.weight for name, layer in drawn.items()}


def test_the_first_weights_of_a_seed_are_those_torch_draws_without_a_head():
    torch.manual_seed(5)
    expected, after = weights_by_torch(SMALL), torch.rand(1)
    torch.manual_seed(5)
    model = gpt.GPT(SMALL)
    assert torch.equal(torch.rand(1), after)
    named = dict(model.named_parameters())
    for name, weight in expected.items():
        assert torch.equal(named[name], weight), name
    rest = {name: one for name, one in named.items() if name not in expected}
    for name, one in rest.items():
        ones = name.endswith("norm.weight")
        assert torch.equal(one, torch.full_like(one, float(ones))), name


def test_the_head_stays_tied_through_a_cast_and_a_state_dict():
    model, other = gpt.GPT(SMALL).to(torch.bfloat16), gpt.GPT(SMALL)
    assert model.head.weight is model.tokens.weight
    other.load_state_dict(model.state_dict())
    assert other.head.weight is other.tokens.weight
    assert torch.equal(other.tokens.weight, model.tokens.weight.float())


def test_groups_hold_every_parameter_once_a_group_a_block():
    model = gpt.GPT(SMALL)
    groups = [group["params"] for group in model.groups()]
    found = sorted(id(one) for group in groups for one in group)
    assert found == sorted(id(one) for one in model.parameters())
    shapes = [[one.shape for one in group] for group in groups]
    assert len(groups) == SMALL.layers + 1 and shapes[0] == shapes[1] != shapes[2]


def test_a_token_sees_nothing_after_it():
    torch.manual_seed(0)
    model = gpt.GPT(SMALL)
    tokens = torch.randint(SMALL.vocabulary, (1, SMALL.sequence))
    other = tokens.clone()
    other[0, 7:] = (other[0, 7:] + 1) % SMALL.vocabulary
    before, after = model(tokens), model(other)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7], after[:, 7])


def test_head_shares_the_embedding():
    torch.manual_seed(0)
    model = gpt.GPT(SMALL)
    model(torch.zeros(1, 2, dtype=torch.int64)).sum().backward()
    unused_as_input = model.tokens.weight.grad[5]
    assert unused_as_input.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_knows_no_precision(dtype):
    model = gpt.GPT(SMALL).to(dtype)
    assert model(torch.zeros(1, 4, dtype=torch.int64)).dtype == dtype


@pytest.mark.parametrize("size", ["7B", [], None])
def test_unknown_size_lists_the_sizes(size):
    with pytest.raises(InputError, match="choose from tiny, 25M") as refused:
        gpt.config(size)
    assert str(refused.value).startswith(f"unknown size {size!r}:")
