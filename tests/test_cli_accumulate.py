"""`mpteach accumulate` as a person meets it: the record, the table, bad input."""

import json

import pytest
import torch
from filelock import FileLock

from mpteach import cli, hardware, products, records
from tests.commands import refused
from tests.test_products import SMALL


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(products, "SETTINGS", SMALL)


@pytest.fixture
def accumulate(tmp_path, capsys):
    def call(*words, out="out.json"):
        kept = ["--out", str(tmp_path / out)] if out else []
        status = cli.main(["accumulate", "--device", "cpu", *kept, *words])
        return status, capsys.readouterr()

    return call


def test_it_prints_a_table_and_keeps_a_record(accumulate, tmp_path):
    status, said = accumulate()
    assert status == 0 and "bfloat16, running_sum" in said.out
    assert f"The record is in {tmp_path / 'out.json'}." in said.out
    record = records.load(tmp_path / "out.json")
    assert record.experiment == "accumulation" and record.sources
    assert record.command.startswith("mpteach accumulate --device cpu --out")


def test_without_out_nothing_is_kept(accumulate, tmp_path):
    status, said = accumulate(out=None)
    assert status == 0 and "The record" not in said.out
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_record(accumulate, tmp_path):
    status, said = accumulate("--json")
    assert status == 0 and said.out == (tmp_path / "out.json").read_text()
    status, said = accumulate("--json", out=None)
    assert status == 0 and json.loads(said.out)["data"]["ones"]


def test_a_second_call_adds_nothing(accumulate, tmp_path):
    accumulate()
    before = (tmp_path / "out.json").read_bytes()
    status, said = accumulate()
    assert status == 0 and "row" not in said.err
    assert (tmp_path / "out.json").read_bytes() == before


def test_ctrl_c_keeps_the_finished_exhibits(accumulate, tmp_path, monkeypatch):
    whole = products.EXHIBITS["survival"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(products.EXHIBITS, "survival", whole._replace(row=interrupt))
    status, said = accumulate()
    assert status == 130 and said.err.endswith("Stopped.\n")
    assert "survival" not in records.load(tmp_path / "out.json").data
    monkeypatch.setitem(products.EXHIBITS, "survival", whole)
    assert accumulate()[0] == 0
    assert records.load(tmp_path / "out.json").data["survival"]


def test_a_record_of_other_settings_is_kept(accumulate, tmp_path, monkeypatch):
    accumulate()
    before = (tmp_path / "out.json").read_bytes()
    monkeypatch.setitem(SMALL, "tile", 32)
    refused(accumulate(), "was begun with tile 16", "another --out")
    assert (tmp_path / "out.json").read_bytes() == before


def test_bad_input_is_one_sentence(accumulate, tmp_path, monkeypatch):
    refused(accumulate("--device", "tpu"), "'tpu'", "cpu, cuda")
    refused(accumulate("--device", ""), "''", "cpu")
    refused(accumulate("--colour"), "--colour", "mpteach --help")
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    refused(accumulate("--device", "cuda"), "torch sees no GPU", "'cpu'")
    refused(accumulate(out="none/out.json"), "no folder", "make it first")
    (tmp_path / "thesis.json").write_text("my thesis")
    refused(accumulate(out="thesis.json"), "thesis.json")
    assert (tmp_path / "thesis.json").read_text() == "my thesis"
    with FileLock(tmp_path / ".out.json.lock"):
        refused(accumulate(), "being written by another process")


def test_the_device_is_the_gpu_where_there_is_one(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "asked for it")
    assert cli.main(["accumulate"]) == 2
    assert "'cuda' cannot be used (asked for it)" in capsys.readouterr().err
