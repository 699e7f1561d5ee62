"""A real browser for tests: Chromium as the system has it, with no network.

Tests marked `browser` are chosen by `make test-all` alone, which does not start without
one. Those marked `explorer` are also part of `make test`, which skips them then.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from mpteach.course import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    f"Chromium is not on the PATH (as {', '.join(NAMES)}) and these tests drive it: "
    "install it, on Debian with 'apt-get install chromium'."
)
# A container has no sandbox to offer, and background services would look for hosts.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW_MS = 60_000


def installed() -> str | None:
    """Return the path of the Chromium on the PATH, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium; where none is installed, skip the test."""
    found = installed()
    if found is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def page(chromium: Browser, **settings) -> Iterator[Page]:
    """Yield a page; fail at its end if a program on it raised an error."""
    opened = chromium.new_page(**settings)
    opened.set_default_timeout(SLOW_MS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield opened
    finally:
        opened.close()
    assert errors == []


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Yield the address of a JupyterLab that serves `folder`, and stop it at the end.

    Everything it writes goes into `folder`. Ask for `ADDRESS/lab/tree/NAME?token=t`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                f"--ServerApp.root_dir={folder}",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                "--IdentityProvider.token=t",
                "--LabApp.extension_manager=readonly",
            ],
            env=os.environ | _own_folders(folder),
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(server, f"http://127.0.0.1:{port}/api/status?token=t", log.name)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()  # it shuts its kernels down first
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _own_folders(folder: Path) -> dict[str, str]:
    jupyter = [f"JUPYTER_{what}_DIR" for what in ("CONFIG", "DATA", "RUNTIME")]
    lab = [f"JUPYTERLAB_{what}_DIR" for what in ("SETTINGS", "WORKSPACES")]
    own = {name: str(folder / ".jupyter" / name) for name in jupyter + lab}
    # As `mpteach lab` has it: no question about news.
    own["JUPYTER_CONFIG_PATH"] = str(ROOT / "static" / "jupyter")
    return own | {"IPYTHONDIR": str(folder / ".ipython")}


def _wait_for(server: subprocess.Popen, address: str, log: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not answer:\n{Path(log).read_text()[-2000:]}")
