"""What formats say to input that cannot be, and what they do with unusual arrays."""

import datetime
import math
from dataclasses import replace
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch

from mpteach import formats
from mpteach.errors import InputError
from mpteach.formats import FORMATS, FloatFormat

MINI = FloatFormat("mini", 3, 2)
HUGE = 10**5000  # too many digits for a repr
VERBS = ["encode", "fields", "ulp", "next_up", "next_down"]


@pytest.mark.parametrize(("arguments", "said"), [
    ((0, 3), "exponent_bits was 0: give a whole number from 1 to 11"),
    ((12, 3), "exponent_bits was 12: give a whole number from 1 to 11"),
    ((5, -1), "fraction_bits was -1: give a whole number from 0 to 52"),
    ((5, 53), "fraction_bits was 53: give a whole number from 0 to 52"),
    ((2.5, 3), "exponent_bits was 2.5"), ((5, "7"), "fraction_bits was '7'"),
    ((5, True), "fraction_bits was True"), ((HUGE, 3), "exponent_bits was <int>"),
    ((5, 2, 10**6), "bias was 1000000: give a whole number from -993 to 1023"),
    ((5, 2, -994), "bias was -994"), ((5, 2, 1024), "bias was 1024"),
    ((5, 2, 15.0), "bias was 15.0"), ((5, 2, True), "bias was True"),
    ((5, 2, None, "iee"), "specials was 'iee': choose from ieee, fn, fnuz, finite"),
    ((5, 2, None, ["fn"]), r"specials was \['fn'\]"),
    ((5, 0), "specials was 'ieee', but without fraction bits no code is left for NaN"),
    ((1, 3), "no code is left for a normal number"),
    ((1, 0, None, "fn"), "no code is left for a normal number"),
    ((5, 2, None, "fnuz", False), "NaN takes the code of -0"),
    ((5, 2, None, "ieee", 1), "signed was 1: give True or False"),
    ((5, 2, None, "fn", False, 0), "zero was 0: give True or False"),
    ((5, 2, None, "fn", True, False), "zero was False and signed True"),
    ((11, 3, None, "fn"), "bias was 1023: give a whole number from 1024 to 1023"),
])  # fmt: skip
def test_a_layout_that_cannot_be_is_one_sentence(arguments, said):
    if arguments == (11, 3, None, "fn"):
        said = "exponent_bits was 11: with specials 'fn' its largest number is beyond"
    with pytest.raises(InputError, match=said) as refused:
        FloatFormat("mine", *arguments)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_format_needs_a_name(name):
    with pytest.raises(InputError, match="give the format a name"):
        FloatFormat(name, 3, 2)


def test_each_limit_of_the_bias_can_be_reached():
    for bias in (-993, 1023):
        fmt = FloatFormat("mine", 5, 2, bias)
        assert 0 < fmt.smallest_subnormal < fmt.max < math.inf
        np.testing.assert_array_equal(
            fmt.decode(fmt.encode(fmt.values())), fmt.values()
        )


@pytest.mark.parametrize(("name", "said"), [
    ("fp16", "'fp16': did you mean float16 or bfloat16?"),
    ("Float16", "'Float16': did you mean float16"),
    ("float8_e4m3", "did you mean float8_e4m3fn"), ("half", "'half': choose from"),
    ([], r"unknown format \[\]: choose from float64"), (None, "unknown format None"),
    ("e4m3", "did you mean float8_e4m3fn or float8_e4m3fnuz?"),
    ("float8", "did you mean float8_e4m3fn or"),
    (np.float16, r"'numpy.float16'>: did you mean float16\?"),
    (torch.float8_e5m2, r"did you mean float8_e5m2\?"),
    (np.dtype(ml_dtypes.bfloat16), r"did you mean bfloat16\?"),
    pytest.param(HUGE, "unknown format <int>: choose from", id="huge"),
])  # fmt: skip
def test_an_unknown_name_suggests_the_nearest(name, said):
    with pytest.raises(InputError, match=said) as refused:
        formats.get(name)
    assert all(known in str(refused.value) for known in FORMATS)


