"""Whose student an export holds: a directory may have one of a run that was there before."""

import math
from collections.abc import Mapping
from typing import Any


def is_of(student: Any, arms: Mapping[str, Any]) -> bool:
    """Whether an exported student is one of those that were measured: its arm and seed are, and its figures are theirs.

    The figures come from two programs, which round differently.
    """
    theirs = student.get("test") if isinstance(student, dict) else None
    if not isinstance(theirs, dict) or student.get("arm") not in list(arms):
        return False
    arm = arms[student["arm"]]
    if student.get("seed") not in arm["seeds"]:
        return False
    ours = arm["test_metrics"][arm["seeds"].index(student["seed"])] or {}
    return all(_close(ours.get(name), theirs.get(name)) for name in ("top1", "nll"))


def _close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=5e-3))
