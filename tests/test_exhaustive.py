"""The sweep over all float32 patterns: what it reports, and that it can fail."""

import exhaustive
import numpy as np
import oracles
import pytest

from mpteach import rounding
from mpteach.formats import FORMATS

SLICE = ["--every", "1024", "--processes", "1"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(rounding, "WARM", rounding.WARM)  # the sweep sets it
    monkeypatch.setattr(exhaustive, "CHUNK", 2**12)


def test_it_covers_every_format_of_up_to_16_bits():
    assert set(exhaustive.NAMES) == {
        name for name, fmt in FORMATS.items() if fmt.bits <= 16
    }
    assert exhaustive.PATTERNS == 2**32


def test_agreement_is_status_0_with_a_line_for_each_library(capsys):
    formats = ["float16", "float4_e2m1fn"]
    assert exhaustive.main(["--formats", *formats, *SLICE]) == 0
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["float16", "numpy"], ["float16", "torch"], ["float4_e2m1fn", "ml_dtypes"],
    ]  # fmt: skip
    assert lines[0][2:] == ["4,194,304", "compared,", "0", "differ"]
    assert "chunk" in captured.err


def test_a_mismatch_is_status_1(monkeypatch, capsys):
    monkeypatch.setattr(oracles, "by_design", lambda name, library, x: np.isnan(x))
    assert exhaustive.main(["--formats", "float8_e8m0fnu", *SLICE]) == 1
    ml_dtypes, torch = capsys.readouterr().out.splitlines()
    assert not ml_dtypes.endswith(" 0 differ") and not torch.endswith(" 0 differ")


def test_without_formats_the_memory_of_steps_is_swept_too(monkeypatch, capsys):
    monkeypatch.setattr(exhaustive, "sweep", lambda *asked: True)
    found = {"first": [], "last": []}
    monkeypatch.setattr(exhaustive.memory_sweep, "rows", lambda: list(found))
    monkeypatch.setattr(exhaustive.memory_sweep, "misses", found.get)
    assert exhaustive.main([]) == 0
    assert capsys.readouterr().out == "memory: 2 steps traced, 0 miss a target\n"
    found["last"] = ["last: requested is off by 2.00%, more than 0.01%"]
    assert exhaustive.main(["--every", "1"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [*found["last"], "memory: 2 steps traced, 1 miss a target"]
    assert exhaustive.main(["--formats", "float16"]) == 0


def test_processes_and_one_process_find_the_same(capsys):
    for processes in ("1", "2"):
        every = ["--every", str(2**16), "--processes", processes]
        assert exhaustive.main(["--formats", "bfloat16", *every]) == 0
    first, second = capsys.readouterr().out.split("bfloat16         ml_dtypes")[1:]
    assert first.split() == second.split()


@pytest.mark.parametrize("arguments", [
    ["--formats", "fp16"], ["--every", "0"], ["--processes", "0"], ["--every", "x"],
])  # fmt: skip
def test_bad_input_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        exhaustive.main(arguments)
    assert left.value.code == 2 and "exhaustive: error: " in capsys.readouterr().err


def test_the_help_says_how_long_it_takes(capsys):
    with pytest.raises(SystemExit):
        exhaustive.main(["--help"])
    assert "minutes" in capsys.readouterr().out
