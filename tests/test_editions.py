"""The stored form of a notebook, its student edition, and executing it."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib

import nbformat
import pytest

from mpteach import editions
from mpteach.errors import InputError


def code(name, source, outputs=(), count=None, **metadata):
    return {
        "cell_type": "code",
        "id": name,
        "metadata": metadata,
        "source": source,
        "outputs": list(outputs),
        "execution_count": count,
    }


def text(name, source, **metadata):
    return {"cell_type": "markdown", "id": name, "metadata": metadata, "source": source}


def notebook(*cells, **metadata):
    return {
        "cells": list(cells),
        "metadata": metadata,
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def stream(said, name="stdout"):
    return {"output_type": "stream", "name": name, "text": said}


def display(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def chunk(kind, data):
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check


PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b"")
VIEW = "application/vnd.jupyter.widget-view+json"


class TestStoredForm:
    def test_dumps_is_what_nbformat_and_so_jupyterlab_writes(self):
        nb = editions.canonicalise(editions.read(editions.TEMPLATE))
        assert editions.dumps(nb) == nbformat.writes(nbformat.from_dict(nb)) + "\n"

    def test_the_form_is_the_same_again(self):
        nb = editions.canonicalise(editions.read(editions.TEMPLATE))
        assert editions.canonicalise(nb) == nb

    def test_the_argument_is_left_alone(self):
        nb = notebook(code("a", "1", [stream("1")], collapsed=True), widgets={})
        before = json.dumps(nb)
        editions.canonicalise(nb)
        editions.student_edition(nb)
        assert json.dumps(nb) == before

    def test_timings_versions_and_widgets_go_and_ids_counts_and_tags_stay(self):
        cell = code("halve", "x", [], 7, execution={"iopub": 1}, tags=["live"])
        language = {"name": "python", "version": "3.12.1"}
        nb = notebook(
            cell, widgets={"state": 1}, language_info=language, mpteach={"a": 1}
        )
        nb["metadata"]["kernelspec"] = {"name": "my-env", "display_name": "Mine"}
        found = editions.canonicalise(nb)
        assert found["cells"][0]["metadata"] == {"tags": ["live"]}
        assert (found["cells"][0]["id"], found["cells"][0]["execution_count"]) == (
            "halve",
            7,
        )
        assert set(found["metadata"]) == {"kernelspec", "language_info", "mpteach"}
        assert found["metadata"]["kernelspec"]["name"] == "python3"
        assert "version" not in found["metadata"]["language_info"]

    def test_a_widget_view_goes_and_its_static_twin_stays(self):
        views = [display(**{VIEW: {}, "text/html": "<b>"}), display(**{VIEW: {}})]
        found = editions.canonicalise(notebook(code("w", "w", views)))
        assert [out["data"] for out in found["cells"][0]["outputs"]] == [
            {"text/html": "<b>"}
        ]

    def test_a_print_that_came_in_two_pieces_is_one(self):
        pieces = [stream("a"), stream("b\n"), stream("e", "stderr"), stream("c")]
        found = editions.canonicalise(notebook(code("p", "p", pieces)))
        assert [out["text"] for out in found["cells"][0]["outputs"]] == [
            "ab\n",
            "e",
            "c",
        ]

    @pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"zTXt", b"tIME"])
    def test_a_png_loses_its_comments_and_nothing_else(self, kind):
        marked = PNG[:33] + chunk(kind, b"Software\0Matplotlib") + PNG[33:]
        encoded = base64.b64encode(marked).decode()
        found = editions.canonicalise(
            notebook(code("f", "f", [display(**{"image/png": encoded})]))
        )
        assert (
            base64.b64decode(found["cells"][0]["outputs"][0]["data"]["image/png"])
            == PNG
        )

    def test_a_png_that_is_none_stays_as_it_is(self):
        shown = [display(**{"image/png": "x"})]
        found = editions.canonicalise(notebook(code("f", "f", shown)))
        assert found["cells"][0]["outputs"] == shown

    def test_only_streams_are_joined(self):
        pieces = [display(a="b") | {"name": "stdout"}, stream("a")]
        found = editions.canonicalise(notebook(code("p", "p", pieces)))
        assert found["cells"][0]["outputs"] == pieces

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="No such file"):
            editions.read(tmp_path / "none.ipynb")


BLOCK = "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION"


class TestStudentEdition:
    def test_a_solution_becomes_a_stub_at_its_indent(self):
        found = editions.student_edition(notebook(code("a", BLOCK, [stream("1")], 3)))
        cell = found["cells"][0]
        assert cell["source"] == "def f(x):\n    # YOUR CODE HERE\n    ..."
        assert (cell["outputs"], cell["execution_count"]) == ([], None)

    def test_each_of_two_solutions_has_a_stub_and_the_rest_stays(self):
        one = "### BEGIN SOLUTION\na = 1\n### END SOLUTION"
        found = editions.student_edition(
            notebook(code("a", f"a = None\n{one}\nb = 2\n{one}"))
        )
        stub = "# YOUR CODE HERE\n..."
        assert found["cells"][0]["source"] == f"a = None\n{stub}\nb = 2\n{stub}"

    def test_hidden_tests_leave_nothing(self):
        source = "check(1)\n### BEGIN HIDDEN TESTS\nassert 1\n### END HIDDEN TESTS\n2"
        found = editions.student_edition(notebook(code("a", source)))
        assert found["cells"][0]["source"] == "check(1)\n2"

    def test_a_written_answer_goes_and_its_question_stays(self):
        answer = text("answer", "Because.", nbgrader={"solution": True})
        found = editions.student_edition(notebook(text("question", "Why?"), answer))
        assert [cell["source"] for cell in found["cells"]] == [
            "Why?",
            "*Your answer here.*",
        ]

    def test_a_check_cell_is_locked(self):
        cell = code("c", "check(1)", nbgrader={"locked": True})
        metadata = editions.student_edition(notebook(cell))["cells"][0]["metadata"]
        assert metadata["editable"] is False and metadata["deletable"] is False

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("### BEGIN SOLUTION\n1", "never closed"),
            ("1\n### END SOLUTION", "outside any block"),
            ("### BEGIN SOLUTION\n" + BLOCK, "inside SOLUTION"),
            ("### BEGIN HIDDEN TESTS\n### END SOLUTION", "inside HIDDEN TESTS"),
            ("### BEGIN SOLUTION\n### BEGIN HIDDEN TESTS", "inside SOLUTION"),
            ("## BEGIN SOLUTION\n1\n## END SOLUTION", "is no marker"),
            ("### begin solution\n1\n### end solution", "is no marker"),
            ("### BEGIN SOLUTIONS\n1\n### END SOLUTION", "is no marker"),
            ("x = 1  ### BEGIN SOLUTION\n1\n### END SOLUTION", "is no marker"),
        ],
    )
    def test_a_wrong_marker_is_named_with_its_cell_and_leaks_nothing(
        self, source, said
    ):
        with pytest.raises(InputError, match=rf"cell bad \(1\).*{said}"):
            editions.student_edition(notebook(text("t", "t"), code("bad", source)))

    def test_the_template_runs_as_a_student_finds_it(self):
        stubs = editions.student_edition(editions.read(editions.TEMPLATE))
        ran = editions.execute(stubs, editions.TEMPLATE.parent, "template")
        said = [
            out["text"].strip()
            for cell in ran["cells"]
            for out in cell.get("outputs", [])
            if cell["metadata"].get("nbgrader", {}).get("grade")
        ]
        assert said == [f"template-{number}: not attempted" for number in (1, 2, 3)]


def store(path, source):
    editions.write(path, notebook(code("only", source)))
    return path


LIVE = "import time\nprint(f'{time.time_ns()} ns')\nassert time.time_ns() > 0"


class TestExecute:
    def test_a_second_refresh_leaves_the_file_as_it_is(self, tmp_path):
        path = tmp_path / "a.ipynb"
        cells = [
            code("live", LIVE, tags=[editions.LIVE_TAG]),
            code("plot", "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2, 4])"),
        ]
        editions.write(path, notebook(*cells))
        editions.refresh(path)
        once = path.read_bytes()
        editions.refresh(path)
        assert path.read_bytes() == once
        assert b"image/png" in once and b" ns" in once

    def test_it_runs_in_its_folder_on_one_thread_without_gpu(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
        source = (
            "import os, sys\n"
            "print(os.path.basename(os.getcwd()), os.environ['OMP_NUM_THREADS'],\n"
            "      repr(os.environ['CUDA_VISIBLE_DEVICES']),\n"
            "      'NBGRADER_EXECUTION' in os.environ)\n"
            f"assert sys.executable == {sys.executable!r}"
        )
        ran = editions.execute(notebook(code("a", source)), tmp_path, "a")
        assert ran["cells"][0]["outputs"] == [stream(f"{tmp_path.name} 1 '' False\n")]

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("1 / 0", r"bad\.ipynb: cell broken \(1\) raised ZeroDivisionError"),
            (
                "import os; os._exit(3)",
                r"bad\.ipynb: cell broken \(1\) stopped the kernel",
            ),
        ],
    )
    def test_a_failure_names_the_cell_and_leaves_the_file(self, tmp_path, source, said):
        path = tmp_path / "bad.ipynb"
        editions.write(
            path, notebook(code("fine", "1"), code("broken", source, count=9))
        )
        before = path.read_bytes()
        with pytest.raises(InputError, match=said):
            editions.refresh(path)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["bad.ipynb"]

    def test_the_name_of_a_foreign_kernel_does_not_matter(self, tmp_path):
        foreign = {"name": "conda-env-mine-py", "display_name": "Mine"}
        nb = notebook(code("a", "print(1)"), kernelspec=foreign)
        ran = editions.execute(nb, tmp_path, "a")
        assert ran["cells"][0]["outputs"] == [stream("1\n")]

    def test_an_edit_made_while_it_ran_is_kept(self, tmp_path):
        path = store(
            tmp_path / "a.ipynb",
            "import json\nnb = json.load(open('a.ipynb'))\n"
            "nb['cells'][0]['source'] = 'mine'\n"
            "json.dump(nb, open('a.ipynb', 'w'))",
        )
        with pytest.raises(InputError, match=r"a\.ipynb was edited while it ran"):
            editions.refresh(path)
        assert editions.read(path)["cells"][0]["source"] == "mine"

    def test_an_output_that_cannot_be_stored_names_its_cell(self, tmp_path):
        source = (
            "from IPython.display import display\ndisplay({'text/html': 5}, raw=True)"
        )
        with pytest.raises(InputError, match=r"^a: cell b \(0\) displays what no"):
            editions.execute(notebook(code("b", source)), tmp_path, "a")

    def test_an_output_nested_too_deeply_names_its_cell(self, tmp_path):
        source = (
            "from IPython.display import display\nvalue = []\n"
            "for _ in range(150):\n    value = [value]\n"
            "display({'application/json': value}, raw=True)"
        )
        with pytest.raises(InputError, match="^a: it is nested more than 100 .*change"):
            editions.execute(notebook(code("b", source)), tmp_path, "a")

    def test_a_kernel_that_does_not_start_is_one_sentence(self, tmp_path, monkeypatch):
        from nbclient import NotebookClient

        async def fail(*_, **__):
            raise RuntimeError("Kernel died before replying to kernel_info")

        monkeypatch.setattr(NotebookClient, "async_start_new_kernel_client", fail)
        with pytest.raises(InputError, match="did not start .*died before .*: run pip"):
            editions.execute(notebook(code("a", "1")), tmp_path, "a")

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (
                PermissionError(13, "Permission denied"),
                "stored (Permission denied): make",
            ),
            (ModuleNotFoundError("No module named 'nbclient'"), "'nbclient'): run pip"),
        ],
    )
    def test_a_machine_that_refuses_is_one_sentence_and_the_rest_goes_on(
        self, tmp_path, monkeypatch, capsys, error, said
    ):
        tried = []

        def fail(path):
            tried.append(path.name)
            raise error

        monkeypatch.setattr(editions, "refresh", fail)
        assert (
            editions.main([str(tmp_path / "a.ipynb"), str(tmp_path / "b.ipynb")]) == 2
        )
        first, second = capsys.readouterr().err.splitlines()
        assert "a.ipynb" in first and said in first and "b.ipynb" in second
        assert tried == ["a.ipynb", "b.ipynb"]

    def test_ctrl_c_stops_it_without_a_traceback_and_leaves_the_file(self, tmp_path):
        path = store(
            tmp_path / "a.ipynb",
            "import os, pathlib, time\n"
            "pathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)",
        )
        before = path.read_bytes()
        running = subprocess.Popen(
            [sys.executable, "-m", "mpteach.editions", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        pid = tmp_path / "pid"
        wait_for(lambda: pid.exists() and pid.read_text())
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=30)
        assert said == "Stopped: the notebook in hand is as it was.\n"
        assert running.returncode == 130 and path.read_bytes() == before
        wait_for(lambda: not alive(int(pid.read_text())))

    def test_a_request_to_stop_that_is_lost_is_made_again(self):
        class Deaf:
            async def async_execute(self, env):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                await asyncio.sleep(60)

        async def stopped():
            running = asyncio.ensure_future(editions._run(Deaf(), {}))
            await asyncio.sleep(0.1)
            running.cancel()
            await running

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(asyncio.wait_for(stopped(), 20))

    def test_the_command_says_seconds_goes_on_after_a_failure_and_exits_2(
        self, tmp_path
    ):
        for name, source in (("bad", "1 / 0"), ("good", "print(1)")):
            editions.write(tmp_path / f"{name}.ipynb", notebook(code("only", source)))
        files = [str(tmp_path / f"{name}.ipynb") for name in ("bad", "good", "none")]
        command = [sys.executable, "-m", "mpteach.editions", *files]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert ran.stdout.startswith("good.ipynb: ") and ran.stdout.endswith(" s\n")
        first, second = ran.stderr.splitlines()
        assert (
            "cell only (0) raised ZeroDivisionError" in first and "none.ipynb" in second
        )


def wait_for(happened):
    for _ in range(300):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("nothing in half a minute")


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class TestLiveOutputs:
    """A live cell keeps its stored output while only its numbers change."""

    def keep(self, old, new, before="t()", after="t()", tags=(editions.LIVE_TAG,)):
        stored = notebook(code("t", before, old, 1, tags=list(tags)))
        ran = notebook(code("t", after, new, 2, tags=list(tags)))
        return editions._keep_live_outputs(stored, ran)["cells"][0]["outputs"]

    def test_another_number_is_kept(self):
        old = [stream("0.78 ms\n")]
        assert self.keep(old, [stream("1,120.5 ms\n")]) == old

    @pytest.mark.parametrize(
        "new", [[stream("0.78 s\n")], [], [stream("0.78 ms\n"), display(a="b")]]
    )
    def test_other_words_and_kinds_replace_it(self, new):
        assert self.keep([stream("0.78 ms\n")], new) == new

    def test_another_source_replaces_it(self):
        assert self.keep([stream("1")], [stream("2")], after="u()") == [stream("2")]

    def test_a_cell_that_is_not_live_is_never_kept(self):
        assert self.keep([stream("1")], [stream("2")], tags=()) == [stream("2")]

    def test_the_count_of_a_kept_result_is_the_new_one(self):
        result = {
            "output_type": "execute_result",
            "metadata": {},
            "data": {"text/plain": "1"},
        }
        kept = self.keep(
            [{**result, "execution_count": 1}], [{**result, "execution_count": 2}]
        )
        assert kept == [{**result, "execution_count": 2}]
