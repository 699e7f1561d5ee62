"""The bit explorer on Python's side: its state, what it stores, bad input."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpteach import editions
from mpteach.course import ROOT
from mpteach.errors import InputError
from mpteach.figures.bits import FIELD_COLORS
from mpteach.formats import FORMATS, FloatFormat
from mpteach.widgets import BitExplorer

MINE = FloatFormat("mine", 3, 2, bias=5, specials="fn")
VIEW = "application/vnd.jupyter.widget-view+json"


def bundle(explorer: BitExplorer) -> dict[str, str]:
    data, _ = explorer._repr_mimebundle_()
    return data


def stored(explorer: BitExplorer) -> dict:
    """Return the definitions in the page that `explorer` displays."""
    text = bundle(explorer)["text/html"]
    return json.loads(re.search(r'application/json">(.*?)</script>', text)[1])


class TestState:
    def test_the_number_is_rounded_to_the_format(self):
        explorer = BitExplorer("float16", 0.1)
        assert (explorer.format, explorer.code) == ("float16", 0x2E66)
        assert explorer.value == float(np.float16(0.1))

    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_can_be_shown(self, name):
        explorer = BitExplorer(name, 0.75)
        assert explorer.code == int(FORMATS[name].encode(0.75))
        assert stored(explorer)["shown"]["code"] == f"{explorer.code:x}"

    def test_a_code_of_64_bits_stays_whole(self):
        explorer = BitExplorer("float64", -0.1)
        assert explorer.code == 0xBFB999999999999A and explorer.value == -0.1

    def test_a_made_up_format_is_offered_beside_the_others(self):
        names = [fmt["name"] for fmt in stored(BitExplorer(MINE, 0.1))["formats"]]
        assert names == [*FORMATS, "mine"]

    def test_the_formats_offered_can_be_chosen(self):
        explorer = BitExplorer("mine", 0.1, formats=[MINE, "bfloat16"])
        assert [fmt["name"] for fmt in stored(explorer)["formats"]] == [
            "mine",
            "bfloat16",
        ]
        assert stored(explorer)["formats"][0] == {
            "name": "mine",
            "exponent_bits": 3,
            "fraction_bits": 2,
            "bias": 5,
            "specials": "fn",
            "signed": True,
            "zero": True,
        }

    def test_what_the_reader_does_reaches_python(self):
        explorer, seen = BitExplorer(), []
        explorer.observe(lambda change: seen.append(change["new"]), ["format", "code"])
        shown = {"format": "float64", "code": "3ff8000000000001", "asked": ""}
        explorer.set_state({"_shown": shown})
        assert (explorer.format, explorer.code) == ("float64", 0x3FF8000000000001)
        assert sorted(map(str, seen)) == sorted(["float64", str(0x3FF8000000000001)])
        assert explorer._shown == shown

    def test_python_can_set_the_code_and_the_format(self):
        explorer = BitExplorer()
        explorer.code = 0x7C00
        assert explorer._shown == {"format": "float16", "code": "7c00", "asked": ""}
        explorer.format = "float32"
        assert explorer.value == math.inf and explorer.code == 0x7F800000
        assert explorer._shown["code"] == "7f800000"


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"format": "float17"}, "unknown format 'float17'"),
            ({"format": 16}, "unknown format 16"),
            ({"formats": ["float17"]}, "unknown format 'float17'"),
            (
                {"formats": ["float32", MINE, FloatFormat("mine", 4, 3)]},
                "^two formats are named mine: give each a name of its own",
            ),
            ({"formats": 3}, "formats was 3: give a list"),
            ({"formats": "float16"}, "formats was 'float16': give a list"),
            ({"formats": MINE}, "formats was FloatFormat"),
            ({"value": "0.1"}, "no real number"),
            ({"value": [1.0, 2.0]}, r"shape \(2,\): give one number"),
            ({"format": "float4_e2m1fn", "value": math.nan}, "has no NaN"),
        ],
    )
    def test_it_is_one_sentence(self, arguments, words):
        with pytest.raises(InputError, match=words):
            BitExplorer(**arguments)

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("code", 1 << 16, "float16 codes are 0 to 65535"),
            ("code", -1, "float16 codes are 0 to 65535"),
            ("format", "float17", "unknown format 'float17'"),
            ("format", "float4_e2m1fn", "has no NaN"),
            ("format", 3, "unknown format 3: choose from"),
            ("format", ["float16"], "unknown format .*: choose from"),
            ("code", 1.5, "codes of dtype float64"),
            ("code", "7c00", "float16 codes are integers"),
            ("code", True, "float16 codes are integers"),
            ("code", [1], "one code"),
        ],
    )
    def test_what_cannot_be_set_changes_nothing(self, name, value, words):
        explorer = BitExplorer("float16", math.nan)
        before = explorer._shown, explorer.format, explorer.code
        with pytest.raises(InputError, match=words):
            setattr(explorer, name, value)
        assert (explorer._shown, explorer.format, explorer.code) == before

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            ({"format": "float16", "code": "fffff", "asked": ""}, "codes are 0 to"),
            ({"format": "float17", "code": "ff", "asked": ""}, "unknown format"),
            ({"format": "float16", "code": "xyz", "asked": ""}, "hexadecimal"),
            ({"format": "float16", "code": "-1", "asked": ""}, "hexadecimal"),
            ({"format": "float16", "code": 5, "asked": ""}, "as texts"),
            ({"format": "float16", "code": "ff", "asked": 5}, "as texts"),
            ({"format": "float16", "code": "ff"}, "give format, code and asked"),
            ({}, "give format, code and asked"),
            (None, "give format, code and asked"),
        ],
    )
    def test_a_state_that_the_view_cannot_have_changes_nothing(self, state, words):
        explorer = BitExplorer()
        before = explorer._shown, explorer.format, explorer.code
        with pytest.raises(InputError, match=words):
            explorer.set_state({"_shown": state})
        assert (explorer._shown, explorer.format, explorer.code) == before

    def test_a_code_of_numpy_is_as_good(self):
        explorer = BitExplorer()
        explorer.code = np.uint16(0x3C00)
        assert explorer.value == 1 and type(explorer.code) is int


class TestStoredOutput:
    def test_the_text_names_format_and_code(self):
        assert repr(BitExplorer()) == "BitExplorer(format='float16', code=0x2e66)"
        assert bundle(BitExplorer("float4_e2m1fn", 6))["text/plain"] == (
            "BitExplorer(format='float4_e2m1fn', code=0x7)"
        )

    def test_two_alike_store_the_same_and_only_the_view_differs(self):
        first, second = bundle(BitExplorer()), bundle(BitExplorer())
        assert first.pop(VIEW) != second.pop(VIEW)
        assert first == second and set(first) == {"text/plain", "text/html"}

    def test_the_page_is_small_and_needs_nothing_from_outside(self):
        text = bundle(BitExplorer())["text/html"]
        assert len(text.encode()) < 60_000
        assert not re.search(r"https?:|//[a-z]+\.|src=|href=|@import|\burl\(", text)

    def test_no_text_ends_the_script_early(self):
        odd = FloatFormat("</script><b>", 3, 2)
        text = bundle(BitExplorer(odd, 1.0))["text/html"]
        assert text.count("</script>") == 2 and "<b>" not in text
        assert stored(BitExplorer(odd, 1.0))["shown"]["format"] == "</script><b>"

    def test_where_no_program_may_run_the_number_can_be_read(self):
        text = bundle(BitExplorer())["text/html"]
        assert "0 01011 1001100110, value 0.0999755859375 (normal)" in text

    def test_the_stored_form_keeps_the_page_and_drops_the_view(self):
        output = {"output_type": "display_data", "metadata": {}}
        cell = {
            "cell_type": "code",
            "id": "explore",
            "metadata": {},
            "source": "",
            "execution_count": 1,
            "outputs": [output | {"data": bundle(BitExplorer())}],
        }
        nb = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (kept,) = editions.canonicalise(nb)["cells"][0]["outputs"]
        assert set(kept["data"]) == {"text/plain", "text/html"}

    def test_the_fields_have_the_colours_of_the_figures(self):
        style = (ROOT / "mpteach" / "widgets" / "explorer.css").read_text()
        for field, color in FIELD_COLORS.items():
            assert f"--{field}: {color.lower()};" in style


def gate(path: Path) -> int:
    """Return the exit status of the strict notebook gate on `path`."""
    sanitize = ROOT / "tests" / "sanitize.cfg"
    options = f"--nbval --nbval-current-env --nbval-sanitize-with {sanitize}".split()
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            path,
            *options,
        ],
        cwd=path.parent,
        capture_output=True,
    ).returncode


NOTEBOOK = """
from mpteach.widgets import BitExplorer

explorer = BitExplorer("bfloat16", 1e-3)
explorer
"""


def test_a_notebook_that_shows_it_is_stored_the_same_again_and_passes_the_gate(
    tmp_path,
):
    path = tmp_path / "explore.ipynb"
    cells = [
        {
            "cell_type": "code",
            "id": name,
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for name, source in [("show", NOTEBOOK), ("tell", "print(explorer)")]
    ]
    nb = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    editions.write(path, nb)
    editions.refresh(path)
    first = path.read_bytes()
    editions.refresh(path)
    assert path.read_bytes() == first
    assert b"widget-view" not in first and b"mpteach-bit-explorer" in first
    assert gate(path) == 0
    path.write_bytes(first.replace(b"(normal)", b"(subnormal)"))
    assert gate(path) == 1


def test_import_mpteach_does_not_load_it():
    program = "import sys, mpteach; print('anywidget' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout == "False\n"
