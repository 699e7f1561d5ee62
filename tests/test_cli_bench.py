"""`mpteach bench` as a person meets it: the table, the record, bad input."""

import json
import sys

import pytest
import torch

from mpteach import benchmarks, cli, records, rounding
from tests.commands import refused


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


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_file_that_appears_meanwhile_is_left_alone(
    bench, tmp_path, monkeypatch, words
):
    out, once = tmp_path / "out.json", benchmarks.run

    def run(*arguments):
        out.write_text("my thesis")
        return once(*arguments)

    monkeypatch.setattr(benchmarks, "run", run)
    status, said = bench("--out", str(out), *words)
    assert status == 2 and out.read_text() == "my thesis"
    assert "appeared meanwhile and is left as it is" in said.err.splitlines()[-1]
    assert "float16" in said.out


def test_a_record_that_cannot_be_saved_leaves_no_file(bench, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write_atomically", full)
    status, said = bench("--out", str(tmp_path / "out.json"))
    assert status == 2 and "No space left" in said.err.splitlines()[-1]
    assert not (tmp_path / "out.json").exists()


def test_too_little_memory_is_said(bench, monkeypatch):
    def exhaust(*_):
        raise MemoryError

    monkeypatch.setattr(benchmarks, "run", exhaust)
    status, said = bench()
    last = "mpteach: this machine's memory is too small for it: ask for less."
    assert status == 2 and said.err.splitlines()[-1] == last


@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_closed_outputs_are_no_error(bench, monkeypatch, closed):
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    assert bench()[0] == 0


def test_bad_input_is_one_sentence(bench, tmp_path):
    refused(bench("--elements", "0"), "elements was 0", "from 1 to")
    refused(bench("--elements", "ten"), "--elements", "'ten'")
    refused(bench("--repeats", "-1"), "repeats was -1")
    refused(bench("--formats", "float17"), "unknown format 'float17'")
    refused(bench("--out", str(tmp_path / "none" / "out.json")), "no folder")


def test_what_is_measured_must_be_named(capsys):
    assert cli.main(["bench"]) == 2
    assert "WHAT" in capsys.readouterr().err
