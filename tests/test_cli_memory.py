"""`mpteach memory` as a person meets it: tables, JSON, a model of one's own, bad input."""

import json
import subprocess
import sys

import pytest
import torch

from mpteach import cli, hardware, measurements, records
from mpteach.memory import fit
from mpteach.memory.recipes import RECIPES
from tests.commands import refused

TINY = ["--layers", "1", "--hidden", "64", "--heads", "2", "--vocab", "96"]
TINY += ["--seq", "32", "--batch", "2"]
KEYS = {
    "parameters",
    "gradients",
    "optimizer_state",
    "activations",
    "requested_peak",
    "allocated_peak",
    "reserved_peak",
    "cublas_workspace",
    "phase_of_peak",
}
OWN = """
from __future__ import annotations
import dataclasses
import torch
from torch import nn
from torch.nn import functional as F

@dataclasses.dataclass
class Config:
    width: int = 64

def good(batch):
    print("building")
    def loss(model, x, y):
        return F.mse_loss(model(x), y)
    return (
        lambda: nn.Linear(Config().width, 8),
        lambda: (torch.randn(batch, 64), torch.randn(batch, 8)),
        loss,
    )

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 8)
    def forward(self, x):
        return self.inner(x).square().mean()

def whole(batch):
    return Whole, lambda: (torch.randn(batch, 64),)

def two(make=lambda: nn.Linear(64, 8), batch=None, loss=None):
    batch = batch or (lambda: (torch.randn(2, 64),))
    loss = loss or (lambda model, x: model(x).sum())
    return lambda _: (make, batch, loss)

raises = lambda batch: 1 / 0
leaves = lambda batch: exit(3)
nothing = lambda batch: None
one = lambda batch: (Whole,)
numbers = lambda batch: (1, 2)
no_module = two(lambda: 3)
no_weights = two(nn.ReLU)
vector = two(loss=lambda model, x: model(x))
listed = two(batch=lambda: [1])
failing = two(lambda: nn.Linear(63, 8))
data = two(loss=lambda model, x: model(x).sum() * x[x > 0].sum())
moved = two(lambda: nn.Linear(64, 8).to("cpu"))
compiled = two(lambda: torch.compile(nn.Linear(64, 8)))
a_number = 3
"""


@pytest.fixture
def memory(capsys):
    def call(*words):
        status = cli.main(["memory", *map(str, words)])
        return status, capsys.readouterr()

    return call


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_table_in_mib(memory):
    status, said = memory(*TINY, "--optimizer", "adamw-foreach")
    assert status == 0 and said.err == ""
    first, *lines = said.out.splitlines()
    assert first.split() == ["at", "the", "peak,", "in", "the", "step", "MiB"]
    assert [line.split()[0] for line in lines[-3:]] == [
        "requested_peak", "allocated_peak", "reserved_peak",
    ]  # fmt: skip
    held = [float(line.split()[-1].replace(",", "")) for line in lines[:-3]]
    assert held == sorted(held, reverse=True)
    assert sum(held) == pytest.approx(float(lines[-2].split()[-1]), abs=0.5)


def test_json_has_the_keys_of_a_measurement_in_bytes(memory):
    status, said = memory(*TINY, "--json")
    found = json.loads(said.out)
    assert status == 0 and set(found) >= KEYS
    assert found.pop("phase_of_peak") in ("forward", "backward", "step")
    assert all(type(size) is int for size in found.values())
    assert found["requested_peak"] <= found["allocated_peak"] <= found["reserved_peak"]


def test_the_workspace_is_in_all_three_peaks(memory):
    kinds = ("requested_peak", "allocated_peak", "reserved_peak")
    none, large = (
        json.loads(memory(*TINY, "--json", "--cublas-workspace", size)[1].out)
        for size in (0, 2**40)
    )
    assert none["cublas_workspace"] == 0 and large["cublas_workspace"] == 2**40
    for kind in kinds:
        assert large[kind] - none[kind] == 2**40


@pytest.mark.parametrize("words", [
    ["--recipe", "amp-bf16", "--dropout", "0.1", "--checkpointing"],
    ["--recipe", "fp16-master", "--attention", "materialised", "--optimizer", "sgd"],
    ["--micro-batches", "2", "--recipe", "amp-fp16"],
    ["--evaluate"],
    ["--kv-heads", "1"],
    ["--model", "mistral-7b", "--kv-heads", "1"],
])  # fmt: skip
def test_every_option_is_taken(memory, words):
    status, said = memory(*TINY, "--json", *words)
    plain = json.loads(memory(*TINY, "--json")[1].out)
    assert status == 0 and json.loads(said.out) != plain


def test_heads_alone_take_the_presets_shared_keys_away(memory):
    words = ["--model", "mistral-7b", *TINY, "--json"]
    assert memory(*words)[1].out == memory(*words, "--kv-heads", "2")[1].out


