"""Our loss scalers against torch's: the same bits, and an error where torch has one."""

import inspect
import json
import types

import pytest
import torch
from torch import optim

from mpteach import loss_scaling
from mpteach import scaler_parity as parity
from mpteach.errors import InputError
from mpteach.loss_scaling import GradScaler, StaticScaler

TORCH = torch.amp.GradScaler
INF, NAN = float("inf"), float("nan")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ten_thousand_steps_have_the_bits_of_torch():
    done = parity.scaler_parity(10_000, "cpu", seed=0)
    assert done["mismatches"] == {} and done["first_mismatch"] is None
    assert done["steps"] == sum(done["optimizers"].values()) == 10_000
    assert set(done["optimizers"]) == set(parity.OPTIMIZERS)
    often = ("skipped", "growths", "backoffs", "static")
    assert min(done[what] for what in often) > 1000
    seldom = ("new scales", "states exchanged", "disabled")
    assert min(done[what] for what in seldom) > 100


def test_a_parity_run_is_plain_data_drawn_by_its_seed():
    first, again, other = (parity.scaler_parity(50, "cpu", seed) for seed in (1, 1, 2))
    assert first == again != other and json.loads(json.dumps(first)) == first
    with pytest.raises(InputError, match="choose cpu or cuda"):
        parity.scaler_parity(1, "tpu", 0)


MUTANTS = {
    "never skips": ("if self._clean[optimizer] else None", ""),
    "never backs off": ("_multiply(self.backoff_factor)", "_multiply(1)"),
    "multiplies in float32": ("self._scale.double() * factor", "self._scale * factor"),
    "grows to inf": ("scale if scale.isfinite() else self._scale", "scale"),
    "grows a step late": ("_tracker + 1 == self", "_tracker == self"),
    "counts on after a change": ("self._growth_tracker = 0\n\n", "pass\n\n"),
    "one finite optimizer will do": ("all(self._clean", "any(self._clean"),
    "divides": (
        "mul_(self._scale.double().reciprocal().float())",
        "div_(self._scale)",
    ),
    "overlooks NaN": ("grad.isfinite()", "(~grad.isinf())"),
    "looks at one gradient": ("torch.stack(flags).all()", "flags[0]"),
    "adds sparse duplicates up": ("grad._values()", "grad.coalesce().values()"),
    "takes float16 scales": ("* self._scale.to(", "* self._scale.half().to("),
    "forgets the tracker": (
        '"growth_interval", "_growth_tracker"',
        '"growth_interval"',
    ),
    "ignores new scales": ("if new_scale is not None:\n", "if False:\n"),
    "static adapts": ("super().update(self._scale)", "super().update()"),
}


@pytest.mark.parametrize(("right", "wrong"), MUTANTS.values(), ids=MUTANTS)
def test_parity_finds_a_scaler_that_is_wrong(right, wrong, monkeypatch):
    source = inspect.getsource(loss_scaling)
    assert right in source
    mutant = types.ModuleType("mutant")
    exec(source.replace(right, wrong), vars(mutant))
    monkeypatch.setattr(parity, "loss_scaling", mutant)
    assert parity.scaler_parity(800, "cpu", seed=4)["mismatches"]


def test_arguments_are_those_of_torch():
    ours, theirs = (
        [(one.name, one.default) for one in inspect.signature(make).parameters.values()]
        for make in (GradScaler, TORCH)
    )
    assert ours == theirs and "_amp_" not in inspect.getsource(loss_scaling)


def test_a_gradient_that_float16_loses_survives_when_scaled():
    tiny = 2.0**-30

    def gradient(scale):
        weight = torch.zeros((), requires_grad=True)
        scale((weight.half() * 1.0).float() * tiny).backward()
        return weight.grad.item()

    scaler = StaticScaler("cpu", 2.0**16)
    assert gradient(lambda loss: loss) == 0
    assert gradient(scaler.scale) == tiny * scaler.get_scale()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_scaled_loss_has_the_dtype_and_bits_of_torch(dtype, shape):
    loss = torch.full(shape, 1 / 3, dtype=dtype)
    ours, theirs = (make("cpu", 77777.7).scale(loss) for make in (GradScaler, TORCH))
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert GradScaler("cpu").scale(torch.tensor(NAN)).isnan()


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam, optim.Adagrad])
def test_fused_optimizers_agree_at_any_scale_once_unscaled(optimizer):
    def trained(make):
        weight = torch.linspace(-1, 1, 99).requires_grad_()
        fused, scaler = optimizer([weight], lr=0.1, fused=True), make("cpu", 1234.567)
        scaler.scale((weight * torch.linspace(-3, 5, 99)).sum()).backward()
        scaler.unscale_(fused)
        scaler.step(fused)
        return weight

    assert torch.equal(trained(GradScaler), trained(TORCH))


