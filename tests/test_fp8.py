"""fp8 products against float64 arithmetic on numbers that ml_dtypes rounded."""

import copy
import io

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from mpteach import fp8, gpt
from mpteach.errors import InputError
from tests.small import CONFIG

E4M3 = (ml_dtypes.float8_e4m3fn, 448.0)
E5M2 = (ml_dtypes.float8_e5m2, 57344.0)
ROLES = (E4M3, E4M3, E5M2)  # input, weight, gradient
M, K, N = 32, 48, 16
FACTOR = 2.0**-8  # half a unit in the last place of a bfloat16 result


def numbers(shape, size, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * size).bfloat16()


def rounded(x, role, scale=None):
    """Return x as the numbers that its fp8 image stands for, in float64."""
    kind, largest = role
    x = x.detach().float().numpy()
    # As torch divides a number by a tensor: a last bit may decide between two neighbours.
    own = np.float32(1) / max(np.abs(x).max(), np.float32(1e-12)) * np.float32(largest)
    scale = np.float32(own if scale is None else scale)
    clipped = np.clip(x * scale, -largest, largest)
    return clipped.astype(kind).astype(np.float64) * (1 / np.float64(scale))


def case(size=(3.0, 0.02, 1e-5), scales=None, bias=True):
    x = numbers((M, K), size[0], 0).requires_grad_()
    weight = numbers((N, K), size[1], 1).requires_grad_()
    offset = numbers((N,), 0.1, 2).requires_grad_() if bias else None
    amax = torch.zeros(3, requires_grad=True)
    y = fp8.Product.apply(x, weight, offset, scales, amax)
    gradient = numbers((M, N), size[2], 3)
    y.backward(gradient)
    return x, weight, offset, amax, y, gradient


def assert_near(found, expected, magnitudes):
    """Equal but for bfloat16's rounding of the result and float32 sums within it."""
    found = found.detach().double().numpy()
    allowed = FACTOR * np.abs(expected) + 1e-5 * magnitudes
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "size", [(3.0, 0.02, 1e-5), (1e-6, 1e4, 1.0), (1e9, 1e-9, 1e-9)]
)
def test_product_and_gradients_are_those_of_the_rounded_numbers(size, bias):
    x, weight, offset, _, y, gradient = case(size, bias=bias)
    a, b, g = (rounded(t, role) for t, role in zip((x, weight, gradient), ROLES))
    added = offset.detach().double().numpy() if bias else np.zeros(N)
    assert_near(y, a @ b.T + added, np.abs(a) @ np.abs(b.T) + np.abs(added))
    assert_near(x.grad, g @ b, np.abs(g) @ np.abs(b))
    assert_near(weight.grad, g.T @ a, np.abs(g.T) @ np.abs(a))
    if bias:
        plain = gradient.double().numpy()
        assert_near(offset.grad, plain.sum(0), np.abs(plain).sum(0))


def test_fp8_is_coarser_than_the_numbers_it_was_given():
    x, weight, _, _, y, _ = case(bias=False)
    exact = x.detach().double() @ weight.detach().double().T
    error = (y.double() - exact).norm() / exact.norm()
    assert 0.01 < error < 0.1


def test_the_magnitudes_leave_as_the_gradient_of_amax():
    x, weight, _, amax, _, gradient = case()
    largest = [t.detach().abs().max().float() for t in (x, weight, gradient)]
    assert amax.grad.tolist() == [one.item() for one in largest]


def test_given_scales_are_used_and_what_is_beyond_them_saturates():
    scales = torch.tensor([1000.0, 50.0, 2.0**30])
    x, weight, _, _, y, gradient = case(scales=scales, bias=False)
    tensors = zip((x, weight, gradient), ROLES, scales.tolist())
    a, b, g = (rounded(*each) for each in tensors)
    # 3 x 1000 is far beyond 448: most of x is cut.
    assert np.abs(a).max() == pytest.approx(0.448) and x.detach().abs().max() > 5
    assert_near(y, a @ b.T, np.abs(a) @ np.abs(b.T))
    assert_near(x.grad, g @ b, np.abs(g) @ np.abs(b))
    assert_near(weight.grad, g.T @ a, np.abs(g.T) @ np.abs(a))


