"""The first inf or NaN is named rightly on planted faults, and never on a sound run."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as module_hooks
from torch.utils.checkpoint import checkpoint

from mpteach.debugging import first_nonfinite
from mpteach.errors import InputError
from mpteach.gpt import GPT, SIZES
from mpteach.master_weights import MasterWeights
from mpteach.training import cross_entropy

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
HALF = torch.float16


def total(output):
    return output.float().sum()


class Apply(nn.Module):
    """A module of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Weight(nn.Module):
    """A module of one weight, which `function` meets."""

    def __init__(self, value, function=torch.mul):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.as_tensor(value)), function

    def forward(self, x):
        return self.function(self.weight, x)


def ones(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


def behind(function, value=1.0, dtype=torch.float32):
    """Return a model named part by part whose last part, "1", is `function`."""
    return nn.Sequential(Weight(ones(4, dtype=dtype) * value), Apply(function))


class Attention(nn.Module):
    """Causal attention written out, with a mask of -inf."""

    def __init__(self, fill=True):
        super().__init__()
        self.qkv, self.fill = nn.Linear(16, 48), fill
        mask = torch.ones(5, 5).triu(1).bool()
        self.register_buffer("mask", torch.zeros(5, 5).masked_fill(mask, -math.inf))

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(-2, -1)
        if self.fill:
            scores = scores.masked_fill(self.mask.isinf(), float("-inf"))
        else:
            scores = scores + self.mask
        return F.dropout(scores.softmax(-1), 0.5) @ v


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def tiny_gpt(device="cpu", seed=0):
    torch.manual_seed(seed)
    model = GPT(SIZES["tiny"]).to(device)
    tokens = torch.randint(256, (2, 33), device=device)
    return model, tokens[:, :-1], lambda logits: cross_entropy(logits, tokens[:, 1:])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, HALF], ids=str)
def test_a_sound_run_of_the_gpt_raises_no_alarm(dtype, device):
    model, tokens, loss_fn = tiny_gpt(device)
    optimizer = torch.optim.AdamW(model.parameters())
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        report = first_nonfinite(
            model, tokens, loss_fn=loss_fn, scale=2.0**8, optimizer=optimizer
        )
    assert report is None


@pytest.mark.parametrize("backend", ["MATH", "FLASH_ATTENTION"])
def test_fused_attention_with_masks_raises_no_alarm(backend):
    kernel = getattr(nn.attention.SDPBackend, backend)
    mask = Attention().mask
    for options in ({"is_causal": True}, {"attn_mask": mask.isfinite()}):
        model = behind(lambda x: F.scaled_dot_product_attention(x, x, x, **options))
        x = torch.randn(1, 1, 5, 4)
        with nn.attention.sdpa_kernel(kernel):
            assert first_nonfinite(model, x, loss_fn=total) is None


SOUND = {
    "mask filled": Attention(),
    "mask added": Attention(fill=False),
    "bare mask": behind(lambda x: x + torch.full((5, 4), -math.inf).triu(1)[:, :4]),
    "index put": behind(
        lambda x: x.clone().index_fill_(1, torch.tensor([1]), -math.inf).softmax(-1)
    ),
    "assigned": behind(lambda x: assign(x).softmax(-1)),
    "product of zeros": behind(lambda x: (x * 0).cumprod(1)),
    "norm at 0": behind(lambda x: (x * 0).norm(dim=-1)),
    "uninitialised": behind(lambda x: torch.empty_like(x).copy_(x)),
    "log-sum-exp": behind(
        lambda x: (x + torch.tensor([0, 0, 0, -math.inf])).logsumexp(1)
    ),
    "batch norm": nn.Sequential(nn.BatchNorm1d(4), nn.Dropout()),
    "nothing": nn.Identity(),
}


def assign(x):
    x = x.clone()
    x[:, 1] = float("-inf")
    return x


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, HALF], ids=str)
def test_what_is_asked_for_raises_no_alarm(name, dtype):
    torch.manual_seed(0)
    model = copy.deepcopy(SOUND[name]).to(dtype)
    width = 16 if isinstance(model, Attention) else 4
    x = torch.randn(5, width, dtype=dtype).requires_grad_()
    # A masked logit is -inf: its loss would be too.
    kept = (lambda y: total(y[:, 0])) if name == "bare mask" else total
    assert first_nonfinite(model, x, loss_fn=kept) is None
    assert x.grad is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_raises_no_alarm_and_hides_no_fault(reentrant):
    x = torch.randn(3, 5, 16).requires_grad_()
    model = Checkpointed(Attention(), reentrant)
    assert first_nonfinite(model, x, loss_fn=total) is None
    faulty = Checkpointed(behind(lambda x: (x * 0).square().sum().sqrt()), reentrant)
    report = first_nonfinite(faulty, torch.ones(2, 4).requires_grad_(), loss_fn=total)
    assert (report.phase, report.operation, report.kind) == ("backward", "div", "inf")
    assert report.module == "inner.1"


