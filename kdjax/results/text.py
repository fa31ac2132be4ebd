"""Names that others chose (of classes, files, arms, data sets), made harmless for where they are written.

A name can hold terminal escapes, HTML, Markdown or a formula. Each function here makes one kind of place safe, and
leaves ordinary names as they are, in whatever script.
"""

import re
import unicodedata
from typing import Any

# Controls (ANSI escapes begin with one), lone surrogates (file names that are not UTF-8), line separators, and marks
# that reorder text, with which one name can be made to look like another.
_REORDERING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
_FORMULA = tuple("=+-@\t\r")  # what OWASP's page "CSV Injection" lists
# What begins HTML, an entity, code, emphasis, a link or a table's next cell; all else means itself in Markdown.
_MARKDOWN = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def printable(text: str, keep: str = "") -> str:
    """Text for a terminal, a log or a page: what cannot be seen is written as an escape, such as \\x1b.

    Args:
        text: any string.
        keep: characters that stay, such as a line break.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode("ascii")
        if one not in keep and (unicodedata.category(one) in _UNSEEN or one in _REORDERING)
        else one
        for one in text
    )


def cell(value: Any) -> Any:
    """A field of a CSV file: a string that a spreadsheet would run as a formula gets a leading apostrophe."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def markdown(text: str) -> str:
    """Text within Markdown that is neither HTML nor markup, in one line."""
    entities = {"<": "&lt;", "&": "&amp;"}
    return _MARKDOWN.sub(lambda found: entities.get(found[0], f"\\{found[0]}"), printable(text))
