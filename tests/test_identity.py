"""`mpteach identity` finds equal runs equal, and one that differs different."""

import json
import os
from functools import partial

import pytest
import torch

from mpteach import cli, gpt, hardware, identity, loss_scaling, recipes, records
from mpteach.checkpoints import Checkpoint
from mpteach.errors import InputError
from mpteach.runs import Settings
from tests.commands import refused
from tests.small import CONFIG, CORPUS

SETTINGS = Settings(steps=30, batch=4, validation_batches=1, gradient_every=20)
KEY = identity.WORKSPACE


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(hardware, "native", lambda *_: True)
    monkeypatch.setitem(gpt.SIZES, "dot", CONFIG)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def begin():
    return identity.begin("dot", SETTINGS, CORPUS, "cpu", "mpteach identity")


def test_all_recipes_and_both_scalers_agree(tmp_path):
    with identity.deterministic("cpu"):
        identity.run(begin(), CORPUS, tmp_path / "out.json")
    record = records.load(tmp_path / "out.json")
    parts = record.data["parts"]
    assert list(parts) == [*recipes.RECIPES, "scalers"] and record.seeds == [0]
    for name, found in parts.items():
        assert found["identical"] and found["differs"] == [], name
        assert found["first_difference"] is None
        for key in ("losses_sha256", "weights_sha256"):
            assert found[key][0] == found[key][1] and len(found[key][0]) == 64
    stopped = {parts[name]["kept_at"] for name in recipes.RECIPES}
    assert len(stopped) > 5 and all(1 <= step < 30 for step in stopped)
    lines = identity.table(record).splitlines()
    assert len(lines) == 13 and all(line.endswith(", identical") for line in lines)


def test_scales_rise_and_fall_and_steps_are_skipped_where_scalers_are_compared():
    found = identity.scalers(begin(), CORPUS)
    scales = [scale for _, scale in found["loss_scale"]]
    assert found["steps"] == 30 and len(found["skipped_steps"]) > 2
    rises = sum(after > before for before, after in zip(scales, scales[1:]))
    assert rises > 0 and len(scales) - 1 - rises > 2


def test_another_scaler_is_told(monkeypatch):
    late = partial(loss_scaling.GradScaler, backoff_factor=0.25)
    monkeypatch.setattr(loss_scaling, "GradScaler", late)
    found = identity.scalers(begin(), CORPUS)
    assert not found["identical"]
    assert {"losses", "weights", "loss scales"} <= set(found["differs"])
    # Skipped steps leave the loss of the same weights on other batches alike.
    assert found["first_difference"] > 2
    assert found["losses_sha256"][0] != found["losses_sha256"][1]


def test_a_checkpoint_that_forgets_is_told_with_the_step(monkeypatch):
    restore = Checkpoint.restore

    def forget(self, run, model, optimizer, scaler, generator):
        restore(self, run, model, optimizer, scaler, torch.Generator())

    monkeypatch.setattr(Checkpoint, "restore", forget)
    found = identity.resumed(begin(), "bf16", CORPUS)
    assert not found["identical"]
    assert found["first_difference"] == found["kept_at"] + 1
    assert "DIFFERENT: ['losses'" in identity._row("bf16", found)


def test_what_is_done_is_not_done_again_and_what_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "native", lambda dtype, _: dtype == "float32")
    path, done = tmp_path / "out.json", []
    fresh = begin()
    assert identity.missing(fresh) == ["fp32"] and "fp16" in fresh.data["unavailable"]
    identity.run(fresh, CORPUS, path, lambda: done.append(1))
    before = path.read_bytes()
    identity.run(records.resume(begin(), path), CORPUS, path, lambda: done.append(1))
    assert done == [1] and path.read_bytes() == before


def test_a_loss_that_is_never_finite_is_kept_as_a_result(monkeypatch):
    class Overflowing(gpt.GPT):
        def __init__(self, config):
            super().__init__(config)
            self.norm.weight.data.fill_(1e38)

    monkeypatch.setattr(identity.gpt, "GPT", Overflowing)
    found = identity.resumed(begin(), "fp32", CORPUS)
    assert found["kept_at"] is None and found["identical"] and found["steps"] == 1
    json.dumps(found, allow_nan=False)


def test_determinism_is_put_back(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(KeyboardInterrupt), identity.deterministic("cpu"):
        assert torch.are_deterministic_algorithms_enabled() and os.environ[KEY]
        raise KeyboardInterrupt
    assert not torch.are_deterministic_algorithms_enabled() and KEY not in os.environ
    monkeypatch.setenv(KEY, ":16:8")
    with identity.deterministic("cpu"):
        assert os.environ[KEY] == ":16:8"
    assert os.environ[KEY] == ":16:8"


def test_once_cuda_runs_it_is_too_late(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=f"without {KEY}: begin a new process"):
        with identity.deterministic("cuda"):
            pass
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mpteach.data.standard_library", lambda: CORPUS)

    def call(*words):
        common = ["identity", "--size", "dot", "--device", "cpu", "--steps", "3"]
        status = cli.main([*common, "--out", str(tmp_path / "out.json"), *words])
        return status, capsys.readouterr()

    return call


def test_the_command_keeps_a_record_and_prints_a_summary(command, monkeypatch):
    monkeypatch.setattr(hardware, "native", lambda dtype, _: dtype == "float32")
    status, said = command()
    assert status == 0 and "fp32 " in said.out and ", identical" in said.out
    assert "bf16: this cpu has no bfloat16 products" in said.out
    assert not torch.are_deterministic_algorithms_enabled()
    assert json.loads(command("--json")[1].out)["experiment"] == "identity"


def test_bad_words(command, tmp_path):
    refused(command("--steps", "1"), "steps was 1", "at least 2")
    refused(command("--steps", "0"), "steps was 0")
    refused(command("--size", "7B"), "'7B'", "choose from tiny")
    refused(command("--device", "tpu"), "'tpu'", "choose cpu or cuda")
    assert not (tmp_path / "out.json").exists()
