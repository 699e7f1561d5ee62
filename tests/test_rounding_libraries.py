"""Ten million random patterns, rounded as numpy, ml_dtypes, torch and gfloat do it."""

import numpy as np
import pytest
from oracles import (
    PAIRS,
    assert_same,
    by_design,
    critical,
    library_mismatches,
    patterns,
    spread,
)

from mpteach.formats import FORMATS
from mpteach.libraries import LIBRARIES, convert, holds
from mpteach.rounding import round_to

# Where float64 goes through float32 inside the library, float32 is what is compared.
FROM_FLOAT32 = [pair for pair in PAIRS if FORMATS[pair[0]].bits <= 16]
FROM_FLOAT64 = [(n, one) for n, one in PAIRS if n == "float32" or one == "numpy"]
GFLOAT = [name for name in FORMATS if "gfloat" in LIBRARIES and holds(name, "gfloat")]
CHUNKS, CHUNK = 10, 10**6


@pytest.mark.parametrize(("name", "library"), FROM_FLOAT32)
def test_ten_million_float32_patterns(name, library):
    compared = wrong = 0
    for seed in range(CHUNKS):
        some, differ = library_mismatches(name, library, patterns(CHUNK, seed))
        compared, wrong = compared + some, wrong + differ
    assert wrong == 0
    # NaN, of which there is one in 256, cannot be compared in formats without it; of
    # E8M0 torch's negative half, and of E4M3 what is beyond 464, differ by design.
    assert compared > 0.4 * CHUNKS * CHUNK


@pytest.mark.parametrize(("name", "library"), FROM_FLOAT64)
def test_ten_million_float64_patterns(name, library):
    fmt = FORMATS[name]
    for seed in range(CHUNKS):
        x = patterns(CHUNK, seed, np.float64)
        x[::2] = spread(fmt, CHUNK // 2, seed)
        with np.errstate(invalid="ignore"):
            ours, theirs = round_to(x, name), convert(x, name, library)
        assert_same(ours, theirs, x)


def test_ten_million_float32_patterns_as_tfloat32():
    for seed in range(CHUNKS):
        x = patterns(CHUNK, seed)
        x = x[np.isfinite(x)]
        bits = x.view(np.uint32)
        # Half a step less one, plus one where the last bit kept is odd; then cut.
        rounded = (bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)
        assert_same(round_to(x, "tfloat32"), rounded.view(np.float32), x)


@pytest.mark.parametrize(("name", "library"), FROM_FLOAT32)
def test_every_value_and_midpoint_as_the_library_does(name, library):
    x = critical(FORMATS[name], np.float32)
    with np.errstate(invalid="ignore"):
        x = x[~by_design(name, library, x)]
    assert_same(round_to(x, name), convert(x, name, library), x)


@pytest.mark.parametrize("name", GFLOAT)
def test_gfloat_rounds_half_a_million_float64_to_the_same_numbers(name):
    fmt = FORMATS[name]
    x = spread(fmt, 500_000, seed=21)
    x = np.clip(x, -fmt.max, fmt.max) if fmt.specials == "finite" else x
    if not fmt.signed:
        # Of E8M0's ties, and below its range, see DISAGREEMENTS.
        x = np.abs(x)
        x = x[x >= fmt.smallest_normal]
    assert_same(round_to(x, name), convert(x, name, "gfloat"), x)
