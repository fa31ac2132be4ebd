"""Exceptions that end a run with one line: for input that the user can correct, and for a request to stop."""

import unicodedata
from collections.abc import Sequence

# Control characters (ANSI escapes begin with one), lone surrogates (from file names that are not UTF-8), line
# separators, and marks that reorder text, which can make one name look like another. Other characters that do not print
# are kept, because writing systems need them. Noncharacters (U+FDD0 to U+FDEF, and the last two of each 65 536) never
# stand for text, and XML cannot hold U+FFFF.
_REORDERING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
_NONCHARACTERS = range(0xFDD0, 0xFDF0)


class InputError(Exception):
    """Bad configuration, data, weights or checkpoint.

    The message is one line that names the field or the file and says how to correct it. `runtime.command` prints it
    without a traceback and exits with status 2, or with 1 if the cause is an OSError of the disk, such as a full one.
    """


class Preempted(Exception):
    """The run was asked to stop, and its work is saved."""


def is_unsafe(character: str) -> bool:
    """Whether a character would affect a terminal, log or page in another way than by being displayed."""
    code = ord(character)
    noncharacter = code & 0xFFFE == 0xFFFE or code in _NONCHARACTERS
    return noncharacter or unicodedata.category(character) in _UNSEEN or character in _REORDERING


def printable(text: str, keep: str = "") -> str:
    """Returns text for a terminal, a log or a page, with unsafe characters (`is_unsafe`) as escapes, such as \\x1b.

    Args:
        text: any string.
        keep: characters to leave as they are, such as a line break.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character not in keep and is_unsafe(character)
        else character
        for character in text
    )


def first_few(items: Sequence[str], most: int = 5) -> str:
    """Returns the first `most` items as text for a message: a, b, ..."""
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def one_line(error: BaseException, length: int = 160) -> str:
    """Returns the message of a library's exception as one line of at most `length` characters."""
    return " ".join(str(error).split())[:length] or type(error).__name__