@pytest.mark.parametrize("scale", [1.0, 1e10, 1e30, 3e38])
def test_saturation_never_makes_nan_of_finite_numbers(scale):
    x, weight, _, _, y, _ = case(size=(1e3, 1e3, 1e3), scales=torch.full((3,), scale))
    for one in (y, x.grad, weight.grad):
        assert one.isfinite().all()


@pytest.mark.parametrize("role", [0, 1, 2])
@pytest.mark.parametrize("size", [1e-6, 0.3, 1.0, 449.0, 1e30])
def test_a_tensors_own_scale_puts_its_largest_at_the_formats_largest(
    role, size, monkeypatch
):
    sizes, taken = [1.0, 1.0, 1.0], []
    sizes[role] = size
    plain = torch._scaled_mm
    monkeypatch.setattr(
        torch, "_scaled_mm", lambda *a, **b: taken.extend(a[:2]) or plain(*a, **b)
    )
    case(size=sizes, bias=False)
    # x and weight, the gradient and weight, the gradient and x.
    for number, factor in zip((0, 1, 2, 1, 2, 0), taken, strict=True):
        limit = ROLES[number][1]
        assert factor.float().abs().max() == limit == torch.finfo(factor.dtype).max


def test_zeros_stay_zeros():
    x = torch.zeros(M, K, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(N, K, dtype=torch.bfloat16, requires_grad=True)
    y = fp8.Product.apply(x, weight, None, None, None)
    y.backward(torch.zeros(M, N, dtype=torch.bfloat16))
    for one in (y, x.grad, weight.grad):
        assert (one == 0).all()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_not_hidden(value):
    x = torch.ones(M, K, dtype=torch.bfloat16)
    x[0, 0] = value
    weight = torch.ones(N, K, dtype=torch.bfloat16)
    assert not fp8.Product.apply(x, weight, None, None, None)[0].isfinite().any()


def model_of(layers, delayed=False, seed=0):
    torch.manual_seed(seed)
    model = gpt.GPT(CONFIG).bfloat16()
    fp8.convert(model, layers, delayed)
    return model


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("head", {"head"}), ("all", {"qkv", "project", "expand", "contract", "head"})],
)
def test_exactly_the_chosen_layers_are_converted_and_the_head_stays_tied(
    layers, chosen
):
    torch.manual_seed(0)
    plain, model = gpt.GPT(CONFIG).bfloat16(), model_of(layers)
    kinds = {name.split(".")[-1]: type(one) for name, one in model.named_modules()}
    assert {name for name, kind in kinds.items() if kind is fp8.Linear8} == chosen
    linears = {"qkv", "project", "expand", "contract", "head"}
    assert {
        name for name, kind in kinds.items() if kind is nn.Linear
    } == linears - chosen
    assert model.head.weight is model.tokens.weight
    assert plain.state_dict().keys() == model.state_dict().keys()
    pairs = zip(plain.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_any_leading_shape_of_the_input_is_kept():
    layer = nn.Linear(16, 32).bfloat16()
    fp8.convert(layer_in := nn.Sequential(layer), "all")
    x = numbers((2, 4, 4, 16), 1.0, 0)
    y = layer_in(x)
    assert y.shape == (2, 4, 4, 32)
    assert torch.equal(y.reshape(32, 32), layer_in(x.reshape(32, 16)))


class Watched:
    """A layer alone, stepped with magnitudes that the test chooses."""

    def __init__(self):
        self.model = nn.Sequential(nn.Linear(16, 16, bias=False)).bfloat16()
        fp8.convert(self.model, "all", delayed=True)
        self.layer = self.model[0]

    def step(self, x_amax, g_amax):
        x = torch.full((16, 16), x_amax, dtype=torch.bfloat16)
        y = self.model(x)
        y.backward(torch.full_like(y, g_amax))
        fp8.roll(self.model)


def test_delayed_scales_are_those_of_the_last_sixteen_steps():
    watched, seen = Watched(), []
    weight_amax = watched.layer.weight.detach().abs().max().item()
    assert watched.layer.scales is None
    # A peak at step 3, which must count up to step 18 and no longer.
    peaks = [2.0 ** (step % 3) for step in range(1, 24)]
    peaks[2] = 256.0
    for step, peak in enumerate(peaks, start=1):
        watched.step(peak, peak / 1024)
        seen.append(peak)
        counted = np.float32(max(seen[-16:]))
        expected = np.array([448, 448, 57344], np.float32)
        expected /= np.array([counted, weight_amax, counted / 1024], np.float32)
        assert watched.layer.scales.tolist() == expected.tolist(), step
        assert (counted == 256.0) == (3 <= step <= 18)


def test_a_delayed_scale_serves_the_step_after():
    watched = Watched()
    watched.step(1.0, 1.0)
    x = torch.full((16, 16), 100.0, dtype=torch.bfloat16)
    weight = watched.layer.weight
    a, b = rounded(x, E4M3, scale=448.0), rounded(weight, E4M3)
    assert a.max() == 1.0  # of 100: the scale is stale
    assert_near(watched.model(x), a @ b.T, np.abs(a) @ np.abs(b.T))


def learn(model, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in steps:
        tokens = torch.randint(
            256, (4, 8), generator=torch.Generator().manual_seed(step)
        )
        logits = model(tokens).float().flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, tokens.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        fp8.roll(model)
        losses.append(loss.item())
    return losses


def scales_of(model):
    return [one.scales for one in model.modules() if isinstance(one, fp8.Linear8)]


def test_a_state_dict_goes_on_with_the_same_scales():
    model = model_of("all", delayed=True)
    learn(model, range(5))
    kept = io.BytesIO()
    torch.save(model.state_dict(), kept)
    kept.seek(0)
    other = model_of("all", delayed=True, seed=1)
    other.load_state_dict(torch.load(kept, weights_only=True))
    assert torch.equal(torch.stack(scales_of(other)), torch.stack(scales_of(model)))
    assert learn(other, range(5, 25)) == learn(model, range(5, 25))


def test_a_state_from_before_the_first_step_has_no_scales():
    first, model = model_of("all", delayed=True), model_of("all", delayed=True)
    start = copy.deepcopy(first.state_dict())
    learn(model, range(3))
    model.load_state_dict(start)
    assert scales_of(model) == [None] * 5
    assert learn(model, range(4)) == learn(first, range(4))


def test_without_delay_the_model_has_no_history():
    assert "fp8_history" not in model_of("all").state_dict()


def test_what_cannot_be_converted_is_said():
    narrow = nn.Sequential(nn.Linear(16, 24)).bfloat16()
    cases = [
        (
            gpt.GPT(CONFIG).bfloat16(),
            "some",
            "layers was 'some': choose from head, all",
        ),
        (gpt.GPT(CONFIG).bfloat16(), None, "layers was None: choose from"),
        (nn.Sequential(nn.ReLU()), "all", "no plain nn.Linear"),
        (narrow, "all", "out_features=24.* multiples of 16"),
        (gpt.GPT(CONFIG), "all", "torch.float32: cast the model to bfloat16"),
        (model_of("all"), "all", "no plain nn.Linear"),
        (model_of("head"), "head", "no plain nn.Linear"),
        (narrow, "head", "no layer called head"),
    ]
    for model, layers, said in cases:
        before = [type(one) for one in model.modules()]
        with pytest.raises(InputError, match=said):
            fp8.convert(model, layers)
        assert [type(one) for one in model.modules()] == before


def test_rows_that_do_not_fit_are_said():
    model = model_of("all")
    with pytest.raises(InputError, match="in rows that are a multiple of 16; change"):
        model(torch.zeros(3, 3, dtype=torch.int64))
    for shape in ((0, 16), (16, 8), (16, 32), (32,), ()):
        with pytest.raises(InputError, match=r"an input was \[.*takes? 16 features here"):
            fp8.Linear8(16, 16).bfloat16()(torch.zeros(shape).bfloat16())


def test_what_is_no_model_is_said():
    with pytest.raises(InputError, match="the model was None: give an nn.Module"):
        fp8.convert(None, "all")


def test_rolling_without_a_backward_pass_is_said():
    model = model_of("all", delayed=True)
    for each in (model, model_of("all"), nn.Linear(2, 2)):
        with pytest.raises(InputError, match="no new magnitudes: convert with delayed"):
            fp8.roll(each)
    learn(model, [0])
    with pytest.raises(InputError, match="no new magnitudes"):
        fp8.roll(model)
