"""The explorer's arithmetic in JavaScript is that of `mpteach.formats`, code by code."""

import base64
import dataclasses
import math
import random
from fractions import Fraction
from importlib import resources

import numpy as np
import pytest

from mpteach.formats import FORMATS, FloatFormat
from tests.chromium import browser, page

pytestmark = pytest.mark.explorer

MINE = FloatFormat("mine", 3, 4, bias=9, specials="fn", signed=False)
EVERY = [*FORMATS.values(), MINE]
IDS = [fmt.name for fmt in EVERY]


@pytest.fixture(scope="module")
def javascript():
    """Return a function that runs JavaScript with the module as `m`, a format as f."""
    source = resources.files("mpteach.widgets").joinpath("arithmetic.js").read_bytes()
    address = "data:text/javascript;base64," + base64.b64encode(source).decode()
    with browser() as chromium, page(chromium) as tab:
        tab.evaluate("async (from) => { window.m = await import(from); }", address)

        def run(program: str, fmt: FloatFormat, given: object = None) -> object:
            wrapped = f"([f, given]) => {{ {program} }}"
            return tab.evaluate(wrapped, [dataclasses.asdict(fmt), given])

        yield run


def codes_of(fmt: FloatFormat) -> list[int]:
    """Return all codes up to 16 bits; beyond, random ones and those at the edges."""
    if fmt.bits <= 16:
        return list(range(2**fmt.bits))
    draw, count = random.Random(17), 100_000 if fmt.bits == 32 else 20_000
    codes = {draw.randrange(2**fmt.bits) for _ in range(count)}
    tops = fmt.infinity_code, int(fmt.encode(fmt.smallest_normal)), 2**fmt.fraction_bits
    near = {top + shift for top in tops for shift in range(-3, 4)} | set(range(4))
    return sorted(codes | near | {code | 1 << (fmt.bits - 1) for code in near})


def hexes(codes: list[int]) -> list[str]:
    return [f"{code:x}" for code in codes]


DESCRIBE = """
const ratio = (x) => !x ? "" : x.kind === "finite"
  ? `${x.sign ? "-" : ""}${x.n.toString(16)}/${x.d.toString(16)}` : x.kind;
const hex = (code) => code === null ? "" : code.toString(16);
return given.map((digits) => {
  const code = BigInt("0x" + digits), { sign, exponent, fraction, kind } =
    m.fieldsOf(f, code);
  return [ratio(m.decode(f, code)), sign, Number(exponent), Number(fraction), kind,
    hex(m.neighbour(f, code, true)), hex(m.neighbour(f, code, false)),
    ratio(m.gap(f, code))].join(" ");
});
"""


def same(text: str, value: float) -> bool:
    """Say whether the exact text n/d in hexadecimal digits is `value`, -0 included."""
    if "/" not in text:
        return text == ("nan" if math.isnan(value) else "inf")
    size = Fraction(*(int(part, 16) for part in text.lstrip("-").split("/")))
    return size == abs(Fraction(value)) and text.startswith("-") == (
        math.copysign(1, value) < 0
    )


@pytest.fixture(scope="module", params=EVERY, ids=IDS)
def described(javascript, request):
    """Return a format, codes of it, their values, and what JavaScript says of them."""
    fmt, codes = request.param, codes_of(request.param)
    dtype = np.uint64 if fmt.bits == 64 else np.int64
    values = fmt.decode(np.array(codes, dtype=dtype))
    rows = [row.split(" ") for row in javascript(DESCRIBE, fmt, hexes(codes))]
    return fmt, np.array(codes, dtype=dtype), values, rows


def test_every_code_means_the_same(described):
    fmt, codes, values, rows = described
    digits = fmt.fraction_bits
    for code, value, (text, sign, exponent, fraction, kind, *_) in zip(
        codes.tolist(), values.tolist(), rows, strict=True
    ):
        assert same(text, value), (code, text, value)
        assert int(sign) == (code >> (fmt.bits - 1) if fmt.signed else 0)
        assert int(exponent) == code >> digits & 2**fmt.exponent_bits - 1
        assert int(fraction) == code & 2**digits - 1
        assert (kind == "nan") == math.isnan(value)
        assert (kind == "inf") == math.isinf(value)
        assert (kind == "zero") == (value == 0)
        is_subnormal = 0 < abs(value) < fmt.smallest_normal
        assert (kind == "subnormal") == is_subnormal


