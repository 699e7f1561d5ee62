"""The notes' statements about formats: their bits, range and precision."""

import math
from decimal import Decimal

import numpy as np

from mpteach import formats
from mpteach.claims.rule import Claim, Finding, Place
from mpteach.figures.rounding import worst_relative_errors
from mpteach.formats import FloatFormat

SINGLE, HALF, BRAIN = (formats.get(n) for n in ("float32", "float16", "bfloat16"))
WEIGHT, GRADIENT = 0.001, 0.00001  # the notes' example
CLAIMED = 0.00098  # what they say becomes of the weight
ALMOST = 0.01  # of a number: how far "almost unchanged" goes
SMALL, ONE, LARGE = -20, 0, 14  # powers of two, of float16's subnormals and normals


def _sizes() -> Finding:
    half, single = HALF.bits // 8, SINGLE.bits // 8
    return Finding(
        {"float16": half == 2, "float32": single == 4},
        "{half} and {single} bytes each",
        {"half": half, "single": single},
    )


def _half_layout() -> Finding:
    reach, wide = decades(HALF), decades(SINGLE)
    has_bits = (1, HALF.exponent_bits, HALF.fraction_bits) == (1, 5, 10)
    return Finding(
        {"the range is wide": reach > wide / 2, "the bits": has_bits},
        "bits as stated; normal numbers from {low:.2e} to {high:g}, subnormals from "
        "{least:.2e}: {reach:.1f} powers of ten, float32 has {wide:.1f}",
        {
            "low": HALF.smallest_normal,
            "high": HALF.max,
            "least": HALF.smallest_subnormal,
            "reach": reach,
            "wide": wide,
        },
    )


def _brain_layout() -> Finding:
    powers = np.arange(math.log2(BRAIN.smallest_normal), 16)
    finer = BRAIN.ulp(2.0**powers) < HALF.ulp(2.0**powers)
    end = int(powers[~finer][0])
    has_bits = (1, BRAIN.exponent_bits, BRAIN.fraction_bits) == (1, 8, 7)
    return Finding(
        {
            "more precision for small values": bool(finer[powers < 0].all()),
            "more precision for the smallest": bool(finer[0]),
            "a broad range": decades(BRAIN) > decades(SINGLE) / 2,
            "the bits": has_bits,
        },
        "bits as stated; {brain} significant bits, float16 {half}; the finer grid only "
        "below 2^{end}",
        {
            "brain": BRAIN.fraction_bits + 1,
            "half": HALF.fraction_bits + 1,
            "end": end,
        },
    )


def _both_reach() -> Finding:
    high = HALF.max + float(HALF.ulp(HALF.max)) / 2
    low = HALF.smallest_subnormal / 2
    reach = {
        fmt.name: math.isfinite(fmt.fields(high).value) and fmt.fields(low).value > 0
        for fmt in (HALF, BRAIN)
    }
    return Finding(
        {"both": all(reach.values())},
        "float16 makes {top} of {high:g} and {bottom:g} of 2^{low:.0f}; bfloat16 keeps both",
        {
            "top": HALF.fields(high).value,
            "high": high,
            "bottom": HALF.fields(low).value,
            "low": math.log2(low),
        },
    )


def _loses_at_the_ends() -> Finding:
    powers = np.array([SMALL, ONE, LARGE])
    small, one, large = 100 * worst_relative_errors(HALF, powers).max(axis=1)
    over = HALF.max + float(HALF.ulp(HALF.max)) / 2
    return Finding(
        {
            "very small values": bool(small > one),
            "large values that it has": bool(large > one),
            "larger ones": math.isinf(HALF.fields(over).value),
        },
        "worst relative error of float16 {one:.3f} % at 1, {small:.3f} % at 2^{low}, "
        "{large:.3f} % at 2^{high}; {over:g} becomes {end}",
        {
            **{"one": one, "small": small, "large": large, "low": SMALL, "high": LARGE},
            **{"over": over, "end": HALF.fields(over).value},
        },
    )


def _stored(x: float, fmt: FloatFormat) -> dict[str, object]:
    value = fmt.fields(x).value
    return {
        "value": Decimal(value),
        "code": int(fmt.encode(x)),
        "off": 100 * (value / x - 1),
    }


def _weight_stored() -> Finding:
    found = _stored(WEIGHT, HALF)
    digits = Decimal(str(CLAIMED)).as_tuple().exponent
    is_so = round(float(found["value"]), -digits) == CLAIMED
    return Finding(
        {"0.001": is_so}, "it becomes {value} (0x{code:04X}), off by {off:+.4f} %", found
    )