@pytest.mark.parametrize(("gradient", "start"), [(INF, 1e-30), (1.0, 1e30)])
def test_the_scale_goes_to_the_limits_of_torch(gradient, start):
    ours, theirs = (
        Training(make, init_scale=start, growth_interval=1)
        for make in (GradScaler, TORCH)
    )
    for _ in range(60):
        for side in (ours, theirs):
            side.backward(gradient)
            side.scaler.step(side.optimizer)
            side.scaler.update()
        assert ours.scaler.state_dict() == theirs.scaler.state_dict()
    ended = ours.scaler.get_scale()
    assert ended == 0 if gradient == INF else 2.0**126 < ended < INF


def test_disabled_changes_nothing():
    training = Training(GradScaler, enabled=False)
    scaler, loss = training.scaler, torch.ones(())
    assert scaler.scale(loss) is loss and not scaler.is_enabled()
    training.backward(INF)
    scaler.unscale_(training.optimizer)
    assert training.weight.grad.item() == INF
    assert scaler.step(training.optimizer, closure=lambda: 3.0) == 3.0
    assert scaler.step(training.optimizer, lambda: 4.0) == 4.0
    scaler.update()
    scaler.load_state_dict({})
    assert scaler.state_dict() == {} and scaler.get_scale() == 1.0


def test_step_returns_what_the_optimizer_does_and_none_when_skipped():
    training = Training(GradScaler)
    training.optimizer.step = lambda **kwargs: kwargs["given"]
    for gradient, returned in ((1.0, 5.0), (NAN, None)):
        training.backward(gradient)
        assert training.scaler.step(training.optimizer, given=5.0) == returned
        training.scaler.update()


class Training:
    """One weight, its optimizer and a scaler of ours or torch's."""

    def __init__(self, make, dtype=torch.float32, **arguments):
        self.scaler = make("cpu", **arguments)
        self.weight = torch.ones((), dtype=dtype, requires_grad=True)
        self.optimizer = optim.SGD([self.weight], lr=0.1)

    def backward(self, gradient=1.0):
        self.optimizer.zero_grad()
        self.scaler.scale(self.weight * gradient).backward()

    def calls(self, *names):
        """Call backward(), or methods of the scaler; then end with an update()."""
        for name in names:
            given = () if name == "update" else (self.optimizer,)
            self.backward() if name == "backward" else getattr(self.scaler, name)(
                *given
            )


def _half(make):
    Training(make, dtype=torch.float16).calls("backward", "unscale_")


def _started(make):
    training = Training(make)
    training.calls("backward")
    return training


def _without_weights(make):
    _started(make).scaler.step(optim.SGD([{"params": []}]))


def _fused_half(make):
    training = Training(make, dtype=torch.float16)
    training.optimizer = optim.SGD([training.weight], fused=True)
    training.calls("backward", "step", "update")


def _loaded(make, **changed):
    saved = TORCH("cpu").state_dict() | changed
    make("cpu").load_state_dict({key: saved[key] for key in saved if saved[key] != ""})


