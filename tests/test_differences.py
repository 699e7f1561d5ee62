"""Differences against scipy's Student, and what the sentences may claim."""

import math
import statistics
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from mpteach import comparison, differences, records
from mpteach.errors import InputError
from mpteach.runs import Run

SETTINGS = {
    "device": "cpu",
    "model": {"sequence": 8},
    "training": {"batch": 4, "steps": 2},
}
HELD_OUT = {
    "fp32": [2.0, 2.1, 1.9, 2.05],
    "bf16": [2.01, 2.09, 1.9, 2.07],
    "bf16-pure": [2.2, 2.31, 2.08, 2.26],
    "bf16-master": [1.9, 2.01, 1.81, 1.94],
}


def made(recipe, seed, held_out, joules=None):
    run = Run(recipe, seed, losses=[3.0, 2.5], seconds=[0.5, 0.25])
    run.validation_loss = held_out
    run.final_loss = held_out and held_out - 0.5
    run.tokens_per_second = held_out and (2000.0 if recipe == "fp32" else 5000.0)
    run.peak_allocated_bytes, run.energy_joules = 3 * 2**29, joules
    run.non_finite_step = None if held_out else 2
    return asdict(run)


def record_of(runs):
    empty = records.begin("comparison", SETTINGS, "mpteach compare", "cpu")
    seeds = sorted({run["seed"] for run in runs})
    return empty.with_data(seeds, {"runs": runs, "unavailable": {}})


@pytest.fixture
def record():
    runs = [
        made(name, seed, loss, joules=6.4)
        for name, losses in HELD_OUT.items()
        for seed, loss in enumerate(losses)
    ]
    return record_of([*runs, made("fp16-pure", 0, None)])


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 7, 10, 29, 100])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_quantiles_are_scipys(level, freedom):
    expected = stats.t.ppf((1 + level) / 2, freedom)
    assert differences.t_quantile(level, freedom) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("level", [0, 1, -1, math.nan])
def test_a_level_that_is_no_probability_is_refused(level):
    with pytest.raises(InputError, match="level was .*between 0 and 1"):
        differences.t_quantile(level, 4)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_intervals_are_scipys(count):
    pairs = np.random.default_rng(count).normal(0.1, 1, count).tolist()
    expected = stats.t.interval(0.95, count - 1, np.mean(pairs), stats.sem(pairs))
    assert differences.interval(pairs) == pytest.approx(expected, rel=1e-9)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.3, 1, (2000, 5))
    found = [differences.interval(row.tolist()) for row in draws]
    held = statistics.fmean(low <= 0.3 <= high for low, high in found)
    assert 0.935 < held < 0.965


def test_one_pair_has_no_interval():
    assert differences.interval([0.1]) is None and differences.interval([]) is None
    assert differences.sentence([0.1]).startswith("nothing resolved")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((-0.01, 0.02), "no difference larger than 0.0200 resolved"),
        ((-0.03001, 0.02), "no difference larger than 0.0301 resolved"),
        ((0.0, 0.0), "no difference larger than 0.0000 resolved"),
        ((0.01239, 0.02001), "higher by 0.0123 to 0.0201"),
        ((-0.02001, -0.01239), "lower by 0.0123 to 0.0201"),
    ],
)
def test_a_sentence_rounds_its_claim_outward(ends, said, monkeypatch):
    monkeypatch.setattr(differences, "interval", lambda pairs: ends)
    assert differences.sentence([]) == said


def test_each_recipe_is_held_against_the_base(record):
    lines = differences.sentences(record)
    assert [line.split(":")[0] for line in lines] == [
        "bf16 against fp32, 4 seeds",
        "fp16-pure against fp32, 0 seeds",
        "bf16-pure against fp32, 4 seeds",
        "bf16-master against fp32, 4 seeds",
    ]
    words = [line.split(": ")[1].split(" by")[0].split(" larger")[0] for line in lines]
    assert words[0] == "no difference" and words[2:] == ["higher", "lower"]
    assert words[1].startswith("nothing resolved")


def test_the_base_is_fp32_else_tf32_else_the_first():
    def base(*names):
        return differences.base_of(record_of([made(name, 0, 2.0) for name in names]))

    assert base("bf16", "tf32", "fp32") == "fp32" and base("fp8", "tf32") == "tf32"
    assert base("bf16-pure", "fp16") == "fp16"
    with pytest.raises(InputError, match="has no runs"):
        base()


def test_seconds_to_a_loss_wait_for_the_mean_of_twenty():
    losses = np.linspace(4, 2, 41).tolist()  # 0.05 a step
    run = {"losses": losses, "seconds": [0.5] * 41}
    # The mean of twenty lies 9.5 steps, 0.475, above the last of them.
    assert differences.seconds_to(run, 3.0) == 0.5 * (1 + math.ceil((1 + 0.475) / 0.05))
    assert differences.seconds_to(run, 4.0) == 10.0
    assert differences.seconds_to(run, 2.4) is None
    assert differences.seconds_to({**run, "losses": losses[:19]}, 9.0) is None
    broken = {**run, "losses": [*losses[:30], None, *losses[31:]]}
    assert differences.seconds_to(broken, 3.0) is None


def test_energy_counts_the_tokens_of_all_steps(record):
    run = record.data["runs"][0]
    assert differences.joules_per_token(record, run) == 6.4 / (2 * 4 * 8)
    for unknown in ({**run, "energy_joules": None}, {"losses": [1.0]}):
        assert differences.joules_per_token(record, unknown) is None


def test_the_table_shows_medians_differences_and_what_broke(record):
    head, *lines = differences.table(record).splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert list(rows) == ["fp32", "bf16", "fp16-pure", "bf16-pure", "bf16-master"]
    assert head.split()[:2] == ["recipe", "seeds"] and "x fp32" in head
    assert rows["fp32"][1:] == (
        "4 1.525 2.025 - - 2,000 1.00 1.50 100.00 finite".split()
    )
    pairs = comparison.differences(record, "bf16-pure")
    low, high = stats.t.interval(0.95, 3, np.mean(pairs), stats.sem(pairs))
    assert rows["bf16-pure"][4:8] == [
        f"{np.mean(pairs):+.4f}",
        f"{low:+.4f}..{high:+.4f}",
        "5,000",
        "2.50",
    ]
    assert rows["fp16-pure"][1:8] == ["1", "-", "-", "-", "-", "-", "-"]
    assert lines[2].endswith("non-finite at step 2")
    assert max(map(len, lines)) < 140 and "nan" not in "".join(lines)
