"""A refresh of the working copy, killed before each line that writes, in turn.

`test_working_copy_killed` runs this as a program: children are forked, and each ends
itself with SIGKILL before one line of the package, so that cleaning up gets no chance.
It prints what went wrong, one sentence a line, and how many were killed.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from mpteach import files, working_copy
from tests.pretend_course import MINE, NAME, NEW, Course

# What changes the folder; between its lines lie all the states that a kill can leave.
WRITING = {
    function.__code__
    for function in (
        files.write_atomically,
        working_copy._replace,
        working_copy._move,
        working_copy._Handed.begin,
        working_copy._Handed.finish,
    )
}
Setting = Callable[[Course], None]


def fresh(course: Course) -> None:
    """Nothing was handed out yet."""


def untouched(course: Course) -> None:
    """The second edition replaces the first."""
    course.refresh()
    course.publish("edition 2")


def touched(course: Course) -> None:
    """The second edition is put beside the student's copy."""
    course.refresh()
    course.copy.write_bytes(MINE)
    course.publish("edition 2")


def beside(course: Course) -> None:
    """The third edition replaces the second beside the student's copy."""
    touched(course)
    course.refresh()
    course.publish("edition 3")


def killed_at(course: Course, last: int) -> bool:
    """Refresh in a child that dies before line `last`; return whether it got there."""
    count = 0

    def trace(frame, event, _argument):
        nonlocal count
        if frame.f_code not in WRITING:
            return None
        count += event == "line"
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    child = os.fork()
    if child == 0:
        try:
            sys.settrace(trace)
            course.refresh()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "a child failed"
    return status != 0


def wrongs(course: Course, setting: Setting, updated: bool) -> Iterator[str]:
    """Yield what is wrong after a kill and, if `updated`, one more edition."""
    is_mine = setting in (touched, beside)
    found = course.files()
    if is_mine and found.get(NAME, found.get(f".{NAME}.aside")) != MINE:
        yield "the student's bytes are gone"
    if updated:
        course.publish("edition 4")
    edition = next(
        text for text in ("edition 4", "edition 3", "edition 2", "edition 1")
        if text in (course.source / NAME).read_text()
    )  # fmt: skip
    said = course.refresh()
    found = course.files()
    if set(found) != ({NAME, NEW} if is_mine else {NAME}):
        yield f"the folder holds {sorted(found)}"
    if is_mine and found[NAME] != MINE:
        yield "the student's bytes are not in their place"
    if edition not in found[NEW if is_mine else NAME].decode():
        yield f"{edition} did not come"
    if any("you changed" in sentence for sentence in said):
        yield f"the course's file was taken for the student's: {said}"
    if course.refresh():
        yield "the sentence came again"


def kill_everywhere(setting: Setting) -> int:
    """Kill a refresh at every line, print what is wrong and return the kills."""
    last, was_killed = 0, True
    while was_killed:
        last += 1
        with tempfile.TemporaryDirectory() as name:
            course = Course(Path(name))
            setting(course)
            was_killed = killed_at(course, last)
            again = Path(name) / "again"
            shutil.copytree(course.folder, again)
            for updated in (False, True):
                for wrong in wrongs(course, setting, updated):
                    print(f"{setting.__name__}, line {last}: {wrong}")
                course.folder = again
    return last - 1


if __name__ == "__main__":
    # The power stays on, so there is no need to wait for the disk.
    os.fsync = lambda descriptor: None
    print(sum(map(kill_everywhere, (fresh, untouched, touched, beside))))
