"""The floors of the package: imports point downward, doors open from outside."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpteach.course import ROOT

FLOORS = {
    "base": ["", "errors", "files", "course"],
    "numbers": [
        "inputs",
        "quanta",
        "formats",
        "rounding",
        "accumulation",
        "libraries",
    ],
    "mechanisms": [
        "loss_scaling",
        "master_weights",
        "master_adamw",
        "fp8",
        "autocast",
        "debugging",
    ],
    "budgets": ["memory", "hardware"],
    "experiments": [
        "recipes",
        "data",
        "gpt",
        "runs",
        "meters",
        "compiling",
        "training",
        "training_speed",
        "checkpoints",
        "identity",
        "kernels",
        "collapse",
        "logits",
        "scales",
        "records",
        "comparison",
        "differences",
        "products",
        "ceilings",
        "measurements",
        "benchmarks",
        "scaler_parity",
        "gradients",
        "updates",
        "epsilons",
        "studies",
        "proofs",
        "autocast_probe",
    ],
    "presentation": ["figures", "style", "claims", "decision"],
    "doors": [
        "widgets",
        "exercises",
        "editions",
        "working_copy",
        "progress",
        "site",
        "slides",
        "release",
        "install",
        "doctor",
        "cli",
    ],
}
# A floor may use itself and every floor in its row.
MAY_USE = {
    "base": [],
    "numbers": ["base"],
    "mechanisms": ["base", "numbers"],
    "budgets": ["base", "numbers", "mechanisms"],
    "experiments": ["base", "numbers", "mechanisms", "budgets"],
    "presentation": ["base", "numbers", "mechanisms", "budgets", "experiments"],
    "doors": [
        "base",
        "numbers",
        "mechanisms",
        "budgets",
        "experiments",
        "presentation",
    ],
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
# What shows a figure; a presentation may, and what runs on a GPU machine may not.
PLOTTING = {"matplotlib", "IPython"}
JUPYTER = {
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "jupyter_client",
    "jupyter_core",
    "jupyterlab",
    "nbclient",
    "nbconvert",
    "nbformat",
    "traitlets",
}
NEVER = {"nbgrader", "nbval", "pytest"}
WITHOUT_JUPYTER = ["training", "hardware", "records", "comparison", "memory", "cli"]


def breaches(package: Path) -> list[str]:
    """Return a sentence for each import in `package` that the floors forbid."""
    return [
        f"{file.relative_to(package)}: {sentence}"
        for file in sorted(package.rglob("*.py"))
        for sentence in _breaches_of(file, package)
    ]


def _breaches_of(file: Path, package: Path) -> Iterator[str]:
    room = _room(file, package)
    if room not in FLOOR_OF:
        yield f"{room} stands on no floor: give it one in FLOORS."
        return
    floor = FLOOR_OF[room]
    for name, top_level in _imports(file, package):
        first, *rest = name.split(".")
        if first == package.name:
            yield from _breach_inside(room, floor, rest[0] if rest else "")
        elif first in NEVER:
            yield f"imports {first}: the package must work without it."
        elif first in JUPYTER and floor != "doors":
            yield f"imports {first}: only doors may need Jupyter."
        elif first in PLOTTING and floor not in ("presentation", "doors"):
            yield f"imports {first}: only presentation and doors may show figures."
        elif first == "torch" and top_level and floor in ("base", "numbers"):
            yield "imports torch at its top: import it where a tensor is given."


def _breach_inside(room: str, floor: str, used: str) -> Iterator[str]:
    other = FLOOR_OF.get(used)
    if other is None:
        yield f"imports {used}, which stands on no floor."
    elif used != room and floor == other == "mechanisms":
        yield f"imports {used}: mechanisms never import each other."
    elif floor != other and other not in MAY_USE[floor]:
        yield f"imports {used}: {floor} may not use {other}."


def _room(file: Path, package: Path) -> str:
    parts = file.relative_to(package).with_suffix("").parts
    return "" if parts[0] == "__init__" else parts[0]


def _imports(file: Path, package: Path) -> Iterator[tuple[str, bool]]:
    """Yield (absolute module name, is it at the top) of every import in `file`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    here = [package.name, *file.relative_to(package).parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in tree.body
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: -node.level], node.module or ""]).strip(".")
            base = base if node.level else node.module or ""
            if base == package.name:  # from mpteach import formats
                for alias in node.names:
                    yield f"{base}.{alias.name}", node in tree.body
            else:
                yield base, node in tree.body


def test_the_package_keeps_to_its_floors():
    assert breaches(ROOT / "mpteach") == []


def test_a_room_stands_on_one_floor():
    rooms = [room for rooms in FLOORS.values() for room in rooms]
    assert sorted(rooms) == sorted(set(rooms)) and list(FLOORS) == list(MAY_USE)


