"""The record of a machine's ceilings, and `mpteach ceilings` as a person meets it."""

import json

import pytest
import torch

from mpteach import ceilings, cli, hardware, records
from mpteach.errors import InputError
from mpteach.hardware import ceilings as timing
from mpteach.hardware.roofline import Work
from tests.commands import refused


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(timing, "BLOCK_SECONDS", 1e-5)
    monkeypatch.setattr(timing, "ROW_SECONDS", 1e-5)
    monkeypatch.setattr(timing, "native_dtypes", _float32_and_bfloat16)


def _float32_and_bfloat16(device):
    hardware.native("float32", device)
    return ["float32", "bfloat16"]


def begin(sizes=(16, 32)):
    return ceilings.begin("cpu", list(sizes), "mpteach ceilings")


def test_a_complete_record(tmp_path):
    path, seen = tmp_path / "out.json", []
    record = ceilings.run(begin(), path, lambda: seen.append(1))
    loaded = records.load(path)
    assert loaded.data == record.data and ceilings.missing(loaded) == []
    assert len(seen) == len(loaded.data["rows"]) == len(ceilings.missing(begin()))
    assert loaded.settings["sizes"] == [16, 32] and loaded.seeds == [timing.SEED]
    assert list(loaded.data["unavailable"]) == ["tfloat32", "float16", "float8_e4m3fn"]


def test_an_interrupted_run_goes_on(tmp_path):
    path, seen = tmp_path / "out.json", []

    def stop():
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ceilings.run(begin(), path, stop)
    kept = records.resume(begin(), path)
    assert len(kept.data["rows"]) == 3
    done = ceilings.run(kept, path)
    assert done.data["rows"][:3] == kept.data["rows"] and not ceilings.missing(done)


def test_sizes_are_sorted_and_default_to_the_devices():
    assert begin([32, 16, 32]).settings["sizes"] == [16, 32]
    default = ceilings.begin("cpu", None, "").settings["sizes"]
    assert default == list(timing.SIZES["cpu"])


def test_seconds_and_rates_are_read_from_the_rows():
    record = ceilings.run(begin([16]))
    (row,) = [
        row
        for row in record.data["rows"]
        if ceilings.work_of(row) == Work("product", "float32", 1, 16)
    ]
    assert ceilings.seconds(record, "product", "float32", 16, 1) == row["seconds"]
    assert ceilings.flop_rate(row) == row["flop"] / row["seconds"]
    assert ceilings.byte_rate(row) == row["bytes"] / row["seconds"]
    with pytest.raises(InputError, match=r"no product in float32 of 32 x 32.*\[16\]"):
        ceilings.seconds(record, "product", "float32", 32)


def test_the_table_has_a_line_for_each_operation_and_dtype():
    record = ceilings.run(begin())
    rows = [
        {**row, "seconds": row["flop"] / 2e12 if row["flop"] else 1.0}
        for row in record.data["rows"]
    ]
    shown = ceilings.table(record.with_data([0], {**record.data, "rows": rows}))
    lines = shown.splitlines()
    assert lines[0].split() == ["product,", "TFLOP/s,", "n", "=", "16", "32"]
    assert lines[1].split() == ["float32", "2", "2"]
    assert "few rows x 32, TFLOP/s, rows =" in shown and "adamw, GB/s" in shown
    assert shown.endswith("float8_e4m3fn: this cpu has no products of it in hardware")


@pytest.fixture
def run(tmp_path, capsys):
    def call(*words, out="out.json"):
        kept = ["--out", str(tmp_path / out)] if out else []
        sizes = () if "--sizes" in words else ("--sizes", "16")
        status = cli.main(["ceilings", "--device", "cpu", *sizes, *kept, *words])
        return status, capsys.readouterr()

    return call


def test_it_prints_a_table_and_keeps_a_record(run, tmp_path):
    status, said = run()
    assert status == 0 and "layer_norm, GB/s" in said.out
    assert f"The record is in {tmp_path / 'out.json'}." in said.out
    record = records.load(tmp_path / "out.json")
    assert record.experiment == "ceilings" and record.sources
    before = (tmp_path / "out.json").read_bytes()
    assert run()[0] == 0 and (tmp_path / "out.json").read_bytes() == before


def test_json_is_the_record(run, tmp_path):
    status, said = run("--json", out=None)
    assert status == 0 and json.loads(said.out)["data"]["rows"]
    assert list(tmp_path.iterdir()) == []
    status, said = run("--json")
    assert status == 0 and said.out == (tmp_path / "out.json").read_text()


def test_bad_input_is_one_sentence(run, tmp_path, monkeypatch):
    refused(run("--device", "tpu"), "'tpu'", "cpu, cuda")
    refused(run("--sizes", "100"), "size was 100", "multiples of 16")
    refused(run("--sizes", "0"), "size was 0")
    refused(run("--sizes", "16" + 30 * "0"), "up to 1048576")
    refused(run("--sizes", "1048576"), "size 1048576 needs 16,384.0 GiB", "smaller")
    refused(run("--sizes", "many"), "invalid int", "mpteach ceilings --help")
    refused(run("--sizes"), "expected at least one argument")
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    refused(run("--device", "cuda"), "torch sees no GPU", "'cpu'")
    (tmp_path / "thesis.json").write_text("my thesis")
    refused(run(out="thesis.json"), "thesis.json")
    assert (tmp_path / "thesis.json").read_text() == "my thesis"


def test_other_sizes_are_another_record(run, tmp_path):
    run()
    before = (tmp_path / "out.json").read_bytes()
    refused(run("--sizes", "32"), "was begun with sizes [16]", "another --out")
    assert (tmp_path / "out.json").read_bytes() == before


def test_the_device_is_the_gpu_where_there_is_one(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "asked for it")
    assert cli.main(["ceilings"]) == 2
    assert "'cuda' cannot be used (asked for it)" in capsys.readouterr().err
