"""What the records decide: verdicts, who can run what, the fastest and the smallest."""

import math
from dataclasses import replace

import pytest

from mpteach import decision, records
from mpteach.decision import Loss, Source
from mpteach.hardware import peaks


def compared(losses):
    """A comparison whose runs end with these losses: recipe to a list over seeds."""
    runs = [
        {
            "recipe": name,
            "seed": seed,
            "validation_loss": loss,
            "non_finite_step": 7 if loss is None else None,
            "tokens_per_second": 10.0,
            "peak_allocated_bytes": 100,
        }
        for name, ends in losses.items()
        for seed, loss in enumerate(ends)
    ]
    base = records.committed("comparison_tiny_h200")
    return base.with_data([0, 1, 2], {"runs": runs, "unavailable": {}})


LOSSES = {
    "fp32": [21.0, 21.1, 21.3],
    "tf32": [21.02, 21.121, 21.32],
    "fp16": [21.3, 20.8, 21.5],
    "fp16-unscaled": [22.0, 22.2, 22.3],
    "bf16": [20.9, 21.01, 21.2],
    "fp16-pure": [21.0, None, 21.3],
}


def test_the_band_is_that_of_the_bases_seeds():
    assert decision.band(compared(LOSSES)) == pytest.approx(21.3 - 21.0)
    assert decision.band(compared({"fp32": [1.0]})) == 0.0


def test_seeds_that_scatter_widely_excuse_nothing():
    wild = compared({"fp32": [2.0, 2.0, 3.0], "bf16": [2.4, 2.3, 3.2]})
    assert decision.band(wild) == pytest.approx(0.02 * 2.0)
    assert decision.verdict(wild, "bf16") == "worse"


@pytest.mark.parametrize(
    ("name", "verdict", "said"),
    [
        ("fp32", "right", "the reference"),
        ("tf32", "right", "higher by 0.0"),  # resolved, and less than a seed does
        ("fp16", "open", "no difference larger than"),
        ("fp16-unscaled", "worse", "higher by"),
        ("bf16", "right", "lower by"),
        ("fp16-pure", "fails", "not finite at step 7, 1 of 3 seeds"),
        ("fp8", "open", "nothing resolved"),
    ],
)
def test_a_verdict_is_the_interval_against_the_band(name, verdict, said):
    record = compared(LOSSES)
    assert decision.verdict(record, name) == verdict
    assert decision.said_of(record, name).startswith(said)


def test_one_seed_decides_nothing():
    record = compared({"fp32": [1.0], "bf16": [1.0]})
    assert decision.verdict(record, "bf16") == "open"


@pytest.fixture
def many(monkeypatch):
    """Comparisons of two sizes, the larger one of tf32 and bf16 alone."""

    def give(large, small):
        found = {"124M": compared(large), "25M": compared(small)}
        monkeypatch.setattr(decision.evidence, "comparisons", lambda: found)
        decision.loss_of.cache_clear()

    yield give
    decision.loss_of.cache_clear()


def test_one_comparison_that_is_worse_outweighs_one_that_is_right(many):
    worse = [22.0, 22.1, 22.31]
    many({"tf32": [21.0, 21.1, 21.3], "bf16": worse}, LOSSES)
    assert decision.loss_of("bf16").verdict == "worse"
    assert decision.loss_of("bf16").record == "comparison of 124M"


def test_one_that_is_open_leaves_it_to_the_others(many):
    many({"tf32": [1.0, 1.1, 1.3], "bf16": [1.5, 0.7, 1.6]}, LOSSES)
    found = decision.loss_of("bf16")
    assert (found.verdict, found.record) == ("right", "comparison of 25M")


def test_of_two_that_say_the_same_the_longer_training_is_named(many):
    many({"tf32": LOSSES["tf32"], "bf16": LOSSES["tf32"]}, LOSSES)
    found = decision.evidence.comparisons()
    assert decision.loss_of("bf16").record == "comparison of 124M"
    longer = found["25M"].settings | {"training": {"steps": 10**6}}
    found["25M"] = replace(found["25M"], settings=longer)
    decision.loss_of.cache_clear()
    assert decision.loss_of("bf16").record == "comparison of 25M"


def test_the_base_is_judged_where_it_is_not_the_base(many):
    many({"tf32": [1.0, 1.1, 1.3]}, LOSSES)
    assert decision.loss_of("tf32").record == "comparison of 25M"
    assert decision.loss_of("fp8") == Loss("open", "in no comparison", "")


# What NVIDIA's architectures multiply: fp16 from Volta on, TF32 and bfloat16 from
# Ampere on, fp8 from Ada and Hopper on.
@pytest.mark.parametrize(
    ("gpu", "lacks"),
    [
        ("V100", {"tf32", "bf16", "bf16-pure", "bf16-master", "fp8-head", "fp8"}),
        ("T4", {"tf32", "bf16", "bf16-pure", "bf16-master", "fp8-head", "fp8"}),
        ("A100", {"fp8-head", "fp8"}),
        ("RTX 4090", set()),
        ("H100", set()),
        ("B200", set()),
    ],
)
def test_a_gpu_runs_what_its_generation_has(gpu, lacks):
    lacks = lacks | ({"fp8-delayed"} if "fp8" in lacks else set())
    names = decision.recipes.RECIPES
    found = {name for name in names if not decision.runs_on(name, peaks.get(gpu))}
    assert found == lacks


