"""A comparison that is killed again and again; `test_resume` runs it as a program.

Children are forked, since loading torch takes longer than their work. Each ends itself
with SIGKILL before a line of the package that was drawn from a seed: so the moments are
the same each time, and cleaning up gets no chance.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from mpteach import comparison, files, gpt, hardware, recipes, records, training
from mpteach.course import ROOT
from mpteach.runs import Settings
from tests.small import CONFIG, CORPUS

KILLS = 20
SETTINGS = Settings(steps=5, batch=4, validation_batches=1, gradient_every=2, patience=2)
PACKAGE = str(ROOT / "mpteach")
SAVE = files.write_atomically.__code__


class Lines:
    """Counts the lines of the package that are run; at the `last` one the process dies."""

    def __init__(self, log: Path, last: int | None, in_saves: bool) -> None:
        self.log, self.last, self.in_saves, self.count = log, last, in_saves, 0

    def __call__(self, frame, event, _argument):
        code = frame.f_code
        counted = code is SAVE if self.in_saves else code.co_filename.startswith(PACKAGE)
        if not counted:
            return None
        self.count += event == "line"
        if self.count == self.last:
            write(self.log, f"killed {code.co_name} {frame.f_lineno}")
            os.kill(os.getpid(), signal.SIGKILL)
        return self


def write(log: Path, line: str) -> None:
    """Append a line; what a killed process has written stays."""
    with log.open("a") as file:
        file.write(f"{line}\n")


def compare(folder: Path, lines: Lines) -> None:
    """Do what the record in `folder` lacks; log each loss, and the weights at the end."""
    seen = training.evaluate

    def evaluate(model, *rest):
        bits = [one.double().numpy().tobytes() for one in model.state_dict().values()]
        write(lines.log, f"weights {b''.join(bits).hex()}")
        return seen(model, *rest)

    def on_step(name, seed, step, loss):
        write(lines.log, f"loss {name} {step} {loss.hex()}")

    training.evaluate = evaluate
    sys.settrace(lines)
    path = folder / "out.json"
    fresh = comparison.begin("dot", SETTINGS, CORPUS, "cpu", "test")
    record = records.resume(fresh, path)
    comparison.run(record, recipes.RECIPES, [0], CORPUS, path, on_step, 1)
    sys.settrace(None)
    write(lines.log, f"lines {lines.count}")


def fork(work: Callable[[], None]) -> int:
    """Do the work in a child; return 0, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, seed: int) -> None:
    """Do one comparison without a kill, and others until the kills are done."""
    torch.set_num_threads(1)
    hardware.native = lambda *_: True
    gpt.SIZES["dot"] = CONFIG
    draw = random.Random(seed)
    whole = folder / "whole"
    statuses, attempt = [], 0
    totals = {}
    for in_saves in (False, True):
        place = folder / f"whole{in_saves:d}"
        place.mkdir()
        log = place / "log"
        assert fork(lambda: compare(place, Lines(log, None, in_saves))) == 0
        totals[in_saves] = int(log.read_text().split()[-1])
    while statuses.count(-signal.SIGKILL) < KILLS or statuses[-1] != 0:
        place = folder / f"killed{statuses.count(0)}"
        place.mkdir(exist_ok=True)
        in_saves = draw.random() < 0.5
        killing = statuses.count(-signal.SIGKILL) < KILLS
        last = draw.randint(1, totals[in_saves] // 6) if killing else None
        statuses.append(fork(lambda: compare(place, Lines(place / "log", last, in_saves))))
    print(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
