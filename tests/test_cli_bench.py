"""`mpteach bench` as a person meets it: the table, the record, bad input."""

import json

import pytest
import torch

from mpteach import cli, records, rounding


@pytest.fixture
def bench(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rounding, "_compiled", lambda *_: None)
    monkeypatch.setattr(rounding, "WARM", 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def call(*words):
        common = ["--elements", "500", "--repeats", "1", "--formats", "float16"]
        status = cli.main(["bench", "rounding", *common, *words])
        return status, capsys.readouterr()

    return call


def refused(result, *parts):
    status, said = result
    assert status == 2 and said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("mpteach: ")
    for part in parts:
        assert part in said.err


def test_it_prints_a_table(bench, tmp_path):
    status, said = bench()
    assert status == 0 and "500 numbers" in said.out
    assert sum(line.startswith("float16") for line in said.out.splitlines()) == 4
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_record(bench, tmp_path):
    status, said = bench("--json", "--out", str(tmp_path / "out.json"))
    assert status == 0 and said.out == (tmp_path / "out.json").read_text()
    record = records.load(tmp_path / "out.json")
    assert record.experiment == "rounding speed" and record.data["rows"]
    assert json.loads(said.out)["command"].startswith("mpteach bench rounding")


def test_a_record_is_not_written_over(bench, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("my thesis")
    refused(bench("--out", str(out)), "exists: give another --out")
    assert out.read_text() == "my thesis"


def test_bad_input_is_one_sentence(bench, tmp_path):
    refused(bench("--elements", "0"), "elements was 0", "from 1 to")
    refused(bench("--elements", "ten"), "--elements", "'ten'")
    refused(bench("--repeats", "-1"), "repeats was -1")
    refused(bench("--formats", "float17"), "unknown format 'float17'")
    refused(bench("--out", str(tmp_path / "none" / "out.json")), "no folder")


def test_what_is_measured_must_be_named(capsys):
    assert cli.main(["bench"]) == 2
    assert "WHAT" in capsys.readouterr().err