@pytest.mark.parametrize(("place", "up"), [(5, True), (6, False)])
def test_neighbours_are_the_same(described, place, up):
    fmt, codes, values, rows = described
    neighbours = fmt.next_up(values) if up else fmt.next_down(values)
    # "none" in the explorer is NaN in formats, or inf once more.
    none = np.isnan(neighbours) | (neighbours == values)
    assert [row[place] == "" for row in rows] == none.tolist()
    found = fmt.decode(
        np.array([int(row[place] or "0", 16) for row in rows], dtype=codes.dtype)
    )
    assert (found == neighbours)[~none].all()
    assert (np.signbit(found) == np.signbit(neighbours))[~none].all()


def test_gaps_are_the_same(described):
    fmt, _, values, rows = described
    # NaN compares false. Beyond the largest number there is no other to measure to.
    below = np.abs(values) < fmt.max
    assert [row[7] != "" for row in rows] == below.tolist()
    texts = [row[7] for row in rows if row[7]]
    assert all(map(same, texts, fmt.ulp(values[below]).tolist()))


READ = """
return given.map((text) => m.read(f, text).code.toString(16));
"""


def nearest(fmt: FloatFormat, x: Fraction) -> int:
    """Return the code of `x` > 0: of the codes about it the nearest, ties to even."""
    top = int(fmt.encode(fmt.max))

    def value(code: int) -> Fraction:
        beyond = Fraction(float(fmt.ulp(fmt.max))) if code > top else 0
        return Fraction(float(fmt.decode(min(code, top)))) + beyond

    rough = min(float(min(x, Fraction(fmt.max))), fmt.max)
    middle = int(fmt.encode(rough))
    near = [c for c in range(middle - 2, middle + 3) if 0 <= c <= top + 1]
    least = min(abs(value(code) - x) for code in near)
    ties = [code for code in near if abs(value(code) - x) == least]
    if fmt.fraction_bits:
        code = min(ties, key=lambda code: code % 2)
    else:
        code = max(ties)
    beyond = {"ieee": fmt.infinity_code, "finite": top}.get(fmt.specials, fmt.nan_code)
    return code if code <= top else beyond


def hard_numbers(fmt: FloatFormat) -> list[Fraction]:
    """Return values, midpoints, and what lies 10^-40 of them beside, up to above max."""
    draw, top = random.Random(5), int(fmt.encode(fmt.max))
    codes = {draw.randrange(top) for _ in range(150)} | set(range(min(8, top)))
    found = [Fraction(fmt.max) + Fraction(float(fmt.ulp(fmt.max))) / 2]
    for code in codes:
        low, high = (Fraction(float(fmt.decode(c))) for c in (code, code + 1))
        found += [low, (low + high) / 2]
    found.append(Fraction(fmt.smallest_subnormal) / 2)
    tiny = Fraction(1, 10**40)
    beside = [x * (1 + sign * tiny) for x in found for sign in (-1, 1)]
    return [x for x in found + beside if x > 0]


@pytest.mark.parametrize("fmt", EVERY, ids=IDS)
def test_what_is_typed_is_rounded_once_to_nearest_ties_to_even(javascript, fmt):
    numbers = hard_numbers(fmt)
    texts = [f"{x.numerator}/{x.denominator}" for x in numbers]
    # The explorer takes at most 2,000 characters.
    kept = [(x, text) for x, text in zip(numbers, texts) if len(text) <= 2000]
    found = javascript(READ, fmt, [text for _, text in kept])
    assert len(kept) > 0.5 * len(numbers)
    for (x, text), digits in zip(kept, found, strict=True):
        assert int(digits, 16) == nearest(fmt, x), text