@pytest.mark.parametrize("model", ["mlp", "frozen"])
def test_models_that_are_no_decoders(memory, model):
    status, said = memory("--model", model, "--batch", "2", "--json")
    assert status == 0 and json.loads(said.out)["parameters"] > 0


# --- a model of one's own


@pytest.mark.parametrize("name", ["good", "whole"])
def test_a_function_in_a_file(memory, own, name):
    status, said = memory("--module", f"{own}:{name}", "--batch", "16", "--json")
    found = json.loads(said.out)
    assert status == 0
    assert said.err == ("building\n" if name == "good" else "")
    assert found["gradients"] == 64 * 8 * 4 + 512


def test_it_may_import_what_lies_beside_it(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it.py").write_text(OWN)
    path = tmp_path / "uses.py"
    path.write_text("from beside_it import whole")
    assert memory("--module", f"{path}:whole")[0] == 0


def test_it_fits_too(memory, own):
    words = ["--module", f"{own}:good", "--fit", "1GB", "--recipe", "fp32", "--json"]
    status, said = memory(*words)
    assert status == 0 and json.loads(said.out)["fp32"] > 1000


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "own.py:raises failed with ZeroDivisionError: division by zero."),
        ("leaves", "own.py:leaves failed with SystemExit: 3."),
        ("nothing", "own.py:nothing returned None: return make_model, make_batch and,"),
        ("one", "return make_model, make_batch and, if the model does not return its"),
        ("numbers", "own.py:numbers returned (1, 2): return make_model, make_batch"),
        ("a_number", "own.py:a_number failed with TypeError: 'int' object is not call"),
        ("missing", "own.py has no missing: check the name."),
        ("no_module", "make_model returned 3: return a torch module."),
        ("no_weights", "ReLU has no parameter that needs a gradient"),
        ("vector", "the loss was FakeTensor(..., size=(2, 8)"),
        ("listed", "make_batch returned [1]: return a tuple."),
        ("failing", "own.py:failing failed with RuntimeError: "),
        ("data", "asks for the data of a tensor by aten.nonzero.default"),
        ("moved", "make_model moves the model to a device"),
        ("compiled", "the model is compiled"),
    ],
)
def test_a_broken_function_is_a_sentence(memory, own, name, said):
    refused(memory("--module", f"{own}:{name}"), said)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("own.py", "--module was 'own.py': give FILE.py:FUNCTION."),
        ("own.py:", "give FILE.py:FUNCTION."),
        ("own.py:a b", "give FILE.py:FUNCTION."),
        ("none.py:good", "there is no file 'none.py': check the name."),
        ("/:good", "there is no file '/': check the name."),
    ],
)
def test_a_file_that_is_none(memory, where, said):
    refused(memory("--module", where), said)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("text.txt", "", "is no Python file: give FILE.py:FUNCTION."),
        ("syntax.py", "def good(", "failed with SyntaxError: "),
        ("imports.py", "import nowhere_at_all", "failed with ModuleNotFoundError: No mod"),
        ("empty.py", "", "has no good: check the name."),
    ],
)
def test_a_file_that_does_not_load(memory, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    refused(memory("--module", f"{tmp_path / name}:good"), said)


# --- the largest batch


def test_the_largest_batch_fits_and_the_next_does_not(memory):
    words = [*TINY, "--recipe", "fp32", "--json"]
    batch = json.loads(memory(*words, "--fit", "1GB")[1].out)["fp32"]
    sizes = [
        json.loads(memory(*words, "--batch", size)[1].out)["reserved_peak"]
        for size in (batch, batch + 1)
    ]
    assert sizes[0] + fit.OUTSIDE_BYTES <= 10**9 < sizes[1] + fit.OUTSIDE_BYTES


def test_every_recipe_has_its_largest_batch(memory, monkeypatch):
    monkeypatch.setattr(fit, "largest_batch", lambda need, budget: need(1) and 7)
    status, said = memory(*TINY, "--fit", "1GB")
    first, *rows = said.out.splitlines()
    assert status == 0 and first == "largest batch in 1GB, with 0.85 GB for CUDA"
    assert [row.split() for row in rows] == [[name, "7"] for name in RECIPES]


def test_a_recipe_that_does_not_fit_beside_one_that_does(memory, monkeypatch):
    found = iter([0, 5] + [0] * 5)
    monkeypatch.setattr(fit, "largest_batch", lambda need, _: need(1) and next(found))
    _, said = memory(*TINY, "--fit", "1GB")
    assert said.out.splitlines()[1].split() == ["fp32", "does", "not", "fit"]


def test_a_model_that_does_not_fit_at_batch_1(memory):
    words = [*TINY, "--recipe", "fp32", "--fit", "900MB"]
    refused(memory(*words), "batch 1 needs 0.9", " GB, more than 900MB: take a smaller")


# --- bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--heads", "5"], "heads was 5: give a number that divides hidden, 768."),
        (["--kv-heads", "5"], "kv_heads was 5: give a number that divides heads, 12."),
        (["--layers", "0"], "layers was 0: give a whole number of at least 1."),
        (["--hidden", "-768"], "hidden was -768: give a whole number of at least 1."),
        (["--vocab", "0"], "vocabulary was 0: give a whole number of at least 1."),
        (["--kv-heads", "0"], "kv_heads was 0: give a whole number of at least 1."),
        (["--seq", "0"], "sequence was 0: give a whole number of at least 1."),
        (["--batch", "-1"], "batch was -1: give a whole number of at least 1."),
        (["--micro-batches", "0"], "micro_batches was 0: give a whole number"),
        (["--batch", "two"], "argument --batch: invalid int value: 'two'"),
        (["--dropout", "1"], "dropout was 1.0: give a number from 0 up to 1."),
        (["--dropout", "nan"], "dropout was nan: give a number from 0 up to 1."),
        (["--recipe", "fp8"], "unknown recipe 'fp8': choose from fp32, tf32, amp-fp16"),
        (["--optimizer", "lion"], "unknown optimizer 'lion': choose from sgd-foreach"),
        (["--optimizer", "lion", "--evaluate"], "unknown optimizer 'lion'"),
        (["--optimizer", "adam8bit"], "adam8bit is counted by mpteach.memory.formula"),
        (["--attention", "flash"], "attention was 'flash': choose from sdpa, material"),
        (["--model", "gpt5"], "unknown model 'gpt5': choose from gpt2, gpt2-medium"),
        (["--model", "mlp", "--layers", "2"], "mlp has one shape: leave out its sizes."),
        (["--cublas-workspace", "-1"], "--cublas-workspace was -1: give a number of"),
        (["--fit", "24"], "batch 1 needs"),
        (["--fit", "much"], "a memory was 'much': give a number and a unit"),
        (["--fit", "1GB", "--recipe", "fp8"], "unknown recipe 'fp8'"),
        (["--module", "a.py:b", "--model", "gpt2"], "--module brings its own model"),
        (["--module", "a.py:b", "--heads", "2"], "--module brings its own model"),
        (["--grid"], "--grid and --out go with --measure."),
        (["--out", "x.json"], "--grid and --out go with --measure."),
        (["--measure"], "--measure keeps a record: give --out FILE."),
        (["--measure", "--fit", "1GB"], "--fit is traced: leave out --measure."),
        (["--measure", "--out", "x", "--module", "a.py:b"], "--measure takes a --model"),
        (["--measure", "--out", "x", "--layers", "2"], "--measure takes a --model by name"),
        (["--measure", "--grid", "--out", "x", "--model", "gpt2"], "has its own models"),
    ],
)
def test_bad_input_is_a_sentence_and_status_2(memory, words, said):
    sizes = ["--recipe", "fp32"] if "--fit" in words and "--recipe" not in words else []
    sizes += ["--seq", "16"] if "--seq" not in words else []
    refused(memory(*sizes, *words), said)


