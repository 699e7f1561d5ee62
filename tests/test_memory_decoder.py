"""The models that are traced and measured: they run, learn and look at the past alone."""

from dataclasses import replace

import pytest
import torch

from mpteach.memory import decoder, zoo
from mpteach.memory.shapes import PRESETS, Shape

TINY = Shape(layers=2, heads=2, hidden=64, vocabulary=96)


@pytest.mark.parametrize("attention", decoder.ATTENTIONS)
@pytest.mark.parametrize("preset", ["gpt2", "mistral-7b"])
def test_the_decoder_learns_a_sequence_by_heart(preset, attention):
    small = {"layers": 1, "heads": 2, "hidden": 16, "vocabulary": 8, "mlp_hidden": 32}
    kv = 1 if PRESETS[preset].kv_heads else None
    shape = replace(PRESETS[preset], **small, kv_heads=kv)
    torch.manual_seed(0)
    model = decoder.Decoder(shape, 8, attention, 0.0, checkpointing=True)
    tokens = torch.randint(8, (1, 9))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss < 0.3


def test_no_decoder_looks_ahead_and_both_attentions_agree():
    torch.manual_seed(0)
    models = [decoder.Decoder(TINY, 8, kind) for kind in decoder.ATTENTIONS]
    models[1].load_state_dict({**models[1].state_dict(), **models[0].state_dict()})
    x = torch.randn(2, 8, 64)
    outs = [model.blocks[0](x, ()) for model in models]
    torch.testing.assert_close(*outs)
    changed = x.clone()
    changed[:, 5:] += 1
    torch.testing.assert_close(models[0].blocks[0](changed, ())[:, :5], outs[0][:, :5])


@pytest.mark.parametrize("name", zoo.MODELS)
def test_models_of_the_zoo_run(name):
    made = zoo.case(name, 2)
    loss = made.loss_fn(made.make_model().eval(), *made.make_batch())
    assert loss.ndim == 0 and loss.isfinite()
