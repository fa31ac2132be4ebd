"""Names that others chose (of classes, files, arms, data sets), made harmless for where they are written.

A name can hold terminal escapes, HTML, Markdown or a formula. Each function here makes one kind of place safe, and
leaves ordinary names as they are, in whatever script.
"""

import re
from typing import Any

from kdjax.errors import printable

_FORMULA = tuple("=+-@\t\r")  # what OWASP's page "CSV Injection" lists
# What begins HTML, an entity, code, emphasis, a link or a table's next cell; all else means itself in Markdown.
_MARKDOWN = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def cell(value: Any) -> Any:
    """A field of a CSV file: a string that a spreadsheet would run as a formula gets a leading apostrophe."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def markdown(text: str) -> str:
    """Text within Markdown that is neither HTML nor markup, in one line."""
    entities = {"<": "&lt;", "&": "&amp;"}
    return _MARKDOWN.sub(lambda found: entities.get(found[0], f"\\{found[0]}"), printable(text))
