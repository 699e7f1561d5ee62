"""The probe's rows, and the proof that our autocast is torch's, bit for bit."""

import contextlib
import json
import logging

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mpteach import hardware
from mpteach.autocast import autocast, policy
from mpteach.autocast_probe import mixtures, parity, probe, treatments
from mpteach.autocast_probe.operations import OPERATIONS
from mpteach.autocast_probe.parity import HALVES, OUT_OF_REACH, same_bits
from mpteach.errors import InputError

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(scope="module", params=DEVICES)
def found(request):
    return parity.autocast_parity(request.param)


def test_at_least_sixty_operations_each_once():
    calls = [operation.call for operation in OPERATIONS]
    assert len(set(calls)) == len(calls) >= 60
    assert all(
        len(operation.inputs([FP32] * len(operation.sizes), "cpu"))
        for operation in OPERATIONS
    )


def test_every_probed_operation_is_equal_bit_for_bit(found):
    """Results, gradients and refusals; but those whose kernels call others."""
    assert {case["call"] for case in found["unequal"]} == OUT_OF_REACH[found["device"]]
    assert found["cases"] > 5 * 60
    json.dumps(found, allow_nan=False)


def test_a_gpts_loss_and_gradients_are_equal_bit_for_bit(found):
    for model in found["models"].values():
        assert (
            model["loss_equal"] and model["gradients_equal"] == model["gradients"] > 20
        )
        assert model["gradient_dtypes"] == ["float32"]


def test_both_cast_as_often_with_and_without_the_cache(found):
    matrices = 4 * parity.SHAPE.layers  # each with a bias; the head has none
    for casts in found["casts"].values():
        assert casts["cached"]["ours"] == casts["cached"]["torch"]
        assert casts["uncached"]["ours"] == casts["uncached"]["torch"]
        assert casts["cached"]["ours"]["weights"] == 2 * matrices + 1
        assert casts["uncached"]["ours"]["weights"] == 2 * (2 * matrices + 1)


@pytest.mark.parametrize("region", [autocast, torch.autocast])
@pytest.mark.parametrize("device", DEVICES)
def test_autograd_keeps_the_copies_until_backward(device, region):
    alive = parity.copies_alive(region(device, BF16), device)
    model, _, _ = parity.small_gpt("cpu")
    matrices = [p for p in model.parameters() if p.dim() == 2]
    positions = model.positions.weight  # looked up, never multiplied
    numbers = sum(p.numel() for p in matrices) - positions.numel()
    assert alive == {
        "in_region": 2 * numbers,
        "after_region": 2 * numbers,
        "after_backward": 0,
    }


def test_the_comparison_tells_what_differs():
    one, zero = torch.ones(2), torch.zeros(2)
    assert not same_bits(zero, -zero) and same_bits(zero / 0, -(zero / 0))
    assert not same_bits(one, one / 0) and not same_bits(one, torch.ones(3))
    assert not same_bits(torch.tensor([1, 2]), torch.tensor([1, 3]))
    assert parity.difference([one], [one]) == ""
    assert parity.difference([one], [one + 1e-7]) == "bits"
    assert parity.difference([one.half()], [one]) == "float16, torch float32"
    assert parity.difference([one, None], [one, one]) == "a gradient is missing"
    assert parity.difference("refused", [one]) == "one refuses"
    assert parity.difference("refused", "refused") == ""


def test_an_autocast_with_one_rule_missing_is_found_out(monkeypatch):
    """The proof can fail: without the rule for `mm`, its cases differ."""
    rules = {k: v for k, v in policy.read("cpu").items() if k != "aten::mm"}
    monkeypatch.setattr(policy, "read", lambda device: rules)
    calls = {case["call"] for case in parity.unequal_cases("cpu", BF16)}
    assert {"torch.mm(a, b)", "a.mm(b)"} <= calls and "torch.bmm(a, b)" not in calls


@pytest.fixture(scope="module")
def rows():
    return probe("cpu", BF16)


def test_rows_are_plain_data(rows):
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert len(rows) == sum(len(mixtures(o, BF16)) for o in OPERATIONS)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        ("torch.mm(a, b)", "16-bit"),
        ("F.linear(a, b, c)", "16-bit"),
        ("torch.gru_cell(a, b, c, d)", "16-bit inside"),
        ("F.mse_loss(a, b)", "float32"),
        ("F.cross_entropy(a, i)", "float32"),
        ("torch.index_copy(a, 0, i, b)", "widest"),
        ("torch.exp(a)", "as given"),
        ("F.softmax(a, -1)", "as given"),
        ("a.clone().addmm_(b, c)", "as given"),
        ("torch.mm(a, b, out=c)", "as given"),
    ],
)
def test_what_the_cpu_does(rows, call, word):
    assert treatments(rows)[call] == word


def test_a_row_tells_kernels_and_refusals(rows):
    by_inputs = {tuple(r["inputs"]): r for r in rows if r["call"] == "torch.dot(a, b)"}
    both = by_inputs["float32", "float32"]
    assert both["output"] == both["plain"] == ["float32"]
    assert both["kernels"] == ["dot(float32, float32)"] and both["refused"] == ""
    mixed = by_inputs["bfloat16", "float32"]
    assert mixed["output"] == [] and "same dtype" in mixed["refused"]


def test_another_device_is_refused_in_a_sentence():
    with pytest.raises(InputError, match="give cpu or cuda"):
        parity.autocast_parity("tpu")


@contextlib.contextmanager
def torch_casts_for_cuda(dtype):
    """torch.autocast("cuda") without its check for a GPU."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


def dtypes_on_fake_cuda(operation, dtypes, region):
    with FakeTensorMode():
        inputs = [
            torch.empty(size, dtype=dtype, device="cuda")
            for size, dtype in zip(operation.sizes, dtypes)
        ]
        try:
            with region:
                return [x.dtype for x in operation.run(inputs)]
        except Exception as error:  # some kernels cannot be faked: both sides then fail
            return "refused" if "unsafe" in str(error) else "failed"


@pytest.mark.parametrize("dtype", HALVES)
def test_cudas_dtypes_are_equal_on_tensors_without_data(dtype, caplog):
    caplog.set_level(logging.CRITICAL, logger="torch._subclasses.fake_tensor")
    seen = []
    for operation in OPERATIONS:
        for dtypes in mixtures(operation, dtype):
            regions = (torch_casts_for_cuda(dtype), autocast("cuda", dtype))
            torchs, ours = (
                dtypes_on_fake_cuda(operation, dtypes, region) for region in regions
            )
            assert ours == torchs, operation.call
            seen.append(ours)
    told = [one for one in seen if isinstance(one, list)]
    assert len(told) > 0.9 * len(seen) and seen.count("refused") == 3


@pytest.mark.parametrize("dtype", [FP32, "float16", None])
def test_another_dtype_cannot_be_probed(dtype):
    with pytest.raises(InputError, match="dtype was .*: give torch.float16"):
        probe("cpu", dtype)


def test_a_device_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    for ask in (parity.autocast_parity, lambda device: probe(device, FP16)):
        with pytest.raises(InputError, match="'cuda' cannot be used .torch sees no"):
            ask("cuda")
    with pytest.raises(InputError, match="device_type was 'tpu'"):
        probe("tpu", FP16)
