"""A comparison keeps what is done, goes on from it, and refuses to mix."""

from dataclasses import replace

import pytest
import torch

from mpteach import comparison, data, gpt, hardware, records
from mpteach.errors import InputError
from tests.small import CONFIG, CORPUS, SETTINGS

NAMES = ["fp32", "bf16", "fp16"]


@pytest.fixture(autouse=True)
def a_cpu_with_bf16_but_no_fp16(monkeypatch):
    monkeypatch.setattr(
        hardware, "native", lambda dtype, _: dtype in ("float32", "bfloat16")
    )
    monkeypatch.setitem(gpt.SIZES, "dot", CONFIG)


def begin(settings=SETTINGS):
    return comparison.begin("dot", settings, CORPUS, "cpu", "mpteach compare")


def losses(record):
    return {(run["recipe"], run["seed"]): run["losses"] for run in record.data["runs"]}


def test_it_runs_every_pair_and_saves_the_record(tmp_path):
    path = tmp_path / "out.json"
    record = comparison.run(begin(), NAMES, range(2), CORPUS, path)
    assert set(losses(record)) == {
        (name, s) for name in ("fp32", "bf16") for s in (0, 1)
    }
    assert record.seeds == [0, 1]
    assert list(record.data["unavailable"]) == ["fp16"]
    loaded = records.load(path)
    assert losses(loaded) == losses(record) and loaded.settings["corpus"]["sha256"]


def test_recipes_start_from_the_same_weights_and_batches(tmp_path):
    record = comparison.run(begin(), NAMES, [3], CORPUS, tmp_path / "out.json")
    first = [run["losses"][0] for run in record.data["runs"]]
    assert first[0] == pytest.approx(first[1], rel=1e-2) and first[0] != first[1]


@pytest.mark.parametrize("stop_at", [("fp32", 0, 3), ("bf16", 1, 12), ("fp32", 1, 1)])
def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path, stop_at):
    path = tmp_path / "out.json"
    whole = comparison.run(begin(), NAMES, range(2), CORPUS, tmp_path / "whole.json")

    def stop(name, seed, step, loss):
        if (name, seed, step) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comparison.run(begin(), NAMES, range(2), CORPUS, path, stop)
    kept = records.resume(begin(), path)
    todo = comparison.missing(kept, NAMES, range(2))
    assert todo and len(todo) + len(kept.data["runs"]) == 4
    assert losses(comparison.run(kept, NAMES, range(2), CORPUS, path)) == losses(whole)


def test_more_seeds_and_recipes_are_added_to_a_record(tmp_path):
    path = tmp_path / "out.json"
    comparison.run(begin(), ["fp32"], range(1), CORPUS, path)
    kept = records.resume(begin(), path)
    record = comparison.run(kept, ["fp32", "bf16"], range(2), CORPUS, path)
    assert len(record.data["runs"]) == 4 and record.seeds == [0, 1]


def test_a_finished_record_is_not_rewritten(tmp_path):
    path = tmp_path / "out.json"
    comparison.run(begin(), NAMES, range(1), CORPUS, path)
    before = path.read_bytes()
    comparison.run(records.resume(begin(), path), NAMES, range(1), CORPUS, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: replace(r, settings={**r.settings, "size": "25M"}), "size 'dot'"),
        (lambda r: replace(r, machine={**r.machine, "gpu": "NVIDIA H200"}), "gpu None"),
        (lambda r: replace(r, sources="0" * 64), "package sources"),
        (lambda r: replace(r, experiment="other"), "experiment 'comparison'"),
    ],
)
def test_a_record_begun_otherwise_is_refused_and_kept(tmp_path, change, named):
    path = tmp_path / "out.json"
    comparison.run(begin(), ["fp32"], range(1), CORPUS, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"was begun with {named}.*another --out"):
        records.resume(change(begin()), path)
    assert path.read_bytes() == before