@pytest.mark.parametrize(
    "fmt", [fmt for fmt in EVERY if fmt.signed], ids=lambda fmt: fmt.name
)
def test_a_minus_sets_the_sign_bit_and_nothing_else(javascript, fmt):
    texts = [f"{x.numerator}/{x.denominator}" for x in hard_numbers(fmt)]
    texts = [text for text in texts if len(text) < 2000]
    positive = javascript(READ, fmt, texts)
    negative = javascript(READ, fmt, ["-" + text for text in texts])
    unsigned = (0, fmt.nan_code) if fmt.specials == "fnuz" else ()
    for above, below in zip(positive, negative, strict=True):
        code = int(above, 16)
        expected = code if code in unsigned else code | 1 << (fmt.bits - 1)
        assert int(below, 16) == expected


@pytest.mark.parametrize("fmt", EVERY, ids=IDS)
def test_decimal_text_is_read_exactly(javascript, fmt):
    draw = random.Random(3)
    low, high = math.log10(fmt.smallest_subnormal) - 1, math.log10(fmt.max) + 1
    texts = ["0.1", ".5", "3.", "1e-7", "1E+2", "0.30000000000000004", "12345678.9"]
    for _ in range(200):
        digits = draw.randrange(10 ** draw.randrange(1, 30))
        texts.append(
            f"{digits}.{draw.randrange(10**6):06}e{int(draw.uniform(low, high))}"
        )
    found = javascript(READ, fmt, texts)
    for text, digits in zip(texts, found, strict=True):
        assert int(digits, 16) == nearest(fmt, Fraction(text)), text


@pytest.mark.parametrize("fmt", EVERY, ids=IDS)
def test_special_input_is_encoded_the_same(javascript, fmt):
    typed = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan, "-nan": -math.nan}
    typed |= {"0": 0.0, "-0": -0.0, "-1": -1.0, "−1": -1.0, "1e400": math.inf}
    typed |= {"Infinity": math.inf, "∞": math.inf, "1e-400": 0.0}
    for text, number in typed.items():
        holds = fmt.specials != "finite" or not math.isnan(number)
        if holds:
            (digits,) = javascript(READ, fmt, [text])
            assert int(digits, 16) == int(fmt.encode(number)), text
        else:
            said = javascript(SAID, fmt, text)
            assert f"{fmt.name} has no NaN" in said


SAID = """
try { m.read(f, given); return ""; } catch (error) {
  if (error instanceof m.InputError) return error.message;
  throw error;
}
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Nothing is no number"),
        ("abc", "abc is no number"),
        ("1/2/3", "is no number"),
        ("1/", "is no number"),
        ("--1", "is no number"),
        ("1e", "is no number"),
        ("1,5", "is no number"),
        ("3/0", "divides by zero"),
        ("1e99999", "-5000 to 5000"),
        ("0x", "hexadecimal digits"),
        ("0xg", "hexadecimal digits"),
        ("0b2", "digits 0 and 1"),
        ("0x10000", "float16 codes have 16 bits, so the highest is 0xffff"),
        ("0b10000000000000000", "float16 codes have 16 bits"),
        ("1" * 2001, "at most 2000"),
        ("x" * 300, "x… is no number"),
    ],
)
def test_bad_input_gets_one_sentence(javascript, text, words):
    said = javascript(SAID, FORMATS["float16"], text)
    assert words in said and said.endswith(".") and len(said) < 200


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0x3c00", 0x3C00),
        ("0X3C00", 0x3C00),
        ("0b0 01111 0000000000", 0x3C00),
        ("0b0_01111_0000000000", 0x3C00),
        ("0x1", 1),
        ("2^-24", 1),
        ("2**-24", 1),
        ("-3/8", 0xB600),
        (" 0.75/2 ", 0x3600),
        ("10^3", 0x63D0),
    ],
)
def test_codes_fractions_and_powers_are_read(javascript, text, code):
    (digits,) = javascript(READ, FORMATS["float16"], [text])
    assert int(digits, 16) == code


TEXTS = """
return given.map((digits) => {
  const code = BigInt("0x" + digits), value = m.decode(f, code);
  return [m.exactText(value), m.inputText(f, code), m.hexOf(f, code),
    m.binaryOf(f, code)];
});
"""


@pytest.mark.parametrize("fmt", EVERY, ids=IDS)
def test_texts_are_exact_and_can_be_typed_again(javascript, fmt):
    codes = codes_of(fmt)
    codes = codes[:: max(1, len(codes) // 2000)]
    rows = javascript(TEXTS, fmt, hexes(codes))
    again = javascript(READ, fmt, [typed for _, typed, _, _ in rows])
    for code, (exact, typed, digits, bits), read in zip(
        codes, rows, again, strict=True
    ):
        value = float(fmt.decode(code))
        if math.isfinite(value):
            assert Fraction(exact.replace("−", "-")) == Fraction(value)
            assert int(read, 16) == code, typed
        else:
            assert exact.lstrip("−") == ("∞" if math.isinf(value) else "NaN")
        assert (int(digits, 16), int(bits, 2), len(bits)) == (code, code, fmt.bits)


CONVERT = """
const value = m.readValue(given), { code, word, error } = m.convert(f, value);
return [code === null ? "" : m.exactText(m.decode(f, code)), word,
  error ? m.errorText(error) : ""];
