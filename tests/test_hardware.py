"""What counts as native, what a record keeps, and times, here and on faked machines."""

import json
import platform
import re
import subprocess
import sys
import types
import warnings

import pytest
import torch

from mpteach import hardware
from mpteach.errors import InputError


@pytest.fixture
def cpu(monkeypatch):
    def fake(*features, onednn=True):
        monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset(features))
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)

    return fake


@pytest.fixture
def gpu(monkeypatch):
    def fake(*capability):
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return fake


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ((5, 3), ["float32"]),
        ((7, 0), ["float32", "float16"]),
        ((7, 5), ["float32", "float16"]),
        ((8, 0), ["float32", "tfloat32", "bfloat16", "float16"]),
        ((8, 6), ["float32", "tfloat32", "bfloat16", "float16"]),
        ((8, 9), list(hardware.DTYPES)),
        ((9, 0), list(hardware.DTYPES)),
        ((10, 0), list(hardware.DTYPES)),
    ],
)
def test_a_gpu_multiplies_what_its_capability_has(gpu, capability, names):
    gpu(*capability)
    assert [d for d in hardware.DTYPES if hardware.native(d, "cuda")] == names


@pytest.mark.parametrize(
    ("features", "names"),
    [
        (["avx2", "avx512f", "avx512bw"], ["float32"]),
        (["avx512_bf16"], ["float32", "bfloat16"]),
        (["amx_bf16"], ["float32", "bfloat16"]),
        (["amx_bf16", "avx512_fp16"], ["float32", "bfloat16", "float16"]),
        (["amx_fp16"], ["float32", "float16"]),
        (["asimd", "bf16"], ["float32", "bfloat16"]),
        (["FEAT_BF16"], ["float32", "bfloat16"]),
        # Arm has the instructions; torch hands float16 to oneDNN on x86 alone.
        (["fphp", "asimdhp", "FEAT_FP16"], ["float32"]),
        ([], ["float32"]),
    ],
)
def test_a_cpu_multiplies_what_its_features_say(cpu, features, names):
    cpu(*features)
    assert [d for d in hardware.DTYPES if hardware.native(d, "cpu")] == names


def test_instructions_that_torch_does_not_use_do_not_count(cpu):
    cpu("avx512_bf16", "avx512_fp16", onednn=False)
    assert not hardware.native("bfloat16", "cpu")
    assert not hardware.native("float16", "cpu")
    assert hardware.native("float32", "cpu")


def test_without_a_gpu_nothing_is_native_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not any(hardware.native(dtype, "cuda") for dtype in hardware.DTYPES)


def test_a_gpu_of_another_maker_is_not_read_as_a_capability(gpu, monkeypatch):
    gpu(9, 4)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not hardware.native("bfloat16", "cuda")


@pytest.mark.parametrize("name", ["half", "fp16", "bfloat", ""])
def test_an_unknown_dtype(name):
    with pytest.raises(
        InputError, match=f"unknown dtype '{name}': choose from float32"
    ):
        hardware.native(name, "cpu")


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:1", ""])
def test_an_unknown_device(device):
    with pytest.raises(InputError, match="choose from cpu, cuda"):
        hardware.native("float32", device)
    with pytest.raises(InputError, match="choose from cpu, cuda"):
        hardware.machine(device)
    with pytest.raises(InputError, match="choose from cpu, cuda"):
        hardware.product_ratio("float16", device)


@pytest.mark.parametrize(
    "line", ["flags\t\t: fpu avx512_bf16 avx", "Features\t: bf16 fp"]
)
def test_features_come_from_cpuinfo(monkeypatch, line):
    text = f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n{line}\nbugs\t\t: none\n"
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: text)
    assert hardware.cpu_features() == frozenset(line.split(":")[1].split())
    assert hardware.cpu_name() == "Some CPU @ 2 GHz"


def test_features_come_from_sysctl_on_macos(monkeypatch):
    told = "hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_SME: 0\n"
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: "")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(
        hardware, "_output", lambda *words: "Apple M9" if "-n" in words else told
    )
    assert hardware.cpu_features() == {"FEAT_BF16"}
    assert hardware.cpu_name() == "Apple M9"


@pytest.mark.parametrize("has_list", [True, False])
def test_elsewhere_features_come_from_torch_where_it_has_them(monkeypatch, has_list):
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: "")
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    told = {"avx2": True, "amx_bf16": False, "num_physical_cores": 1}
    fake = types.SimpleNamespace(get_capabilities=lambda: told)
    monkeypatch.setattr(torch, "cpu", fake if has_list else types.SimpleNamespace())
    assert hardware.cpu_features() == (frozenset({"avx2"}) if has_list else frozenset())
    assert hardware.cpu_name()


def test_torch_and_the_system_agree_on_this_cpu():
    told = (
        torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    )
    for name in ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16"):
        if name in told and platform.system() == "Linux":
            assert (name in hardware.cpu_features()) == told[name]


def test_machine_keeps_versions_and_models():
    found = hardware.machine("cpu")
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["cpu"] and found["cores"] >= 1
    assert found["gpu"] is None and found["driver"] is None
    assert json.loads(json.dumps(found)) == found


def test_machine_names_nobody(monkeypatch):
    text = json.dumps(hardware.machine("cpu"))
    assert platform.node() not in text or len(platform.node()) < 3
    assert not re.search(r"/home|/Users|/root|/tmp", text)


