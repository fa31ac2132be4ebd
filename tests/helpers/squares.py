"""A job for worker processes; imports nothing, as they are new ones."""

import os
import signal


def square(number):
    """The square and the process; three is deadly."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number, os.getpid()


def begin():
    return square
