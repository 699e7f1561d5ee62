"""A grid of measured steps: begun, kept after each, gone on with, shown."""

from dataclasses import asdict

import pytest
import torch

from mpteach import hardware, measurements, records
from mpteach.errors import InputError
from mpteach.memory import zoo
from mpteach.memory.cases import SHAPES, Setting, case, how
from mpteach.memory.recipes import OPTIMIZERS, RECIPES

THREE = [Setting("mlp", 4), Setting("gpt2", 1, 16, "amp-bf16"), Setting("frozen", 2)]
BYTES = {"allocated_peak": 3 * 2**20, "reserved_peak": 20 * 2**20}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    real = hardware.machine
    monkeypatch.setattr(hardware, "machine", lambda device: real("cpu"))


@pytest.fixture
def measured(monkeypatch):
    """Replace the measurement; return what it was asked for."""
    asked = []

    def measure(make_model, make_batch, **options):
        asked.append((make_model, make_batch, options))
        if options["recipe"] == "amp-bf16":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return dict(BYTES)

    monkeypatch.setattr(measurements, "measure", measure)
    return asked


def begin(settings=THREE):
    return measurements.begin(settings, "mpteach memory --measure")


def test_a_record_begins_empty_and_names_its_cases():
    record = begin()
    assert record.experiment == "memory"
    assert record.settings["cases"] == [setting.name for setting in THREE]
    assert measurements.missing(record, THREE) == THREE


def test_a_complete_record_has_a_row_for_each_setting(measured, tmp_path):
    path, seen = tmp_path / "out.json", []
    record = measurements.run(begin(), THREE, path, lambda: seen.append(1))
    loaded = records.load(path)
    assert loaded.data == record.data and measurements.missing(loaded, THREE) == []
    assert len(seen) == len(measured) == 3
    rows = loaded.data["rows"]
    assert [Setting(**row["setting"]) for row in rows] == THREE
    assert rows[0] == {"setting": asdict(THREE[0]), **BYTES}
    assert measured[0][2] == {**how(THREE[0]), "loss_fn": zoo.classify}


def test_what_does_not_fit_is_a_row_too(measured, tmp_path):
    record = measurements.run(begin(), THREE, tmp_path / "out.json")
    row = record.data["rows"][1]
    assert row == {"setting": asdict(THREE[1]), "out_of_memory": True}


def test_an_interrupted_run_goes_on_where_it_was(measured, tmp_path):
    path, seen = tmp_path / "out.json", []

    def stop():
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measurements.run(begin(), THREE, path, stop)
    kept = records.resume(begin(), path)
    assert measurements.missing(kept, THREE) == THREE[2:]
    done = measurements.run(kept, THREE, path)
    assert len(measured) == 3 and measurements.missing(done, THREE) == []
    again = measurements.run(done, THREE, path)
    assert again is done and len(measured) == 3


def test_a_record_of_other_settings_is_not_gone_on_with(measured, tmp_path):
    path = tmp_path / "out.json"
    measurements.run(begin(), THREE, path)
    with pytest.raises(InputError, match="was begun with"):
        records.resume(begin(THREE[:1]), path)


def test_another_error_is_not_kept(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(measurements, "measure", broken)
    with pytest.raises(RuntimeError, match="no kernel image"):
        measurements.run(begin(), THREE, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_the_table_shows_peaks_and_a_dash_for_what_did_not_fit(measured, tmp_path):
    record = measurements.run(begin(), THREE, tmp_path / "out.json")
    head, *rows = measurements.table(record).splitlines()
    assert head.split() == ["allocated", "reserved"]
    assert rows[0].split() == ["mlp,", "4,", "fp32,", "adamw-fused", "3.0", "20.0"]
    assert rows[1].split()[-2:] == ["-", "-"]
    assert len({len(row) for row in rows}) == 1
    assert measurements.table(begin()).count("\n") == 0


def test_the_grid_shows_every_recipe_optimizer_and_model_once():
    grid = measurements.grid()
    assert len({setting.name for setting in grid}) == len(grid) == 95
    assert {setting.recipe for setting in grid} == set(RECIPES)
    assert {setting.optimizer for setting in grid} == set(OPTIMIZERS)
    assert {setting.model for setting in grid} >= set(zoo.MODELS)
    assert all(len(setting.name) < 58 for setting in grid)


def test_the_committed_record_is_the_grid():
    record = records.committed("memory_h200")
    assert measurements.missing(record, measurements.grid()) == []
    assert record.settings["cases"] == [one.name for one in measurements.grid()]


# --- settings and their cases


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "gpt5"}, "unknown model 'gpt5': choose from gpt2, gpt2-medium, "),
        ({"model": 2}, "unknown model 2: choose from"),
        ({"batch": 0}, "batch was 0: give a whole number of at least 1."),
        ({"sequence": -1}, "sequence was -1: give a whole number of at least 1."),
        ({"micro_batches": 1.5}, "micro_batches was 1.5: give a whole number"),
        ({"dropout": 1}, "dropout was 1: give a number from 0 up to 1."),
        ({"dropout": float("nan")}, "dropout was nan: give a number from 0 up to 1."),
        ({"dropout": "0"}, "dropout was '0': give a number from 0 up to 1."),
    ],
)
def test_a_setting_that_no_step_has(given, said):
    with pytest.raises(InputError) as caught:
        Setting(**{"model": "gpt2", "batch": 1, **given})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (Setting("gpt2", 8), "gpt2, 8 x 1024, fp32, adamw-fused"),
        (Setting("mlp", 4, recipe="tf32", evaluate=True), "mlp, 4, tf32, evaluate"),
        (
            Setting("gpt2", 2, 64, "fp32", "adamw-fused", "materialised", 0.1, True),
            "gpt2, 2 x 64, fp32, adamw-fused, materialised, 0.1, checkpointing",
        ),
        (Setting("reused", 1, micro_batches=3), "reused, 1, fp32, adamw-fused, 3"),
    ],
)
def test_a_setting_says_itself_in_a_line(setting, name):
    assert setting.name == name


def test_a_case_is_the_model_of_its_setting():
    setting = Setting("small", 3, 32, "fp32", "sgd-fused", "materialised", 0.5, True)
    made = case(setting)
    with torch.device("meta"):
        model = made.make_model()
        tokens, targets = made.make_batch()
    assert len(model.blocks) == SHAPES["small"].layers and model.checkpointing
    assert not model.blocks[0].fused and model.dropout == 0.5
    assert tokens.shape == targets.shape == (3, 32)


def test_an_unknown_attention_is_refused_when_the_model_is_made():
    made = case(Setting("small", 1, attention="flash"))
    with pytest.raises(InputError, match="attention was 'flash': choose from sdpa, mat"):
        made.make_model()


def test_an_unknown_model_of_the_zoo():
    with pytest.raises(InputError, match="unknown model 'zebra': choose from mlp, conv"):
        zoo.case("zebra", 1)
