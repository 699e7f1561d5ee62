"""Formats against numpy, ml_dtypes, torch and exact fractions, on every code if few."""

import datetime
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpteach import formats
from mpteach.errors import InputError
from mpteach.formats import FloatFormat

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MINI = FloatFormat("mini", 3, 2)
HUGE = 10**5000  # too many digits for a repr


def theirs(name, codes):
    with np.errstate(
        invalid="ignore"
    ):  # converting a signalling NaN is flagged by design
        return codes.astype(np.uint16).view(HALVES[name]).astype(np.float64)


def exact_code(fmt, x):
    """Nearest-even by exact fractions: search the codes on both sides of |x|."""
    size = abs(Fraction(x))
    low, high = 0, fmt.infinity_code
    while high - low > 1:
        middle = (low + high) // 2
        if Fraction(float(fmt.decode(middle))) <= size:
            low = middle
        else:
            high = middle
    below = Fraction(float(fmt.decode(low)))
    above = below + Fraction(float(fmt.ulp(float(below))))
    if size - below != above - size:
        code = low if size - below < above - size else high
    else:
        code = low if low % 2 == 0 else high
    return code | (math.copysign(1, x) < 0) << (fmt.bits - 1)


@pytest.mark.parametrize("name", HALVES)
def test_all_65536_patterns_decode_as_numpy_and_ml_dtypes_do(name):
    codes = np.arange(2**16)
    ours, other = formats.get(name).decode(codes), theirs(name, codes)
    np.testing.assert_array_equal(ours, other)
    number = ~np.isnan(other)
    np.testing.assert_array_equal(np.signbit(ours)[number], np.signbit(other)[number])
    assert number.sum() == 2**16 - 2 * (2 ** formats.get(name).fraction_bits - 1)


@pytest.mark.parametrize("name", HALVES)
def test_all_65536_patterns_decode_as_torch_does(name):
    codes = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    other = codes.view(TORCH[name]).double().numpy()
    ours = formats.get(name).decode(codes.numpy().astype(np.int64) & 0xFFFF)
    np.testing.assert_array_equal(ours, other)


