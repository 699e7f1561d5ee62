"""The doctor: whatever keeps the course from running gets a sentence and status 2."""

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
from collections import namedtuple
from importlib.machinery import ModuleSpec

import pytest

from mpteach import cli, course, doctor, hardware, records
from mpteach.errors import InputError
from mpteach.exercises import cases, start

GIB = 2**30
VersionInfo = namedtuple("VersionInfo", "major minor micro")
KEYS = {
    "schema",
    "ready",
    "problems",
    "versions",
    "cpu",
    "gpu",
    "free_memory_bytes",
    "free_disk_bytes",
    "chapters",
}


def write_chapter(folder, name, **about):
    content = {
        "question": "what?",
        "minutes": 10,
        "live": "all",
        "gpu": "",
        "records": [],
    }
    metadata = {"mpteach": content | about}
    notebook = {"nbformat": 4, "metadata": metadata, "cells": []}
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook))


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """A machine with all that is needed, three chapters and a good record."""
    notebooks, kept = tmp_path / "notebooks", tmp_path / "records"
    notebooks.mkdir()
    kept.mkdir()
    write_chapter(notebooks, "00_start_here")
    write_chapter(notebooks, "01_read_the_bits")
    write_chapter(
        notebooks, "08_train", gpu="the full comparison", records=["comparison"]
    )
    record = records.begin("comparison", {"steps": 1}, "mpteach compare", "cpu")
    record.with_data([0], {"losses": [1.5]}).save(kept / "comparison.json")
    chapters = course.chapters
    monkeypatch.setattr(course, "chapters", lambda: chapters(notebooks))
    monkeypatch.setattr(course, "RECORDS", kept)
    monkeypatch.setattr(hardware, "product_ratio", lambda dtype, device: 2.0)
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "torch sees no GPU")
    monkeypatch.setattr(hardware, "free_memory_bytes", lambda: 8 * GIB)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 0, 8 * GIB)
    )
    return tmp_path


@pytest.fixture
def versions(monkeypatch):
    def fake(**changed):
        true = importlib.metadata.version

        def version(name):
            found = changed.get(name, true(name))
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(importlib.metadata, "version", version)

    return fake


def run(capsys, *words):
    status = cli.main(["doctor", *words])
    return status, capsys.readouterr().out


def the_problem(capsys):
    """Return the one problem, found in the text and in the JSON, with status 2."""
    status, printed = run(capsys, "--json")
    report = json.loads(printed)
    assert status == 2 and not report["ready"]
    [problem] = report["problems"]
    status, printed = run(capsys)
    assert status == 2 and printed.rstrip().endswith(problem)
    return problem


def test_a_healthy_machine(healthy, capsys):
    status, printed = run(capsys)
    assert status == 0
    assert printed.rstrip().endswith("The course can run here.")
    assert "none in use (torch sees no GPU)" in printed
    assert f"python {platform.python_version()}" in printed


def test_the_json_has_the_documented_keys(healthy, capsys):
    status, printed = run(capsys, "--json")
    report = json.loads(printed)
    assert status == 0 and report["ready"] is True and report["problems"] == []
    assert set(report) == KEYS and report["schema"] == 1
    assert set(report["cpu"]) == {"name", "cores", "native", "product_ratio"}
    assert set(report["gpu"]) == {
        *("name", "memory_bytes", "driver", "cuda", "capability", "problem"),
        *("native", "product_ratio"),
    }
    assert set(report["cpu"]["native"]) == set(hardware.DTYPES)
    assert all(
        set(c) == {"name", "question", "minutes", "runs"} for c in report["chapters"]
    )
    assert all(f"`{key}`" in doctor.__doc__ for key in KEYS)


def test_chapters_run_live_or_from_records(healthy):
    report = doctor.examine()
    assert [c["runs"] for c in report["chapters"]] == ["live", "live", "records"]
    assert "08_train                runs live; what needs a GPU" in doctor.describe(
        report
    )


def test_the_reports_that_exercises_make_up_look_like_this_one(healthy):
    real = doctor.examine()
    for made in (*start._REPORTS, cases._REPORT, cases._UNREAD):
        assert set(made) <= set(real) and set(made["gpu"]) <= set(real["gpu"])
        for chapter in made["chapters"]:
            assert set(chapter) <= set(real["chapters"][0])