# --- measuring


def test_without_a_gpu_nothing_is_measured(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    out = tmp_path / "out.json"
    refused(memory("--measure", "--out", out), "torch sees no GPU")
    assert not out.exists()


@pytest.fixture
def gpu(monkeypatch):
    real = hardware.machine
    monkeypatch.setattr(hardware, "machine", lambda device: real("cpu"))
    asked = []

    def measure(*_, **options):
        asked.append(options)
        return {"allocated_peak": 2**20, "reserved_peak": 2**21}

    monkeypatch.setattr(measurements, "measure", measure)
    return asked


def test_a_measurement_is_a_record_and_a_table(memory, gpu, tmp_path):
    out = tmp_path / "out.json"
    words = ["--measure", "--model", "mlp", "--batch", "3", "--out", out]
    status, said = memory(*words, "--recipe", "tf32")
    assert status == 0 and said.out.splitlines()[1].split()[-2:] == ["1.0", "2.0"]
    (row,) = records.load(out).data["rows"]
    assert row["setting"]["batch"] == 3 and gpu[0]["recipe"] == "tf32"
    status, said = memory(*words, "--recipe", "tf32", "--json")
    assert json.loads(said.out)["experiment"] == "memory" and len(gpu) == 1
    refused(memory(*words, "--recipe", "fp32"), "out.json was begun with")


def test_the_grid_is_the_courses(memory, gpu, tmp_path):
    out = tmp_path / "out.json"
    assert memory("--measure", "--grid", "--out", out)[0] == 0
    assert len(gpu) == len(measurements.grid()) == len(records.load(out).data["rows"])


def test_the_help_needs_no_torch():
    program = (
        "import sys; from mpteach import cli\n"
        "try: cli.main(['memory', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.endswith("False\n") and "--cublas-workspace" in ran.stdout
    assert torch.get_default_dtype() == torch.float32