def test_a_million_float32_patterns_decode_as_numpy_does():
    codes = np.random.default_rng(1).integers(0, 2**32, 10**6, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        other = codes.view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(formats.get("float32").decode(codes), other)


def test_tfloat32_is_float32_with_13_fraction_bits_cut():
    codes = np.arange(2**19)
    with np.errstate(invalid="ignore"):
        other = (codes.astype(np.uint32) << 13).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(formats.get("tfloat32").decode(codes), other)


@pytest.mark.parametrize("name", HALVES)
def test_every_value_encodes_to_its_code(name):
    fmt, codes = formats.get(name), np.arange(2**16)
    values = fmt.decode(codes)
    number = ~np.isnan(values)
    np.testing.assert_array_equal(fmt.encode(values)[number], codes[number])
    assert np.isnan(fmt.decode(fmt.encode(values[~number]))).all()


@pytest.mark.parametrize("name", HALVES)
def test_midpoints_go_to_the_even_code_and_their_neighbours_do_not(name):
    fmt = formats.get(name)
    codes = np.arange(fmt.infinity_code - 1)
    middle = (fmt.decode(codes) + fmt.decode(codes + 1)) / 2
    np.testing.assert_array_equal(fmt.encode(middle), codes + codes % 2)
    np.testing.assert_array_equal(fmt.encode(np.nextafter(middle, -1)), codes)
    np.testing.assert_array_equal(fmt.encode(np.nextafter(middle, np.inf)), codes + 1)
    np.testing.assert_array_equal(fmt.encode(-middle), codes + codes % 2 + 2**15)


@pytest.mark.parametrize(("name", "dtype", "view"), [
    ("float16", np.float16, np.uint16), ("float32", np.float32, np.uint32)
])  # fmt: skip
def test_numpy_rounds_two_million_float64_to_the_same_codes(name, dtype, view):
    random = np.random.default_rng(2)
    patterns = random.integers(0, 2**64, 10**6, dtype=np.uint64).view(np.float64)
    x = np.concatenate([patterns, np.exp2(random.uniform(-152, 130, 10**6))])
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore", under="ignore"):
        other = x.astype(dtype).view(view)
    np.testing.assert_array_equal(formats.get(name).encode(x), other)


@pytest.mark.parametrize("fmt", [*formats.FORMATS.values(), MINI], ids=lambda f: f.name)
def test_exact_fractions_give_the_same_codes(fmt):
    random = np.random.default_rng(3)
    low, high = math.log2(fmt.smallest_subnormal) - 2, math.log2(fmt.max) + 2
    scale = np.exp2(random.uniform(low, min(high, 1023), 500))
    for x in (scale * random.choice([-1, 1], 500)).tolist():
        assert int(fmt.encode(x)) == exact_code(fmt, x), x


def test_one_rounding_from_float64_where_a_pass_through_float32_gives_two():
    x = 1 + 2.0**-8 + 2.0**-40
    twice = np.float64(np.float32(x).astype(ml_dtypes.bfloat16))
    assert (
        twice == 1.0
        and formats.get("bfloat16").decode(formats.get("bfloat16").encode(x)) > 1
    )


@pytest.mark.parametrize("name", TORCH)
def test_properties_are_torchs_finfo(name):
    fmt, info = formats.get(name), torch.finfo(TORCH[name])
    for field in ("bits", "eps", "max", "min", "smallest_normal"):
        assert getattr(fmt, field) == getattr(info, field), field


@pytest.mark.parametrize("name", HALVES)
def test_properties_are_ml_dtypes_finfo(name):
    fmt, info = formats.get(name), ml_dtypes.finfo(HALVES[name])
    assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert (fmt.fraction_bits, fmt.exponent_bits) == (info.nmant, info.nexp)


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


def test_values_of_the_small_format_by_hand():
    expected = [k / 16 for k in range(4)]
    expected += [(1 + f / 4) * 2.0**e for e in range(-2, 4) for f in range(4)]
    assert MINI.values().tolist() == [-v for v in expected[:0:-1]] + expected


def test_ulp_is_mathematics_own():
    f64_like = formats.get("float32")
    x = np.float32([1, 1.5, 2, 1e-45, 3e38, 1e-38, 0])
    np.testing.assert_array_equal(f64_like.ulp(x), np.spacing(x).astype(np.float64))
    assert (
        formats.get("float16").ulp(2048.0) == 2
        and formats.get("bfloat16").ulp(256.0) == 2
    )


@given(
    st.integers(2, 8),
    st.integers(1, 12),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_made_up_formats(exponent_bits, fraction_bits, x):
    fmt = FloatFormat("mine", exponent_bits, fraction_bits)
    back = float(fmt.decode(fmt.encode(x)))
    assert fmt.encode(-x) == fmt.encode(x) ^ 1 << (fmt.bits - 1)
    if abs(back) <= fmt.max:
        assert abs(back - x) <= fmt.ulp(x) / 2 and fmt.encode(back) == fmt.encode(x)
    else:
        assert abs(x) >= fmt.max + fmt.ulp(fmt.max) / 2


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=2).map(sorted))
def test_rounding_keeps_order(pair):
    low, high = MINI.decode(MINI.encode(np.array(pair)))
    assert low <= high


