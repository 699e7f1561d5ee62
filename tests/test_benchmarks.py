"""The benchmark of rounding: what is timed, against what, and how it is told."""

import numpy as np
import pytest
import torch

from mpteach import benchmarks, libraries, records, rounding
from mpteach.benchmarks import OURS, TARGETS
from mpteach.errors import InputError
from mpteach.formats import FORMATS, get
from mpteach.rounding import round_to

N = 600


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Compile nothing, and see no GPU: neither is what these tests are about."""
    monkeypatch.setattr(rounding, "_compiled", lambda *_: None)
    monkeypatch.setattr(rounding, "WARM", 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def run(formats, elements=N, repeats=2):
    record, cases = benchmarks.begin(formats, elements, repeats, "mpteach bench")
    return benchmarks.run(record, cases)


def test_each_case_has_a_row_for_each_library_that_can():
    rows = run(["float16", "bfloat16", "float4_e2m1fn"]).data["rows"]
    found = {(row["format"], row["rounding"], row["library"]) for row in rows}
    for name in ("float16", "bfloat16", "float4_e2m1fn"):
        able = {lib for lib in libraries.LIBRARIES if libraries.holds(name, lib)}
        nearest = {
            lib for fmt, mode, lib in found if (fmt, mode) == (name, "nearest_even")
        }
        drawn = {lib for fmt, mode, lib in found if (fmt, mode) == (name, "stochastic")}
        assert nearest == {OURS, *able}
        assert drawn == {OURS, *(able & {"gfloat"})}
    assert {row["input"] for row in rows} == set(benchmarks.INPUTS)
    assert len(rows) == len(benchmarks.INPUTS) * len(found)


def test_a_row_holds_times_and_a_verdict():
    rows = run(["float16", "float6_e3m2fn"]).data["rows"]
    for row in rows:
        assert row["ns"] > 0 and row["copy_ns"] > 0 and row["ratio"] > 0
        aimed = row["library"] == OURS and row["format"] == "float16"
        assert row["target"] == (TARGETS[row["rounding"]] if aimed else None)
        assert row["met"] == (row["ratio"] <= row["target"] if aimed else None)


def test_every_format_of_at_most_16_bits_is_timed_unless_told_otherwise():
    assert set(benchmarks.NARROW) == {n for n, fmt in FORMATS.items() if fmt.bits <= 16}
    record = run(list(benchmarks.NARROW), elements=50, repeats=1)
    assert {row["format"] for row in record.data["rows"]} == set(benchmarks.NARROW)


def test_it_counts_cases_and_keeps_its_settings(tmp_path):
    record, cases = benchmarks.begin(["float16"], N, 1, "mpteach bench rounding")
    seen = []
    done = benchmarks.run(record, cases, lambda: seen.append(1))
    assert len(seen) == len(cases) == len(TARGETS) * len(benchmarks.INPUTS)
    done.save(tmp_path / "out.json")
    kept = records.load(tmp_path / "out.json")
    assert kept.settings["threads"] == 1 and kept.settings["elements"] == N
    assert kept.data == done.data


def test_a_format_named_twice_is_timed_once():
    twice, cases = benchmarks.begin(["float16", "bfloat16", "float16"], N, 1, "")
    assert twice.settings["formats"] == ["float16", "bfloat16"]
    assert len(cases) == len(set(cases)) == 2 * len(TARGETS) * len(benchmarks.INPUTS)


def test_torch_has_one_thread_meanwhile_and_its_own_again_after(monkeypatch):
    before, seen = torch.get_num_threads(), []
    once = benchmarks._rows

    def rows(*arguments):
        seen.append(torch.get_num_threads())
        return once(*arguments)

    monkeypatch.setattr(benchmarks, "_rows", rows)
    run(["bfloat16"])
    assert set(seen) == {1} and torch.get_num_threads() == before


@pytest.mark.parametrize("name", benchmarks.NARROW)
@pytest.mark.parametrize("mode", TARGETS)
def test_each_contender_rounds_into_the_buffer(name, mode):
    fmt = get(name)
    # Inside every format and above where e8m0 ends, so that all libraries agree.
    x = np.random.default_rng(0).uniform(0.3, 3, N).astype(np.float32)
    contenders, buffer = benchmarks._on_cpu(x, fmt, mode)
    low, high = (round_to(x, fmt, how) for how in ("down", "up"))
    for library, call, elements in contenders:
        buffer[:] = -1
        call()
        done = buffer[:elements]
        assert elements == (N // benchmarks.GFLOAT_SHARE if library == "gfloat" else N)
        assert (buffer[elements:] == -1).all()
        assert ((done == low[:elements]) | (done == high[:elements])).all(), library
        if mode == "nearest_even":
            assert np.array_equal(done, round_to(x, fmt)[:elements]), library


def test_an_unsigned_format_gets_no_negative_numbers(monkeypatch):
    seen = []
    once = benchmarks._on_cpu
    monkeypatch.setattr(
        benchmarks, "_on_cpu", lambda x, *rest: seen.append(x) or once(x, *rest)
    )
    run(["float8_e8m0fnu", "float16"])
    signs = [bool((x < 0).any()) for x in seen]
    assert signs == [False] * 4 + [True] * 4


def test_the_inputs_are_what_their_names_say():
    rng = np.random.default_rng(0)
    normal = benchmarks.INPUTS["normal"](rng, 4000)
    assert 0.9e-3 < normal.std() < 1.1e-3
    spread = benchmarks.INPUTS["log-uniform"](rng, 4000)
    assert 1e-12 <= abs(spread).min() < 1e-11 and 1e5 < abs(spread).max() <= 1e6
    assert 0.4 < (spread < 0).mean() < 0.6


def test_a_ratio_is_the_median_of_pairs_and_scaled_to_one_element():
    gfloat = benchmarks.Contender("gfloat", lambda: None, 10)
    pairs = [(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)]
    figures = benchmarks._figures(gfloat, pairs, 100, 1.5)
    assert figures["ratio"] == 10 * 1.0 and figures["ns"] == 2.0 / 10 * 1e9
    assert figures["copy_ns"] == 2.0 / 100 * 1e9 and figures["met"] is None
    ours = benchmarks.Contender(OURS, lambda: None, 100)
    assert benchmarks._figures(ours, pairs, 100, 1.5)["met"] is True
    assert benchmarks._figures(ours, [(1.0, 1.6)], 100, 1.5)["met"] is False


def test_contenders_take_turns_each_after_a_copy():
    log = []
    contenders = [
        benchmarks.Contender(name, lambda name=name: log.append(name), 1)
        for name in "ab"
    ]
    times = benchmarks._times(
        contenders, lambda: log.append("copy"), 2, benchmarks._seconds
    )
    assert log == ["a", "b", *["copy", "a", "copy", "b"] * 2]
    assert [len(pairs) for pairs in times] == [2, 2]


def test_on_a_gpu_it_is_the_same_with_tensors():
    # The tensors of a CPU stand in: what is timed is the same program.
    x = torch.linspace(0.3, 3, N)
    for mode in TARGETS:
        contenders, buffer = benchmarks._on_gpu(x, get("bfloat16"), mode)
        names = [contender.library for contender in contenders]
        assert names == ([OURS, "torch"] if mode == "nearest_even" else [OURS])
        for contender in contenders:
            buffer.fill_(-1)
            contender.call()
            assert torch.equal(buffer, buffer.bfloat16().float()) and buffer.min() > 0


def test_the_table_groups_by_rounding_and_says_met_or_missed():
    record = run(["float16", "float4_e2m1fn"])
    text = benchmarks.table(record)
    for row in record.data["rows"]:
        assert f"{row['ns']:.3f} ({row['ratio']:.3g})" in text
    heads = [line for line in text.splitlines() if line.endswith("ns an element")]
    assert heads == [f"cpu, {mode}, ns an element" for mode in TARGETS]
    verdicts = [line.split()[-1] for line in text.splitlines() if "float16 " in line]
    assert len(verdicts) == 4 and set(verdicts) <= {"met", "missed"}
    assert f"{N:,} numbers" in text and "one thread" in text


@pytest.mark.parametrize(
    ("formats", "elements", "repeats", "said"),
    [
        (["float17"], 10, 1, "unknown format 'float17'"),
        (["float16"], 0, 1, "elements was 0: give a number from 1"),
        (["float16"], 10, -3, "repeats was -3"),
        (["float16"], 10**20, 1, "to 1,000,000,000"),
    ],
)
def test_bad_input_is_told_before_anything_is_timed(formats, elements, repeats, said):
    with pytest.raises(InputError, match=said):
        benchmarks.begin(formats, elements, repeats, "")
