"""The notebook gate: every chapter passes, and every rule rejects what it is there for.

`notebook_bites` breaks one thing at a time in the template, which passes.
"""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpteach import editions
from mpteach.course import NOTEBOOKS, RECORDS, ROOT
from mpteach.exercises import registry
from tests.notebook_bites import BITES
from tests.notebook_cells import Notebook
from tests.notebook_rules import RULES, violations

TEMPLATE = editions.read(editions.TEMPLATE)
CHAPTERS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", [*CHAPTERS, editions.TEMPLATE], ids=lambda p: p.stem)
class TestNotebook:
    def test_it_keeps_the_rules(self, path: Path):
        found = violations(editions.read(path), path.name)
        assert not found, "\n" + "\n".join(found)

    def test_its_file_is_as_make_notebooks_writes_it(self, path: Path):
        assert path.read_text(encoding="utf-8") == editions.dumps(editions.read(path))

    def test_its_records_exist_and_load(self, path: Path):
        from mpteach import records

        for name in editions.read(path)["metadata"]["mpteach"]["records"]:
            assert records.load(RECORDS / f"{name}.json").experiment

    def test_its_exercises_have_checkers(self, path: Path):
        known = registry.names()
        for cell in editions.read(path)["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("locked"):
                assert any(f'"{name}"' in cell["source"] for name in known), cell["id"]


def sentences_of(rule: str, nb: dict[str, Any]) -> list[str]:
    (chosen,) = [known for known in RULES if known.__name__ == rule]
    return list(chosen(Notebook("template.ipynb", nb)))


@pytest.mark.parametrize(("damage", "rule", "where", "said"), BITES)
def test_a_breach_is_named_with_its_cell(damage, rule, where, said):
    nb = copy.deepcopy(TEMPLATE)
    damage(nb)
    found = sentences_of(rule, nb)
    for index, cell in enumerate(TEMPLATE["cells"]):
        where = f"cell {where} ({index})" if where == cell["id"] else where
    assert [text for text in found if where in text and said in text], found
    assert f"template.ipynb, {found[0]}" in violations(nb, "template.ipynb")
    assert sentences_of(rule, TEMPLATE) == []


def test_every_rule_has_a_bite():
    bitten = {param.values[1] for param in BITES}
    assert {rule.__name__ for rule in RULES} == bitten


class TestStrictNbval:
    """The comparison itself: nbval rejects an output that the code does not give."""

    def compare(
        self, tmp_path: Path, stored: str, source: str = "print(6 * 7)", tags=()
    ):
        out = {"output_type": "stream", "name": "stdout", "text": stored}
        cell = {
            "cell_type": "code",
            "id": "answer",
            "metadata": {"tags": list(tags)},
            "source": source,
            "outputs": [out] if stored else [],
            "execution_count": 1,
        }
        nb = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        path = tmp_path / "small.ipynb"
        editions.write(path, editions.canonicalise(nb))
        strict = ["--nbval", "--nbval-current-env"]
        sanitize = ["--nbval-sanitize-with", str(ROOT / "tests" / "sanitize.cfg")]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            *strict,
            *sanitize,
        ]
        return subprocess.run(
            [*command, str(path)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_true_output_passes(self, tmp_path):
        assert self.compare(tmp_path, "42\n").returncode == 0

    def test_a_changed_output_fails(self, tmp_path):
        ran = self.compare(tmp_path, "43\n")
        assert ran.returncode == 1 and "43" in ran.stdout and "42" in ran.stdout

    def test_an_output_that_nothing_stored_foretold_fails(self, tmp_path):
        assert self.compare(tmp_path, "").returncode == 1

    def test_a_live_cell_that_fails_its_assert_fails(self, tmp_path):
        tags = [editions.LIVE_TAG]
        assert (
            self.compare(tmp_path, "42\n", "assert 6 * 7 == 43", tags).returncode == 1
        )
        assert (
            self.compare(tmp_path, "41\n", "assert 6 * 7 == 42", tags).returncode == 0
        )
