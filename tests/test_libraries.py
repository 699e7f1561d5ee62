"""Where the libraries disagree: which one, how, and what is said where one lacks it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from packaging.version import Version

from mpteach import libraries
from mpteach.errors import InputError
from mpteach.formats import FORMATS
from mpteach.libraries import DISAGREEMENTS, LIBRARIES, convert, holds, outcomes, stored

TORCH = Version(Version(torch.__version__).base_version)
CASES = {(case.format, case.title): case for case in DISAGREEMENTS}
NAN = math.nan
SMALLEST = 2.0**-127
NAN_FREE = ("float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn")


def results(fmt_name: str, title: str) -> dict[str, list]:
    """Return the outcomes as text, so that NaN equals NaN and -0.0 is not 0.0."""
    found = outcomes(CASES[fmt_name, title])
    return {name: [str(one) for one in row] for name, row in found.items()}


def told(*values) -> list[str]:
    return [str(value) for value in values]


def test_every_case_is_complete_and_named_once():
    assert len(CASES) == len(DISAGREEMENTS)
    for case in DISAGREEMENTS:
        assert case.format in FORMATS and case.title and case.source
        assert case.decides.endswith(".") and case.array.dtype == case.dtype
        assert len(case.array) == len(case.inputs)
        np.testing.assert_array_equal(case.array, case.inputs)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DISAGREEMENTS[0].format = "float16"


def test_every_library_that_has_the_format_is_heard():
    for case in DISAGREEMENTS:
        heard = [name for name in LIBRARIES if holds(case.format, name)]
        assert list(outcomes(case)) == ["mpteach", *heard]


def test_e4m3fn_overflow():
    found = results("float8_e4m3fn", "overflow")
    nan = told(448.0, NAN, NAN, NAN)
    assert found["mpteach"] == found["ml_dtypes"] == found["gfloat"] == nan
    if TORCH >= Version("2.13"):
        assert found["torch"] == told(448.0, 448.0, 448.0, 448.0)
    elif TORCH < Version("2.12"):
        assert found["torch"] == nan
    else:
        assert found["torch"][0] == "448.0"


def test_e5m2_and_fnuz_overflow_alike_everywhere():
    for name, expected in (
        ("float8_e5m2", (57344.0, math.inf, math.inf)),
        ("float8_e4m3fnuz", (240.0, NAN, NAN, 0.0)),
        ("float8_e5m2fnuz", (57344.0, NAN, NAN, 0.0)),
    ):
        found = results(name, "overflow")
        assert len(found) >= 3 and set(map(tuple, found.values())) == {
            tuple(told(*expected))
        }


def test_e8m0_zero():
    assert results("float8_e8m0fnu", "zero") == {
        "mpteach": told(SMALLEST, SMALLEST),
        "torch": told(SMALLEST, SMALLEST),
        "ml_dtypes": told(NAN, NAN),
        "gfloat": told(0.0, 0.0),
    }


def test_e8m0_negative_numbers():
    found = results("float8_e8m0fnu", "negative numbers")
    assert found["mpteach"] == found["ml_dtypes"] == told(NAN, NAN, NAN)
    # Torch drops the sign; gfloat gives numbers that the format has no code for.
    assert found["torch"] == told(1.0, SMALLEST, NAN)
    assert found["gfloat"] == told(-1.0, -(2.0**-149), -math.inf)


def test_e8m0_ties():
    found = results("float8_e8m0fnu", "ties")
    assert (
        found["mpteach"] == found["ml_dtypes"] == found["torch"] == told(2.0, 4.0, 8.0)
    )
    assert found["gfloat"] == told(2.0, 2.0, 8.0)  # the even codes


def test_e8m0_just_above_its_smallest():
    found = results("float8_e8m0fnu", "just above the smallest")
    right = told(SMALLEST, SMALLEST, 2 * SMALLEST, 2 * SMALLEST)
    assert found["mpteach"] == right
    # Of the tie gfloat takes the even code, as of every tie.
    assert found["gfloat"] == told(SMALLEST, SMALLEST, SMALLEST, 2 * SMALLEST)
    up = told(SMALLEST, 2 * SMALLEST, 2 * SMALLEST, 2 * SMALLEST)
    assert found["ml_dtypes"] == found["torch"] == up


@pytest.mark.parametrize(
    "name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_float64_is_rounded_twice_by_torch_and_ml_dtypes(name):
    found = results(name, "float64 rounded twice")
    step = FORMATS[name].eps
    assert found["mpteach"] == found["gfloat"] == told(1 + step, 1 + step)
    for library in {"torch", "ml_dtypes"} & set(found):
        assert found[library] == told(1.0, 1 + 2 * step), library
    if name == "float16":
        assert found["numpy"] == found["mpteach"]


@pytest.mark.parametrize("name", NAN_FREE)
def test_nan_where_there_is_none(name):
    found, top = results(name, "NaN without a code"), FORMATS[name].max
    assert found["mpteach"] == told(None, top, top)
    assert found["ml_dtypes"] == told(-0.0, top, top)
    assert found["gfloat"] == told(NAN, None, None)


def test_the_bits_of_nan():
    for name in ("float16", "bfloat16", "float8_e5m2"):
        fmt, found = FORMATS[name], outcomes(CASES[name, "the bits of NaN"])
        sign = 2 ** (fmt.bits - 1)
        assert found["mpteach"] == [fmt.nan_code, fmt.nan_code + sign, fmt.nan_code]
        # Which NaN a library stores may depend on the processor: that it is one, not.
        for row in found.values():
            assert all(any(code in some for some in fmt.nan_codes) for code in row)
    # A signalling NaN of float32 stays one in numpy's float16, with its payload.
    assert outcomes(CASES["float16", "the bits of NaN"])["numpy"][2] == 0x7C01


def test_the_cases_are_where_libraries_differ_and_nowhere_else_by_chance():
    """Each case but those of overflow that all agree on shows at least two opinions."""
    agreed = {("float8_e5m2", "overflow"), ("float8_e4m3fnuz", "overflow"),
              ("float8_e5m2fnuz", "overflow")}  # fmt: skip
    if TORCH < Version("2.12"):
        agreed.add(("float8_e4m3fn", "overflow"))
    for key, case in CASES.items():
        if key != ("float8_e4m3fn", "overflow") or TORCH.minor != 12:
            opinions = {str(row) for row in outcomes(case).values()}
            assert (len(opinions) > 1) == (key not in agreed), key


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_converted_is_float64_of_the_same_shape(name, library):
    if not holds(name, library):
        with pytest.raises(InputError, match=f"{library} has no {name}: choose"):
            convert(np.ones(1), name, library)
        return
    for dtype in (np.float32, np.float64):
        for shape in ((), (0,), (2, 3)):
            x = np.full(shape, 2.0, dtype)
            x.flags.writeable = False
            y, codes = convert(x, name, library), stored(x, name, library)
            assert (y.dtype, y.shape, codes.shape) == (np.float64, shape, shape)
            assert (y == 2).all()
            np.testing.assert_array_equal(codes, FORMATS[name].encode(x))


def test_codes_above_the_sign_bit_are_positive():
    for name in ("float16", "float8_e5m2", "float32", "float64"):
        expected = FORMATS[name].encode(-1.5)
        for library in LIBRARIES:
            if holds(name, library):
                codes = stored(np.array([-1.5]), name, library)
                assert codes == expected and codes.dtype == expected.dtype


def test_who_has_what():
    assert [name for name in FORMATS if holds(name, "numpy")] == [
        "float64", "float32", "float16",
    ]  # fmt: skip
    assert not any(holds("tfloat32", library) for library in LIBRARIES)
    assert holds("float8_e4m3fn", "torch") and holds("float4_e2m1fn", "ml_dtypes")
    assert not holds("float16", "ml_dtypes")


@pytest.mark.parametrize(("x", "name", "library", "said"), [
    (np.ones(1), "float16", "jax", "library was 'jax': choose from numpy, ml_dtypes"),
    (np.ones(1), "fp16", "numpy", "unknown format 'fp16'"),
    ([1.0], "float16", "numpy", r"x was \[1.0\]: give an array of float32 or float64"),
    (np.arange(2), "float16", "numpy", "give an array of float32 or float64"),
    (np.array([NAN, math.inf]), "float4_e2m1fn", "gfloat", "gfloat does not take"),
    (np.ones(1), "float16", ["numpy"], r"library was \['numpy'\]: choose from numpy"),
    (np.ones(1), ["float16"], "numpy", r"the format was \['float16'\]: give a name"),
    (np.ones(1), FORMATS["float16"], "numpy", "the format was FloatFormat"),
])  # fmt: skip
def test_bad_input_is_one_sentence(x, name, library, said):
    with pytest.raises(InputError, match=said) as refused:
        convert(x, name, library)
    assert "\n" not in str(refused.value)


def test_only_libraries_that_hold_the_format_are_offered():
    with pytest.raises(InputError, match="^numpy has no bfloat16") as refused:
        convert(np.ones(1), "bfloat16", "numpy")
    having = [name for name in LIBRARIES if holds("bfloat16", name)]
    assert str(refused.value).endswith(f"format, or {' or '.join(having)}.")
    with pytest.raises(InputError, match="no library here has this one.$"):
        convert(np.ones(1), "tfloat32", "torch")


@pytest.mark.parametrize(("name", "library", "said"), [
    ("float16", [], r"library was \[\]: choose from numpy"),
    ("float16", "jax", "library was 'jax'"),
    ("fp16", "numpy", "unknown format 'fp16'"),
])  # fmt: skip
def test_who_holds_is_asked_of_known_ones(name, library, said):
    with pytest.raises(InputError, match=said):
        holds(name, library)


@pytest.mark.parametrize(("changed", "said"), [
    ({"format": "fp16"}, "unknown format 'fp16'"),
    ({"format": 3}, "the format was 3: give a name"),
    ({"dtype": "float16"}, "dtype was 'float16': choose float32 or float64"),
    ({"dtype": ["float32"]}, r"dtype was \['float32'\]"),
    ({"dtype": "float64", "patterns": (1,)}, "dtype was 'float64': choose float32."),
    ({"inputs": ("a",)}, "give numbers"),
    ({"inputs": 1.0}, "inputs were 1.0: give a row of numbers that float32 holds"),
    ({"inputs": (0.1,)}, "give a row of numbers that float32 holds"),
    ({"inputs": (1e300,)}, "give a row of numbers that float32 holds"),
    ({"patterns": (2**32,)}, "float32 codes are 0 to"),
])  # fmt: skip
def test_a_case_of_ones_own_is_checked(changed, said):
    case = CASES["float8_e8m0fnu", "ties"]
    with pytest.raises(InputError, match=said):
        dataclasses.replace(case, **changed)


def test_a_library_that_is_not_installed_is_not_offered(monkeypatch):
    monkeypatch.setattr(libraries, "LIBRARIES", ("numpy", "torch"))
    with pytest.raises(
        InputError, match="library was 'gfloat': choose from numpy, torch"
    ):
        convert(np.ones(1), "float16", "gfloat")
    assert list(outcomes(CASES["float8_e8m0fnu", "ties"])) == ["mpteach", "torch"]
