"""What datasheets promise: dense, sourced, and consistent with each other."""

import dataclasses

import pytest

from mpteach import hardware
from mpteach.errors import InputError
from mpteach.hardware import peaks

EVERY = list(peaks.PROCESSORS.values())


def test_the_processors_of_the_course():
    wanted = {"V100", "T4", "A100", "RTX 4090", "H100", "H200", "B200"}
    assert wanted < set(peaks.PROCESSORS)
    assert any(one.name.startswith("Xeon") for one in EVERY)
    assert [one.year for one in EVERY[:-1]] == sorted(one.year for one in EVERY[:-1])


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_every_rate_has_its_source(one):
    assert len(one.source.split()) > 4 and len(one.reading.split()) > 3
    assert one.read == "2026-11-24"
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.float32 = 1.0


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_rates_double_from_format_to_format_and_are_not_sparse(one):
    assert one.bfloat16 in (None, one.float16)
    if one.tfloat32:
        assert one.float16 / one.tfloat32 == pytest.approx(2, rel=0.03)
        assert one.tfloat32 >= one.float32
    if one.float8_e4m3fn:
        assert one.float8_e4m3fn / one.float16 == pytest.approx(2, rel=0.01)
    assert 1e12 < one.float32 < one.float16 and 1e11 < one.bandwidth < 1e13


def test_the_dtypes_are_those_of_the_capability():
    capabilities = {
        "V100": (7, 0),
        "T4": (7, 5),
        "A100": (8, 0),
        "RTX 4090": (8, 9),
        "H100": (9, 0),
        "B200": (10, 0),
    }
    for name, capability in capabilities.items():
        has = {d for d, first in hardware.FIRST_CAPABILITY.items() if capability >= first}
        found = {d for d in peaks.PRODUCTS if peaks.get(name).peak(d)}
        assert found == has


def test_the_h200_is_an_h100_with_another_memory():
    one, other = peaks.get("H100"), peaks.get("H200")
    assert [one.peak(d) for d in peaks.PRODUCTS] == [other.peak(d) for d in peaks.PRODUCTS]
    assert other.bandwidth / one.bandwidth == pytest.approx(1.43, abs=0.01)


def test_the_rates_of_the_cpu_are_multiplied_out():
    xeon = peaks.get("Xeon 6980P")
    assert xeon.float16 / xeon.float32 == 16
    assert xeon.float32 == pytest.approx(16.4e12, rel=0.01)
    assert xeon.bandwidth == pytest.approx(844.8e9)


@pytest.mark.parametrize("name", ["H300", "h200", "", None, 7])
def test_an_unknown_processor(name):
    with pytest.raises(InputError, match="choose from V100, T4, A100"):
        peaks.get(name)


def test_an_unknown_dtype():
    with pytest.raises(InputError, match="unknown dtype 'half'.*float8_e4m3fn"):
        peaks.get("H200").peak("half")