def test_a_format_is_its_own_name():
    assert formats.get(MINI) is MINI and formats.get("float16") is FORMATS["float16"]


def test_whole_numbers_of_numpy_make_the_same_format():
    made = FloatFormat("mini", np.int8(3), np.uint8(2), np.int64(3))
    assert made == MINI and hash(made) == hash(MINI) and type(made.bias) is int
    assert made.max == MINI.max
    with pytest.raises(InputError, match="bias was np.float64.*give a whole number"):
        FloatFormat("mini", 3, 2, np.float64(3))


def test_a_replaced_layout_derives_its_bias_anew_when_told():
    brain = FORMATS["bfloat16"]
    assert replace(brain, exponent_bits=5, bias=None).bias == 15
    assert replace(brain, exponent_bits=5).bias == brain.bias == 127
    assert "give `bias=None`" in " ".join(FloatFormat.__doc__.split())


@pytest.mark.parametrize("x", [np.ma.array([1, 2], mask=[0, 1]), np.ma.masked])
@pytest.mark.parametrize("verb", ["decode", "fields_of", *VERBS])
def test_a_masked_array_is_refused(verb, x):
    x = x if verb in ("decode", "fields_of") else x.astype(float)
    with pytest.raises(InputError, match="masked array would lose its mask"):
        getattr(MINI, verb)(x)


@pytest.mark.parametrize("verb", ["encode", "ulp", "next_up", "next_down", "decode"])
def test_one_number_gives_an_array_of_no_dimension(verb):
    for one in (1, np.array(1)) if verb == "decode" else (1.0, np.float32(1)):
        result = getattr(MINI, verb)(one)
        assert type(result) is np.ndarray and result.shape == ()


