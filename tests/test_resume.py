"""A run that was killed goes on as if it had not been, to the last bit."""

import json
import subprocess
import sys
from collections import defaultdict
from functools import partial

import pytest
import torch

from mpteach import cli, comparison, gpt, hardware, recipes, records, training
from mpteach.checkpoints import Checkpoint
from mpteach.course import ROOT
from tests.commands import refused
from tests.killed_runs import KILLS
from tests.small import CONFIG, CORPUS, SETTINGS

TIMED = ("seconds", "tokens_per_second", "forward_tokens_per_second")
# Skips and growths within a few steps, so that the scaler has something to remember.
SCALER = partial(torch.amp.GradScaler, init_scale=2.0**24, growth_interval=3)
# One that float16 can hold: with its own, fp16-pure has one finite loss.
EPS = 1e-4

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def every_recipe(monkeypatch):
    monkeypatch.setattr(hardware, "native", lambda *_: True)
    monkeypatch.setitem(gpt.SIZES, "dot", CONFIG)


def untimed(run):
    return {name: value for name, value in run.items() if name not in TIMED}


def train(name, checkpoint, losses, until=None):
    """Train a new model, put the losses into `losses`; stop after step `until`."""

    def on_step(step, loss):
        losses[step] = loss
        if step == until:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    model = gpt.GPT(CONFIG)
    recipe = recipes.get(name)
    makers = {"make_scaler": SCALER}
    if name == "fp16-pure":
        makers["make_optimizer"] = lambda model, _: torch.optim.AdamW(
            model.parameters(), lr=1.0, eps=EPS
        )
    run = training.train(
        model, CORPUS, recipe, SETTINGS, 0, on_step, checkpoint, **makers
    )
    return model, run


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_stopped_run_goes_on_to_the_last_bit(name, tmp_path):
    whole, parts = {}, {}
    model, run = train(name, Checkpoint(), whole)
    kept = Checkpoint(tmp_path / "c", 4, {"recipe": name})
    for until in (2, 6, 11):
        with pytest.raises(KeyboardInterrupt):
            train(name, kept, parts, until)
    again, resumed = train(name, kept, parts)
    assert [x.hex() for x in parts.values()] == [x.hex() for x in whole.values()]
    assert untimed(vars(resumed)) == untimed(vars(run)) and run.validation_loss
    assert len(resumed.seconds) == len(run.losses) == SETTINGS.steps
    states = model.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    if recipes.get(name).scale_loss:
        # Otherwise the scaler would have had nothing to lose.
        assert len(run.skipped_steps) > 1 and len(run.loss_scale) > 3


@pytest.mark.parametrize("lost", ["model", "optimizer", "scaler", "generator"])
def test_each_part_of_a_checkpoint_is_needed(lost, tmp_path, monkeypatch):
    """The comparison above bites: a checkpoint that forgets one part is found out."""
    whole, parts = {}, {}
    train("fp16", Checkpoint(), whole)
    kept = Checkpoint(tmp_path / "c", 4, {})
    with pytest.raises(KeyboardInterrupt):
        train("fp16", kept, parts, 9)
    restore = Checkpoint.restore

    def forget(self, run, **new):
        torch.manual_seed(0)
        other = gpt.GPT(CONFIG)
        spare = {
            "model": other,
            "optimizer": torch.optim.AdamW(other.parameters()),
            "scaler": SCALER("cpu"),
            "generator": torch.Generator(),
        }
        restore(self, run, **{**new, lost: spare[lost]})

    names = ("model", "optimizer", "scaler", "generator")
    monkeypatch.setattr(
        Checkpoint,
        "restore",
        lambda self, run, *new: forget(self, run, **dict(zip(names, new))),
    )
    train("fp16", kept, parts)
    assert list(parts.values()) != list(whole.values())


def test_energy_and_peaks_go_on(tmp_path, monkeypatch):
    class Meter:
        def __init__(self, device):
            pass

        def note(self, run):
            run.energy_joules = (run.energy_joules or 0.0) + 1

    monkeypatch.setattr(training, "Meter", Meter)
    _, whole = train("fp32", Checkpoint(tmp_path / "a", 4, {}), {})
    kept = Checkpoint(tmp_path / "b", 4, {})
    with pytest.raises(KeyboardInterrupt):
        train("fp32", kept, {}, 6)
    assert train("fp32", kept, {})[1].energy_joules == whole.energy_joules == 4


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder in which all recipes ran whole, and killed 20 times on the way."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.killed_runs", str(folder), "0"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout).count(-9) == KILLS
    return folder


def logged(folder, word):
    """Return the sets of values by key of the lines that begin with `word`."""
    found = defaultdict(set)
    for log in folder:
        for line in (log / "log").read_text().splitlines():
            kind, key, *values = line.split()
            if kind == word:
                found[key].add(" ".join(values))
    return found


