"""Escapes names that users chose (of classes, files, arms and data sets) for the format that they are written in.

A name can contain terminal escapes, HTML, Markdown or a formula. Each function makes a name safe for one format;
ordinary names stay as they are, in any script.
"""

import re
from typing import Any

from kdjax.errors import printable

_FORMULA = tuple("=+-@\t\r")  # what OWASP's page "CSV Injection" lists
# Characters that begin HTML, an entity, code, emphasis, a link or the next table cell; all others are literal.
_MARKDOWN = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def cell(value: Any) -> Any:
    """Escapes a field of a CSV file: a string that a spreadsheet would run as a formula gets a leading apostrophe."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def markdown(text: str) -> str:
    """Escapes a text so that Markdown shows it literally, on one line."""
    entities = {"<": "&lt;", "&": "&amp;"}
    return _MARKDOWN.sub(lambda match: entities.get(match[0], f"\\{match[0]}"), printable(text))
