"""What a machine computes in hardware, how fast, and what of it a record keeps.

"Native" means that the processor multiplies the format itself and that torch uses it.
Sources: NVIDIA CUDA C++ Programming Guide, table "Arithmetic Instructions", for the
compute capabilities; Intel's and Arm's manuals for the names of the instructions;
PyTorch's `ATen/native/mkldnn`, where CPU products of 16 bits go to oneDNN (float16 on
x86 alone).
"""

import contextlib
import os
import platform
import re
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from mpteach.errors import InputError

DEVICES = ("cpu", "cuda")

# The first compute capability whose tensor cores multiply the format. (Capability 5.3
# adds and multiplies float16 as well, without being faster in a product.)
FIRST_CAPABILITY = {
    "float32": (1, 0),
    "tfloat32": (8, 0),
    "bfloat16": (8, 0),
    "float16": (7, 0),
    "float8_e4m3fn": (8, 9),
}
DTYPES = tuple(FIRST_CAPABILITY)

# One of these in the list of CPU features is enough, spelt as by Linux or macOS.
_CPU_FEATURES = {
    "tfloat32": frozenset(),
    "bfloat16": frozenset({"avx512_bf16", "amx_bf16", "bf16", "FEAT_BF16"}),
    "float16": frozenset({"avx512_fp16", "amx_fp16"}),
    "float8_e4m3fn": frozenset(),
}

# Small enough for a CPU that has to emulate float16, large enough to keep a GPU busy.
_PRODUCT_SIZE = {"cpu": 256, "cuda": 4096}
_RUNS, _WARM_UP = 12, 3
_CGROUP = Path("/sys/fs/cgroup")


def native(dtype: str, device: str) -> bool:
    """Return whether `device` multiplies matrices of `dtype` in hardware.

    `device` is "cpu" or "cuda", `dtype` one of `DTYPES`; InputError for another name.
    Without a usable GPU nothing is native on "cuda".
    """
    _require_known(dtype, device)
    if device == "cuda":
        return gpu_capability() >= FIRST_CAPABILITY[dtype]
    if dtype == "float32":
        return True
    return _onednn() and bool(_CPU_FEATURES[dtype] & cpu_features())


def product_ratio(dtype: str, device: str, size: int | None = None) -> float:
    """Return how many times as long a product takes in `dtype` as in float32 here.

    The product is [size, size] @ [size, size]; size is 256 on a CPU and 4096 on a GPU
    unless given. Both are warmed up, synchronised and timed in turns, on one core where
    it is the CPU; the medians are compared. Raises InputError for a size that is no
    positive int, and for what `device` cannot time: float8, and TF32 on a CPU.
    """
    _require_known(dtype, device)
    if dtype == "float8_e4m3fn" or (dtype == "tfloat32" and device == "cpu"):
        raise InputError(
            f"{dtype} products cannot be timed on {device}: take a 16-bit dtype."
        )
    size = _PRODUCT_SIZE[device] if size is None else size
    if type(size) is not int or size < 1:
        raise InputError(f"size was {size!r:.60}: give a whole number of at least 1.")
    plain, other = _product("float32", device, size), _product(dtype, device, size)
    with one_thread():
        times = [
            (_seconds(plain, device), _seconds(other, device)) for _ in range(_RUNS)
        ]
    base, own = zip(*times[_WARM_UP:], strict=True)
    return statistics.median(own) / statistics.median(base)


def machine(device: str) -> dict[str, str | int | None]:
    """Return what a record keeps of this machine: versions and models, nobody's name.

    A value is None where it is unknown or, for the GPU's, where `device` is "cpu".
    Raises InputError for another device and for "cuda" without a usable GPU.
    """
    import torch

    _require_known("float32", device)
    gpu: dict[str, str | int | None] = dict.fromkeys(
        ("cuda", "cudnn", "driver", "gpu", "gpu_memory_bytes", "gpu_capability")
    )
    if device == "cuda":
        gpu = _gpu()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        **gpu,
    }


def cuda_problem() -> str:
    """Return why torch cannot compute on a GPU here, or "" where it can.

    It computes one sum on the GPU: a broken driver may show a device and fail in use.
    """
    import torch

    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                torch.ones(1, device="cuda").add(1).item()
                return ""
        except (RuntimeError, AssertionError) as error:
            return _first_sentence(str(error))
    return _first_sentence(str(caught[-1].message)) if caught else "torch sees no GPU"


