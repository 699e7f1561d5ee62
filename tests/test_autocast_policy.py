"""The policy read off the installed torch, for both devices, with or without a GPU."""

import collections

import pytest
import torch

from mpteach.autocast import policy
from mpteach.errors import InputError


@pytest.mark.parametrize("device", policy.DEFAULT_DTYPES)
def test_each_operation_that_torch_registers_has_a_policy(device):
    names = torch._C._dispatch_get_registrations_for_dispatch_key(
        f"Autocast{device.upper()}"
    )
    found = policy.read(device)
    assert found.keys() == set(names) and len(found) > 100
    assert set(found.values()) <= policy.MEANING.keys()


@pytest.mark.skipif(torch.version.cuda is not None, reason="cuDNN's are special")
def test_a_build_without_cuda_has_no_kernel_that_cannot_be_followed():
    found = [*policy.read("cpu").values(), *policy.read("cuda").values()]
    assert "special" not in found


@pytest.mark.parametrize(
    ("name", "cpu", "cuda"),
    [
        ("mm", "lower_precision_fp", "lower_precision_fp"),
        ("linear", "lower_precision_fp", "lower_precision_fp"),
        ("scaled_dot_product_attention", "lower_precision_fp", "lower_precision_fp"),
        ("mv", None, "lower_precision_fp"),
        ("mse_loss", "fp32", "fp32"),
        ("exp", None, "fp32"),
        ("layer_norm", None, "fp32"),
        ("softmax.int", None, "fp32_set_opt_dtype"),
        ("sum", None, "fp32_set_opt_dtype"),
        ("prod", "fp32", "fp32_set_opt_dtype"),
        ("norm.Scalar", None, "fp32_append_dtype"),
        ("cat", "promote", None),
        ("addcmul", None, "promote"),
        ("index_put", None, "promote"),
        ("cross_entropy_loss", "fp32", None),
        ("nll_loss", "fp32", "fp32"),
        ("binary_cross_entropy", "fp32", "banned"),
        ("mm.out", None, None),
        ("addmm_", None, None),
        ("gelu", None, None),
    ],
)
def test_the_policies_are_those_of_torchs_source(name, cpu, cuda):
    """aten/src/ATen/autocast_mode.h and .cpp list these; the rest goes as it comes."""
    found = [policy.read(device).get(f"aten::{name}") for device in ("cpu", "cuda")]
    assert found == [cpu, cuda]


def test_every_policy_is_seen_on_cuda():
    seen = collections.Counter(policy.read("cuda").values())
    assert seen.keys() | {"special"} == policy.MEANING.keys() and seen["banned"] == 1


def test_reading_leaves_torch_as_it_was():
    policy._read.cache_clear()
    before = torch.is_autocast_enabled("cuda"), torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu"):
        policy.read("cpu")
        assert torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert (
        before
        == (False, False)
        == (
            torch.is_autocast_enabled("cuda"),
            torch.is_autocast_enabled("cpu"),
        )
    )


@pytest.mark.parametrize("device", ["tpu", "CPU", 0, ["cpu"], None])
def test_another_device_is_refused_in_a_sentence(device):
    with pytest.raises(InputError, match="device_type was .*: give cpu or cuda"):
        policy.read(str(device) if isinstance(device, list) else device)
    with pytest.raises(InputError, match="give cpu or cuda"):
        policy.require_device(device)


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        ("linear", True),
        ("layer_norm", True),
        ("mm", False),
        ("exp", False),
        ("silu_backward", False),  # has a kernel, and can be taken apart elsewhere
    ],
)
def test_a_composite_is_known(name, composite):
    func = policy.overload(f"aten::{name}")
    assert policy.is_composite(func, {"cpu"}) == composite


def test_what_has_a_kernel_on_one_device_is_taken_apart_on_others():
    func = policy.overload("aten::silu_backward")
    assert policy.is_composite(func, {"meta"}) and policy.is_composite(func, set())


def test_a_device_can_stand_in_for_another():
    own, other = policy.read("cpu"), policy.read("cuda")
    with policy.standing_in("cpu", "cuda"):
        assert policy.read("cpu") == other != own
    assert policy.read("cpu") == own