def test_a_promise_is_a_ratio_of_the_datasheet():
    assert decision.promised("fp16", peaks.get("V100")) == pytest.approx(125 / 15.7)
    assert decision.promised("tf32", peaks.get("RTX 4090")) == 1
    assert decision.promised("bf16", peaks.get("V100")) == 0


SPEEDS = {
    "fp32": (1.0, 1.0, 1.0),
    "tf32": (1.9, 2.0, 2.1),
    "fp16": (2.8, 3.0, 3.2),
    "bf16": (2.9, 3.1, 3.3),
    "fp8": (0.9, 4.0, 5.0),
    "bf16-pure": (5.0, 5.0, 5.0),
}
PEAKS = {"fp32": 10.0, "tf32": 10.0, "fp16": 6.0, "bf16": 6.5, "bf16-pure": 4.0}
SOURCE = Source("a record", "25M", "fp32", "NVIDIA H200", SPEEDS, PEAKS)


@pytest.fixture
def right(monkeypatch):
    """All recipes are right but bf16-pure, which is open."""

    def loss_of(name):
        return Loss("open" if name == "bf16-pure" else "right", "said", "a comparison")

    monkeypatch.setattr(decision, "loss_of", loss_of)
    monkeypatch.setattr(decision, "sources", lambda: (SOURCE,))


def test_the_fastest_is_right_runs_there_and_beats_the_base_in_every_pair(right):
    assert decision.fastest(SOURCE, peaks.get("H200")) == "bf16"
    assert decision.fastest(SOURCE, peaks.get("V100")) == "fp16"
    assert decision.smallest(SOURCE, peaks.get("H200")) == "fp16"


def test_what_is_promised_no_faster_is_not_taken(right):
    slow = Source("a", "25M", "fp32", "NVIDIA H200", {k: SPEEDS[k] for k in PEAKS}, {})
    slow.speeds.pop("bf16"), slow.speeds.pop("fp16")
    assert decision.fastest(slow, peaks.get("A100")) == "tf32"
    assert decision.fastest(slow, peaks.get("RTX 4090")) == "fp32"
    assert decision.smallest(slow, peaks.get("A100")) == "fp32"


def test_the_nearest_size_with_a_choice_is_asked(right, monkeypatch):
    large = Source("b", "1.3B", "bf16", "NVIDIA H200", {"bf16": (1,) * 3}, {})
    wide = Source("c", "1.3B", "bf16", "NVIDIA H200", SPEEDS, {})
    monkeypatch.setattr(decision, "sources", lambda: (large, wide, SOURCE))
    assert decision.nearest("1.3B", peaks.get("H200")) == wide
    assert decision.nearest("1.3B", peaks.get("V100")) == SOURCE
    assert decision.nearest("tiny", peaks.get("H200")) == SOURCE
    monkeypatch.setattr(decision, "sources", lambda: (large,))
    assert decision.nearest("1.3B", peaks.get("H200")) is None


def test_a_timed_record_that_has_fp32_counts_from_it(monkeypatch):
    rows = [
        {"size": "25M", "batch": batch, "recipe": name, "reason": "", "peak_bytes": 9}
        | {"low": low, "speed_up": middle, "high": high}
        for batch, name, low, middle, high in (
            (8, "fp32", 0.9, 1.0, 1.1),
            (32, "bf16", 0.9, 1.0, 1.1),
            (32, "fp32", 0.2, 0.25, 0.5),
        )
    ]
    record = records.committed("speed_124M_h200").with_data([0], {"rows": rows})
    (found,) = decision._timed("a record", record)
    assert found.base == "fp32" and found.speeds["fp32"] == (1, 1, 1)
    assert found.speeds["bf16"] == pytest.approx((0.9 / 0.5, 1 / 0.25, 1.1 / 0.2))
    without = record.with_data([0], {"rows": rows[1:2]})
    (found,) = decision._timed("a record", without)
    assert found.base == "bf16" and found.speeds["bf16"] == (0.9, 1.0, 1.1)


def test_gpus_that_agree_share_a_row_of_the_table(right):
    gpus = [peaks.get(name) for name in ("V100", "T4", "H200")]
    old, new = decision.choices(gpus)
    assert (old.gpus, old.sizes, old.fastest) == (("V100", "T4"), ("25M",), "fp16")
    assert old.saved == pytest.approx(0.4) and old.speed == (2.8, 3.0, 3.2)
    assert new.promised == pytest.approx((989 / 67, 989 / 67))
    lines = repr(decision.Table([old, new])).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert "3.00 x fp32 (2.80 to 3.20)" in lines[2] and "-40%" in lines[2]
    assert "| 8.0 x float32 |" in lines[2]


def test_what_the_committed_records_decide_is_right_and_can_run():
    decision.loss_of.cache_clear()
    for one in decision.choices():
        for name in (one.fastest, one.smallest):
            assert decision.loss_of(name).verdict == "right"
            assert all(decision.runs_on(name, peaks.get(gpu)) for gpu in one.gpus)
        assert one.source in decision.sources()
        assert all(math.isfinite(number) for number in (*one.speed, one.saved))


def test_the_peak_that_is_predicted_was_measured():
    record = records.committed("updates_25M_h200")
    batch = record.settings["training"]["batch"]
    seen = 0
    for run in record.data["runs"]:
        name = run["variant"]
        if name not in ("tf32", "bf16", "bf16-pure"):
            continue
        found = decision.predicted_peak("25M", name, batch, "adamw-foreach")
        assert run["peak_allocated_bytes"] == pytest.approx(found, rel=0.01)
        seen += 1
    assert seen == 9 and decision.predicted_peak("25M", "fp8", batch) is None