def _gradient_stored() -> Finding:
    found = _stored(GRADIENT, HALF)
    is_so = float(found["value"]) == GRADIENT
    text = "it becomes {value:f} (0x{code:04X}, {kind}), off by {off:+.4f} %"
    kind = HALF.fields(GRADIENT).kind
    return Finding({"0.00001": is_so}, text, found | {"kind": kind})


def _brain_keeps_more() -> Finding:
    off = {
        x: [abs(_stored(x, fmt)["off"]) for fmt in (HALF, BRAIN)]
        for x in (WEIGHT, GRADIENT)
    }
    weight = _stored(WEIGHT, BRAIN)
    same = HALF.fields(GRADIENT).value == BRAIN.fields(GRADIENT).value
    return Finding(
        {f"{x:g}": brain < half for x, (half, brain) in off.items()},
        "0.001 is off by {off:+.4f} % ({value}, 0x{code:04X}), in float16 {half:+.4f} %; "
        "0.00001 becomes {same} in both",
        weight
        | {
            "half": _stored(WEIGHT, HALF)["off"],
            "same": "the same number" if same else "another number",
        },
    )


def _brain_keeps_almost() -> Finding:
    off = {x: _stored(x, BRAIN)["off"] for x in (WEIGHT, GRADIENT)}
    return Finding(
        {f"{x:g}": abs(one) < 100 * ALMOST for x, one in off.items()},
        "off by {weight:+.4f} % and {gradient:+.4f} %; in float16 {half:+.4f} % and "
        "{other:+.4f} %",
        {
            "weight": off[WEIGHT],
            "gradient": off[GRADIENT],
            "half": _stored(WEIGHT, HALF)["off"],
            "other": _stored(GRADIENT, HALF)["off"],
        },
    )


def decades(fmt: FloatFormat) -> float:
    """Return how many powers of ten the normal numbers of `fmt` cover."""
    return math.log10(fmt.max / fmt.smallest_normal)


_READ, _ROUND = "read_the_bits", "round_and_lose"
CLAIMS = (
    Claim(
        "C01",
        "A float16 number takes 2 bytes, a float32 number 4.",
        _sizes,
        (Place(_READ, "bytes-count"),),
    ),
    Claim(
        "C09",
        "float16 has 1 sign, 5 exponent and 10 fraction bits, which gives a wide range.",
        _half_layout,
        (Place(_READ, "range-verdicts"), Place(_READ, "range-figure")),
        "float16 is precise and narrow.",
    ),
    Claim(
        "C10",
        "bfloat16 has 1 sign, 8 exponent and 7 fraction bits, and is made to keep more "
        "precision for small values, with a broad range.",
        _brain_layout,
        (Place(_READ, "precision-verdict"),),
        "bfloat16 keeps float32's range and pays with precision.",
    ),
    Claim(
        "C11",
        "float16 and bfloat16 both represent very small and very large values.",
        _both_reach,
        (Place(_READ, "range-verdicts"), Place(_READ, "range-edges")),
        "bfloat16 reaches as far as float32. float16 does not: it has infinity and zero "
        "where gradients and sums may lie.",
    ),
    Claim(
        "C12",
        "0.001 becomes about 0.00098 in float16.",
        _weight_stored,
        (Place(_ROUND, "notes-exact"),),
        "float16 stores 0.001 closely, and more closely than bfloat16 does.",
    ),
    Claim(
        "C13",
        "0.00001 is unchanged in float16.",
        _gradient_stored,
        (Place(_ROUND, "notes-exact"),),
        "0.00001 is rounded like any other number; in float16 it is subnormal.",
    ),
    Claim(
        "C14",
        "bfloat16 keeps more precision for both.",
        _brain_keeps_more,
        (Place(_ROUND, "notes-exact"),),
        "Where neither format runs out of range, float16 is the more precise one.",
    ),
    Claim(
        "C19",
        "float16 gives up precision for very small and for very large values.",
        _loses_at_the_ends,
        (Place(_ROUND, "bound-figure"), Place(_READ, "range-edges")),
        "float16 loses digits among its subnormals. Up to its largest number it is as "
        "precise as at 1; beyond, it is infinite.",
    ),
    Claim(
        "C24",
        "In bfloat16 0.001 and 0.00001 stay almost unchanged.",
        _brain_keeps_almost,
        (Place(_ROUND, "notes-exact"),),
    ),
)
