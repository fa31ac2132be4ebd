"""The code keeps to the order and the sizes that README.md and CONTRIBUTING.md promise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "kdjax").rglob("*.py"))
LINES, FUNCTION_LINES = 350, 80

modules = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def rooms():
    """The names in the README's map, from those that import nothing to those that may import all above them."""
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## Map of the code")[1].split("```")[1]
    return [name.removesuffix(".py") for name in re.findall(r"^  ([\w.]+)/? ", block, re.MULTILINE)]


def imported(tree):
    """Every module of kdjax that is imported anywhere in a file, also for types alone or within a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield from (f"{node.module}.{alias.name}".split(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)


def test_the_map_has_every_room():
    there = {path.relative_to(ROOT / "kdjax").parts[0].removesuffix(".py") for path in FILES}
    assert sorted(rooms()) == sorted(there - {"__init__"})


@modules
def test_imports_go_one_way(path):
    order, own = rooms(), path.relative_to(ROOT / "kdjax").parts[0].removesuffix(".py")
    allowed = order[: order.index(own) + 1] if own in order else []  # nothing for kdjax/__init__.py, which all import
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    assert not [".".join(name) for name in names if name[0] == "kdjax" and name[1:] and name[1] not in allowed]


@modules
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [one.name for one in functions if one.end_lineno - one.lineno + 1 > FUNCTION_LINES]


@pytest.mark.parametrize("folder", ["configs", "docs", "examples", "tests"])
def test_files_beside_the_package_are_short_too(folder):
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / folder).rglob("*.py")}
    assert lines and not [str(path.relative_to(ROOT)) for path, count in lines.items() if count > LINES]
