"""Models that are hard to trace: what is right all the same, and what is refused."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from mpteach.errors import InputError
from mpteach.memory.trace import trace


class Fn(nn.Module):
    """A model from a function of itself and its inputs, and its parts."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.call(self, *inputs)


def head(call, **parts):
    """Return what makes a model of a last layer and of `parts`, functions that make one."""
    return lambda: Fn(
        call, head=nn.Linear(64, 10), **{name: part() for name, part in parts.items()}
    )


def vectors():
    return torch.randn(8, 64), torch.randint(10, (8,))


def sequences():
    return torch.randn(8, 16, 64), torch.randint(10, (8,))


def tokens():
    return torch.randint(100, (8, 16)), torch.randint(10, (8,))


def images():
    return torch.randn(8, 3, 32, 32), torch.randint(10, (8,))


def entropy(model, x, labels):
    return F.cross_entropy(model(x), labels)


def total(model, x, labels):
    return model(x).sum()


def made(build):
    """Return what builds a head and lets `build` change it."""

    def make():
        model = nn.Linear(64, 10)
        build(model)
        return model

    return make


def _conv(*inner, channels):
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)
    return nn.Sequential(*inner, *pooled)


def _scaled(model):
    torch.nn.init.orthogonal_(model.weight)
    model.weight.data = model.weight.data / model.weight.data.norm()


def _hooked(model):
    model.register_forward_hook(lambda module, inputs, output: output * 2)
    model.weight.register_hook(lambda gradient: gradient * 2)


def _experts(self, x):
    weights, chosen = self.route(x).softmax(-1).topk(2)
    out = torch.zeros_like(x)
    for number in range(4):
        here = (chosen == number).any(-1, keepdim=True)
        out = out + torch.where(here, self.head(x).sum() * x, 0)
    return self.head(out) * weights.sum()


def _twice(model, x, labels):
    loss = F.cross_entropy(model(x), labels)
    grads = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    return loss + sum(grad.square().sum() for grad in grads)


MODELS = {
    "LSTM": (
        lambda: Fn(
            lambda s, x: s.head(s.inner(x)[0][:, -1]),
            inner=nn.LSTM(64, 64, 2, batch_first=True),
            head=nn.Linear(64, 10),
        ),
        sequences,
    ),
    "TransformerEncoderLayer": (
        lambda: Fn(
            lambda s, x: s.head(s.inner(x).mean(1)),
            inner=nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
            head=nn.Linear(64, 10),
        ),
        sequences,
    ),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(64, 10)),
        vectors,
    ),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(64, 10)),
        vectors,
    ),
    "tensors made inside": (
        head(
            lambda s, x: s.head(
                x + torch.zeros(8, 64) + torch.arange(64) + torch.randn_like(x)
            )
        ),
        vectors,
    ),
    "in place": (head(lambda s, x: s.head(x.clone().mul_(2).clamp_(0))), vectors),
    "views of a parameter": (
        head(lambda s, x: s.head(x) + F.linear(x, s.head.weight.t()[:, :10].t())),
        vectors,
    ),
    "complex": (
        lambda: Fn(
            lambda s, x: s.head((torch.fft.rfft(x) * s.factors).abs()),
            factors=nn.Parameter(torch.ones(33, dtype=torch.complex64)),
            head=nn.Linear(33, 10),
        ),
        vectors,
    ),
    "EmbeddingBag": (
        head(lambda s, x: s.head(s.words(x)), words=lambda: nn.EmbeddingBag(100, 64)),
        tokens,
    ),
    "channels last": (
        lambda: _conv(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), channels=16).to(
            memory_format=torch.channels_last
        ),
        images,
    ),
    "ConvTranspose, GroupNorm": (
        lambda: _conv(
            nn.Conv2d(3, 16, 3, 2),
            nn.ConvTranspose2d(16, 8, 3, 2),
            nn.GroupNorm(2, 8),
            channels=8,
        ),
        images,
    ),
    "depthwise": (
        lambda: _conv(
            nn.Conv2d(3, 6, 3, groups=3), nn.Upsample(scale_factor=2), channels=6
        ),
        images,
    ),
    "BatchNorm in evaluation": (
        lambda: nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10).eval()),
        vectors,
    ),
    "a module called twice": (
        lambda: Fn(
            lambda s, x: s.head(s.inner(s.inner(x))),
            inner=nn.Linear(64, 64),
            head=nn.Linear(64, 10),
        ),
        vectors,
    ),
    "experts": (head(_experts, route=lambda: nn.Linear(64, 4)), vectors),
    "hooks": (
        made(_hooked),
        vectors,
    ),
    "initialised with care": (made(_scaled), vectors),
    "its own device": (head(lambda s, x: s.head(x.to(s.head.weight.device))), vectors),
    "functional call": (
        head(lambda s, x: functional_call(s.head, dict(s.head.named_parameters()), x)),
        vectors,
    ),
    "a Python list": (head(lambda s, x: setattr(s, "seen", [x]) or s.head(x)), vectors),
}  # fmt: skip


