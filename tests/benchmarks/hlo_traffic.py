"""Which instructions of a compiled program move the most bytes, by its text."""

import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
PARTS = {"slice", "dynamic-slice", "gather"}
"""Instructions that read of their first operand what they return."""
NOTHING = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "iota", "copy-start", "copy-done",
           "slice-start", "slice-done", "async-start", "async-done"}  # fmt: skip


class Instruction(NamedTuple):
    """One line of a computation: its name, the type of its result, its operation, operands, and what follows."""

    name: str
    result: str
    operation: str
    operands: list[str]
    rest: str


class Moved(NamedTuple):
    """What an instruction reads and writes, bytes, its result and where it comes from."""

    read: int
    written: int
    name: str
    result: str
    source: str


def computations(text: str) -> dict[str, list[Instruction]]:
    """The computations of a program by name."""
    found: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        if begins := re.match(r"(?:ENTRY )?%([\w.\-]+) .*\{$", line):
            found[begins[1]] = here = []
        elif line.startswith("  ") and (said := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)", line)):
            here.append(_instruction(said[1], said[2]))
    return found


def traffic(text: str) -> list[Moved]:
    """The instructions of that loop's body, or of the program, that moves most; the busiest first.

    Bytes are those of the shapes, without the padding of layouts. What moves between the main and the fast memory of a
    chip ahead of its use is not counted apart.
    """
    known = computations(text)
    bodies = re.findall(r"body=%([\w.\-]+)", text) + re.findall(r"^ENTRY %([\w.\-]+)", text, re.MULTILINE)
    each = [_moved(known[body], known) for body in bodies]
    busiest = max(each, key=lambda body: sum(one.read + one.written for one in body))
    return sorted(busiest, reverse=True, key=lambda one: one.read + one.written)


def _moved(body: list[Instruction], known: dict[str, list[Instruction]]) -> list[Moved]:
    types = {one.name: one.result for one in body}
    moved = []
    for one in body:
        if one.operation in NOTHING:
            continue
        called = known.get((re.search(r"calls=%([\w.\-]+)", one.rest) or ("", ""))[1], [one])
        source = (re.search(r'op_name="([^"]*)"', one.rest) or ("", ""))[1]
        whole = [size(types.get(name, "")) for name in one.operands]
        read = sum(min(most, part) for most, part in zip(whole, _read(called, one), strict=True))
        moved.append(Moved(read, size(one.result), one.name, re.sub(r":T[^}]*", "", one.result), source))
    return moved


def size(result: str) -> int:
    """Bytes of an array or of all arrays of a tuple."""
    total = 0
    for dtype, sides in ARRAY.findall(result):
        count = BYTES[dtype]
        for side in sides.split(",") if sides else ():
            count *= int(side)
        total += count
    return total


def _read(called: list[Instruction], caller: Instruction) -> Iterator[float]:
    """Of each operand, the most that is read of it: all, unless every reader takes a part."""
    for number, operand in enumerate(caller.operands):
        inside = [one.name for one in called if one.operation == "parameter" and f"({number})" in one.rest[:20]]
        name = inside[0] if inside else operand
        readers = [one for one in called if name in one.operands]
        parts = readers and all(one.operation in PARTS and one.operands[0] == name for one in readers)
        yield sum(size(one.result) for one in readers) if parts else float("inf")


def _instruction(name: str, said: str) -> Instruction:
    end = _closing(said) + 1 if said.startswith("(") else said.index(" ")
    result, rest = said[:end], said[end:].lstrip()
    operation = rest[: rest.index("(")]
    inside = rest[len(operation) :]
    operands = re.findall(r"%([\w.\-]+)", inside[: _closing(inside)])
    return Instruction(name, result, operation, operands, inside)


def _closing(text: str) -> int:
    """Where the first parenthesis closes."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return len(text)
