"""The editions of a notebook: stored in one canonical form, executed, and for students.

`python -m mpteach.editions [NOTEBOOK ...]` is what `make notebooks` calls: it executes
each notebook again, in place, and stores it so that a second run changes nothing.

Notebooks are plain dictionaries as JSON gives them, with joined lines (`read`).
"""

import asyncio
import base64
import binascii
import copy
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpteach import course
from mpteach.course import NOTEBOOKS, ROOT
from mpteach.errors import InputError
from mpteach.files import write_atomically

TEMPLATE = ROOT / "static" / "template.ipynb"
LIVE_TAG = "nbval-ignore-output"
# One thread and no GPU: what the stored outputs are compared on.
PINNED = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
_VOLATILE_NOTEBOOK = ("widgets", "signature", "orig_nbformat", "vscode", "colab")
_VOLATILE_CELL = (
    "execution",
    "ExecuteTime",
    "collapsed",
    "scrolled",
    "trusted",
    "vscode",
)
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_TEXT_KINDS = ("application/javascript", "image/svg+xml")
_NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]?\d+)?", re.IGNORECASE)
_MARKER = re.compile(r"#+\s*(BEGIN|END)\s+(SOLUTION|HIDDEN\s+TEST)S?\b", re.IGNORECASE)
_MARKERS = {
    f"### {edge} {what}": (edge, what)
    for edge in ("BEGIN", "END")
    for what in ("SOLUTION", "HIDDEN TESTS")
}
_STUB = ("# YOUR CODE HERE", "...")
_INSTALL = "run pip install -c constraints.txt -e '.[course]'"
_WRITTEN_STUB = "*Your answer here.*"


def read(path: Path) -> dict[str, Any]:
    """Return the notebook in `path` with the lines of each text joined.

    Raises InputError where it is missing or is no sound notebook in format 4.
    """
    return _with_texts(course.read_notebook(Path(path)), "".join)