CALLED = {
    ("backward", "step", "step"): "update.. before step.. again",
    ("backward", "unscale_", "unscale_"): "update.. before unscale_.. again",
    ("backward", "step", "unscale_"): "update.. before unscale_.. again",
    ("backward", "update"): "step.optimizer. before update",
    ("update",): "scale.loss. and step.optimizer. before update",
    ("step",): "scale.loss. before unscale_.. and step",
    ("unscale_",): "scale.loss. before unscale_.. and step",
}
RAISES_IN_BOTH = {
    **{
        " ".join(names): (lambda make, names=names: Training(make).calls(*names), said)
        for names, said in CALLED.items()
    },
    "float16": (_half, "keep the weights in float32"),
    "closure": (
        lambda make: _started(make).scaler.step(None, closure=print),
        "takes no closure",
    ),
    "growth": (lambda make: make("cpu", growth_factor=1.0), "growth_factor=1.0.* > 1"),
    "backoff": (
        lambda make: make("cpu", backoff_factor=1.0),
        "backoff_factor=1.0.*1 >",
    ),
    "no state": (lambda make: make("cpu").load_state_dict({}), "key is missing"),
    "no tracker": (lambda make: _loaded(make, _growth_tracker=""), "key is missing"),
    "no weights": (_without_weights, "no weight has a gradient"),
    "a number": (lambda make: make("cpu").scale(1.0), "loss was 1.0: give a tensor"),
    "two scales": (
        lambda make: _started(make).scaler.update(torch.ones(2)),
        "one number above 0",
    ),
    "a scale to learn": (
        lambda make: _started(make).scaler.update(torch.ones((), requires_grad=True)),
        "one number above 0",
    ),
    "a scale too early": (lambda make: make("cpu").update(2.0), "before update"),
}


@pytest.mark.parametrize(
    ("misuse", "said"), RAISES_IN_BOTH.values(), ids=RAISES_IN_BOTH
)
def test_misuse_raises_as_in_torch_but_says_what_to_do(misuse, said):
    with pytest.raises((AssertionError, RuntimeError, ValueError, KeyError)):
        misuse(TORCH)
    with pytest.raises(InputError, match=said):
        misuse(GradScaler)


STRICTER = {
    **{
        f"init_scale {value}": (lambda make, v=value: make("cpu", v), "above 0")
        for value in (0.0, -1.0, INF, NAN, 1e39, "65536")
    },
    **{
        f"new_scale {value}": (
            lambda make, v=value: _started(make).scaler.update(v),
            "above 0",
        )
        for value in (0.0, -1.0, INF, NAN)
    },
    **{
        f"{name} {value}": (
            lambda make, n=name, v=value: make("cpu", **{n: v}),
            "needs",
        )
        for name, value in (
            ("growth_factor", NAN),
            ("backoff_factor", 0.0),
            ("backoff_factor", -0.5),
            ("growth_interval", 0),
            ("growth_interval", 2.5),
        )
    },
    "growth where disabled": (
        lambda make: make("cpu", 1.0, 0.5, enabled=False),
        "needs",
    ),
    "a bare closure": (
        lambda make: _closure_by_position(_started(make)),
        "takes no closure",
    ),
    "a word": (lambda make: make("cpu").scale("loss"), "loss was 'loss': give a tensor"),
    "several losses": (lambda make: make("cpu").scale([torch.ones(())]), "loss was .tensor"),
    "fused float16": (_fused_half, "keep the weights in float32"),
    "a dead scale": (lambda make: _loaded(make, scale=0.0), "above 0"),
    "nothing to unscale": (
        lambda make: _started(make).scaler.unscale_(optim.SGD([torch.ones(())])),
        "no weight has a gradient",
    ),
}


def _closure_by_position(training):
    training.scaler.step(training.optimizer, lambda: None)


@pytest.mark.parametrize(("misuse", "said"), STRICTER.values(), ids=STRICTER)
def test_ours_refuses_what_torch_lets_pass(misuse, said):
    misuse(TORCH)
    with pytest.raises(InputError, match=said):
        misuse(GradScaler)


@pytest.mark.parametrize(
    "options",
    [
        {"growth_factor": "2"},
        {"growth_factor": INF},
        {"growth_factor": None},
        {"backoff_factor": "x"},
    ],
)
def test_factors_that_are_no_numbers_are_refused(options):
    with pytest.raises(InputError, match="needs growth > 1 > backoff > 0"):
        GradScaler("cpu", **options)


@pytest.mark.parametrize(
    "change",
    [
        {"growth_factor": "x"},
        {"growth_interval": -1},
        {"_growth_tracker": None},
        {"scale": NAN},
    ],
)
def test_a_state_that_no_scaler_has_is_refused_and_changes_nothing(change):
    scaler = GradScaler("cpu")
    before = scaler.state_dict()
    with pytest.raises(InputError):
        scaler.load_state_dict({**before, "scale": 8.0, **change})
    with pytest.raises(InputError, match="a key is missing"):
        scaler.load_state_dict(None)
    assert scaler.state_dict() == before
