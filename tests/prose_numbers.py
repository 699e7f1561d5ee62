"""Numbers in prose: find them, read them, and see whether an output printed them.

Checked: decimals, percentages, numbers with a measured unit, integers from 100.
A number matches where an output of the section shows the same value at the precision
printed in the prose, or where `static/facts.json` holds the printed text with a source.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

# Spellings of one unit share a name. Integers below 100 are prose in the units of
# COUNTED (16 bits, 2 bytes, 20 minutes) and results in those of MEASURED.
MEASURED = {
    "%": ("%", "percent"),
    "s": ("seconds", "second", "s"),
    "ms": ("ms",),
    "us": ("us", "µs", "μs"),
    "ns": ("ns",),
    "x": ("x", "×", "times"),
    "kB": ("kB", "KB"),
    "MB": ("MB",),
    "GB": ("GB",),
    "TB": ("TB",),
    "KiB": ("KiB",),
    "MiB": ("MiB",),
    "GiB": ("GiB",),
    "TiB": ("TiB",),
    "GB/s": ("GB/s",),
    "TB/s": ("TB/s",),
    "GiB/s": ("GiB/s",),
    "GFLOP/s": ("GFLOP/s", "GFLOPS", "GFLOPs"),
    "TFLOP/s": ("TFLOP/s", "TFLOPS", "TFLOPs"),
    "PFLOP/s": ("PFLOP/s",),
    "FLOP": ("FLOPs", "FLOP"),
    "token/s": ("tokens/s", "tokens per second", "tokens a second"),
    "W": ("W",),
    "GHz": ("GHz",),
    "MHz": ("MHz",),
}
COUNTED = {
    "byte": ("bytes", "byte"),
    "bit": ("bits", "bit"),
    "minute": ("minutes", "minute"),
    "hour": ("hours", "hour"),
    "token": ("tokens", "token"),
}
SUFFIXES = {"k": 3, "M": 6, "B": 9}
SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12, **SUFFIXES}
_UNIT_OF = {
    word: unit for unit, words in (MEASURED | COUNTED).items() for word in words
}
_WORDS = "|".join(sorted(map(re.escape, [*_UNIT_OF, *SCALES]), key=len, reverse=True))
_COMPARED = (
    r"(?=\s+(?:as|faster|slower|more|less|fewer|larger|smaller|the|longer|cheaper))"
)
_DIGITS = r"(?:\d{1,3}(?:[,\u202f\u2009\u00a0]\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_POWER = r"(?:[eE][-+]?\d+|\s?[×x*·]\s?10\^?\{?[-+]?\d+\}?)?"
# A number is no part of a name: not after a letter, "GPT-2", "3.11.2" or "2^16".
NUMBER = re.compile(
    r"(?<![A-Za-z0-9.^])(?<![A-Za-z0-9]_)(?<![A-Za-z]-)(?<![\w.]\+)"
    rf"(?P<sign>(?<![\w)])[-+])?(?P<digits>{_DIGITS})"
    rf"(?P<power>{_POWER})(?!\^|\*\*\d)"
    rf"(?:[\s-]?(?P<word>{_WORDS})(?![\w/])(?!\s?\d))?"
    r"(?![A-Za-z0-9]|_[A-Za-z0-9])"
)
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|"
    r"December)"
)
_NAMED = (
    r"torch|PyTorch|Python|NumPy|numpy|matplotlib|JupyterLab|Jupyter|ml_dtypes|CUDA|cuDNN|"
    r"driver|version|revision|IEEE(?:\s+Std)?|arXiv:?|OFP8\)?|MX\)?|OCP|RFC|ISO(?:/IEC)?|IEC|section|chapter"
)
EXEMPT = [
    re.compile(pattern, re.DOTALL | re.MULTILINE)
    for pattern in (
        r"^(```|~~~).*?^\1",  # fenced code
        r"\$\$.*?\$\$",  # formulas
        r"(?<!\\)\$[^$\n]+(?:\n[^$\n]+)?\$",
        r"(`+)(?!`)(?:(?!\n\n).)+?(?<!`)\1(?!`)",  # code spans
        r"!?\[[^\]]*\]\([^)\n]*\)",  # links
        r"<https?://[^>]*>|https?://\S+",
        r"<[A-Za-z/!][^>\n]*>",  # HTML tags
        r"^#{1,6} [^\n]*$",  # headings
        r"\b\d{4}-\d\d(?:-\d\d)?\b",  # dates
        rf"\b(?:\d{{1,2}} )?{_MONTH} (?:\d{{1,2}}, )?(?:19|20)\d\d\b",
        r"(?:\bet al\.,?|\bin|\bsince|\()\s?(?:19[89]\d|20[0-3]\d)\b",
        r"\b\d{4}\.\d{4,5}\b",  # arXiv ids
        rf"\b(?:{_NAMED})[\s-]v?\d[\d.]*(?:-\d{{4}})?(?:\+\w+)?",  # versions, standards
        r"\bv?\d+\.\d+\.\d+\S*|\bv\d+(?:\.\d+)*",
        r"\b0x[0-9A-Fa-f]+\b",  # bit patterns
        # 2^-17, but not the power of "6.1 x 10^-5"
        r"(?<![×x*·\d])(?<![×x*·]\s)\d+(?:\^\{?[-+]?\d+\}?|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)",
    )
]


@dataclass(frozen=True)
class Number:
    """A number as printed: its text, value, the size of its last digit and its unit."""

    text: str
    value: Decimal
    quantum: Decimal
    signed: bool
    unit: str


def numbers(text: str) -> Iterator[Number]:
    """Yield every number in `text` that is not part of a name."""
    for match in NUMBER.finditer(_plain(text)):
        yield _number(match)


def typed_numbers(markdown: str) -> Iterator[Number]:
    """Yield the numbers in prose that an output must show."""
    text = _plain(markdown)
    for pattern in EXEMPT:
        text = pattern.sub(lambda match: " ¤ " + "\n" * match.group().count("\n"), text)
    for match in NUMBER.finditer(text):
        number = _number(match)
        if _is_result(number, match, text):
            yield number


def is_shown(number: Number, printed: Iterable[Number]) -> bool:
    """Say whether one of the `printed` numbers is `number` at its precision."""
    return any(_same(number, other) for other in printed)


def is_fact(number: Number, facts: Iterable[dict[str, str]]) -> bool:
    """Say whether a sourced fact has the printed text of `number`, and its unit."""
    key = (number.value, number.quantum, number.unit)
    return any(
        key == (known.value, known.quantum, known.unit)
        for fact in facts
        for known in numbers(f"{fact['value']} {fact['unit']}")
    )


def _plain(text: str) -> str:
    return text.replace("\u2212", "-").replace("\u2011", "-").replace("\\%", "%")


def _number(match: re.Match[str]) -> Number:
    digits = re.sub(r"[,\u202f\u2009\u00a0]", "", match["digits"])
    exponent = re.search(r"[-+]?\d+(?=\}?$)", match["power"] or "")
    shift = int(exponent.group()) if exponent else 0
    word = match["word"] or ""
    shift += SCALES.get(word, 0)
    decimals = len(digits.partition(".")[2])
    value = Decimal(digits).scaleb(shift)
    return Number(
        text=match.group().strip(),
        value=-value if match["sign"] == "-" else value,
        quantum=Decimal(1).scaleb(shift - decimals),
        signed=bool(match["sign"]),
        unit=_UNIT_OF.get(word, ""),
    )


def _is_result(number: Number, match: re.Match[str], text: str) -> bool:
    if "." in match["digits"] or match["power"] or abs(number.value) >= 100:
        return not _is_size_name(match)
    if match["word"] == "times":
        return bool(re.match(_COMPARED, text[match.end() :]))
    return number.unit in MEASURED


def _is_size_name(match: re.Match[str]) -> bool:
    """Say whether a number is the name of a size, such as 25M."""
    digits = match["digits"]
    return match["word"] in SUFFIXES and digits.isdigit() and int(digits) < 100


def _same(prose: Number, printed: Number) -> bool:
    values = [printed.value]
    if prose.unit == "%" and printed.unit == "":
        values.append(printed.value * 100)
    elif prose.unit and printed.unit and prose.unit != printed.unit:
        return False
    if not prose.signed:
        values = [abs(value) for value in values]
    return any(abs(value - prose.value) <= prose.quantum / 2 for value in values)
