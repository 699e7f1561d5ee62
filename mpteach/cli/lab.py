"""Open the course in JupyterLab: your own copy of the chapters, in work/.

The copy has stubs for solutions; what you changed in it is never overwritten.
"""

import argparse
import importlib.util
import os
from pathlib import Path

from mpteach import course, working_copy
from mpteach.errors import InputError
from mpteach.files import write_atomically

JUPYTER = course.ROOT / "static" / "jupyter"
# JupyterLab's settings for a lecture, and where a lecturer's own changes to them stay.
LECTURE = course.ROOT / "static" / "lecture"
LECTURE_SETTINGS = course.ROOT / "build" / "lecture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `mpteach lab`."""
    parser.add_argument("--folder", type=_folder, help="where your copy is (work/)")
    parser.add_argument(
        "--edit", action="store_true", help="open notebooks/ itself instead"
    )
    parser.add_argument(
        "--lecture",
        action="store_true",
        help="with type that a back row can read",
    )
    parser.add_argument(
        "--copy-only",
        action="store_true",
        help="bring the copy up to date, open nothing",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address only"
    )
    parser.add_argument(
        "--port", type=int, default=8888, help="of the local server (8888)"
    )


def run(args: argparse.Namespace) -> int:
    """Bring the copy up to date and serve it until Ctrl-C; return 0."""
    if args.lecture and args.copy_only:
        raise InputError("--lecture opens JupyterLab: leave out --copy-only.")
    if args.edit and (args.folder or args.copy_only):
        raise InputError("--edit opens notebooks/: leave out --folder and --copy-only.")
    if not 1 <= args.port <= 65535:
        raise InputError(f"--port was {args.port}: give one from 1 to 65535.")
    if not args.copy_only and importlib.util.find_spec("jupyterlab") is None:
        raise InputError(
            "JupyterLab is not installed: run pip install -c constraints.txt "
            "-e '.[course]'"
        )
    folder = course.NOTEBOOKS
    if not args.edit:
        folder = args.folder or working_copy.WORK
        for sentence in working_copy.refresh(course.NOTEBOOKS, folder):
            print(sentence)
    if args.copy_only:
        print(f"The chapters are in {folder}.")
        return 0
    if args.lecture:
        _use_lecture_settings()
    print(f"Opening {folder} in JupyterLab. Ctrl-C twice stops it.", flush=True)
    _serve(folder, args.port, args.no_browser, "doc" if args.lecture else "lab")
    return 0


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"was {text!r}: name a folder, or leave it out"
        )
    return Path(text)


def _use_lecture_settings() -> None:
    """Let JupyterLab take its settings from a folder of their own.

    Everyday settings stay as they are, and so do changes made in an earlier lecture.
    """
    for path in filter(Path.is_file, LECTURE.rglob("*")):
        mine = LECTURE_SETTINGS / path.relative_to(LECTURE)
        if not mine.exists():
            mine.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(mine, path.read_bytes())
    os.environ["JUPYTERLAB_SETTINGS_DIR"] = str(LECTURE_SETTINGS)


def _serve(folder: Path, port: int, no_browser: bool, view: str) -> None:
    """Serve `folder`, in the view `lab` with the list of files, or `doc` without."""
    from jupyterlab.labapp import LabApp

    # Turns off the question about news and the search for updates.
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        filter(None, [str(JUPYTER), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
    first = course.chapters()[0].path.name
    LabApp.launch_instance(
        [
            f"--ServerApp.root_dir={folder.resolve()}",
            f"--ServerApp.port={port}",
            f"--ServerApp.open_browser={not no_browser}",
            # Containers run as root; the server listens on this machine alone.
            "--ServerApp.allow_root=True",
            "--Application.log_level=ERROR",
            f"--LabApp.default_url=/{view}/tree/{first}",
            # The default manager asks a package index what could be installed.
            "--LabApp.extension_manager=readonly",
        ]
    )