def test_machine_of_a_gpu(gpu, monkeypatch):
    gpu(9, 0)
    about = types.SimpleNamespace(
        name="NVIDIA H200", total_memory=2**37, major=9, minor=0
    )
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(hardware, "_output", lambda *_: "580.95.05\n580.95.05")
    found = hardware.machine("cuda")
    assert found["gpu"] == "NVIDIA H200" and found["gpu_memory_bytes"] == 2**37
    assert found["driver"] == "580.95.05" and found["cuda"] == "13.0"
    assert found["gpu_capability"] == "9.0"
    assert set(found) == set(hardware.machine("cpu"))


def test_the_driver_without_nvidia_smi(monkeypatch):
    told = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  575.57.08  Sat\nGCC 13"
    monkeypatch.setattr(hardware, "_output", lambda *_: "")
    monkeypatch.setattr(hardware, "_text", lambda _: told)
    assert hardware._driver() == "575.57.08"
    monkeypatch.setattr(hardware, "_text", lambda _: "")
    assert hardware._driver() is None


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("nvidia-smi"),
        PermissionError("nvidia-smi"),
        subprocess.TimeoutExpired("nvidia-smi", 10),
        subprocess.CalledProcessError(9, "nvidia-smi"),
    ],
)
def test_a_command_that_fails_says_nothing(monkeypatch, error):
    def run(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert hardware._output("nvidia-smi") == ""


def test_machine_refuses_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    with pytest.raises(InputError, match="torch sees no GPU.: take 'cpu'"):
        hardware.machine("cuda")


def test_a_build_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert hardware.cuda_problem() == "this build of torch has no CUDA"


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.cuda_problem() == "torch sees no GPU"


def test_a_driver_that_is_too_old_warns_and_is_reported(monkeypatch):
    def is_available():
        warnings.warn(
            "CUDA initialization: The driver is too old. Update.", stacklevel=2
        )
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert hardware.cuda_problem() == "CUDA initialization: The driver is too old"
    assert hardware.gpu_capability() == (0, 0)


def test_a_gpu_that_fails_in_use_is_reported(gpu, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    gpu(3, 5)
    monkeypatch.setattr(torch, "ones", fail)
    monkeypatch.setattr(torch.cuda, "get_device_capability", fail)
    assert hardware.cuda_problem() == "CUDA error: no kernel image is available"
    assert hardware.gpu_capability() == (0, 0)


def test_products_without_instructions_are_slower():
    if not hardware.native("float16", "cpu"):
        assert hardware.product_ratio("float16", "cpu") > 1
    threads = torch.get_num_threads()
    assert 0.3 < hardware.product_ratio("float32", "cpu") < 3
    assert torch.get_num_threads() == threads


def test_a_ratio_divides_medians_after_the_warm_up(monkeypatch):
    times = iter([100.0, 1.0] * 3 + [2.0, 6.0] * 5 + [2.0, 500.0] * 4)
    monkeypatch.setattr(hardware, "_seconds", lambda *_: next(times))
    assert hardware.product_ratio("bfloat16", "cpu", size=8) == 3.0
    assert next(times, None) is None


@pytest.mark.parametrize(
    ("dtype", "device"),
    [("tfloat32", "cpu"), ("float8_e4m3fn", "cpu"), ("float8_e4m3fn", "cuda")],
)
def test_what_cannot_be_timed(dtype, device):
    with pytest.raises(
        InputError, match=f"{dtype} products cannot be timed on {device}"
    ):
        hardware.product_ratio(dtype, device)


@pytest.mark.parametrize("size", [0, -4, "3", 1.5, True, [8]])
def test_a_size_that_is_none(size):
    said = re.escape(f"size was {size!r}: give a whole number of at least 1")
    with pytest.raises(InputError, match=said):
        hardware.product_ratio("float16", "cpu", size)


def test_tf32_products_leave_the_setting_as_it_was():
    before = torch.get_float32_matmul_precision()
    hardware._product("tfloat32", "cpu", 4)()
    assert torch.get_float32_matmul_precision() == before


@pytest.fixture
def memory(monkeypatch, tmp_path):
    def fake(meminfo="", **cgroup):
        text = hardware._text
        monkeypatch.setattr(
            hardware, "_text", lambda p: meminfo if p.name == "meminfo" else text(p)
        )
        monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
        for name, content in cgroup.items():
            (tmp_path / f"memory.{name}").write_text(content)

    return fake


def test_free_memory_is_what_is_available(memory):
    memory("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n")
    assert hardware.free_memory_bytes() == 2048 * 1024


def test_a_container_limit_counts_and_its_cache_is_free(memory):
    free = "MemAvailable: 4194304 kB\n"
    memory(
        free, max="1000000\n", current="700000\n", stat="anon 1\ninactive_file 200000\n"
    )
    assert hardware.free_memory_bytes() == 500_000
    memory(free, max="max\n")
    assert hardware.free_memory_bytes() == 4194304 * 1024


def test_free_memory_without_meminfo_or_psutil(memory, monkeypatch):
    memory("")
    fake = types.SimpleNamespace(
        virtual_memory=lambda: types.SimpleNamespace(available=5)
    )
    monkeypatch.setitem(sys.modules, "psutil", fake)
    assert hardware.free_memory_bytes() == 5
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert hardware.free_memory_bytes() is None


def test_cores_without_affinity(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert hardware.cores() == 1


def test_importing_it_does_not_import_torch():
    code = "import sys, mpteach.hardware; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False\n"