def test_the_kills_were_in_saves_too(killed):
    places = logged(killed.glob("killed*"), "killed")
    assert len(places) > 4 and len(places["write_atomically"]) > 2


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_twenty_kills_change_no_bit(killed, what):
    whole = logged(killed.glob("whole*"), what)
    # With Adam's eps rounded to zero, fp16-pure ends before weights are evaluated.
    ran = set(recipes.RECIPES) - ({"fp16-pure"} if what == "weights" else set())
    assert {key.split(":")[0] for key in whole} == ran
    assert logged(killed.glob("killed*"), what) == whole
    assert all(len(values) == 1 for values in whole.values())


def test_killed_records_hold_the_same_runs_and_leave_nothing_else(killed):
    (whole, _), others = killed.glob("whole*"), list(killed.glob("killed*"))
    runs = [untimed(run) for run in records.load(whole / "out.json").data["runs"]]
    assert [run["recipe"] for run in runs] == list(recipes.RECIPES) and others
    for folder in others:
        found = records.load(folder / "out.json").data["runs"]
        assert [untimed(run) for run in found] == runs
        assert {file.name for file in folder.iterdir()} == {"log", "out.json"}


@pytest.fixture
def compare(tmp_path, every_recipe, capsys):
    (tmp_path / "verse").write_bytes(CORPUS.text)

    def call(*words):
        common = ["compare", "--size", "dot", "--device", "cpu", "--steps", "12"]
        common += ["--batch", "4", "--seeds", "1", "--text", str(tmp_path / "verse")]
        status = cli.main([*common, "--out", str(tmp_path / "out.json"), *words])
        return status, capsys.readouterr()

    return call


def failing_update(monkeypatch, at, error):
    """Count the updates of all runs, and raise `error` in the one numbered `at`."""
    once, count = training.Trainer.update, []

    def update(trainer, rate):
        count.append(rate)
        if len(count) == at:
            raise error
        once(trainer, rate)

    monkeypatch.setattr(training.Trainer, "update", update)
    return count


def test_the_same_command_goes_on_in_mid_run(compare, tmp_path, monkeypatch):
    words = "--recipes", "fp32", "bf16", "--checkpoint-every", "5"
    file = tmp_path / "out.json.checkpoint"
    count = failing_update(monkeypatch, 12 + 8, KeyboardInterrupt())
    status, said = compare(*words)
    assert status == 130 and "one is kept as far as its checkpoint" in said.err
    assert file.exists() and len(records.load(tmp_path / "out.json").data["runs"]) == 1
    status, said = compare(*words)
    assert status == 0 and not file.exists()
    assert len(count) == 20 + (12 - 5) and "7/12" not in said.err
    assert "12/12" in said.err


def test_no_checkpoint_is_kept_where_none_is_asked_for(compare, tmp_path, monkeypatch):
    failing_update(monkeypatch, 8, KeyboardInterrupt())
    status, said = compare("--recipes", "fp32", "--checkpoint-every", "0")
    assert status == 130 and "No run had finished; the same" in said.err
    assert not (tmp_path / "out.json.checkpoint").exists()


def test_a_damaged_checkpoint_ends_in_one_sentence(compare, tmp_path):
    file = tmp_path / "out.json.checkpoint"
    file.write_bytes(b"half")
    status, said = compare("--recipes", "fp32")
    sentence = said.err.splitlines()[-1]
    assert status == 2 and "Traceback" not in said.err
    assert "out.json.checkpoint is damaged" in sentence and "delete it" in sentence
    assert file.read_bytes() == b"half" and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("value", ["-1", "1" + "0" * 20])
def test_an_interval_that_cannot_be(compare, value):
    refused(compare("--checkpoint-every", value), "checkpoint_every was", "at")


def test_out_of_memory_keeps_what_was_done(compare, tmp_path, monkeypatch):
    error = torch.OutOfMemoryError("CUDA out of memory.")
    failing_update(monkeypatch, 12 + 8, error)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    status, said = compare("--recipes", "fp32", "bf16", "--checkpoint-every", "5")
    sentence = said.err.splitlines()[-1]
    assert status == 2 and "ran out of memory in bf16" in sentence
    assert "Traceback" not in said.err
    assert len(records.load(tmp_path / "out.json").data["runs"]) == 1


def test_a_kill_before_a_finished_runs_checkpoint_is_deleted(compare, tmp_path):
    words = "--recipes", "fp32", "--checkpoint-every", "12"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        assert compare(*words)[0] == 0
    assert (tmp_path / "out.json.checkpoint").exists()
    assert compare("--recipes", "fp32", "bf16")[0] == 0
    assert not (tmp_path / "out.json.checkpoint").exists()


def test_a_first_loss_that_is_not_finite_is_a_result(compare, tmp_path, monkeypatch):
    class Overflowing(gpt.GPT):
        def __init__(self, config):
            super().__init__(config)
            self.norm.weight.data.fill_(1e38)

    monkeypatch.setattr(comparison.gpt, "GPT", Overflowing)
    assert compare("--recipes", "fp32", "--checkpoint-every", "1")[0] == 0
    (run,) = records.load(tmp_path / "out.json").data["runs"]
    assert run["losses"] == [None] and run["non_finite_step"] == 1
    assert run["validation_loss"] is None and run["final_loss"] is None
