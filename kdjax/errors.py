"""The exceptions that end a run in one line: input a person can mend, and being asked to end."""


class InputError(Exception):
    """Bad configuration, data, weights or checkpoint.

    The message is one line that names the field or the file and says how to mend it. `main` prints it and exits
    with status 2; no traceback is shown.
    """


class Preempted(Exception):
    """The run was asked to end, and what it has done is saved."""
