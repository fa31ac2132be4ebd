"""A command of kdjax: its arguments, what it prints, and how it ends. Needs no JAX, whose import takes seconds.

Whatever a person or a machine does to a command ends in one line, and in a status of the table in docs/reliability.md.
"""

import argparse
import errno
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from kdjax.errors import InputError, Preempted, printable, reason
from kdjax.runtime import preemption

_OF_THE_DISK = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}

_HEAD_START = 2.0
"""Seconds for other processes to end by themselves: the first holds JAX's service, without which they are aborted."""


class Parser(argparse.ArgumentParser):
    """Mistakes in the arguments of a command end as all bad input does."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError, where argparse prints its usage as well."""
        raise InputError(message)


def positive(text: str) -> int:
    """A whole number of at least 1 from the command line, which 32 bits hold: files and servers have no wider ones."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {2**31 - 1}")
    return int(text)


def say(text: str) -> None:
    """Prints `text`. A reader such as `head` that has seen enough does not end what else there is to do."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_output()


def run_command(
    main: Callable[[list[str]], None],
    *,
    resumable: bool = False,
    less_memory: str = "free some, or use a machine with more",
) -> None:
    """Runs a command on the arguments of this process. Where it raises, this process ends.

    Args:
        main: the command.
        resumable: whether a scheduler may stop it by SIGTERM and start it again. What such a command prints is a log:
            where its reader has gone, work is left. The reader of another's output, such as `head`, has seen enough.
        less_memory: how to make do with the memory there is, for the message.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding lacks is written as an escape, as errors are
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if resumable:
            preemption.install()
        try:
            main(sys.argv[1:])
            sys.stdout.flush()
        finally:
            if resumable:
                preemption.leaving()
    except (Exception, KeyboardInterrupt) as error:
        ending = _ending(error, resumable, less_memory)
        if ending is None:
            if not several_processes():
                raise
            if _of_jax(error) or "Gloo" in str(error):  # JAX raises some of its errors on CPU as ValueError
                lost(reason(error))
            traceback.print_exc()
            ending = 1, ""
        _end(*ending, together=isinstance(error, Preempted))


def _ending(error: BaseException, resumable: bool, less_memory: str) -> tuple[int, str] | None:
    """The exit status and the line that an exception ends a command with, None where it is a mistake in the code."""
    again = "; repeat the command to continue" if resumable else ""
    match error:
        case InputError(__cause__=OSError(errno=code)) if code in _OF_THE_DISK:
            return 1, f"error: {error}"
        case InputError():
            return 2, f"error: {error}"
        case Preempted():
            return os.EX_TEMPFAIL, f"{error}{again}"  # schedulers requeue on it
        case KeyboardInterrupt():
            return 130, f"interrupted{again}"
        case BrokenPipeError() if not resumable:
            return 0, ""
        case OSError():
            return 1, f"error: {reason(error, 300)}: the system refused it; fix that and run the same command again"
    full = _of_jax(error) and re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error))
    if full or isinstance(error, MemoryError):
        return 1, f"error: out of memory ({reason(error)}): {less_memory}"
    return None


def lost(why: str) -> NoReturn:
    """Ends this process, one of several, where another of them is gone."""
    _end(os.EX_TEMPFAIL, lost_line(why))


def lost_line(why: str) -> str:
    """What is said where another process of a run is gone."""
    return (
        f"error: another process of this run has ended or cannot be reached ({why}); start all of them again "
        "with the same command to continue from the latest checkpoint"
    )


def several_processes() -> bool:
    """Whether this is one of several processes of a run."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _of_jax(error: BaseException) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)


def _end(status: int, line: str = "", *, together: bool = False) -> NoReturn:
    """Ends this process. One of several does so at once: JAX's own shutdown would wait until the others end as well.

    Args:
        status: exit status.
        line: what is printed before; it may hold names, and names may hold line breaks.
        together: whether the others end now too.
    """
    if line:
        print(printable(line), file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try again, and end with a status of its own
        _drop_output()
    if several_processes() and not together:
        if sys.modules["jax"].process_index() == 0:
            time.sleep(_HEAD_START)
        os._exit(status)
    sys.exit(status)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
