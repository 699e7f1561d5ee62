"""pyproject.toml, constraints.txt and environment.yml name the same versions."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mpteach.course import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
]
DIRECT = [
    Requirement(line)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in group
]


def pins() -> dict[str, Version]:
    """Return the pinned version of each package by its canonical name."""
    split = (line.split("==") for line in LINES)
    return {canonicalize_name(name): Version(version) for name, version in split}


@pytest.mark.parametrize("line", LINES)
def test_a_constraint_is_a_plain_pin(line):
    # No local version such as +cpu, no file and no address: it holds on any machine.
    assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)


def test_each_package_is_pinned_once():
    assert len(pins()) == len(LINES)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_a_pin_satisfies_the_range_of_pyproject(requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_torch_is_held_and_its_floor_admits_older_machines():
    torch = next(one for one in DIRECT if one.name == "torch")
    assert pins()["torch"] == Version("2.13.0")
    assert "2.11.0" in torch.specifier and "2.10.0" not in torch.specifier


def test_conda_brings_the_same_python():
    (line,) = [one for one in CONDA["dependencies"] if str(one).startswith("python ")]
    python = SpecifierSet(line.removeprefix("python "))
    assert python == SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" in python for minor in range(10, 15)] == [
        False,
        *[True] * 3,
        False,
    ]


def test_conda_brings_everything_else_by_pip_from_the_same_constraints():
    (by_pip,) = [one["pip"] for one in CONDA["dependencies"] if isinstance(one, dict)]
    from_conda = [one for one in CONDA["dependencies"] if not isinstance(one, dict)]
    assert by_pip == ["-c constraints.txt", "-e .[course,test]"]
    assert len(from_conda) == 2 and "pip" in from_conda


def test_make_installs_what_conda_installs():
    from mpteach.install import REQUIREMENT

    (by_pip,) = [one["pip"] for one in CONDA["dependencies"] if isinstance(one, dict)]
    assert " ".join(REQUIREMENT) == " ".join(by_pip)
