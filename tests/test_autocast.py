"""Regions of our autocast: nesting, disabling, the cache, what is left behind."""

import inspect
import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

import mpteach.autocast
from mpteach.autocast import autocast
from mpteach.autocast_probe.parity import same_bits
from mpteach.errors import InputError

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def product_dtype() -> torch.dtype:
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_the_module_can_be_projected():
    assert len(inspect.getsource(mpteach.autocast).splitlines()) <= 150


def test_defaults_are_torchs():
    ours, torchs = (
        inspect.signature(c.__init__).parameters for c in (autocast, torch.autocast)
    )
    assert list(ours) == list(torchs)
    assert [p.default for p in ours.values()] == [p.default for p in torchs.values()]


@pytest.mark.parametrize("region", [autocast, torch.autocast])
def test_regions_nest_and_can_be_switched_off(region):
    seen = []
    with region("cpu", FP16):
        seen.append(product_dtype())
        with region("cpu", enabled=False):
            seen.append(product_dtype())
            with region("cpu", BF16):
                seen.append(product_dtype())
            seen.append(product_dtype())
        with region("cpu"):  # the dtype of the region around it
            seen.append(product_dtype())
        seen.append(product_dtype())
    seen.append(product_dtype())
    with region("cpu"):
        seen.append(product_dtype())
    assert seen == [FP16, FP32, BF16, FP32, FP16, FP16, FP32, BF16]


def test_one_region_can_be_entered_again_and_inside_itself():
    region = autocast("cpu")
    for _ in range(2):
        with region, region:
            assert product_dtype() == BF16
        assert product_dtype() == FP32


def test_a_decorated_function_runs_in_the_region():
    @autocast("cpu", dtype=FP16)
    def product():
        """Multiply."""
        return product_dtype()

    assert [product(), product_dtype(), product()] == [FP16, FP32, FP16]
    assert product.__doc__ == "Multiply."


def test_an_exception_restores_everything():
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ZeroDivisionError):
        with autocast("cpu"), autocast("cpu", FP16, cache_enabled=False):
            weight @ weight
            raise ZeroDivisionError
    with pytest.raises(RuntimeError):
        with autocast("cpu"):
            torch.ones(2, 2) @ torch.ones(3, 3)
    here = mpteach.autocast._here
    assert product_dtype() == FP32 and _get_current_dispatch_mode() is None
    assert (here.depth, here.enabled, here.cache_enabled) == (0, frozenset(), True)
    assert here.dtypes == {"cpu": BF16, "cuda": FP16} and here.cache == {}
    assert torch.ones(2, requires_grad=True).exp().grad_fn is not None


def test_another_thread_is_outside():
    seen = []
    with autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append(product_dtype()))
        thread.start()
        thread.join()
    assert seen == [FP32]


def test_a_region_for_cuda_leaves_the_cpu_alone():
    with autocast("cuda"):
        assert product_dtype() == FP32


def test_the_cache_holds_each_weight_once_and_is_emptied_with_the_outermost():
    layer, cache = nn.Linear(3, 3), mpteach.autocast._here.cache
    with autocast("cpu"):
        with autocast("cpu"):
            layer(layer(torch.ones(1, 3)))
            assert [of for of, _ in cache.values()] == [layer.weight, layer.bias]
        assert len(cache) == 2
        with autocast("cpu", cache_enabled=False):
            first = torch.ones(3, 3, requires_grad=True)
            first @ first
        assert len(cache) == 2
    assert cache == {}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, 3),
        torch.ones(3, 3, requires_grad=True) * 1,
        torch.ones(3, 3, requires_grad=True, dtype=torch.float64),
        torch.ones(3, 3, requires_grad=True, dtype=FP16),
        torch.ones(3, 3, requires_grad=True)[:],
    ],
    ids=["no gradient", "no leaf", "float64", "float16", "a view"],
)
def test_only_float32_leaves_that_learn_are_cached(tensor):
    with autocast("cpu"):
        tensor @ tensor
        assert mpteach.autocast._here.cache == {}


def test_a_weight_first_used_without_gradient_still_learns():
    layer = nn.Linear(2, 2)
    with autocast("cpu"):
        with torch.no_grad():
            layer(torch.ones(1, 2))
        layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad.dtype == FP32


def test_inference_mode_casts_and_keeps_nothing():
    layer = nn.Linear(2, 2)
    with torch.inference_mode(), autocast("cpu"):
        assert layer(torch.ones(1, 2)).dtype == BF16
        assert mpteach.autocast._here.cache == {}


def recurrent() -> nn.Module:
    return nn.GRU(8, 6, num_layers=2, batch_first=True)


def convolutional() -> nn.Module:
    shape = nn.Unflatten(1, (1, 5))
    return nn.Sequential(shape, nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Flatten())


def attentive() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def gated() -> nn.Module:
    """Activations whose derivatives have kernels that could be taken apart."""
    return nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8), nn.Mish())


@pytest.mark.parametrize("inside", [False, True], ids=["after", "in the region"])
@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("make", [recurrent, convolutional, attentive, gated])
def test_other_models_are_equal_bit_for_bit(make, dtype, inside):
    """Also with dropout, and with the backward pass inside the region."""

    def gradients(region) -> list:
        torch.manual_seed(1)
        model, x = make(), torch.randn(3, 5, 8)
        with region:
            out = model(x)
            out = out[0] if isinstance(out, tuple) else out
            loss = out.float().square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters())]

    pairs = zip(
        gradients(autocast("cpu", dtype)), gradients(torch.autocast("cpu", dtype))
    )
    assert all(same_bits(ours, torchs) for ours, torchs in pairs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_region_inside_what_is_checkpointed_is_there_again(reentrant):
    def gradients(region) -> list:
        torch.manual_seed(1)
        model, x = nn.Sequential(gated(), nn.Dropout()), torch.randn(3, 8)

        def run(x):
            with region("cpu"):
                return model(x)

        checkpoint(run, x.requires_grad_(), use_reentrant=reentrant).sum().backward()
        return [x.grad, *(p.grad for p in model.parameters())]

    pairs = zip(gradients(autocast), gradients(torch.autocast), strict=True)
    assert all(same_bits(ours, torchs) for ours, torchs in pairs)


def test_mixed_16_bit_inputs_cannot_be_promoted():
    for region in (autocast, torch.autocast):
        with pytest.raises((InputError, RuntimeError)), region("cpu", BF16):
            torch.cat([torch.ones(2, dtype=FP16), torch.ones(2, dtype=BF16)])
    with autocast("cpu", BF16):
        with pytest.raises(InputError, match="an input was torch.float16: give"):
            torch.cat([torch.ones(2, dtype=FP16), torch.ones(2, dtype=BF16)])


@pytest.mark.parametrize("device", ["tpu", "mps", "CPU", 0, None])
def test_another_device_is_refused_in_a_sentence(device):
    with pytest.raises(InputError, match="device_type was .*: give cpu or cuda"):
        autocast(device)


@pytest.mark.parametrize("dtype", [FP32, torch.float64, torch.int8, "bfloat16", 16])
def test_another_dtype_is_refused_in_a_sentence(dtype):
    with pytest.raises(InputError, match="give torch.float16 or torch.bfloat16"):
        autocast("cpu", dtype)