def _house(tmp_path: Path, files: dict[str, str]) -> Path:
    package = tmp_path / "mpteach"
    for name, source in {"__init__.py": "", **files}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    return package


@pytest.mark.parametrize(
    ("file", "source", "said"),
    [
        ("formats.py", "import mpteach.training", "numbers may not use experiments"),
        (
            "formats.py",
            "from mpteach import training",
            "numbers may not use experiments",
        ),
        ("formats.py", "from . import training", "numbers may not use experiments"),
        (
            "formats.py",
            "def f():\n    from mpteach.gpt import GPT",
            "may not use experiments",
        ),
        (
            "memory/trace.py",
            "from ..training import train",
            "budgets may not use experiments",
        ),
        ("autocast.py", "import mpteach.memory", "mechanisms may not use budgets"),
        (
            "autocast.py",
            "from mpteach.loss_scaling import S",
            "never import each other",
        ),
        ("errors.py", "from mpteach import formats", "base may not use numbers"),
        ("training.py", "import mpteach.style", "experiments may not use presentation"),
        ("style.py", "import mpteach.cli", "presentation may not use doors"),
        ("figures/bits.py", "from mpteach.exercises import check", "may not use doors"),
        ("figures/bits.py", "import ipywidgets", "only doors may need Jupyter"),
        (
            "memory/trace.py",
            "from IPython import display",
            "only presentation and doors",
        ),
        (
            "training.py",
            "import matplotlib.pyplot as plt",
            "only presentation and doors",
        ),
        (
            "training.py",
            "try:\n    import tqdm\nfinally:\n    import ipywidgets",
            "only doors",
        ),
        ("cli/doctor.py", "import nbgrader", "must work without it"),
        ("formats.py", "import torch", "imports torch at its top"),
        (
            "course.py",
            "import mpteach.cellar",
            "imports cellar, which stands on no floor",
        ),
        ("bits_01.py", "", "bits_01 stands on no floor"),
    ],
)
def test_a_wrong_import_is_named(tmp_path, file, source, said):
    (sentence,) = breaches(_house(tmp_path, {file: source}))
    assert sentence.startswith(f"{file}: ") and said in sentence


def test_right_imports_pass(tmp_path):
    files = {
        "formats.py": "import numpy\ndef f(t):\n    import torch",
        "autocast.py": "import torch\nfrom mpteach import formats, errors",
        "training.py": "from mpteach.autocast import A\nfrom . import records",
        "memory/trace.py": "import mpteach.memory.formula\nfrom . import formula",
        "figures/__init__.py": "from mpteach import training\nimport matplotlib",
        "cli/lab.py": "from mpteach import editions\nimport jupyterlab",
    }
    assert breaches(_house(tmp_path, files)) == []


def _run(program: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    return (ran.stdout + ran.stderr).strip()


def test_import_mpteach_loads_nothing_heavy():
    heavy = {"torch", "numpy", *PLOTTING, *JUPYTER}
    program = f"import sys, mpteach; print(sorted({heavy!r} & set(sys.modules)))"
    assert _run(program) == "[]"


def test_the_command_line_loads_nothing_heavy_until_it_runs():
    program = "import sys, mpteach.cli; print('torch' in sys.modules)"
    assert _run(program) == "False"


BLOCKED = """
import sys, importlib.abc
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ModuleNotFoundError('no module named ' + name, name=name)
sys.meta_path.insert(0, Block())
{program}
print('done')
"""


def _modules_of(room: str) -> list[str]:
    package = ROOT / "mpteach"
    files = [package / f"{room}.py", *sorted((package / room).rglob("*.py"))]
    names = [
        file.relative_to(ROOT).with_suffix("").parts for file in files if file.exists()
    ]
    return [".".join(name).removesuffix(".__init__") for name in names]


def test_what_a_gpu_machine_needs_imports_without_jupyter_and_matplotlib():
    modules = [module for room in WITHOUT_JUPYTER for module in _modules_of(room)]
    program = "\n".join(f"import {module}" for module in modules)
    found = _run(BLOCKED.format(blocked=JUPYTER | PLOTTING, program=program))
    assert {"mpteach.training", "mpteach.cli.compare"} <= set(modules)
    assert found == "done"


def test_the_blocking_blocks():
    for module in ("IPython.display", "matplotlib", "nbformat"):
        program = BLOCKED.format(blocked=JUPYTER | PLOTTING, program=f"import {module}")
        assert f"no module named {module.split('.')[0]}" in _run(program)


def test_tests_and_notebooks_alone_use_the_exercises():
    """No other module of the package opens that door, not even another door."""
    users = [
        file.relative_to(ROOT / "mpteach")
        for file in sorted((ROOT / "mpteach").rglob("*.py"))
        if _room(file, ROOT / "mpteach") != "exercises"
        for name, _ in _imports(file, ROOT / "mpteach")
        if name.startswith("mpteach.exercises")
    ]
    assert users == []