def dumps(nb: dict[str, Any]) -> str:
    """Return the text of the file for `nb`: keys sorted, a newline at the end."""
    split = _with_texts(nb, lambda text: text.splitlines(keepends=True))
    return json.dumps(split, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write(path: Path, nb: dict[str, Any]) -> None:
    """Replace the file `path` by `nb` in one step: it is never seen half-written."""
    write_atomically(Path(path), dumps(nb).encode())


def canonicalise(nb: dict[str, Any]) -> dict[str, Any]:
    """Return `nb` without what differs from run to run or from one editor to the next.

    Kernel and language get one name and no version; timings, widget state and widget
    views go; streams are joined; PNG files lose their comments. Counts and ids stay.
    `nb` must be sound, as `read` returns it.
    """
    nb = copy.deepcopy(nb)
    for key in _VOLATILE_NOTEBOOK:
        nb["metadata"].pop(key, None)
    nb["metadata"].update(
        kernelspec=dict(_KERNEL), language_info=copy.deepcopy(_LANGUAGE)
    )
    nb.update(nbformat=4, nbformat_minor=5)
    for cell in nb["cells"]:
        for key in _VOLATILE_CELL:
            cell["metadata"].pop(key, None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _canonical_outputs(cell["outputs"])
    return nb


def student_edition(nb: dict[str, Any]) -> dict[str, Any]:
    """Return what a student starts from: stubs for solutions, nothing run or hidden.

    Raises InputError naming the cell whose markers are nested, unmatched or misspelt.
    """
    nb = _not_run(nb)
    nb["metadata"].pop("widgets", None)
    for index, cell in enumerate(nb["cells"]):
        marks = cell["metadata"].get("nbgrader", {})
        if marks.get("locked"):
            cell["metadata"].update(editable=False, deletable=False)
        if cell["cell_type"] == "code":
            where = _cell_name(nb, index)
            cell["source"] = _without_solutions(_text(cell["source"]), where)
        elif marks.get("solution"):
            cell["source"] = _WRITTEN_STUB
    return nb


def execute(
    nb: dict[str, Any], folder: Path, name: str, environment: Mapping[str, str] = PINNED
) -> dict[str, Any]:
    """Return `nb` in canonical form after running it top to bottom in a fresh kernel.

    `folder` is where the kernel works; `environment` is added to this process's.
    Raises InputError naming notebook `name` and the cell that failed.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    node = nbformat.from_dict(_not_run(nb))
    client = NotebookClient(
        node,
        kernel_name=_KERNEL["name"],  # whatever name the notebook was saved with
        timeout=600,
        shutdown_kernel="immediate",  # it has nothing to save, and no last words
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    started: list[int] = []
    client.on_cell_start = lambda cell, cell_index: started.append(cell_index)
    client.create_kernel_manager()
    # No folder of kernels to look in leaves this very interpreter.
    client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(_run(client, _kernel_environment(environment)))
    except (CellExecutionError, CellTimeoutError, NoSuchKernel, RuntimeError) as error:
        raise InputError(f"{name}: {_failure(node, started[-1:], error)}") from None
    except nbformat.ValidationError:
        where = _cell_name(node, started[-1])
        raise InputError(
            f"{name}: {where} displays what no notebook can hold: change that."
        ) from None
    ran = json.loads(json.dumps(node))
    wrong = course.fault(ran)
    if wrong:
        raise InputError(f"{name}: {wrong}: change what it displays.")
    return canonicalise(ran)


def refresh(path: Path) -> None:
    """Re-execute the notebook in `path` and store it there, if all of it succeeded.

    Raises InputError, and leaves the file, where it was edited in the meantime.
    """
    before = read(path)
    text = dumps(before)
    after = _keep_live_outputs(
        before, execute(before, path.parent.resolve(), path.name)
    )
    if dumps(read(path)) != text:
        raise InputError(
            f"{path} was edited while it ran: the edit is kept, run it again."
        )
    write(path, after)


def main(paths: list[str]) -> int:
    """Refresh the given notebooks, or all; return 2 where one failed, 130 on Ctrl-C."""
    chosen = [Path(path) for path in paths] or [
        *sorted(NOTEBOOKS.glob("*.ipynb")),
        TEMPLATE,
    ]
    try:
        failed = [path for path in chosen if not _refreshed(path)]
    except KeyboardInterrupt:
        print("Stopped: the notebook in hand is as it was.", file=sys.stderr)
        return 130
    return 2 if failed else 0


def _refreshed(path: Path) -> bool:
    """Refresh `path` and say its seconds; or say what failed and return False."""
    start = time.perf_counter()
    try:
        refresh(path)
    except InputError as error:
        print(error, file=sys.stderr)
    except ImportError as error:
        print(f"{path} cannot run ({error}): {_INSTALL}.", file=sys.stderr)
    except OSError as error:
        print(
            f"{path} cannot be stored ({error.strerror or error}): make its folder "
            "writable, or free some space.",
            file=sys.stderr,
        )
    else:
        print(f"{path.name}: {time.perf_counter() - start:.1f} s", flush=True)
        return True
    return False


async def _run(client: Any, environment: dict[str, str]) -> None:
    work = asyncio.ensure_future(client.async_execute(env=environment))
    try:
        await asyncio.wait({work})
    except asyncio.CancelledError:
        # nbclient can lose a request to stop, and take one for the death of its kernel.
        while not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=1)
        if not work.cancelled():
            work.exception()  # what nobody asks for, asyncio prints
        raise
    work.result()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that leaves Ctrl-C to asyncio.Runner, which cancels what runs.

    nbclient's own handler stops the kernel under the running cell and then stumbles;
    it goes without one where the loop has none.
    """

    def add_signal_handler(self, *_: Any) -> None:
        raise RuntimeError("signals are the runner's")


def _with_texts(nb: dict[str, Any], change: Any) -> dict[str, Any]:
    """Return a copy of `nb` with `change` applied to each text JSON holds as lines."""
    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        cell["source"] = change(_text(cell["source"]))
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = change(_text(output["text"]))
            data = output.get("data", {})
            for mime, value in data.items():
                if mime.startswith("text/") or mime in _TEXT_KINDS:
                    data[mime] = change(_text(value))
    return nb


def _text(value: str | list[str]) -> str:
    return "".join(value)


def _canonical_outputs(outputs: list[dict]) -> list[dict]:
    kept: list[dict] = []
    for output in outputs:
        data = output.get("data", {})
        was_view = data.pop(_WIDGET_VIEW, None) is not None
        if was_view and not data:
            continue
        if "image/png" in data:
            data["image/png"] = _bare_png(_text(data["image/png"]))
        last = kept[-1] if kept else {}
        kinds = [(one.get("output_type"), one.get("name")) for one in (output, last)]
        # The kernel sends one print in one piece or in two, as it happens.
        if output["output_type"] == "stream" and kinds[0] == kinds[1]:
            last["text"] = _text(last["text"]) + _text(output["text"])
        else:
            kept.append(output)
    return kept


def _bare_png(encoded: str) -> str:
    """Return a base64 PNG without its text and time chunks, which name the writer.

    Layout of a chunk: 4 bytes length, 4 type, the data, 4 checksum (PNG, section 5.3).
    What is not base64 has none and is returned as it is.
    """
    try:
        image = base64.b64decode(encoded)
    except binascii.Error:
        return encoded
    bare, place = image[:8], 8
    while place < len(image):
        end = place + 12 + int.from_bytes(image[place : place + 4], "big")
        if image[place + 4 : place + 8] not in (b"tEXt", b"iTXt", b"zTXt", b"tIME"):
            bare += image[place:end]
        place = end
    return base64.b64encode(bare).decode("ascii")


def _without_solutions(source: str, where: str) -> str:
    kept: list[str] = []
    inside = ""
    for line in source.split("\n"):
        edge, what = _marker(line, where)
        if (edge == "BEGIN" and inside) or (edge == "END" and inside != what):
            within = f"inside {inside}" if inside else "outside any block"
            raise InputError(
                f"{where}: '{line.strip()}' stands {within}: pair the markers."
            )
        if edge == "BEGIN" and what == "SOLUTION":
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + stub for stub in _STUB]
        elif not edge and not inside:
            kept.append(line)
        if edge:
            inside = what if edge == "BEGIN" else ""
    if inside:
        raise InputError(
            f"{where}: '### BEGIN {inside}' is never closed: add the END marker."
        )
    return "\n".join(kept)


def _marker(line: str, where: str) -> tuple[str, str]:
    """Return (edge, what) of a marker line, ("", "") of any other."""
    exact = _MARKERS.get(line.strip())
    if exact is None and _MARKER.search(line):
        allowed = ", ".join(f"'{marker}'" for marker in _MARKERS)
        raise InputError(
            f"{where}: '{line.strip()}' is no marker: write one of {allowed}."
        )
    return exact or ("", "")


def _not_run(nb: dict[str, Any]) -> dict[str, Any]:
    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return nb


def _kernel_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return a kernel's environment: without a foreign plot backend or grading."""
    unwanted = {"MPLBACKEND", "NBGRADER_EXECUTION", "PYTHONWARNINGS"}
    return {
        key: value for key, value in os.environ.items() if key not in unwanted
    } | extra


def _cell_name(nb: dict[str, Any], index: int) -> str:
    return f"cell {nb['cells'][index].get('id', '')} ({index})"


def _failure(node: dict[str, Any], started: list[int], error: Exception) -> str:
    if not started:
        return f"the kernel did not start ({type(error).__name__}: {error}): {_INSTALL}"
    where = _cell_name(node, started[0])
    for output in node["cells"][started[0]]["outputs"]:
        if output["output_type"] == "error":
            return f"{where} raised {output['ename']}: {output['evalue']}"
    return f"{where} stopped the kernel or took too long ({type(error).__name__})"


def _keep_live_outputs(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Put back the stored outputs of live cells that differ in their numbers alone."""
    stored = {cell.get("id"): cell for cell in before["cells"]}
    for cell in after["cells"]:
        old = stored.get(cell["id"])
        live = LIVE_TAG in cell["metadata"].get("tags", [])
        if live and old and old["source"] == cell["source"]:
            outputs = _canonical_outputs(copy.deepcopy(old["outputs"]))
            if [_shape(out) for out in outputs] == [
                _shape(out) for out in cell["outputs"]
            ]:
                cell["outputs"] = outputs
                for out in outputs:
                    if "execution_count" in out:
                        out["execution_count"] = cell["execution_count"]
    return after


def _shape(output: dict[str, Any]) -> tuple:
    """Return what of an output must not change: kinds, and words without numbers."""
    data = output.get("data", {})
    texts = output.get("text", ""), data.get("text/plain", ""), output.get("metadata")
    masked = " ".join(_NUMBER.sub("#", f"{texts}").split())
    return output["output_type"], output.get("name"), sorted(data), masked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