def rms_norm(x):
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()


def scaled_in_place(x):
    x = x + 0
    return x.mul_(1000)


def masked_then_scaled(x):
    return (x + x.new_tensor([0, 0, 0, -math.inf])) * 1000


def copied_over_nan(x):
    return torch.full_like(x, math.nan, dtype=HALF).copy_(x)


def guarded_log(x):
    return torch.where(x > 0, (x - 1).log(), 0)


# Of behind(function, value, dtype): the operation, what it gave, a part of its line.
FORWARD = {
    "norm squared in fp16": (rms_norm, 300, HALF, "pow", "inf", "x.pow(2)"),
    "log of zero": (torch.log, 0, torch.float32, "log", "inf", "self.function(x)"),
    "0 / 0": (lambda x: x / x.norm(), 0, torch.bfloat16, "div", "NaN", "x.norm()"),
    "exp": (torch.exp, 12, HALF, "exp", "inf", ""),
    "in place": (scaled_in_place, 100, HALF, "mul_", "inf", "x.mul_(1000)"),
    "beside a mask": (masked_then_scaled, 100, HALF, "mul", "inf", "* 1000"),
    "all masked": (
        lambda x: x.masked_fill(x > 0, -math.inf).softmax(-1),
        1,
        torch.float32,
        "_softmax",
        "NaN",
        "masked_fill",
    ),
    "where comes too late": (guarded_log, 1, torch.float32, "log", "inf", "where"),
    "an eps below fp16": (
        lambda x: F.cosine_similarity(x * 0, x),
        1,
        HALF,
        "div",
        "NaN",
        "F.cosine",
    ),
    "a sum": (lambda x: x.sum(-1), 30000, HALF, "sum", "inf", "x.sum"),
    "a copy": (copied_over_nan, 1e5, torch.float32, "copy_", "inf", "copy_"),
    "a cast": (lambda x: x.half(), 1e5, torch.float32, "_to_copy", "inf", "half"),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", FORWARD)
def test_a_fault_forward_is_named(name, device):
    function, value, dtype, operation, kind, code = FORWARD[name]
    model = behind(function, value, dtype).to(device)
    x = ones(2, 4, dtype=dtype).to(device)
    report = first_nonfinite(model, x)
    found = (report.phase, report.module, report.operation, report.kind)
    assert found == ("forward", "1", operation, kind)
    assert code in report.code
    assert report.outputs[0].nan + report.outputs[0].inf > 0
    assert all(one.nan == 0 for one in report.inputs)


def test_attention_logits_that_overflow_are_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), Attention()).half()
    report = first_nonfinite(model, 1e4 * torch.randn(2, 5, 8).half(), loss_fn=total)
    assert (report.module, report.operation, report.call) == ("1", "bmm", "matmul")
    assert report.code == "scores = q @ k.transpose(-2, -1)"
    assert [one.dtype for one in report.inputs] == ["float16"] * 2
    assert report.modules[0].module in ("0", "1.qkv")