@pytest.mark.parametrize("recipe", ["fp32", "amp-bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_its_gradient_and_state(name, recipe):
    make, batch = MODELS[name]
    timeline = trace(make, batch, recipe, "adamw-foreach", loss_fn=entropy)
    with torch.device("meta"):
        model = make()
    weights = sum(one.nbytes for one in model.parameters())
    buffers = sum(one.nbytes for one in model.buffers())
    ends = {p: timeline.events(p)[-1] for p in ("forward", "backward", "step")}
    held = {phase: timeline.by_category(event, "bytes") for phase, event in ends.items()}
    assert held["forward"]["parameters"] == weights + buffers
    assert held["backward"]["gradients"] == weights
    assert held["step"]["optimizer"] >= 2 * weights
    assert timeline.allocated_peak > timeline.requested_peak > 3 * weights


@pytest.mark.parametrize(
    "loss",
    [
        _twice,
        lambda m, x, y: F.cross_entropy(m(x), y) + m(x).square().mean(),
        lambda m, x, y: F.binary_cross_entropy_with_logits(m(x), torch.ones(8, 10)),
        lambda m, x, y: F.mse_loss(m(x), torch.zeros(8, 10)).reshape(1),
        lambda m, x, y: (F.cross_entropy(m(x), y).backward(), entropy(m, x, y))[1],
    ],
)
def test_losses_of_many_kinds(loss):
    timeline = trace(lambda: nn.Linear(64, 10), vectors, loss_fn=loss)
    assert timeline.summary()["gradients"] == 512 * (5 + 1)


def test_hooks_are_gone_after_a_trace():
    model = []

    def make():
        model.append(nn.Linear(64, 10))
        return model[0]

    trace(make, vectors, loss_fn=entropy)
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


# --- what is refused


def _asks(call):
    return head(lambda s, x: s.head(x).sum() * call(x)), vectors, total


NEED = "and a trace has none: take it out of the step, or measure on a GPU."
REFUSED = {
    "nonzero": (
        *_asks(lambda x: x[x[:, 0].nonzero()[:, 0]].sum()),
        "asks for the data of a tensor by aten.nonzero.default (nonzero, or an index",
    ),
    "bool mask": (*_asks(lambda x: x[x > 0].sum()), "by aten.nonzero.default"),
    "item": (*_asks(lambda x: x.max().item()), "by aten._local_scalar_dense.default (item"),
    "if": (*_asks(lambda x: 1 if x.sum() > 0 else 2), "aten._local_scalar_dense.default"),
    "tolist": (*_asks(lambda x: sum(x[0].tolist())), "aten._local_scalar_dense.default"),
    "unique": (*_asks(lambda x: x.unique().sum()), "by aten._unique2.default (unique), "),
    "masked_select": (*_asks(lambda x: x.masked_select(x > 0).sum()), "aten.masked_select"),
    "numpy": (*_asks(lambda x: float(x.numpy().sum())), "by numpy(), and a trace has none"),
    "item at the start": (
        made(lambda m: m.weight.max().item()), vectors, entropy,
        "make_model asks for the data of a tensor by item, and a trace has none: use",
    ),
    "a tensor of its own": (
        made(lambda m: m.register_forward_hook(lambda *a, t=torch.zeros(10): a[2] + t)),
        vectors, entropy, "uses a tensor that is no parameter, buffer or part of the batch",
    ),
    "lazy": (lambda: nn.LazyLinear(10), vectors, entropy, "has a lazy module, whose shape"),
    "sparse": (
        head(
            lambda s, x: s.head(s.words(x).mean(1)),
            words=lambda: nn.Embedding(100, 64, sparse=True),
        ),
        tokens, entropy, "makes a sparse tensor, which a trace cannot follow",
    ),
    "compiled": (
        lambda: torch.compile(nn.Linear(64, 10)), vectors, entropy,
        "the model is compiled, and a trace follows each operation: give the module itself.",
    ),
    "a compiled part": (
        made(lambda m: m.add_module("inner", torch.jit.script(nn.ReLU()))), vectors,
        entropy, "inner is compiled, and a trace follows each operation",
    ),
    "compiled in place": (
        made(lambda m: m.compile()), vectors, entropy, "the model is compiled",
    ),
    "on a device": (
        made(lambda m: m.register_buffer("b", torch.zeros(3, device="cpu"))),
        vectors, entropy,
        "b of the model lies on cpu already: create tensors inside make_model, and name",
    ),
    "moved": (
        lambda: nn.Linear(64, 10).to("cpu"), vectors, entropy,
        "make_model moves the model to a device: create tensors inside make_model",
    ),
    "a tensor on CUDA": (
        head(lambda s, x: s.head(x + torch.zeros(64, device="cuda"))), vectors, entropy,
        "the model names a device, and a trace has but one",
    ),
    "no module": (lambda: 3, vectors, entropy, "make_model returned 3: return a torch module."),
    "no parameters": (
        nn.ReLU, vectors, entropy, "ReLU has no parameter that needs a gradient: give one",
    ),
    "a list": (
        lambda: nn.Linear(64, 10), lambda: [1], entropy,
        "make_batch returned [1]: return a tuple.",
    ),
    "many losses": (
        lambda: nn.Linear(64, 10), vectors, lambda m, x, y: m(x),
        "the loss was FakeTensor(..., size=(8, 10)",
    ),
    "a constant loss": (
        lambda: nn.Linear(64, 10), vectors, lambda m, x, y: m(x).sum().detach(),
        "return one number that depends on the parameters.",
    ),
    "no tensor": (
        lambda: nn.Linear(64, 10), vectors, lambda m, x, y: {"loss": 1}, "{'loss': 1}: return",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:Lazy modules")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_trace_cannot_follow_is_said_in_a_sentence(name):
    make, batch, loss, said = REFUSED[name]
    with pytest.raises(InputError) as caught:
        trace(make, batch, loss_fn=loss)
    sentence = str(caught.value)
    assert said in sentence and sentence.endswith(".") and "\n" not in sentence
    if name in ("nonzero", "item", "unique", "numpy"):
        assert sentence.endswith(NEED)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipe": "fp8"}, "unknown recipe 'fp8': choose from fp32, tf32, amp-fp16"),
        ({"recipe": None}, "unknown recipe None: choose from"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion': choose from sgd-foreach"),
        ({"optimizer": "adamw-fast"}, "unknown optimizer 'adamw-fast': choose from"),
        ({"optimizer": "lion", "evaluate": True}, "unknown optimizer 'lion'"),
        ({"policy": "xpu"}, "policy was 'xpu': choose from cuda, cpu."),
        ({"micro_batches": 0}, "micro_batches was 0: give a whole number of at least 1."),
        ({"micro_batches": 1.0}, "micro_batches was 1.0: give a whole number"),
        ({"cublas_workspace": -1}, "cublas_workspace was -1: give a number of bytes from 0."),
        ({"cublas_workspace": "1"}, "cublas_workspace was '1': give a number of bytes"),
    ],
)
def test_settings_that_no_trace_has(given, said):
    with pytest.raises(InputError) as caught:
        trace(lambda: nn.Linear(64, 10), vectors, loss_fn=entropy, **given)
    assert str(caught.value).startswith(said)


def test_errors_of_the_model_pass_through_and_leave_torchs_log_alone(capfd):
    for model, error in (
        (lambda: nn.Linear(63, 10), RuntimeError),
        (head(lambda s, x: 1 / 0), ZeroDivisionError),
    ):
        with pytest.raises(error):
            trace(model, vectors, loss_fn=entropy)
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_what_autocast_refuses_on_cuda_is_refused():
    def loss(model, x, labels):
        return F.binary_cross_entropy(model(x).sigmoid(), torch.ones(8, 10))

    trace(lambda: nn.Linear(64, 10), vectors, loss_fn=loss)
    with pytest.raises(InputError, match="binary_cross_entropy under autocast: refused"):
        trace(lambda: nn.Linear(64, 10), vectors, "amp-bf16", loss_fn=loss)