def test_with_a_gpu_all_chapters_run_live(healthy, monkeypatch):
    about = {
        "gpu": "NVIDIA H200",
        "gpu_memory_bytes": 140 * GIB,
        "driver": "580.95.05",
        "cuda": "13.0",
        "gpu_capability": "9.0",
    }
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "")
    monkeypatch.setattr(hardware, "machine", lambda device: about)
    monkeypatch.setattr(hardware, "gpu_capability", lambda: (9, 0))
    monkeypatch.setattr(hardware, "product_ratio", lambda dtype, device: 0.125)
    report = doctor.examine()
    assert report["ready"] and {c["runs"] for c in report["chapters"]} == {"live"}
    assert report["gpu"]["name"] == "NVIDIA H200" and all(
        report["gpu"]["native"].values()
    )
    text = doctor.describe(report)
    assert "NVIDIA H200, 140.0 GiB, driver 580.95.05, CUDA 13.0" in text
    assert "8.0 times faster than float32 here" in text


def test_a_product_that_the_gpu_refuses_is_unknown(healthy, monkeypatch):
    def fail(dtype, device):
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(hardware, "product_ratio", fail)
    report = doctor.examine()
    assert report["ready"] and report["cpu"]["product_ratio"]["bfloat16"] is None


def test_a_slow_format_is_named_with_its_factor(healthy, monkeypatch):
    monkeypatch.setattr(hardware, "product_ratio", lambda dtype, device: 65.04)
    monkeypatch.setattr(hardware, "native", lambda dtype, device: dtype == "float32")
    text = doctor.describe(doctor.examine())
    assert "float16        not in hardware, 65.0 times slower than float32 here" in text


def test_a_broken_driver_does_not_stop_the_course(healthy, monkeypatch, capsys):
    reason = "CUDA initialization: The NVIDIA driver on your system is too old"
    monkeypatch.setattr(hardware, "cuda_problem", lambda: reason)
    status, printed = run(capsys)
    assert status == 0 and reason in printed


@pytest.mark.parametrize("name", ["jupyterlab", "ipykernel", "matplotlib", "numpy"])
def test_a_missing_package(healthy, versions, name, capsys):
    versions(**{name: None})
    problem = the_problem(capsys)
    assert problem.startswith(f"{name} is not installed: run make lab, or pip install")
    assert f"{name} missing" in run(capsys)[1]


@pytest.mark.parametrize("spec", [None, ModuleSpec("ml_dtypes", None)])
def test_a_package_whose_files_are_gone(healthy, monkeypatch, spec, capsys):
    true = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: spec if name == "ml_dtypes" else true(name),
    )
    problem = the_problem(capsys)
    assert problem.startswith("ml_dtypes ") and "its files are gone" in problem
    assert problem.endswith("--force-reinstall --no-deps -c constraints.txt ml_dtypes.")


@pytest.mark.parametrize("version", ["2.10.0+cu128", "1.13.1", "2.9"])
def test_an_old_torch(healthy, versions, version, capsys):
    versions(torch=version)
    problem = the_problem(capsys)
    assert problem.startswith(
        f"torch is {version}, the course needs 2.11 or later: run"
    )


@pytest.mark.parametrize("version", ["2.11", "2.11.0+cu130", "2.13.0a0+git", "3.0"])
def test_a_torch_that_will_do(healthy, versions, version, capsys):
    versions(torch=version)
    assert run(capsys)[0] == 0


@pytest.fixture
def no_torch(monkeypatch):
    def fail(name):
        raise OSError("libtorch.so: cannot open shared object file\nmore")

    monkeypatch.setattr(importlib, "import_module", fail)


def test_a_torch_that_does_not_load(healthy, no_torch, capsys):
    problem = the_problem(capsys)
    assert "does not load (OSError: libtorch.so: cannot open" in problem
    assert "install it again" in problem and "more" not in problem


def test_no_torch_at_all(healthy, no_torch, versions, capsys):
    versions(torch=None)
    assert the_problem(capsys).startswith("torch is not installed: run make lab")
    report = json.loads(run(capsys, "--json")[1])
    assert set(report["cpu"]["native"].values()) == {None}
    assert report["gpu"]["problem"] == "torch does not load"
    assert report["versions"]["torch"] is None


@pytest.mark.parametrize("minor", [10, 14])
def test_a_wrong_python(healthy, monkeypatch, minor, capsys):
    monkeypatch.setattr(sys, "version_info", VersionInfo(3, minor, 1))
    monkeypatch.setattr(platform, "python_version", lambda: f"3.{minor}.1")
    problem = the_problem(capsys)
    assert problem.startswith(
        f"This is Python 3.{minor}.1, the course needs >=3.11,<3.14"
    )