@pytest.mark.parametrize("device", DEVICES)
def test_a_cast_of_autocast_is_named_with_the_layer_it_is_for(device):
    model = nn.Sequential(Weight(ones(4) * 1e5), nn.Linear(4, 4)).to(device)
    with torch.autocast(device, dtype=HALF):
        report = first_nonfinite(model, ones(2, 4).to(device), loss_fn=total)
    assert (report.module, report.operation, report.call) == ("1", "_to_copy", "linear")
    assert (report.inputs[0].dtype, report.outputs[0].dtype) == ("float32", "float16")
    assert report.inputs[0].largest == pytest.approx(1e5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_loss_scale_too_high_is_named_backward(device):
    model, tokens, loss_fn = tiny_gpt(device)
    with torch.autocast(device, dtype=HALF):
        report = first_nonfinite(model, tokens, loss_fn=loss_fn, scale=2.0**24)
    assert (report.phase, report.kind) == ("backward", "inf")
    assert report.call.endswith("Backward0") and report.outputs[0].dtype == "float16"
    first, *_ = report.modules
    assert any(one.largest > 65504 for one in report.modules if one.phase == "backward")
    low, high = (
        first.binades_left("float16"),
        report.modules[-1].binades_left("float16"),
    )
    assert low <= high


def test_a_gradient_that_overflows_in_a_layer_is_named_there():
    model = nn.Sequential(
        nn.Linear(4, 4), Weight(ones(4) * 1e3), nn.Linear(4, 4)
    ).half()
    model[2].weight = nn.Parameter(ones(4, 4, dtype=HALF), requires_grad=False)
    x = ones(2, 4, dtype=HALF)
    report = first_nonfinite(model, x, loss_fn=total, scale=64.0)
    assert (report.phase, report.module) == ("backward", "1")
    assert (report.operation, report.call) == ("mul", "MulBackward0")
    assert first_nonfinite(model, x, loss_fn=total, scale=1.0) is None


def test_a_scaled_loss_that_overflows_is_told_of_the_loss():
    model = Weight(ones(4, dtype=HALF))
    report = first_nonfinite(
        model, ones(4, dtype=HALF), loss_fn=torch.sum, scale=2.0**16
    )
    found = (report.phase, report.module, report.operation, report.code)
    assert found == ("loss", "loss_fn", "mul", "")


def test_gradients_that_overflow_where_they_meet_are_named():
    model = Weight(ones(4, dtype=HALF), lambda weight, x: weight * x + weight * x)
    report = first_nonfinite(
        model, ones(4, dtype=HALF) * 2, loss_fn=total, scale=20000.0
    )
    assert (report.phase, report.operation, report.kind) == ("backward", "add", "inf")
    assert [one.largest for one in report.inputs] == [40000.0] * 2
    # Gradients that arrive in float32 meet in float32.
    optimizer = MasterWeights(torch.optim.SGD, model)
    x = ones(4, dtype=HALF) * 2
    options = {"loss_fn": total, "scale": 20000.0, "optimizer": optimizer}
    assert first_nonfinite(model, x, **options) is None


class Wasteful(torch.optim.SGD):
    """Makes an inf, and only uses it if told to."""

    @torch.no_grad()
    def step(self):
        infinite = torch.zeros(1).log()
        super().step()
        if self.defaults["nesterov"]:
            self.param_groups[0]["params"][0].add_(infinite)


@pytest.mark.parametrize("used", [False, True])
def test_what_an_optimizer_does_not_use_raises_no_alarm(used):
    model, x = Weight(ones(4, dtype=HALF)), ones(4, dtype=HALF)
    # Unless unscaled, the step itself overflows: 4 x 2^15.
    optimizer = Wasteful(model.parameters(), lr=4.0, momentum=0.5, nesterov=used)
    options = {"loss_fn": total, "scale": 2.0**15, "optimizer": optimizer}
    report = first_nonfinite(model, x, **options)
    assert (report is not None) == used
    assert not used or (report.phase, report.operation) == ("step", "log")


def test_the_backward_pass_is_not_cast_by_the_callers_autocast():
    weight = ones(4, 4)

    def in_float32(x):
        with torch.autocast("cpu", enabled=False):
            return x @ weight

    options = {"loss_fn": total, "scale": 1e6}
    with torch.autocast("cpu", dtype=HALF):
        assert first_nonfinite(behind(in_float32), ones(2, 4), **options) is None


@pytest.mark.parametrize(
    ("loss_fn", "call"),
    [
        (lambda y: (y * 0).square().sum().sqrt(), "SqrtBackward0"),
        (lambda y: (y * 0).abs().pow(0.5).sum(), "PowBackward0"),
    ],
)
def test_a_derivative_without_bound_is_named(loss_fn, call):
    report = first_nonfinite(nn.Linear(4, 4), ones(2, 4), loss_fn=loss_fn)
    assert (report.phase, report.module, report.call) == ("backward", "loss_fn", call)
    assert report.kind in ("inf", "NaN") and "* 0" in report.code


@pytest.mark.parametrize("foreach", [False, True])
def test_adams_eps_in_float16_is_named_with_the_parameter(foreach):
    model, tokens, loss_fn = tiny_gpt()
    model.half()
    found = {}
    for eps in (1e-8, 1e-4):
        optimizer = torch.optim.Adam(model.parameters(), eps=eps, foreach=foreach)
        found[eps] = first_nonfinite(
            model, tokens, loss_fn=loss_fn, optimizer=optimizer
        )
        assert optimizer.state_dict()["state"] == {}
    report = found[1e-8]
    assert found[1e-4] is None
    assert report.phase == "step" and report.module in dict(model.named_parameters())
    assert "addcdiv" in report.operation
    assert first_nonfinite(model, tokens, loss_fn=loss_fn) is None


def test_the_step_of_master_weights_runs_on_copies():
    model, tokens, loss_fn = tiny_gpt()
    model.half()
    optimizer = MasterWeights(torch.optim.Adam, model, eps=1e-8)
    loss_fn(model(tokens)).backward()
    before = copy.deepcopy(optimizer.state_dict())
    held = [one.grad for one in model.parameters()]
    values = [one.clone() for one in held]
    options = {"loss_fn": loss_fn, "optimizer": optimizer, "scale": 8.0}
    assert first_nonfinite(model, tokens, **options) is None
    for one, wide, gradient, value in zip(
        model.parameters(), optimizer.param_groups[0]["params"], held, values
    ):
        assert one.grad is gradient is wide.grad and torch.equal(gradient, value)
    for one, other in zip(optimizer.state_dict()["kept"], before["kept"]):
        assert torch.equal(one, other)
    optimizer.param_groups[0].update(eps=0.0)  # unused positions: 0 / 0
    report = first_nonfinite(model, tokens, **options)
    assert (report.phase, report.kind) == ("step", "NaN")


def test_an_input_may_be_a_mask():
    mask = torch.tensor([0.0, -math.inf])
    assert first_nonfinite(Apply(lambda x: (x + 1).softmax(-1)), mask) is None


def test_all_is_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)
    )
    model[2].eval()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    optimizer = torch.optim.AdamW(model.parameters())
    total(model(torch.randn(8, 4))).backward()
    optimizer.step()
    held = {name: one.grad for name, one in model.named_parameters()}
    state = [model.state_dict(), optimizer.state_dict(), held, torch.get_rng_state()]
    before = copy.deepcopy(state)
    hooks = [len(module_hooks._global_forward_hooks)]
    hooks += [len(module_hooks._global_forward_pre_hooks)]
    for loss_fn in (total, lambda y: y.log().sum() * math.nan):
        first_nonfinite(model, torch.randn(8, 4), loss_fn=loss_fn, optimizer=optimizer)
        torch.set_rng_state(before[3])  # the line above draws its input
        first_nonfinite(model, ones(8, 4), loss_fn=loss_fn, optimizer=optimizer)
        after = [
            model.state_dict(),
            optimizer.state_dict(),
            held,
            torch.get_rng_state(),
        ]
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(one.grad is held[name] for name, one in model.named_parameters())
    assert [one.training for one in model] == [True, True, False, True]
    assert len(model[0]._forward_hooks) == 1 and len(seen) == 5
    assert hooks == [
        len(module_hooks._global_forward_hooks),
        len(module_hooks._global_forward_pre_hooks),
    ]


