"""A comparison that is killed again and again; `test_resume` runs it as a program.

Children are forked, since loading torch takes longer than their work. Each ends itself
with SIGKILL before a line of the package that was drawn from a seed: so the moments are
the same each time, and cleaning up gets no chance.
"""

import hashlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer would load it, in every child anew

from mpteach import comparison, files, gpt, hardware, recipes, records, training
from mpteach.course import ROOT
from mpteach.records import Record
from mpteach.runs import Settings
from tests.small import CONFIG, CORPUS

KILLS = 20
SETTINGS = Settings(
    steps=5, batch=4, validation_batches=1, gradient_every=2, patience=2
)
PACKAGE = str(ROOT / "mpteach")
SAVE = files.write_atomically.__code__


class Lines:
    """Counts the package's lines that are run; before the `last` the process dies."""

    def __init__(self, log: Path, last: int | None, in_saves: bool) -> None:
        self.log, self.last, self.in_saves, self.count = log, last, in_saves, 0

    def __call__(self, frame, event, _argument):
        code = frame.f_code
        ours = code.co_filename.startswith(PACKAGE)
        if not (code is SAVE if self.in_saves else ours):
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


def compare(fresh: Record, folder: Path, lines: Lines) -> None:
    """Do what the record in `folder` lacks; log each loss, and the last weights."""
    evaluate = training.Trainer.evaluate

    def observed(trainer, *rest):
        state = trainer.model.state_dict().values()
        bits = b"".join(one.double().numpy().tobytes() for one in state)
        name, digest = trainer.recipe.name, hashlib.sha256(bits).hexdigest()
        write(lines.log, f"weights {name} {digest}")
        return evaluate(trainer, *rest)

    def on_step(name, seed, step, loss):
        write(lines.log, f"loss {name}:{step} {loss.hex()}")

    training.Trainer.evaluate = observed
    sys.settrace(lines)
    path = folder / "out.json"
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
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, seed: int) -> None:
    """Do one comparison without a kill, and others until the kills are done."""
    torch.set_num_threads(1)
    hardware.native = lambda *_: True
    gpt.SIZES["dot"] = CONFIG
    fresh = comparison.begin("dot", SETTINGS, CORPUS, "cpu", "test")

    def attempt(place: Path, last: int | None, in_saves: bool) -> int:
        place.mkdir(exist_ok=True)
        return fork(lambda: compare(fresh, place, Lines(place / "log", last, in_saves)))

    totals = {}
    for in_saves in (False, True):
        place = folder / f"whole{in_saves:d}"
        assert attempt(place, None, in_saves) == 0
        totals[in_saves] = int((place / "log").read_text().split()[-1])
    draw, statuses = random.Random(seed), []
    while (killed := statuses.count(-signal.SIGKILL)) < KILLS or statuses[-1] != 0:
        in_saves = draw.random() < 0.5
        last = draw.randint(1, totals[in_saves] // 8) if killed < KILLS else None
        # One that ended all the same is done: another is begun.
        place = folder / f"killed{statuses.count(0)}"
        statuses.append(attempt(place, last, in_saves))
        assert statuses[-1] in (0, -signal.SIGKILL), "a child failed"
    print(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
