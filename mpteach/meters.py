"""What a run is measured by: a clock, memory, energy, and what float16 makes of gradients.

Energy is NVML's counter (NVIDIA Management Library, nvmlDeviceGetTotalEnergyConsumption).
"""

import ctypes
import statistics
import time

import torch
from torch import nn

from mpteach import formats
from mpteach.runs import Run, Settings

# Left out of timings: the first calls allocate, choose kernels and compile.
WARM_UP_STEPS = 10


def clock(device: str) -> float:
    """Return seconds since some moment, once `device` has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Meter:
    """Peak memory and energy from its making on; on a CPU it notes nothing."""

    def __init__(self, device: str) -> None:
        self._on = device == "cuda"
        if self._on:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._start = energy_joules()

    def note(self, run: Run) -> None:
        """Write the peaks into `run`, and add the energy since the last note."""
        if not self._on:
            return
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        run.peak_allocated_bytes = max(run.peak_allocated_bytes or 0, peaks[0])
        run.peak_reserved_bytes = max(run.peak_reserved_bytes or 0, peaks[1])
        now = energy_joules()
        if None not in (now, self._start):
            run.energy_joules = (run.energy_joules or 0.0) + round(now - self._start, 3)
            self._start = now


def energy_joules() -> float | None:
    """Return the energy the GPU has taken since its driver loaded, None where not told."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode()
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    failed = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle))
        or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
    )
    return None if failed else millijoules.value / 1000


def gradient_shares(model: nn.Module, scale: float = 1.0) -> dict[str, float]:
    """Shares of gradient elements, after division by `scale`, by what float16 makes of them.

    `zero` is exact zeros. `below_normal` and `below_subnormal` are elements other than zero
    under float16's smallest normal and smallest subnormal; the second is part of the first.
    """
    half = formats.get("float16")
    counts, total = torch.zeros(3, dtype=torch.int64), 0
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        size = parameter.grad.abs().float() / scale
        limits = (half.smallest_normal, half.smallest_subnormal)
        at_zero = (size == 0).sum()
        below = [(size < limit).sum() - at_zero for limit in limits]
        counts += torch.stack([at_zero, *below]).cpu()
        total += size.numel()
    names = ("zero", "below_normal", "below_subnormal")
    return dict(zip(names, (counts / total).tolist()))


def throughput(run: Run, settings: Settings, sequence: int) -> float | None:
    """Return tokens per second of the median step that is warm and was not sampled."""
    timed = [
        seconds
        for step, seconds in enumerate(run.seconds, start=1)
        if step > WARM_UP_STEPS and not settings.is_sampled(step)
    ]
    if not timed:
        return None
    return settings.batch * sequence / statistics.median(timed)
