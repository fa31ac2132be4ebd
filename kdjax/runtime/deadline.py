"""A deadline that ends a process even if no Python code can run in it any more.

A call that waits for a process that is gone may never return, and if it holds Python's global lock, no other thread of
this process runs either. The C library's timers do not need the lock. If it has no such timers (macOS), there is no
deadline.
"""

import ctypes
import time

_THREAD = 2  # SIGEV_THREAD: the timer calls a function in a new thread


class _Event(ctypes.Structure):
    """struct sigevent, as in glibc and musl on 64-bit machines."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attribute", ctypes.c_void_p),
        ("rest", ctypes.c_char * 32),
    )


class _Times(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (("interval", ctypes.c_long * 2), ("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Deadline:
    """Ends this process unless it is renewed in time.

    Args:
        seconds: time from each renewal to the end.
        status: exit status of the process.
        line: text written to standard error first, after the name of the program; it must not contain '%'.
    """

    def __init__(self, seconds: int, status: int, line: str) -> None:
        self._seconds, self._line = seconds, ctypes.create_string_buffer(line.encode())
        self._library = ctypes.CDLL(None)
        self._timers: list[tuple[ctypes.c_void_p, int]] = []
        if hasattr(self._library, "timer_create"):
            self._add(self._library.warnx, ctypes.addressof(self._line), 0)
            self._add(self._library._exit, status, 1)

    def renew(self) -> None:
        """Starts the countdown again."""
        self._set(self._seconds)

    def cancel(self) -> None:
        """Stops the countdown, until it is renewed."""
        self._set(0)

    def _add(self, function: object, value: int, delay: int) -> None:
        address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
        event, timer = _Event(value=value, notify=_THREAD, function=address), ctypes.c_void_p()
        if self._library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
            self._timers.append((timer, delay))

    def _set(self, seconds: int) -> None:
        for timer, delay in self._timers:
            times = _Times(seconds=seconds + delay if seconds else 0)
            self._library.timer_settime(timer, 0, ctypes.byref(times), None)
