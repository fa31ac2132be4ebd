"""The exceptions that end a run in one line: input a person can correct, and being asked to end."""

import unicodedata
from collections.abc import Sequence

# Controls (ANSI escapes begin with one), lone surrogates (file names that are not UTF-8), line separators, and marks
# that reorder text, with which one name can be made to look like another. Others that do not print belong to scripts.
# Noncharacters (U+FDD0 to U+FDEF, the last two of each 65 536) never stand for text, and XML cannot hold U+FFFF.
_REORDERING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
_NONCHARACTERS = range(0xFDD0, 0xFDF0)


class InputError(Exception):
    """Bad configuration, data, weights or checkpoint.

    The message is one line that names the field or the file and says how to correct it. `runtime.command` prints it and
    exits with status 2, or 1 where it was raised from the OSError of a disk that is full; no traceback is shown.
    """


class Preempted(Exception):
    """The run was asked to end, and what it has done is saved."""


def unseen(character: str) -> bool:
    """Whether a character does something to a terminal, a log or a page other than to be seen there."""
    code = ord(character)
    nothing = code & 0xFFFE == 0xFFFE or code in _NONCHARACTERS
    return nothing or unicodedata.category(character) in _UNSEEN or character in _REORDERING


def printable(text: str, keep: str = "") -> str:
    """Text for a terminal, a log or a page: what cannot be seen is written as an escape, such as \\x1b.

    Args:
        text: any string.
        keep: characters that stay, such as a line break.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode("ascii") if one not in keep and unseen(one) else one for one in text
    )


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first few of many, as a message names them: a, b, ..."""
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def reason(error: BaseException, length: int = 160) -> str:
    """What an exception of a library says, in one line of at most `length` characters."""
    return " ".join(str(error).split())[:length] or type(error).__name__
