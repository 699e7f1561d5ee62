"""`mpteach bench training` as a person meets it: the rows, the record, bad input."""

import json

import pytest
import torch

from mpteach import cli, gpt, records, training, training_speed
from tests.commands import refused
from tests.small import CONFIG


@pytest.fixture
def bench(capsys, monkeypatch):
    monkeypatch.setitem(gpt.SIZES, "toy", CONFIG)
    monkeypatch.setattr(training_speed.recipes, "unavailable", lambda one, device: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")

    def call(*words):
        common = ["--sizes", "toy", "--batches", "2", "--rounds", "1", "--no-profile"]
        status = cli.main(
            ["bench", "training", *common, "--recipes", "fp32", "tf32", *words]
        )
        return status, capsys.readouterr()

    return call


def test_it_prints_a_row_for_the_baseline_and_each_recipe(bench):
    status, said = bench()
    head, *rows = said.out.splitlines()
    assert status == 0 and head == training_speed.HEAD
    assert [row.split()[:3] for row in rows] == [
        ["toy", "2", name] for name in ("bf16", "fp32", "tf32")
    ]


def test_json_is_the_record_and_the_rows_are_told_beside_it(bench, tmp_path):
    status, said = bench("--json", "--out", str(tmp_path / "out.json"))
    assert status == 0 and said.out == (tmp_path / "out.json").read_text()
    record = records.load(tmp_path / "out.json")
    assert record.experiment == "training speed" and len(record.data["rows"]) == 3
    assert json.loads(said.out)["command"].startswith("mpteach bench training --sizes")
    assert said.err == training_speed.table(record) + "\n"


def test_a_crash_leaves_the_rows_before_it(bench, tmp_path, monkeypatch):
    learn = training.Trainer.learn

    def broken(trainer, *batch):
        if trainer.recipe.name == "tf32":
            raise KeyboardInterrupt
        return learn(trainer, *batch)

    monkeypatch.setattr(training.Trainer, "learn", broken)
    out = tmp_path / "out.json"
    status, said = bench("--out", str(out))
    assert status == 130 and len(said.out.splitlines()) == 3
    assert [row["recipe"] for row in records.load(out).data["rows"]] == ["bf16", "fp32"]


def test_a_record_is_not_written_over(bench, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("my thesis")
    refused(bench("--out", str(out)), "exists: give another --out")
    assert out.read_text() == "my thesis"


def test_a_link_to_what_is_not_there_yet_is_followed(bench, tmp_path):
    out = tmp_path / "out.json"
    out.symlink_to("later.json")
    assert bench("--out", str(out))[0] == 0
    assert out.is_symlink() and (tmp_path / "later.json").is_file()


def test_a_file_that_appears_meanwhile_is_left_alone(bench, tmp_path, monkeypatch):
    out, begin = tmp_path / "out.json", training_speed.begin

    def slow(*arguments):
        out.write_text("my thesis")
        return begin(*arguments)

    monkeypatch.setattr(training_speed, "begin", slow)
    status, said = bench("--out", str(out))
    assert status == 2 and out.read_text() == "my thesis"
    assert "appeared meanwhile and is left as it is" in said.err


def test_bad_input_is_one_sentence(bench, tmp_path):
    refused(bench("--sizes", "9B"), "unknown size '9B'")
    refused(bench("--batches", "0"), "batch was 0")
    refused(bench("--batches", "two"), "--batches", "'two'")
    refused(bench("--rounds", "0"), "rounds was 0")
    refused(bench("--recipes", "fp7"), "unknown recipe 'fp7'")
    refused(bench("--compile", "all"), "--compile", "'all'")
    refused(bench("--device", "tpu"), "unknown device 'tpu'")
    refused(bench("--out", str(tmp_path / "none" / "out.json")), "no folder")


def test_an_empty_device_is_not_the_default(bench):
    refused(bench("--device", ""), "''", "cpu")
