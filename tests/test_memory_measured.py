"""Traces beside what an H200 measured: a few of the 123 steps of `memory_sweep`."""

import memory_sweep
import pytest
from memory_sweep import rows

from mpteach.errors import InputError
from mpteach.memory.allocator import rounded
from mpteach.memory.cases import SHAPES
from mpteach.memory.formula import formula
from mpteach.memory.reconcile import reconcile

ROWS = {row.name: row for row in rows()}
# Every recipe, attention and option once, and each model that is no decoder;
# among the decoders those whose traces miss the most.
CHOSEN = [
    "csv 30M, 4 x 256, pure-bf16, adamw-fused",
    "csv 30M, 4 x 256, amp-fp16, adamw-fused",
    "csv 124M, 1 x 256, tf32, adamw-foreach",
    "gpt2, 1 x 256, fp32, adamw-foreach",
    "gpt2, 1 x 256, bf16-master, adamw-foreach",
    "gpt2, 8 x 1024, fp32, momentum-fused",
    "gpt2, 4 x 1024, amp-bf16, adamw-fused, 4",
    "gpt2, 8 x 1024, amp-bf16, evaluate",
    "small, 32 x 512, amp-bf16, adamw-fused, 0.1",
    "small, 8 x 512, fp32, adamw-fused, materialised",
    "small, 8 x 512, amp-bf16, adamw-fused, materialised",
    "modern, 4 x 1024, bf16-master, adamw-fused",
    "modern, 4 x 1024, amp-bf16, adamw-fused, checkpointing",
    "mlp, 256, amp-fp16, sgd-foreach, 3",
    "convnet, 64, fp16-master, momentum-fused",
    "convnet, 64, fp32, adamw-foreach",
    "reused, 256, amp-fp16, sgd-foreach, 3",
    "frozen, 256, amp-bf16, adamw-fused",
    "frozen, 256, fp16-master, momentum-fused",
    "checkpointed, 4096, pure-bf16, adamw-foreach",
    "checkpointed, 4096, amp-bf16, evaluate",
]


@pytest.mark.parametrize("name", CHOSEN)
def test_a_trace_meets_its_targets(name):
    assert memory_sweep.misses(ROWS[name]) == []


def test_the_chosen_rows_show_every_choice():
    settings = [ROWS[name].setting for name in CHOSEN]
    everything = [row.setting for row in ROWS.values()]
    for field in ("model", "recipe", "attention", "checkpointing", "evaluate"):
        seen = {getattr(setting, field) for setting in settings}
        missed = {getattr(setting, field) for setting in everything} - seen
        assert missed <= {"gpt2-medium", "gpt2-xl"}, field


def test_the_sweep_can_fail(monkeypatch, capsys):
    row = ROWS["mlp, 256, amp-bf16, evaluate"]
    wrong = {**row.measured, "allocated_peak": row.measured["allocated_peak"] * 2}
    wrong["activations_requested"] = 10**9
    bad = memory_sweep.Row("bad", row.setting, row.case, wrong)
    said = memory_sweep.misses(bad)
    first_words = [sentence.split(" ")[1] for sentence in said]
    assert first_words == ["allocated", "activations", "50.00%"]
    assert memory_sweep.sweep([row]) and not memory_sweep.sweep([row, bad])
    assert capsys.readouterr().out.endswith("2 steps traced, 1 miss a target\n")


TRAINED = [row for row in ROWS.values() if row.is_decoder and not row.setting.evaluate]


@pytest.mark.parametrize(
    "row", [row for row in TRAINED if row.name[:3] != "csv"], ids=lambda row: row.name
)
def test_the_formula_is_the_recorded_step(row):
    setting, measured = row.setting, row.measured
    account = formula(
        SHAPES[setting.model],
        setting.recipe,
        setting.optimizer,
        setting.batch * setting.micro_batches,
        setting.sequence,
        setting.attention,
        setting.dropout,
        setting.checkpointing,
        setting.micro_batches,
    )
    assert account.activations == measured["activations_requested"]
    assert account.requested_peak == pytest.approx(measured["requested_peak"], rel=1e-5)
    assert account.total("workspace") == measured["cublas_workspace"]
    peaks = {name: measured[f"peak_{name}"] for name in ("forward", "backward", "step")}
    assert account.phase_of_peak == max(peaks, key=peaks.get)


# --- the difference, by name


@pytest.mark.parametrize(
    "name", ["frozen, 256, amp-bf16, adamw-fused", "convnet, 64, amp-bf16, evaluate"]
)
def test_every_byte_between_trace_and_gpu_has_a_name(name):
    row = ROWS[name]
    timeline = row.traced()
    found = reconcile(timeline, row.measured)
    named = found.requested + found.rounding + found.unsplit
    assert named == timeline.allocated_peak
    total = named + found.workspace + found.kernels + found.left_over
    assert total == found.measured == row.measured["allocated_peak"]
    alive = timeline.alive(timeline.peak)
    assert found.rounding == sum(rounded(one.bytes) - one.bytes for one in alive)
    assert found.kept == row.measured["reserved_peak"] - found.measured
    assert found.kept_traced == timeline.reserved_peak - timeline.allocated_peak
    assert abs(found.share_left_over) < 0.005


def test_what_a_kernel_takes_and_another_workspace_are_told_apart():
    row = ROWS["mlp, 256, amp-bf16, evaluate"]
    timeline = row.traced()
    plain = reconcile(timeline, row.measured)
    more = dict(row.measured)
    for name, added in (("requested_peak", 8_000), ("allocated_peak", 8_500)):
        more[name] += added
    more["cublas_workspace"] += 3_000
    found = reconcile(timeline, more)
    assert found.workspace - plain.workspace == 3_000
    assert found.kernels - plain.kernels == 5_000
    assert found.left_over - plain.left_over == 500


def test_a_measurement_that_lacks_figures_is_refused():
    row = ROWS["mlp, 256, amp-bf16, evaluate"]
    partial = {name: 1 for name in ("requested_peak", "allocated_peak")}
    said = "measured lacks reserved_peak, cublas_workspace: give what measure returns."
    with pytest.raises(InputError, match=said):
        reconcile(row.traced(), partial)
