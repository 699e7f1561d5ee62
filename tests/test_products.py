"""What a product is summed in: each exhibit tells known accumulators apart."""

import json
import math

import numpy as np
import pytest
import torch

from mpteach import accumulation, hardware, products, records
from mpteach.errors import InputError
from mpteach.formats import FloatFormat
from mpteach.products import PLACEMENTS, PRODUCTS

SMALL = {
    **products.SETTINGS,
    "lengths": [16, 64, 512],
    "tile": 16,
    "shapes": [[4, 3, 64]],
    "long": [2.0**9, 2**9],
    "powers": 27,
    "terms": 32,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(products, "SETTINGS", SMALL)


def begin():
    return products.begin("cpu", "mpteach accumulate")


@pytest.fixture
def summed_in(monkeypatch):
    """Let every product be summed one by one in the given format and mode."""

    def put(fmt, mode="nearest_even"):
        def entry(product, x, y, rows, device):
            return float(
                accumulation.dot(x, y, product.result, "naive", fmt, rounding=mode)
            )

        monkeypatch.setattr(products, "_entry", entry)

    return put


def survival(name, placement):
    return products.EXHIBITS["survival"].row((name, placement), SMALL)


def test_a_complete_record_holds_every_exhibit(tmp_path):
    path, rows = tmp_path / "out.json", []
    todo = products.missing(begin())
    record = products.run(begin(), path, lambda: rows.append(1))
    assert len(rows) == sum(map(len, todo.values())) > 20
    loaded = records.load(path)
    assert loaded.data == record.data and loaded.seeds == [0]
    assert loaded.settings["lengths"] == SMALL["lengths"]
    assert set(loaded.data) == {"unavailable", *products.EXHIBITS}
    assert products.missing(loaded) == {}
    assert list(loaded.data["unavailable"]) == ["float16-in-float16"]


def test_an_interrupted_run_goes_on_with_the_next_exhibit(tmp_path):
    path, rows = tmp_path / "out.json", []

    def stop():
        rows.append(1)
        if len(rows) == len(products.missing(begin())["ones"]) + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        products.run(begin(), path, stop)
    kept = records.resume(begin(), path)
    assert set(kept.data) == {"unavailable", "ones"}
    before = kept.data["ones"]
    assert list(products.missing(kept)) == ["order", "flags", "survival"]
    assert products.run(kept, path).data["ones"] == before


def test_a_device_that_is_not_there(monkeypatch):
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        products.begin("tpu", "")
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    with pytest.raises(InputError, match="device 'cuda' cannot be used"):
        products.begin("cuda", "")


def test_what_a_device_cannot_multiply_is_said(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("addmm not implemented\nfor this")

    assert products.unavailable("bfloat16", "cpu") == ""
    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    said = products.unavailable("float8_e4m3fn", "cpu")
    assert said.startswith("float8_e4m3fn: this cpu cannot multiply it (addmm not")
    assert "\n" not in said


def test_sums_of_ones_against_the_running_sum():
    rows = {
        (row["name"], row["kind"]): row["values"]
        for row in products.run(begin()).data["ones"]
    }
    exact = [float(n) for n in SMALL["lengths"]]
    assert rows["bfloat16", "running_sum"] == [16, 64, 256]
    assert rows["float8_e4m3fn", "running_sum"] == [16, 16, 16]
    assert rows["float8_e4m3fn", "float32_accumulator"] == exact
    for dtype in ("float16", "bfloat16"):
        assert rows[dtype, "float32_accumulator"] == exact
        for kind in ("sum", "cumsum", "product of 1 x n", "product of 16 x n"):
            assert len(rows[dtype, kind]) == len(exact)
    assert rows["float32", "product of 16 x n"] == exact


def test_numbers_that_json_lacks_are_text():
    settings = {**SMALL, "lengths": [70000]}
    row = products.EXHIBITS["ones"].row(("float16", "sum"), settings)
    assert row["values"] == ["inf"] and float(row["values"][0]) == math.inf


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_is_left_between_2_k_and_its_opposite(placement):
    for k in (0, 9, 26):
        x, y, expected = products.sandwich(placement, k, 32, 7)
        assert max(x * y) == max(2.0**k, PLACEMENTS[placement](32)[3]) / 4**7
        assert math.fsum(x * y) * 4**7 == expected > 0
        assert max(abs(x)) / min(abs(x[x != 0])) <= 2.0**15
    kept = np.flatnonzero(products.sandwich("many", 9, 32)[0])
    assert len(kept) == 32
    apart = np.flatnonzero(products.sandwich("apart", 9, 32)[0])
    assert apart.tolist() == [0, 16, 31]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("fraction_bits", [10, 13, 23])
def test_the_accumulator_is_as_wide_as_what_survives(summed_in, name, fraction_bits):
    fmt = FloatFormat("accumulator", 8, fraction_bits)
    summed_in(fmt)
    for placement in ("together", "next", "apart", "many"):
        assert survival(name, placement)["largest_power"] == fraction_bits
    row = survival(name, "apart-1.75")
    assert row["largest_power"] == fraction_bits - 2 and row["beyond"] == 2
    summed_in(fmt, "toward_zero")
    assert survival(name, "apart")["largest_power"] == fraction_bits
    assert survival(name, "apart-1.75")["beyond"] == 1.5


def test_nothing_survives_and_everything_survives():
    assert products.survives([0.0, 1.0], 1.0) is None
    assert products.survives([1.0, 1.0, "nan"], 1.0) == 1
    assert products.survives([1.0, 1.0], 1.0) == 1


def test_the_order_of_terms_tells_float32_from_the_dtype(summed_in):
    cases = dict.fromkeys(PRODUCTS)
    case = ("float16", 2048.0, 2048)
    assert case in products.EXHIBITS["order"].cases(SMALL, list(cases))
    long = products.EXHIBITS["order"].cases(SMALL, list(cases))[-1]
    assert long == ("bfloat16", *SMALL["long"])
    for accumulator, expected in (("float16", 2048), ("float32", 4096)):
        summed_in(accumulator)
        row = products.EXHIBITS["order"].row(case, SMALL)
        assert row["result"] == expected
        assert (row["running_sum"], row["float32_accumulator"]) == (2048, 4096)


@pytest.mark.parametrize("kind", ["ones", "uniform", "normal"])
@pytest.mark.parametrize("flag", products.FLAGS)
def test_errors_with_a_flag_off_and_on(flag, kind):
    row = products.EXHIBITS["flags"].row((flag, kind, [4, 3, 64]), SMALL)
    # On a CPU these flags change nothing.
    assert row["differing"] == 0 and row["on"] == row["off"]
    assert row["rounded"]["max_ulps"] <= 0.5
    assert row["rounded"]["rms_ulps"] <= row["off"]["rms_ulps"] + 1e-12
    assert (row["off"]["relative"] == 0) == (kind == "ones")


def test_errors_are_counted_in_steps_of_the_result():
    exact = np.array([1.0, 1 + 2.0**-11])
    got = np.array([1.0 + 2.0**-10, 1.0])
    errors = products._errors(got, exact, "float16")
    assert errors["max_ulps"] == 1
    assert errors["rms_ulps"] == pytest.approx(math.sqrt((1 + 0.25) / 2))
    assert products._errors(exact * math.inf, exact, "float16")["max_ulps"] == "inf"


def test_flags_are_put_back(monkeypatch):
    matmul = torch.backends.cuda.matmul
    before = {flag: getattr(matmul, flag) for flag in products.FLAGS}
    for flag, was in before.items():
        with pytest.raises(KeyError), products._flag(flag, not was):
            assert getattr(matmul, flag) is not was
            raise KeyError
    assert before == {flag: getattr(matmul, flag) for flag in products.FLAGS}
    assert before[products.ACCUMULATION_FLAG] is False


def test_flags_are_tried_on_cuda_alone():
    cases = products.EXHIBITS["flags"].cases
    assert cases(SMALL, []) == []
    on_gpu = cases({**SMALL, "device": "cuda"}, [])
    assert len(on_gpu) == len(products.FLAGS) * 3 * len(SMALL["shapes"])


def test_the_table_shows_each_exhibit():
    record = products.run(begin())
    row = products.EXHIBITS["flags"].row(
        ("allow_fp16_accumulation", "normal", [4, 3, 64]), SMALL
    )
    shown = products.table(record)
    assert "CUDA's flags change nothing" in shown
    assert "float16-in-float16: allow_fp16_accumulation is a flag" in shown
    again = record.with_data([0], {**record.data, "flags": [row]})
    (line,) = [one for one in products.table(again).splitlines() if "4x3x64" in one]
    assert line.split()[-1] == "0"
    assert f"{row['off']['rms_ulps']:.4g}" in line
    for line in shown.splitlines():
        if line.startswith("bfloat16, running_sum"):
            assert line.split()[2:] == ["16", "64", "256"]


def test_the_whole_record_is_small():
    row = products.EXHIBITS["flags"].row(
        ("allow_bf16_reduced_precision_reduction", "normal", [4, 3, 64]), SMALL
    )
    rows = 3 * 3 * len(products.SETTINGS["shapes"])
    assert len(products.run(begin()).text()) + rows * len(json.dumps(row)) < 60_000