@pytest.mark.parametrize(("codes", "named"), [
    (-1, "code -1"), (65536, "code 65536"), ([0, 70000], "code 70000"),
    (2**70, "code 1180591620717411303424"),
    pytest.param([1, -HUGE], "code <int>", id="huge"),
    (1.5, "float64 (1.5)"), ("a", "<U1 ('a')"), ([True], "bool ([True])"),
    (None, "object (None)"), (np.timedelta64(3, "s"), "timedelta64[s]"),
    (datetime.timedelta(1), "object (datetime.timedelta"), (1j, "complex128"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["decode", "fields_of"])
def test_codes_that_are_none(verb, codes, named):
    with pytest.raises(InputError, match="float16 codes are") as refused:
        getattr(formats.get("float16"), verb)(codes)
    assert named in str(refused.value)


def test_codes_of_64_bits_need_all_of_uint64():
    double = formats.get("float64")
    assert double.decode(2**63) == 0 and np.signbit(double.decode(2**63))
    assert double.encode(-0.0) == 2**63 and double.encode(-0.0).dtype == np.uint64
    assert np.isnan(double.decode([0, 2**64 - 1])).tolist() == [False, True]
    with pytest.raises(InputError, match="code 18446744073709551616"):
        double.decode(2**64)


def test_no_codes_decode_to_no_values():
    values = MINI.decode([])
    assert values.shape == (0,) and values.dtype == np.float64


@pytest.mark.parametrize("code", [7, np.uint8(7), np.array(7), torch.tensor(7)])
def test_one_code_has_fields_whatever_holds_it(code):
    assert MINI.fields_of(code).fraction == 3
    with pytest.raises(InputError, match=r"shape \(2,\): fields_of takes one code"):
        MINI.fields_of([7, 7])


@pytest.mark.parametrize("x", [
    "a", None, 1j, {}, ["1", HUGE], True, [True, 1.5],
    datetime.timedelta(1),
])  # fmt: skip
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_number(verb, x):
    with pytest.raises(InputError, match="no real number"):
        getattr(MINI, verb)(x)


@pytest.mark.parametrize("x", [
    np.arange(3), np.ones(2, complex), np.array(["1"]), np.array([1.0], object),
    np.ones(2, np.longdouble), np.ones(2, bool), np.timedelta64(3, "s"),
    np.ones(2, ml_dtypes.int4), np.zeros(2, [("a", "f4")]), torch.arange(3),
    np.int64(1),
])  # fmt: skip
@pytest.mark.parametrize("verb", VERBS)
def test_an_array_of_no_floats_is_refused_with_its_dtype(verb, x):
    with pytest.raises(InputError, match="has dtype .*: give float16, float32 or"):
        getattr(MINI, verb)(x)


@pytest.mark.parametrize("tensor", [
    torch.ones(2, requires_grad=True), torch.ones(2).bfloat16(),
    torch.ones(2).to_sparse(),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["decode", "fields_of", *VERBS])
def test_a_tensor_that_numpy_cannot_read_is_named_with_what_helps(verb, tensor):
    with pytest.raises(InputError, match=r"this tensor \(.*: pass x\.\w+\(\)\.$"):
        getattr(MINI, verb)(tensor)


@pytest.mark.parametrize(("x", "value"), [
    (2**70, 2.0**70), ([2**70, -1.5], [2.0**70, -1.5]), (2**1023, 2.0**1023),
    (Fraction(1, 4), 0.25), ([Fraction(3, 2), 1], [1.5, 1.0]), ([1, 2.5], [1.0, 2.5]),
    (torch.tensor([0.5, 3.0]), [0.5, 3.0]), (np.float32(0.1), float(np.float32(0.1))),
])  # fmt: skip
def test_real_numbers_that_float64_holds_are_taken(x, value):
    wide = FloatFormat("wide", 11, 51)
    np.testing.assert_array_equal(wide.encode(x), wide.encode(np.array(value)))
    np.testing.assert_array_equal(wide.ulp(x), wide.ulp(np.array(value)))


@pytest.mark.parametrize("x", [2**53 + 1, Fraction(1, 3), [0.5, 2**53 + 1]])
@pytest.mark.parametrize("verb", VERBS)
def test_a_number_between_two_float64_would_be_rounded_twice(verb, x):
    with pytest.raises(InputError, match="lies between two float64 numbers"):
        getattr(MINI, verb)(x)


@pytest.mark.parametrize(("x", "named"), [
    (10**400, "1000"), pytest.param(-HUGE, "<int>", id="huge"),
    ([1, 2**1024], "[1, 1797"),
])  # fmt: skip
@pytest.mark.parametrize("verb", VERBS)
def test_an_integer_beyond_float64_is_told_so(verb, x, named):
    with pytest.raises(InputError, match="is beyond float64") as refused:
        getattr(MINI, verb)(x)
    assert str(refused.value).startswith(named)


def test_fields_take_one_number():
    with pytest.raises(
        InputError, match=r"array of shape \(2,\): fields takes one number"
    ):
        MINI.fields([1.0, 2.0])


def test_no_ulp_and_no_list_where_there_is_none():
    for x in (math.inf, -math.inf, math.nan):
        with pytest.raises(InputError, match=f"ulp of {x}: give finite numbers"):
            MINI.ulp([1.0, x])
    for name in ("float32", "tfloat32"):
        with pytest.raises(InputError, match=r"bits: values\(\) lists at most 16"):
            formats.get(name).values()


@pytest.mark.parametrize("name", ["float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn"])
def test_nan_has_no_code_in_a_finite_format(name):
    with pytest.raises(
        InputError, match=f"nan has no code in {name}, which has no NaN"
    ):
        FORMATS[name].encode([1.0, math.nan])


def test_negative_numbers_have_no_code_in_an_unsigned_finite_format():
    fmt = FloatFormat("mine", 3, 2, specials="finite", signed=False)
    assert fmt.encode([0.0, -0.0, 1.0]).tolist() == [0, 0, 12]
    with pytest.raises(InputError, match="-1.0 has no code in mine"):
        fmt.encode([1.0, -1.0])


@pytest.mark.parametrize(("name", "policy", "said"), [
    ("float8_e4m3fn", "inf", "has none: choose saturate or nan"),
    ("float4_e2m1fn", "inf", "has none: choose saturate."),
    ("float4_e2m1fn", "nan", "has none: choose saturate."),
    ("float16", "wrap", "was 'wrap': choose from inf, saturate, nan"),
    ("float16", "", "was '': choose from"), ("float16", 1, "was 1: choose from"),
])  # fmt: skip
@pytest.mark.parametrize("what", ["overflow", "infinity"])
def test_a_policy_that_the_format_cannot_follow(what, name, policy, said):
    with pytest.raises(InputError, match=f"{what} was .*{said}|{what} {said}"):
        FORMATS[name].encode(1.0, **{what: policy})


@pytest.mark.parametrize("mode", ["nearest", None, 1, ["up"]])
def test_an_unknown_mode_lists_the_modes(mode):
    with pytest.raises(InputError, match="choose from nearest_even, nearest_away, to"):
        MINI.encode(1.0, mode)


@pytest.mark.parametrize("rng", [None, 0, np.random.RandomState(0), torch.tensor(1)])
def test_stochastic_rounding_needs_a_generator(rng):
    with pytest.raises(InputError, match="stochastic rounding needs a generator"):
        MINI.encode(1.0, "stochastic", rng=rng)


def test_nan_loses_its_payload_and_keeps_its_sign():
    nans = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFC00001, 0x7F800001, 0xFF800001])
    x = nans.astype(np.uint32).view(np.float32)
    assert FORMATS["bfloat16"].encode(x).tolist() == [
        0x7FC0, 0x7FC0, 0xFFC0, 0x7FC0, 0xFFC0,
    ]  # fmt: skip
    assert set(FORMATS["float8_e5m2fnuz"].encode(x).tolist()) == {0x80}
    assert set(FORMATS["float8_e8m0fnu"].encode(x).tolist()) == {0xFF}


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_negative_zero_keeps_its_sign_where_there_is_one(fmt):
    back = fmt.decode(fmt.encode([-0.0, 0.0]))
    two = fmt.signed and fmt.specials != "fnuz"
    assert np.signbit(back).tolist() == [two, False]
    assert (back == (0 if fmt.zero else fmt.smallest_normal)).all()


def test_arrays_of_any_shape_order_and_access():
    x = np.arange(24.0).reshape(2, 3, 4) / 7
    expected = MINI.encode(x.ravel().tolist())
    frozen = x.copy()
    frozen.flags.writeable = False
    shapes = (x, frozen, np.asfortranarray(x), x.astype(">f8"))
    for one in shapes:
        codes = MINI.encode(one)
        assert codes.shape == x.shape and codes.dtype == np.int64
        np.testing.assert_array_equal(codes.ravel(), expected)
        np.testing.assert_array_equal(MINI.decode(codes).shape, x.shape)
    np.testing.assert_array_equal(
        MINI.encode(x[::-1, ::2, 1]), MINI.encode(x)[::-1, ::2, 1]
    )
    for shape in ((), (0,), (2, 0, 3)):
        empty = np.zeros(shape)
        for verb in ("encode", "ulp", "next_up", "next_down"):
            assert getattr(MINI, verb)(empty).shape == shape
        assert MINI.decode(np.zeros(shape, int)).shape == shape


@pytest.mark.parametrize("dtype", [
    np.float16, np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e4m3fn, ml_dtypes.float4_e2m1fn,
])  # fmt: skip
def test_floats_of_other_dtypes_are_read_exactly(dtype):
    x = np.array([0.5, -1.5, 3.0, 0.0]).astype(dtype)
    np.testing.assert_array_equal(MINI.encode(x), MINI.encode([0.5, -1.5, 3.0, 0.0]))


def test_the_input_is_never_changed():
    x = np.array([0.1, -0.2, 1e9])
    kept = x.copy()
    for verb in ("encode", "ulp", "next_up", "next_down"):
        getattr(MINI, verb)(x)
    np.testing.assert_array_equal(x, kept)
