"""Which numbers of a text are results, and when an output or a fact shows one."""

import json

import pytest

from tests.notebook_rules import FACTS
from tests.prose_numbers import is_fact, is_shown, numbers, typed_numbers

SHOWN = (
    "25 halvings, 6.10e-05, 14.04x, 10,864 MiB, ratio 0.2358, -0.0549 %, 743.1 TFLOP/s"
)


@pytest.mark.parametrize(
    "prose",
    [
        *(
            "14.0x as fast",
            "14x",
            "14 times as fast",
            "10,864 MiB",
            "10864 MiB",
            "about 10.9 thousand",
        ),
        *("24 %", "23.6%", "off by -0.0549 %", "off by −0.055 %", "0.055 % off"),
        *("6.1e-5", "6.10 × 10^-5", "6.1 x 10^{-5}", "743 TFLOP/s", "743.1"),
    ],
)
def test_a_number_in_prose_matches_at_the_precision_printed(prose):
    (number,) = typed_numbers(prose)
    assert is_shown(number, numbers(SHOWN))


@pytest.mark.parametrize(
    "prose",
    [
        *(
            "14.1x as fast",
            "14.040x slower by 14.041x",
            "15 times as fast",
            "10,865 MiB",
        ),
        *(
            "26.0 %",
            "+0.0549 %",
            "0.056 %",
            "6.2e-5",
            "6.10e-4",
            "743 GFLOP/s",
            "10,864 GiB",
        ),
        *("742 TFLOP/s", "10.8 thousand", "26 ms"),
    ],
)
def test_a_number_that_no_output_shows_does_not_match(prose):
    found = list(typed_numbers(prose))
    shown = list(numbers(SHOWN))
    assert found and not all(is_shown(number, shown) for number in found)


@pytest.mark.parametrize(
    "prose",
    [
        *("16 bits, 8-bit, 2 bytes", "repeat it 3 times", "20 minutes", "99 steps"),
        *("$0.5 + 3.7$", "$$x = 1.5\n+ 2.5$$", "`2.5`", "``a ` 2.5``", "```\n3.5\n```"),
        *("on 2026-11-23", "in November 2026", "Micikevicius et al. 2018", "(2018)"),
        *(
            "arXiv 2209.05433",
            "[0.5](https://a.org/1.5)",
            "https://a.org/2.5",
            "<b id='2.5'>",
        ),
        *("## The 65,504 of float16", "claim C10", "fp16, H200, A100, GPT-2, E4M3"),
        *("torch 2.13", "Python 3.11 and 3.11.7", "CUDA 13.0", "v1.0", "IEEE 754-2019"),
        *(
            "2^-17",
            "2^{-24}",
            "2⁻¹⁷",
            "10^9",
            "0x3C00",
            "the 25M model",
            "8x8 and 14x16 blocks",
        ),
    ],
)
def test_names_formulas_code_and_small_integers_are_exempt(prose):
    assert list(typed_numbers(prose)) == []


@pytest.mark.parametrize(
    ("prose", "texts"),
    [
        ("0.01 to 0.03, 70-300 times", ["0.01", "0.03", "300 times"]),
        ("65504.", ["65504"]),
        ("| 50.8 | 393 |", ["50.8", "393"]),
        ("the 124M model of 80 GB", ["124M", "80 GB"]),
        ("stalls at 2048, in 2048 steps", ["2048", "2048"]),
        ("5 % (or 7 ms), 3x", ["5 %", "7 ms", "3x"]),
        ("1024 x 256 x 256", ["1024", "256", "256"]),
        ("**2.5** and *3.5* or _4.5_", ["2.5", "3.5", "4.5"]),
        ("costs $5.5 here", ["5.5"]),
        ("## On 3.5\n\nIt is 4.5.\n\n### Or 5.5\nNo.", ["4.5"]),
        ("a ` mark\n\n6.5 and ` one", ["6.5"]),
        ("```\n1.5\n```\n2.5\n```\n3.5\n```", ["2.5"]),
    ],
)
def test_which_numbers_of_a_text_are_results(prose, texts):
    assert [number.text for number in typed_numbers(prose)] == texts


def test_a_fact_stands_for_its_printed_text_and_unit_alone():
    facts = [{"value": "4.8", "unit": "TB/s", "what": "", "source": ""}]
    told = {
        text: next(typed_numbers(text))
        for text in ("4.8 TB/s", "4.80 TB/s", "4.8 GB/s", "5 TB/s")
    }
    assert [text for text, number in told.items() if is_fact(number, facts)] == [
        "4.8 TB/s"
    ]


def test_each_fact_has_one_number_and_a_source():
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    for fact in facts:
        assert set(fact) == {"value", "unit", "what", "source"}, fact
        assert all(fact[key].strip() for key in ("value", "what", "source")), fact
        assert len(list(numbers(f"{fact['value']} {fact['unit']}"))) == 1, fact
    keys = [(fact["value"], fact["unit"]) for fact in facts]
    assert len(keys) == len(set(keys))
