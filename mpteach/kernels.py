"""Where the time of a piece of work goes: its kernels, by what their names say."""

import re
from collections.abc import Callable, Iterable

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from mpteach.meters import clock

OPTIMIZER, OTHER = "optimizer", "other"
# A kernel's name does not tell that it is the optimizer's: that is the caller's to say.
PLACES = ("products", "attention", "elementwise", OPTIMIZER, OTHER)
# The first that fits counts. Names of torch.compile's kernels hold all that they fuse,
# those of attention the library that they are made of.
KINDS = (
    ("elementwise", r"^triton_(?!tem_)"),
    ("attention", r"sdpa|fmha|flash|attention|cudnn::fusion"),
    ("products", r"gemm|gemv|nvjet|cutlass|xmma|cublas|triton_tem_|::\w*mm$|mkldnn::"),
    ("elementwise", r"at::native|aten::|cub::|memcpy|memset|^_fp8_"),
)


def kind(name: str) -> str:
    """Return which of `PLACES` the time of the kernel called `name` goes to."""
    found = (place for place, words in KINDS if re.search(words, name, re.IGNORECASE))
    return next(found, OTHER)


def by_place(seen: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the total time for each of `PLACES` of kernels (name, time)."""
    times = dict.fromkeys(PLACES, 0.0)
    for name, time in seen:
        times[kind(name)] += time
    return times


def kernels(work: Callable[[], object], device: str) -> list[tuple[str, float]]:
    """Call `work` and return (name, ms) of each kernel; on a CPU, of each operation."""
    on_gpu = device == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    clock(device)
    with profile(activities=[activity]) as seen:
        work()
        clock(device)
    if not on_gpu:
        return [(one.name, one.self_cpu_time_total / 1e3) for one in seen.events()]
    return [
        (one.name, one.time_range.elapsed_us() / 1e3)
        for one in seen.events()
        # A marked stretch of time spans kernels that are listed themselves.
        if one.device_type == DeviceType.CUDA and not one.is_user_annotation
    ]
