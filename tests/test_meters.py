"""Meters: shares against numpy, throughput by hand, energy from a driver made up."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mpteach import meters
from mpteach.runs import Run, Settings


def test_gradient_shares_are_numpys():
    generator = np.random.default_rng(0)
    gradients = np.exp2(generator.uniform(-40, 0, size=4096)).astype(np.float32)
    gradients[:100] = 0
    model = nn.Linear(4096, 1, bias=False)
    model.weight.grad = torch.from_numpy(gradients[None] * np.float32(2**16))
    shares = meters.gradient_shares(model, 2.0**16)
    smallest = np.finfo(np.float16).smallest_subnormal.astype(np.float32)
    normal = np.finfo(np.float16).smallest_normal.astype(np.float32)
    live = gradients > 0
    assert shares["zero"] == pytest.approx(100 / 4096, rel=1e-6)
    assert shares["below_normal"] == pytest.approx(
        (live & (gradients < normal)).mean(), rel=1e-6
    )
    below = (live & (gradients < smallest)).mean()
    assert below > 0 and shares["below_subnormal"] == pytest.approx(below, rel=1e-6)


def test_a_frozen_parameter_has_no_share():
    model = nn.Linear(4, 1)
    model.weight.grad = torch.zeros(1, 4)
    assert meters.gradient_shares(model)["zero"] == 1.0


def test_throughput_is_the_median_of_warm_steps_without_samples():
    settings = Settings(batch=3, gradient_every=6)
    # Step 12 is sampled; 11, 13, 14 and 15 count: median 0.3.
    seconds = [9.0] * 10 + [0.1, 9.0, 0.2, 0.4, 0.5]
    run = Run("fp32", 0, seconds=seconds)
    assert meters.throughput(run, settings, 5) == pytest.approx(3 * 5 / 0.3)
    run.seconds = seconds[:10]
    assert meters.throughput(run, settings, 5) is None


class Driver:
    """Stands in for NVML: a counter in millijoules, and calls that may fail."""

    def __init__(self, failing=None):
        self.counter, self.failing, self.asked = 0, failing, []

    def nvmlInit_v2(self):
        return int(self.failing == "init")

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        self.asked.append(uuid)
        return int(self.failing == "handle")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, counter):
        counter._obj.value = self.counter
        return int(self.failing == "energy")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as meters can tell; the fixture's value sets the driver."""
    cuda = torch.cuda
    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(cuda, name, lambda: None)
    named = SimpleNamespace(uuid="0a1b")
    monkeypatch.setattr(cuda, "get_device_properties", lambda _: named)
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda: 700)
    monkeypatch.setattr(cuda, "max_memory_reserved", lambda: 900)

    def use(driver):
        monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
        return driver

    return use


def test_energy_is_the_counters_difference_in_joules_and_adds_up(gpu):
    driver, run = gpu(Driver()), Run("bf16", 0)
    driver.counter = 5_000_250
    meter = meters.Meter("cuda")
    driver.counter += 1_500
    meter.note(run)
    assert run.energy_joules == 1.5 and driver.asked[0] == b"GPU-0a1b"
    assert (run.peak_allocated_bytes, run.peak_reserved_bytes) == (700, 900)
    driver.counter += 250
    meter.note(run)
    assert run.energy_joules == 1.75


def test_a_peak_noted_before_is_kept(gpu):
    gpu(Driver())
    run = Run("bf16", 0, peak_allocated_bytes=800, peak_reserved_bytes=800)
    meters.Meter("cuda").note(run)
    assert (run.peak_allocated_bytes, run.peak_reserved_bytes) == (800, 900)


@pytest.mark.parametrize("failing", ["init", "handle", "energy"])
def test_a_driver_that_does_not_tell_gives_none(gpu, failing):
    gpu(Driver(failing))
    run = Run("bf16", 0)
    meters.Meter("cuda").note(run)
    assert run.energy_joules is None and run.peak_allocated_bytes == 700


def test_a_missing_library_gives_none(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert meters.energy_joules() is None


def test_on_a_cpu_nothing_is_noted():
    run = Run("fp32", 0)
    meters.Meter("cpu").note(run)
    assert run == Run("fp32", 0)


def test_the_clock_waits_for_a_gpu_and_goes_forward(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    first = meters.clock("cpu")
    assert not waited and meters.clock("cuda") >= first and waited == [1]
