"""Formats against numpy, ml_dtypes, torch and exact searches, on every code if few."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from oracles import PAIRS, SMALL, sizes

from mpteach import formats
from mpteach.formats import FORMATS, FloatFormat

MINI = FloatFormat("mini", 3, 2)
DECODED = [(name, library) for name, library in PAIRS if FORMATS[name].bits <= 16]
TORCH = [name for name, library in PAIRS if library == "torch"]
ML_DTYPES = [name for name, library in PAIRS if library == "ml_dtypes"]


def read_by(library: str, name: str, codes: np.ndarray) -> np.ndarray:
    """Return the values that `library` reads from codes of up to 16 bits."""
    if library == "torch":
        dtype = getattr(torch, name)
        signed = np.int8 if dtype.itemsize == 1 else np.int16
        return torch.from_numpy(codes.astype(signed)).view(dtype).double().numpy()
    dtype = np.dtype(getattr({"numpy": np, "ml_dtypes": ml_dtypes}[library], name))
    with np.errstate(invalid="ignore"):  # a signalling NaN is flagged by design
        return codes.astype(f"u{dtype.itemsize}").view(dtype).astype(np.float64)


@pytest.mark.parametrize(("name", "library"), DECODED)
def test_every_code_decodes_as_in_the_library(name, library):
    codes = np.arange(2 ** FORMATS[name].bits)
    ours, theirs = FORMATS[name].decode(codes), read_by(library, name, codes)
    np.testing.assert_array_equal(ours, theirs)
    number = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours)[number], np.signbit(theirs)[number])


def test_every_format_of_up_to_16_bits_was_compared():
    assert {name for name, _ in DECODED} == {f.name for f in SMALL if f.bits <= 16}


@pytest.mark.parametrize(
    ("name", "bits", "floats"),
    [("float32", np.uint32, np.float32), ("float64", np.uint64, np.float64)],
)
def test_a_million_patterns_decode_as_numpy_does(name, bits, floats):
    top = np.iinfo(bits).max
    codes = np.random.default_rng(1).integers(0, top, 10**6, bits, endpoint=True)
    codes[:2] = 0, top
    with np.errstate(invalid="ignore"):
        theirs = codes.view(floats).astype(np.float64)
    np.testing.assert_array_equal(FORMATS[name].decode(codes), theirs)


def test_tfloat32_is_float32_with_13_fraction_bits_cut():
    codes = np.arange(2**19)
    with np.errstate(invalid="ignore"):
        other = (codes.astype(np.uint32) << 13).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(FORMATS["tfloat32"].decode(codes), other)


@pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)
def test_every_code_comes_back_and_every_nan_is_the_one_nan(fmt):
    codes = np.arange(2**fmt.bits)
    values = fmt.decode(codes)
    is_nan = np.zeros(codes.shape, bool)
    for several in fmt.nan_codes:
        is_nan[several] = True
    np.testing.assert_array_equal(np.isnan(values), is_nan)
    np.testing.assert_array_equal(fmt.encode(values[~is_nan]), codes[~is_nan])
    if is_nan.any():
        positive = fmt.encode(math.nan)
        negative = fmt.encode(-math.nan)
        assert positive == fmt.nan_code and is_nan[positive] and is_nan[negative]
        two = fmt.signed and fmt.specials != "fnuz"
        assert negative == positive + two * 2 ** (fmt.bits - 1)


@pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)
def test_values_are_all_finite_values_once(fmt):
    finite = fmt.decode(np.arange(2**fmt.bits))
    finite = np.unique(finite[np.isfinite(finite)])
    assert fmt.value_count == finite.size
    assert (fmt.max, fmt.min) == (finite[-1], finite[0])
    assert fmt.smallest_subnormal == finite[finite > 0][0]
    if fmt.bits <= 16:
        np.testing.assert_array_equal(fmt.values(), finite)
        assert not np.signbit(fmt.values()[fmt.values() == 0]).any()


@pytest.mark.parametrize("name", TORCH)
def test_properties_are_torchs_finfo(name):
    fmt, info = FORMATS[name], torch.finfo(getattr(torch, name))
    fields = ["bits", "max", "min", "smallest_normal", "eps"]
    if name == "float8_e5m2fnuz":  # torch says 0.125, and 1.25 follows 1 there too
        fields.remove("eps")
        one = torch.ones((), dtype=torch.float8_e5m2fnuz).view(torch.uint8)
        assert (one + 1).view(torch.float8_e5m2fnuz).float() == 1 + fmt.eps
    for field in fields:
        assert getattr(fmt, field) == getattr(info, field), field


@pytest.mark.parametrize("name", ML_DTYPES)
def test_properties_are_ml_dtypes_finfo(name):
    fmt, info = FORMATS[name], ml_dtypes.finfo(getattr(ml_dtypes, name))
    for field in ("max", "min", "eps", "smallest_subnormal", "smallest_normal"):
        assert getattr(fmt, field) == float(getattr(info, field)), field
    assert (fmt.fraction_bits, fmt.exponent_bits) == (info.nmant, info.nexp)
    assert fmt.bits == info.bits


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_properties_are_numpys_finfo(name):
    fmt, info = FORMATS[name], np.finfo(name)
    for field in ("max", "min", "eps", "smallest_subnormal", "smallest_normal"):
        assert getattr(fmt, field) == float(getattr(info, field)), field
    assert fmt.bits == info.bits and fmt.bias == info.maxexp - 1


def test_the_codes_of_specials_by_the_standards():
    specials = {
        name: (fmt.infinity_code, fmt.nan_code, sum(map(len, fmt.nan_codes)))
        for name, fmt in FORMATS.items()
    }
    assert specials["float16"] == (0x7C00, 0x7E00, 2 * 1023)
    assert specials["bfloat16"] == (0x7F80, 0x7FC0, 2 * 127)
    assert specials["float32"] == (0x7F800000, 0x7FC00000, 2 * (2**23 - 1))
    assert specials["float8_e5m2"] == (0x7C, 0x7E, 6)
    assert specials["float8_e4m3fn"] == (None, 0x7F, 2)
    assert specials["float8_e4m3fnuz"] == specials["float8_e5m2fnuz"] == (None, 0x80, 1)
    assert specials["float8_e8m0fnu"] == (None, 0xFF, 1)
    for name in ("float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn"):
        assert specials[name] == (None, None, 0)


def test_the_largest_numbers_by_the_standards():
    largest = {name: fmt.max for name, fmt in FORMATS.items()}
    assert largest["float8_e4m3fn"] == 448 and largest["float8_e5m2"] == 57344
    assert largest["float8_e4m3fnuz"] == 240 and largest["float8_e5m2fnuz"] == 57344
    assert largest["float8_e8m0fnu"] == 2.0**127 and largest["float4_e2m1fn"] == 6
    assert largest["float6_e3m2fn"] == 28 and largest["float6_e2m3fn"] == 7.5


def test_the_claims_numbers_about_fp16():
    half = formats.get("float16")
    assert half.fields(0.001).value == 0.00100040435791015625
    assert half.encode(0.001) == 0x1419 and half.encode(0.00001) == 0x00A8
    assert half.encode(65519.99) < half.infinity_code == half.encode(65520.0)
    assert half.encode(2.0**-25) == 0 < half.encode(np.nextafter(2.0**-25, 1))


def test_fields_take_a_value_apart():
    fields = formats.get("bfloat16").fields(-0.15625)
    assert (fields.sign, fields.exponent, fields.fraction) == (1, 124, 32)
    assert fields.pattern == "1 01111100 0100000" and fields.kind == "normal"
    assert fields.value == -(1 + 32 / 128) * 2.0 ** (124 - 127)


@pytest.mark.parametrize(("x", "kind"), [
    (0.0, "zero"), (-0.0, "zero"), (2.0**-24, "subnormal"), (2.0**-14, "normal"),
    (65504.0, "normal"), (1e9, "inf"), (-math.inf, "inf"), (math.nan, "nan"),
])  # fmt: skip
def test_kinds(x, kind):
    fields = formats.get("float16").fields(x)
    assert fields.kind == kind
    assert fields.value == x or kind in ("inf", "nan")


@pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)
def test_fields_add_up_to_the_value(fmt):
    for code in {0, 1, 2**fmt.bits - 1, *range(0, 2**fmt.bits, 97)}:
        fields = fmt.fields_of(code)
        assert fields.pattern.replace(" ", "") == f"{code:0{fmt.bits}b}"
        subnormal = fmt.zero and fields.exponent == 0
        scale = 2.0 ** (fields.exponent + subnormal - fmt.bias - fmt.fraction_bits)
        whole = fields.fraction + (0 if subnormal else 2**fmt.fraction_bits)
        if fields.kind in ("zero", "subnormal", "normal"):
            assert fields.value == (-1) ** fields.sign * whole * scale
            assert (fields.kind == "zero") == (fields.value == 0)
            assert (fields.kind == "subnormal") == (subnormal and whole > 0)
        else:
            assert fields.kind == ("nan" if math.isnan(fields.value) else "inf")


def test_the_fields_of_unsigned_and_of_fractionless_codes():
    fields = formats.get("float8_e8m0fnu").fields(4.0)
    assert (fields.sign, fields.exponent, fields.fraction) == (0, 129, 0)
    assert fields.pattern == "10000001" and fields.kind == "normal"
    assert formats.get("float8_e8m0fnu").fields_of(0).kind == "normal"
    assert formats.get("float8_e4m3fnuz").fields_of(128).kind == "nan"


def test_values_of_the_small_format_by_hand():
    expected = [k / 16 for k in range(4)]
    expected += [(1 + f / 4) * 2.0**e for e in range(-2, 4) for f in range(4)]
    assert MINI.values().tolist() == [-v for v in expected[:0:-1]] + expected


@pytest.mark.parametrize(("name", "dtype"), [
    ("float16", np.float16), ("float32", np.float32), ("float64", np.float64)
])  # fmt: skip
def test_ulp_and_neighbours_are_numpys(name, dtype):
    fmt, info = FORMATS[name], np.finfo(dtype)
    x = np.array([0, 1, 1.5, 2, 1.2, info.max, info.tiny, info.smallest_subnormal])
    x = np.concatenate([x.astype(dtype), -x.astype(dtype)])
    with np.errstate(over="ignore"):
        spacing = np.spacing(np.abs(x)).astype(np.float64)
        above = np.nextafter(x, dtype(np.inf)).astype(np.float64)
        below = np.nextafter(x, dtype(-np.inf)).astype(np.float64)
    # The largest number's step leads to infinity in numpy, and is carried on in ours.
    np.testing.assert_array_equal(fmt.ulp(x[:5]), spacing[:5])
    np.testing.assert_array_equal(fmt.ulp(x[6:8]), spacing[6:8])
    assert fmt.ulp(info.max) == info.max - np.nextafter(info.max, dtype(0))
    for ours, theirs in ((fmt.next_up(x), above), (fmt.next_down(x), below)):
        np.testing.assert_array_equal(ours, theirs)
        # IEEE 754-2019, 5.3.1: a step from the smallest number to zero keeps the sign.
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


@pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)
def test_the_step_from_each_value_is_its_ulp_and_leads_to_the_next(fmt):
    table = sizes(fmt)[:-1]
    np.testing.assert_array_equal(fmt.next_up(table[:-1]), table[1:])
    np.testing.assert_array_equal(fmt.next_down(table[1:]), table[:-1])
    np.testing.assert_array_equal(fmt.ulp(table), np.diff(sizes(fmt)))
    between = (table[:-1] + table[1:]) / 2
    np.testing.assert_array_equal(fmt.next_up(between), table[1:])
    np.testing.assert_array_equal(fmt.next_down(between), table[:-1])
    if fmt.signed:
        np.testing.assert_array_equal(fmt.next_down(-table[:-1]), -table[1:])
        np.testing.assert_array_equal(fmt.next_up(-between), -table[:-1])


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_beyond_the_outermost_values(fmt):
    end = np.inf if fmt.specials == "ieee" else np.nan
    low = -end if fmt.signed else np.nan
    x = np.array([fmt.max, np.inf, fmt.min, -np.inf, np.nan])
    up = [end, end, fmt.next_up(fmt.min), fmt.min, np.nan]
    down = [fmt.next_down(fmt.max), fmt.max, low, low, np.nan]
    np.testing.assert_array_equal(fmt.next_up(x), up)
    np.testing.assert_array_equal(fmt.next_down(x), down)


def test_ulp_goes_on_beyond_the_largest_number():
    assert FORMATS["float16"].ulp(65536.0) == 64 == 2 * FORMATS["float16"].ulp(65504)
    assert FORMATS["float4_e2m1fn"].ulp([6.0, 8.0, 0.1]).tolist() == [2, 4, 0.5]


def test_formats_are_values():
    again = FloatFormat("float16", 5, 10)
    assert again == FORMATS["float16"] and hash(again) == hash(FORMATS["float16"])
    assert again != FloatFormat("float16", 5, 10, bias=14)
    assert FORMATS["float16"].max == again.max and again == FORMATS["float16"]