def test_dropout_is_drawn_as_the_next_step_would():
    torch.manual_seed(0)
    model, x = nn.Sequential(Weight(ones(64)), nn.Dropout(0.5)), ones(64)
    seen = []

    def loss_fn(y):
        seen.append(y.detach().clone())
        return y.sum()

    first_nonfinite(model, x, loss_fn=loss_fn)
    assert torch.equal(seen[0], model(x))


class Refuses(nn.Module):
    def forward(self, x):
        y = x.log()
        if not y.isfinite().all():
            raise ValueError("not finite")
        return y


def test_a_model_that_refuses_its_own_inf_is_explained():
    report = first_nonfinite(Refuses(), torch.zeros(2))
    assert (report.operation, report.module) == ("log", "Refuses")


def test_errors_of_the_model_come_through():
    before = len(module_hooks._global_forward_hooks)
    with pytest.raises(RuntimeError, match="mat1 and mat2|size"):
        first_nonfinite(nn.Linear(4, 2), ones(1, 3))
    assert len(module_hooks._global_forward_hooks) == before


def test_a_loss_that_sees_the_model_leaves_its_gradients_alone():
    model = nn.Linear(4, 2)
    first_nonfinite(
        model, ones(1, 4), loss_fn=lambda y: y.sum() + model.weight.square().sum()
    )
    assert model.weight.grad is None


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((3,), {}, "model was 3: give an nn.Module."),
        ((nn.Identity(),), {"loss_fn": 1}, "loss_fn was 1"),
        ((nn.Identity(),), {"scale": 0}, "scale was 0"),
        ((nn.Identity(),), {"scale": math.inf}, "scale was inf"),
        ((nn.Identity(),), {"optimizer": 1}, "without loss_fn"),
        ((nn.Identity(),), {"loss_fn": total, "optimizer": 1}, "optimizer was 1"),
        ((nn.Linear(4, 2), ones(1, 4)), {"loss_fn": lambda y: y}, "one number"),
        ((nn.Linear(4, 2), ones(1, 4)), {"loss_fn": lambda y: 1.0}, "one number"),
        ((nn.Identity(), ones(1, 4)), {"loss_fn": total}, "depends on the parameters"),
    ],
)
def test_bad_input_is_told_in_a_sentence(arguments, options, said):
    with pytest.raises(InputError) as error:
        first_nonfinite(*arguments, **options)
    assert said in str(error.value) and str(error.value).endswith(".")