def test_out_of_memory_names_the_peak_and_the_flag(tmp_path, monkeypatch):
    def exhaust(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(comparison.training, "train", exhaust)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(gpt.GPT, "to", lambda model, device: model)
    on_gpu = replace(begin(), settings={**begin().settings, "device": "cuda"})
    with pytest.raises(
        InputError, match=r"in fp32 after a peak of 3.00 GiB: lower --batch"
    ):
        comparison.run(on_gpu, ["fp32"], range(1), CORPUS, tmp_path / "out.json")


def test_on_a_cpu_too_little_memory_is_said_too(tmp_path, monkeypatch):
    def exhaust(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(comparison.training, "train", exhaust)
    with pytest.raises(InputError, match="too little memory for fp32: lower --batch"):
        comparison.run(begin(), ["fp32"], range(1), CORPUS, tmp_path / "out.json")


def test_an_error_of_another_kind_is_not_hidden(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(comparison.training, "train", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        comparison.run(begin(), ["fp32"], range(1), CORPUS, tmp_path / "out.json")


def test_what_is_lacking_is_remembered_from_call_to_call(tmp_path):
    path = tmp_path / "out.json"
    comparison.run(begin(), ["fp32", "tf32"], range(1), CORPUS, path)
    record = records.resume(begin(), path)
    record = comparison.run(record, ["fp32", "fp16"], range(1), CORPUS, path)
    assert set(record.data["unavailable"]) == {"tf32", "fp16"}


def test_another_command_is_added_to_the_first(tmp_path):
    path = tmp_path / "out.json"
    comparison.run(begin(), ["fp32"], range(1), CORPUS, path)
    # A part of the first command's text is another command all the same.
    other = replace(begin(), command=begin().command[:-1])
    assert records.resume(other, path).command.endswith("&& " + other.command)
    assert records.resume(begin(), path).command == begin().command


def two_seeds(tmp_path):
    return comparison.run(
        begin(), ["fp32", "bf16"], range(2), CORPUS, tmp_path / "o.json"
    )


def test_differences_are_paired_by_seed(tmp_path):
    record = two_seeds(tmp_path)
    held_out = {
        (run["recipe"], run["seed"]): run["validation_loss"]
        for run in record.data["runs"]
    }
    expected = [held_out["bf16", seed] - held_out["fp32", seed] for seed in (0, 1)]
    assert comparison.differences(record, "bf16") == expected


def test_ratios_are_paired_by_seed(tmp_path):
    record = two_seeds(tmp_path)
    found = comparison.ratios(record, "bf16", key="validation_loss")
    pairs = zip(
        comparison.runs_of(record, "bf16"),
        comparison.runs_of(record, "fp32"),
        strict=True,
    )
    expected = [a["validation_loss"] / b["validation_loss"] for a, b in pairs]
    assert found == expected


def wide(*ids):
    text = torch.tensor([*ids] * 100, dtype=torch.int32).numpy()
    return data.Corpus("ids", text.tobytes(), "<i4")


def test_ids_beyond_the_vocabulary_are_refused_with_the_sizes_that_hold_them():
    message = "id 50000, and size 'dot' has ids below 256: choose 124M or 350M or 1.3B"
    with pytest.raises(InputError, match=message):
        comparison.begin("dot", SETTINGS, wide(0, 50000), "cpu", "c")
    with pytest.raises(InputError, match="id 50304.*a tokenizer of fewer ids"):
        comparison.begin("124M", SETTINGS, wide(0, 50304), "cpu", "c")
    kept = comparison.begin("dot", SETTINGS, wide(0, 255), "cpu", "c").settings[
        "corpus"
    ]
    assert kept["dtype"] == "<i4" and kept["size_bytes"] == 800


def test_compiling_is_refused_without_a_gpu():
    with pytest.raises(InputError, match="compiled was 'whole', which needs a GPU"):
        begin(replace(SETTINGS, compiled="whole"))
