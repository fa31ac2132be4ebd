"""Runs a command of kdjax: its arguments, its output and its exit status. Does not import JAX, which takes seconds.

Whatever a user or the machine does to a command, it ends with one line and an exit status from the table in
docs/reliability.md.
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

from kdjax.errors import InputError, Preempted, one_line, printable
from kdjax.runtime import preemption

_DISK_ERRORS = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}

_HEAD_START = 2.0
"""Seconds that the first process leaves the others to end by themselves. JAX's service runs in it, and once that is
gone, they are aborted."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are reported like all other bad input."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError, instead of printing the usage and exiting as argparse does."""
        raise InputError(message)


def positive(text: str) -> int:
    """Parses a whole number from 1 to 2**31 - 1 from the command line: file formats and servers use 32 bits."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {2**31 - 1}")
    return int(text)


def say(text: str) -> None:
    """Prints `text`. The command continues even if the reader, such as `head`, has closed the pipe."""
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
    """Runs a command with the arguments of this process, and ends the process if the command raises.

    Args:
        main: the command.
        resumable: whether a scheduler may stop the command with SIGTERM and start it again. The output of such a
            command is a log, so if its pipe is closed, work is left to do, and that is an error. A closed pipe of other
            commands means that the reader, such as `head`, has seen enough.
        less_memory: what the user can do if memory runs out, for the message.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # escapes what the encoding lacks, as stderr does
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if resumable:
            preemption.install()
        try:
            main(sys.argv[1:])
            sys.stdout.flush()
        finally:
            if resumable:
                preemption.ignore_sigterm()
    except (Exception, KeyboardInterrupt) as error:
        ending = _ending(error, resumable, less_memory)
        if ending is None:
            if not several_processes():
                raise
            if _is_jax_error(error) or "Gloo" in str(error):  # on CPU, JAX raises some errors as ValueError
                end_after_loss(one_line(error))
            traceback.print_exc()
            ending = 1, ""
        _end(*ending, together=isinstance(error, Preempted))


def _ending(error: BaseException, resumable: bool, less_memory: str) -> tuple[int, str] | None:
    """Returns the exit status and the line with which an exception ends a command, or None for a bug in the code."""
    advice = "; repeat the command to continue" if resumable else ""
    match error:
        case InputError(__cause__=OSError(errno=code)) if code in _DISK_ERRORS:
            return 1, f"error: {error}"
        case InputError():
            return 2, f"error: {error}"
        case Preempted():
            return os.EX_TEMPFAIL, f"{error}{advice}"  # schedulers requeue on this status
        case KeyboardInterrupt():
            return 130, f"interrupted{advice}"
        case BrokenPipeError() if not resumable:
            return 0, ""
        case OSError():
            return 1, f"error: {one_line(error, 300)}: the system refused it; fix that and run the same command again"
    device_full = _is_jax_error(error) and re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error))
    if device_full or isinstance(error, MemoryError):
        return 1, f"error: out of memory ({one_line(error)}): {less_memory}"
    return None


def end_in_call() -> NoReturn:
    """Ends a resumable command as SIGTERM does, from another thread: the main one is inside a call of a library."""
    print("ended by SIGTERM; repeat the command to continue", file=sys.stderr, flush=True)
    os._exit(os.EX_TEMPFAIL)


def end_after_loss(why: str) -> NoReturn:
    """Ends this process, one of several of a run, because another one is gone."""
    _end(os.EX_TEMPFAIL, loss_message(why))


def loss_message(why: str) -> str:
    """Returns the message for a process of a run that has lost another one."""
    return (
        f"error: another process of this run has ended or cannot be reached ({why}); start all of them again "
        "with the same command to continue from the latest checkpoint"
    )


def several_processes() -> bool:
    """Whether this process is one of several of a run."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _is_jax_error(error: BaseException) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)


def _end(status: int, line: str = "", *, together: bool = False) -> NoReturn:
    """Ends this process.

    One of several processes ends without JAX's own shutdown, which would wait until the others end as well. A process
    that a signal ended does not shut down either, because other threads may still compile: that would end in a
    segmentation fault.

    Args:
        status: exit status.
        line: text to print first. It may contain names, and these may contain line breaks.
        together: whether the other processes end now too.
    """
    if line:
        print(printable(line), file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try again and exit with another status
        _drop_output()
    if several_processes():
        if together:
            sys.exit(status)
        if sys.modules["jax"].process_index() == 0:
            time.sleep(_HEAD_START)
        os._exit(status)
    if preemption.signaled():
        os._exit(status)
    sys.exit(status)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
