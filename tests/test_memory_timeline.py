"""What a timeline says of storages whose births and deaths are known."""

import pytest

from mpteach.memory.timeline import CATEGORIES, Storage, Timeline

MIB = 2**20
PHASES = [
    ("build", 0),
    ("forward", 1),
    ("backward", 1),
    ("backward", 1),
    ("step", 1),
    ("step", 1),
]


def stored(bytes_, category, phase, born, died=None):
    return Storage(bytes_, phase, 1, "", "made", category, born, died)


@pytest.fixture
def timeline():
    """A weight stays; an activation of 30 MiB dies when a gradient is there; then Adam."""
    return Timeline(
        [
            stored(1000, "parameters", "build", 0),
            stored(30 * MIB, "activations", "forward", 1, 3),
            stored(1000, "gradients", "backward", 2, 5),
            stored(2000, "optimizer", "step", 4),
        ],
        PHASES,
    )


def test_each_event_has_its_moment(timeline):
    assert [moment[:2] for moment in timeline.moments] == PHASES
    requested = [1000, 30 * MIB + 1000, 30 * MIB + 2000, 2000, 4000, 3000]
    assert [moment.requested for moment in timeline.moments] == requested
    allocated = [1024, 30 * MIB + 1024, 30 * MIB + 2048, 2048, 4096, 3072]
    assert [moment.allocated for moment in timeline.moments] == allocated
    assert [moment.reserved for moment in timeline.moments] == [2 * MIB] + [32 * MIB] * 5


def test_peaks_are_those_of_the_fullest_moment(timeline):
    assert timeline.peak == 2 and timeline.phase_of_peak == "backward"
    assert timeline.requested_peak == 30 * MIB + 2000
    assert timeline.allocated_peak == 30 * MIB + 2048
    assert timeline.reserved_peak == 32 * MIB


def test_a_phase_has_its_events_and_its_peak_from_where_it_begins(timeline):
    assert timeline.steps == 1
    assert timeline.events("backward") == [2, 3]
    assert timeline.events("backward", 2) == []
    assert timeline.peak_in("forward") == 30 * MIB + 1024
    assert timeline.peak_in("step") == 4096
    assert timeline.peak_in("build", 0) == 1024
    assert timeline.peak_in("forward", 7) == 0


def test_what_is_alive_is_summed_by_category(timeline):
    held = [one.category for one in timeline.alive(2)]
    assert held == ["parameters", "activations", "gradients"]
    assert [one.category for one in timeline.alive(3)] == ["parameters", "gradients"]
    sums = timeline.by_category(2)
    assert tuple(sums) == CATEGORIES
    assert sums["activations"] == 30 * MIB and sums["gradients"] == 1024
    assert timeline.by_category(2, "bytes")["gradients"] == 1000
    for event, moment in enumerate(timeline.moments):
        assert sum(timeline.by_category(event).values()) == moment.allocated
        assert sum(timeline.by_category(event, "bytes").values()) == moment.requested


def test_a_block_that_was_not_split_counts_whole():
    timeline = Timeline(
        [
            stored(12 * MIB, "temporaries", "forward", 0, 1),
            stored(11 * MIB, "temporaries", "forward", 2),
        ],
        [("forward", 1)] * 3,
    )
    assert [one.block for one in timeline.storages] == [12 * MIB, 12 * MIB]
    assert timeline.moments[-1].requested == 11 * MIB


def test_the_summary_has_the_names_of_a_measurement(timeline):
    assert timeline.summary() == {
        "parameters": 1024,
        "gradients": 1024,
        "optimizer_state": 2048,
        "master_weights": 0,
        "activations": 30 * MIB,
        "requested_peak": timeline.requested_peak,
        "allocated_peak": timeline.allocated_peak,
        "reserved_peak": timeline.reserved_peak,
        "cublas_workspace": 0,
        "phase_of_peak": "backward",
    }
