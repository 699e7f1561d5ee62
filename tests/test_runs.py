"""Settings: which are refused, and the rate by its formula. A Run: what it notes."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
import torch

from mpteach.errors import InputError
from mpteach.runs import MOST, Run, Settings, require_count

COUNTS = ["steps", "batch", "validation_batches", "gradient_every", "patience"]
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -3])
def test_counts_below_one_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} was {value}: .*at least 1"):
        Settings(**{name: value})


BAD = [
    ("steps", [1.5, True, "3", None, MOST + 1, 10**5000, np.int64(0)]),
    ("batch", [10**9, [4]]),
    ("warmup_steps", [-4, 0.0]),
    ("learning_rate", [NAN, INF, None, 0, -1e-3, "fast", True, 10**400, 1j]),
    ("beta2", [2, 1, 0, NAN, True]),
    ("final_rate", [-0.1, 1.1, NAN, "0", True]),
    ("compiled", ["all", None, True, [], 0]),
]


@pytest.mark.parametrize(("name", "values"), BAD)
def test_settings_that_no_run_can_have(name, values):
    for value in values:
        with pytest.raises(InputError) as refused:
            Settings(**{name: value})
        said = str(refused.value)
        assert said.startswith(f"{name} was ") and said.endswith(".")
        assert "\n" not in said and len(said) < 160


def test_the_edges_of_what_is_allowed_pass():
    edge = Settings(
        steps=1, warmup_steps=0, final_rate=0, compiled="whole", patience=MOST
    )
    assert edge.rate(1) == 0 and require_count("steps", MOST) is None
    assert Settings(steps=2, warmup_steps=10).rate(2) == pytest.approx(0.2 * 6e-4)


def test_the_rate_is_a_line_then_half_a_cosine():
    settings = Settings(steps=110, warmup_steps=10, learning_rate=2.0, final_rate=0.1)
    rates = [settings.rate(step) for step in range(1, 111)]
    assert rates[:10] == pytest.approx(np.linspace(0.2, 2.0, 10))
    turned = np.cos(np.linspace(0, np.pi, 101))
    assert rates[9:] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + turned) / 2))


def test_a_rate_without_decay_stays():
    settings = Settings(steps=100, warmup_steps=10)
    assert {settings.rate(step) for step in (10, 50, 100)} == {6e-4}


def test_samples_are_the_first_step_and_every_so_many():
    settings = Settings(gradient_every=4)
    assert [n for n in range(1, 13) if settings.is_sampled(n)] == [1, 4, 8, 12]


def run_of(losses, patience):
    run = Run("fp32", 0)
    for loss in losses:
        run.note_step(0.5, loss, patience)
    return run


@pytest.mark.parametrize(
    ("losses", "patience", "found"),
    [
        ([1.0, NAN], 1, 2),
        ([INF], 1, 1),
        ([1.0, NAN, 2.0, NAN], 2, None),
        ([1.0, NAN, 2.0, NAN, INF], 2, 4),
        ([NAN, NAN, NAN], 3, 1),
        ([NAN, NAN], 3, None),
    ],
)
def test_a_run_ends_after_so_many_bad_losses_in_a_row(losses, patience, found):
    run = run_of(losses, patience)
    assert run.non_finite_step == found
    assert run.losses == [x if math.isfinite(x) else None for x in losses]


def test_a_loss_keeps_what_a_float32_holds():
    bits = np.random.default_rng(0).integers(0x3F800000, 0x41200000, 1000)  # 1 to 10
    losses = bits.astype(np.uint32).view(np.float32)
    run = run_of([float(loss) for loss in losses], 1)
    assert np.array_equal(np.float32(run.losses), losses)
    assert max(len(repr(loss)) for loss in run.losses) <= 10


def test_the_final_loss_is_the_mean_of_the_last_twenty_that_are_finite():
    losses = [9.0, *(float(n) for n in range(20))]  # 0.0 counts as a loss too
    run = run_of(losses, 1)
    run.note_end(2.5, 1.0)
    assert run.final_loss == statistics.fmean(range(20)) and run.validation_loss == 2.5
    run = run_of([1.0, NAN, 3.0], 2)
    run.note_end(NAN, 1.0)
    assert run.final_loss == 2.0 and run.validation_loss is None
    run = run_of([NAN] * 30, 40)
    run.note_end(INF, 1.0)
    assert run.final_loss is None and run.validation_loss is None


def test_a_scale_is_noted_when_it_changes_and_a_fall_is_a_skip():
    run = Run("fp16", 0)
    scales = [8.0, 4.0, 2.0, 2.0, 4.0, 4.0]
    for step, (before, after) in enumerate(pairwise(scales), start=1):
        scaler = torch.amp.GradScaler("cpu", init_scale=after)
        run.note_scale(step, before, scaler)
    assert run.loss_scale == [(1, 8.0), (2, 4.0), (3, 2.0), (5, 4.0)]
    assert run.skipped_steps == [1, 2]
