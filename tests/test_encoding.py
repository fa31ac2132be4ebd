"""Text is read and written as UTF-8, whatever the locale: what ruff's PLW1514 does not see.

That rule knows a path only where it is made on the spot; here every `.read_text()` and `.write_text()` counts.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = {"read_text": 0, "write_text": 1}
"""The position of `encoding` among the arguments."""


def without_encoding(source):
    """Lines of the calls; `files.write_text` is kdjax's own and always UTF-8."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in PLACE
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "files")
        and len(node.args) <= PLACE[node.func.attr]
        and not any(keyword.arg == "encoding" for keyword in node.keywords)
    ]


def test_the_search_finds_what_it_should():
    wrong = "a.read_text()\nb.c().write_text(x)\n"
    right = "a.read_text('utf-8')\na.write_text(x, encoding='utf-8')\nfiles.write_text(p, x)"
    assert without_encoding(wrong + right) == [1, 2]


def test_the_package_names_the_encoding_of_every_text():
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "kdjax").rglob("*.py")
        for line in without_encoding(path.read_text(encoding="utf-8"))
    }
    assert not found