def gpu_capability() -> tuple[int, int]:
    """Return the GPU's CUDA compute capability, (0, 0) without a usable GPU."""
    import torch

    # On AMD's GPUs the same call returns another numbering.
    if torch.version.cuda is None:
        return (0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken driver warns; cuda_problem() says so
        try:
            found = torch.cuda.is_available() and torch.cuda.get_device_capability()
        except (RuntimeError, AssertionError):
            found = False
    return found or (0, 0)


def cpu_features() -> frozenset[str]:
    """Return the instruction sets of the CPU, named as the system names them.

    Linux: `flags` or `Features` of /proc/cpuinfo; macOS: the `FEAT_...` that sysctl
    gives as 1; elsewhere torch's own list, where this torch has one.
    """
    if text := _cpuinfo():
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        return frozenset(found[1].split()) if found else frozenset()
    if platform.system() == "Darwin":
        lines = _output("sysctl", "hw.optional.arm")
        return frozenset(re.findall(r"(FEAT_\w+): 1\b", lines))
    import torch

    # torch 2.13 has this list, torch 2.11 need not.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return frozenset(name for name, has in capabilities.items() if has is True)


def cpu_name() -> str:
    """Return the CPU's model as the system names it, at least its architecture."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    if found:
        return found[1].strip()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory_bytes() -> int | None:
    """Return how many bytes programs may still take, None where nobody can tell.

    Inside a container its limit counts (control groups, version 2).
    """
    told = _text(Path("/proc/meminfo"))
    found = re.search(r"^MemAvailable:\s*(\d+) kB", told, re.MULTILINE)
    free = int(found[1]) * 1024 if found else _psutil_free_bytes()
    limit = _cgroup_free_bytes()
    return min(free, limit) if free is not None and limit is not None else free


def _require_known(dtype: str, device: str) -> None:
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}: choose from {', '.join(DTYPES)}.")
    if device not in DEVICES:
        raise InputError(
            f"unknown device {device!r}: choose from {', '.join(DEVICES)}."
        )


def _onednn() -> bool:
    import torch

    return torch.backends.mkldnn.is_available()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch to one CPU core: threads that wait for a busy core distort a ratio."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Let float32 products use TF32, or not, for a while."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _product(dtype: str, device: str, size: int) -> Callable[[], None]:
    import torch

    storage = torch.float32 if dtype == "tfloat32" else getattr(torch, dtype)
    a = torch.ones(size, size, dtype=storage, device=device)

    def multiply() -> None:
        with tf32(dtype == "tfloat32"):
            torch.mm(a, a)

    return multiply


def _seconds(work: Callable[[], None], device: str) -> float:
    import torch

    synchronise = torch.cuda.synchronize if device == "cuda" else torch.cpu.synchronize
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def _gpu() -> dict[str, str | int | None]:
    import torch

    if problem := cuda_problem():
        raise InputError(f"device 'cuda' cannot be used ({problem}): take 'cpu'.")
    about = torch.cuda.get_device_properties(0)
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
        "gpu": about.name,
        "gpu_memory_bytes": about.total_memory,
        "gpu_capability": f"{about.major}.{about.minor}",
    }


def _driver() -> str | None:
    asked = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    told = asked or _text(Path("/proc/driver/nvidia/version"))
    found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)*\b", told)
    return found[0] if found else None


def _output(*command: str) -> str:
    """Return what `command` prints, "" where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _cpuinfo() -> str:
    return _text(Path("/proc/cpuinfo"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _psutil_free_bytes() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available


def _cgroup_free_bytes() -> int | None:
    """Return what the container's limit leaves; the file cache counts as free."""
    limit, used, parts = (
        _text(_CGROUP / f"memory.{name}") for name in ("max", "current", "stat")
    )
    if not limit.strip().isdigit() or not used.strip().isdigit():
        return None
    cache = re.search(r"^inactive_file (\d+)", parts, re.MULTILINE)
    return int(limit) - int(used) + (int(cache[1]) if cache else 0)


def _first_sentence(message: str) -> str:
    return re.split(r"\.\s|\n|\(Triggered", message.strip())[0].rstrip(".")
