"""The exceptions that end a run in one line: input a person can correct, and being asked to end."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class InputError(Exception):
    """Bad configuration, data, weights or checkpoint.

    The message is one line that names the field or the file and says how to correct it. `main` prints it and exits
    with status 2; no traceback is shown.
    """


class Preempted(Exception):
    """The run was asked to end, and what it has done is saved."""


class Parser(argparse.ArgumentParser):
    """Mistakes in the arguments of a command end as all bad input does."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError, where argparse prints its usage as well."""
        raise InputError(message)


def reason(error: BaseException, length: int = 160) -> str:
    """What an exception of a library says, in one line of at most `length` characters."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def in_one_line(main: Callable[[list[str]], None]) -> None:
    """Runs a command on the arguments of this process; whatever a person can correct ends in one line.

    The exit status is 2, 130 after Ctrl-C, and 75 after SIGTERM, on which schedulers requeue.
    """
    try:
        main(sys.argv[1:])
    except InputError as error:
        _end(f"error: {error}", 2)
    except OSError as error:
        _end(f"error: {reason(error, 300)}", 2)
    except MemoryError as error:
        _end(f"error: not enough memory ({reason(error)})", 2)
    except Preempted as error:
        _end(str(error), os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _end(line: str, status: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(status)
