"""A time limit for a student's code, which may hold a loop that never ends."""

import ctypes
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")
_AGAIN_S = 0.2
_NOTHING = ctypes.py_object()  # NULL, which takes back what was not raised yet
# Called with the number of a thread and what is to be raised there.
_raise_in = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


class TooLate(BaseException):
    """The time is over; not an Exception, so that no `except Exception` swallows it."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns; raise TooLate where it still runs after `seconds`.

    It is ended between two instructions of Python, in any thread and on any system,
    even where it swallows every exception; a single call into C is waited for.
    """
    thread, end = threading.get_ident(), _end_of(threading.get_ident())
    is_over, wake = False, threading.Event()

    def watch() -> None:
        pause = seconds
        while not wake.wait(pause) and not is_over:
            _raise_in(thread, end)
            pause = _AGAIN_S

    threading.Thread(target=watch, daemon=True).start()
    try:
        return work()
    finally:
        # No other call before the end is taken back: it would come there.
        is_over = True
        _raise_in(thread, _NOTHING)
        wake.set()


def _end_of(thread: int) -> type[TooLate]:
    """Return an exception that comes again as soon as it is met by an `except`.

    The second comes in the handler, from where the same `except` cannot catch it. What
    arranges for that is C alone: in a function of Python it would come there.
    """

    class End(TooLate):
        pass

    End.__init__ = staticmethod(partial(_raise_in, thread, End))
    return End