@pytest.mark.parametrize(("codes", "named"), [
    (-1, "code -1"), (65536, "code 65536"), ([0, 70000], "code 70000"),
    (2**70, "code 1180591620717411303424"),
    pytest.param([1, -HUGE], "code <int>", id="huge"),
    (1.5, "float64 (1.5)"), ("a", "<U1 ('a')"), ([True], "bool ([True])"),
    (None, "object (None)"), (np.timedelta64(3, "s"), "timedelta64[s]"),
    (datetime.timedelta(1), "object (datetime.timedelta"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["decode", "fields_of"])
def test_codes_that_are_none(verb, codes, named):
    with pytest.raises(InputError, match="float16 codes are") as refused:
        getattr(formats.get("float16"), verb)(codes)
    assert named in str(refused.value)


def test_no_codes_decode_to_no_values():
    values = MINI.decode([])
    assert values.shape == (0,) and values.dtype == np.float64


@pytest.mark.parametrize("code", [7, np.uint8(7), np.array(7), torch.tensor(7)])
def test_one_code_has_fields_whatever_holds_it(code):
    assert MINI.fields_of(code).fraction == 3
    with pytest.raises(InputError, match=r"shape \(2,\): fields_of takes one code"):
        MINI.fields_of([7, 7])


@pytest.mark.parametrize(("exponent_bits", "fraction_bits", "named"), [
    (1, 3, "exponent_bits was 1"), (12, 3, "exponent_bits was 12"),
    (5, 0, "fraction_bits was 0"), (5, 52, "fraction_bits was 52"),
    (2.5, 3, "exponent_bits was 2.5"), (5, "7", "fraction_bits was '7'"),
    (5, True, "fraction_bits was True"),
    pytest.param(HUGE, 3, "exponent_bits was <int>", id="huge"),
])  # fmt: skip
def test_layouts_that_cannot_be(exponent_bits, fraction_bits, named):
    with pytest.raises(InputError, match=f"{named}: give a whole number from"):
        FloatFormat("mine", exponent_bits, fraction_bits)


@pytest.mark.parametrize(
    "x", ["a", None, 1j, [[1.0], [2.0, 3.0]], {}, ["1", HUGE], np.timedelta64(3, "s")]
)
@pytest.mark.parametrize("verb", ["encode", "fields", "ulp"])
def test_what_is_no_number(verb, x):
    with pytest.raises(InputError, match="no real number"):
        getattr(MINI, verb)(x)


@pytest.mark.parametrize("tensor", [
    torch.ones(2, requires_grad=True), torch.ones(2).bfloat16(),
    torch.ones(2).to_sparse(), torch.ones(2, device="meta"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["decode", "fields_of", "encode", "fields", "ulp"])
def test_a_tensor_that_numpy_cannot_read_is_named_with_what_helps(verb, tensor):
    with pytest.raises(InputError, match=r"this tensor \(.*: pass x.detach\(\)"):
        getattr(MINI, verb)(tensor)


@pytest.mark.parametrize(("x", "value"), [
    (2**70, 2.0**70), ([2**70, -1.5], [2.0**70, -1.5]), (2**1023, 2.0**1023),
    (Fraction(1, 3), 1 / 3), (np.longdouble(2), 2.0), (True, 1.0),
])  # fmt: skip
def test_real_numbers_of_any_type_are_taken_as_float64(x, value):
    wide = FloatFormat("wide", 11, 51)
    np.testing.assert_array_equal(wide.encode(x), wide.encode(value))
    np.testing.assert_array_equal(wide.ulp(x), wide.ulp(value))


@pytest.mark.parametrize(("x", "named"), [
    (10**400, "1000"), pytest.param(-HUGE, "<int>", id="huge"),
    ([1, 2**1024], "[1, 1797"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["encode", "fields", "ulp"])
def test_an_integer_beyond_float64_is_told_so(verb, x, named):
    with pytest.raises(InputError, match="is beyond float64") as refused:
        getattr(MINI, verb)(x)
    assert str(refused.value).startswith(named)


def test_a_longdouble_beyond_float64_overflows_silently():
    longest = np.finfo(np.longdouble).max
    assert MINI.encode(longest) == MINI.infinity_code


def test_fields_take_one_number():
    with pytest.raises(
        InputError, match=r"array of shape \(2,\): fields takes one number"
    ):
        MINI.fields([1.0, 2.0])


def test_no_ulp_and_no_list_where_there_is_none():
    with pytest.raises(InputError, match="ulp of inf"):
        MINI.ulp([1.0, math.inf])
    with pytest.raises(InputError, match="float32 has 32 bits"):
        formats.get("float32").values()


def test_an_unknown_name_lists_the_formats():
    with pytest.raises(
        InputError, match="'fp16': choose from float32, tfloat32, float16"
    ):
        formats.get("fp16")
    with pytest.raises(InputError, match=r"unknown format \[\]: choose from float32"):
        formats.get([])