"""


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("float16", "1/3", ["0.333251953125", "rounded", "2.44e−4"]),
        ("float16", "-0.5", ["−0.5", "exact", "0"]),
        ("float16", "1e5", ["∞", "overflow", ""]),
        ("float16", "-1e-9", ["−0", "becomes zero", "1"]),
        ("float16", "inf", ["∞", "exact", ""]),
        ("float16", "nan", ["NaN", "not a number", ""]),
        ("float8_e4m3fn", "464", ["448", "rounded", "0.0345"]),
        ("float8_e4m3fn", "465", ["NaN", "overflow", ""]),
        ("float8_e4m3fn", "inf", ["NaN", "not a number", ""]),
        ("float8_e4m3fnuz", "-0", ["0", "exact", "0"]),
        ("float8_e4m3fnuz", "-1e-9", ["0", "becomes zero", "1"]),
        ("float8_e8m0fnu", "-1", ["NaN", "not a number", ""]),
        ("float8_e8m0fnu", "3", ["4", "rounded", "0.333"]),
        ("float4_e2m1fn", "1000", ["6", "overflow", "0.994"]),
        ("float4_e2m1fn", "-inf", ["−6", "overflow", ""]),
        ("float4_e2m1fn", "nan", ["", "has no NaN", ""]),
        ("bfloat16", "65504", ["65536", "rounded", "4.89e−4"]),
    ],
)
def test_what_a_format_makes_of_a_number_has_a_word(javascript, name, typed, expected):
    assert javascript(CONVERT, FORMATS[name], typed) == expected


NAMES = "return given.map((digits) => m.namesOf(f, BigInt('0x' + digits)).join(', '));"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (
            "float16",
            {
                0x0000: "zero",
                0x8000: "minus zero",
                0x0001: "subnormal, smallest positive value",
                0x03FF: "subnormal, largest subnormal",
                0x0400: "normal, smallest normal",
                0x7BFF: "normal, largest value",
                0xFBFF: "normal, lowest value",
                0x3C00: "normal",
                0x7C00: "infinity",
                0xFC00: "minus infinity",
                0x7E00: "NaN, not a number (quiet)",
                0x7C01: "NaN, not a number (signalling)",
            },
        ),
        ("float8_e4m3fn", {0x7E: "normal, largest value", 0xFF: "NaN, not a number"}),
        ("float8_e4m3fnuz", {0x80: "NaN, not a number", 0x00: "zero"}),
        (
            "float8_e8m0fnu",
            {
                0x00: "normal, smallest normal, smallest positive value",
                0xFE: "normal, largest value",
                0xFF: "NaN, not a number",
            },
        ),
        ("float4_e2m1fn", {0x7: "normal, largest value", 0xF: "normal, lowest value"}),
    ],
)
def test_special_codes_are_named(javascript, name, names):
    assert javascript(NAMES, FORMATS[name], hexes(list(names))) == [*names.values()]
