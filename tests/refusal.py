"""How a command refuses bad input."""

import sys

import pytest

from kdjax.runtime.command import run_command


def refused(capfd, main, *arguments):
    """The one line that bad input ends in; nothing else is printed, not by libraries in C++ either."""
    argv = sys.argv
    sys.argv = ["command", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            run_command(main)
    finally:
        sys.argv = argv
    said = capfd.readouterr()
    assert stop.value.code == 2 and not said.out
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line