def test_too_little_memory(healthy, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "free_memory_bytes", lambda: GIB // 2)
    problem = the_problem(capsys)
    assert problem.startswith("Only 0.5 GiB of memory is free, a chapter needs 1.0 GiB")
    assert "close other programs" in problem


def test_unknown_memory_is_no_problem(healthy, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "free_memory_bytes", lambda: None)
    status, printed = run(capsys)
    assert status == 0 and "an unknown amount of memory" in printed


def test_too_little_disk(healthy, monkeypatch, capsys):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 10**8)
    )
    problem = the_problem(capsys)
    assert problem.startswith("Only 0.1 GiB of disk is free, the course needs 0.5 GiB")


def test_a_missing_record(healthy, capsys):
    (healthy / "records" / "comparison.json").unlink()
    assert the_problem(capsys).startswith("08_train: there is no record at ")
    assert doctor.examine()["chapters"][-1]["runs"] == "no"
    assert "cannot run: a record is missing or damaged" in run(capsys)[1]


def test_a_damaged_record(healthy, capsys):
    path = healthy / "records" / "comparison.json"
    path.write_text(path.read_text().replace("1.5", "1.4"))
    problem = the_problem(capsys)
    assert "comparison.json was changed after it was written" in problem
    assert "restore it" in problem


def test_a_record_that_two_chapters_read_is_named_once_each(healthy):
    (healthy / "records" / "comparison.json").unlink()
    write_chapter(healthy / "notebooks", "09_use", records=["comparison"])
    problems = doctor.examine()["problems"]
    assert [problem.split(":")[0] for problem in problems] == ["08_train", "09_use"]


def test_missing_notebooks(healthy, capsys):
    for path in (healthy / "notebooks").iterdir():
        path.unlink()
    assert the_problem(capsys).startswith("No chapters in ")


@pytest.mark.parametrize(
    "text", ["<<<<<<< HEAD", '{"nbformat": 4, "metadata": {}, "cells": "none"}']
)
def test_a_damaged_notebook(healthy, text, capsys):
    path = healthy / "notebooks" / "02_round.ipynb"
    path.write_text(text)
    problem = the_problem(capsys)
    assert problem.startswith(f"{path} is not a sound notebook (")
    assert f"restore it with 'git checkout HEAD -- {path}'" in problem


def test_several_problems_are_all_told(healthy, versions, monkeypatch, capsys):
    versions(jupyterlab=None, torch="2.0")
    monkeypatch.setattr(hardware, "free_memory_bytes", lambda: 1)
    report = json.loads(run(capsys, "--json")[1])
    assert len(report["problems"]) == 3


def test_outside_a_clone(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(course, "ROOT", tmp_path)
    with pytest.raises(InputError, match="no pyproject.toml"):
        doctor.examine()
    assert cli.main(["doctor"]) == 2
    assert "run mpteach from a clone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[project",
        b"project = 3",
        b"\xff",
        b"[project]\nrequires-python = '>=3.11,<3.14'",
        b"[project]\ndependencies = [3]\noptional-dependencies = {course = []}",
        b"[project]\nrequires-python = 3\ndependencies = []\n"
        b"optional-dependencies = {course = []}",
        b"a = " + b"[" * 9999,
    ],
)
def test_a_damaged_pyproject(monkeypatch, tmp_path, text, capsys):
    (tmp_path / "pyproject.toml").write_bytes(text)
    monkeypatch.setattr(course, "ROOT", tmp_path)
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpteach: pyproject.toml is damaged (")
    assert "git checkout HEAD -- pyproject.toml" in said and said.count("\n") == 1


def test_a_requirement_without_a_floor_takes_any_version(healthy, monkeypatch):
    about = b"[project]\nrequires-python = '>=3.11,<3.14'\ndependencies = ['tqdm']\n"
    (healthy / "pyproject.toml").write_bytes(
        about + b"optional-dependencies = {course = []}"
    )
    monkeypatch.setattr(course, "ROOT", healthy)
    assert doctor.examine()["ready"]


def test_this_machine_measured(capsys):
    """No probe is replaced: the report must hold together wherever the tests run."""
    report = doctor.examine()
    assert report["cpu"]["native"]["float32"] is True
    for name in ("bfloat16", "float16"):
        assert report["cpu"]["product_ratio"][name] > 0
    assert report["cpu"]["product_ratio"]["tfloat32"] is None
    assert bool(report["gpu"]["problem"]) == (report["gpu"]["name"] is None)
    assert json.loads(json.dumps(report)) == report
