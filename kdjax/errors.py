"""The one exception for input that a person can mend."""


class InputError(Exception):
    """Bad configuration, data, weights or checkpoint.

    The message is one line that names the field or the file and says how to mend it. `main` prints it and exits
    with status 2; no traceback is shown.
    """
