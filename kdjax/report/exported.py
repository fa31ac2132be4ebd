"""Checks that an export belongs to the current results: a directory may hold the export of an earlier run."""

import math
from collections.abc import Mapping
from typing import Any


def matches_results(student: Any, arms: Mapping[str, Any]) -> bool:
    """Whether an exported student is one of those in the results: their arm, seed and test figures agree.

    The figures agree up to rounding, because two programs computed them.
    """
    theirs = student.get("test") if isinstance(student, dict) else None
    if not isinstance(theirs, dict) or student.get("arm") not in list(arms):
        return False
    arm = arms[student["arm"]]
    if student.get("seed") not in arm["seeds"]:
        return False
    ours = arm["test_metrics"][arm["seeds"].index(student["seed"])] or {}
    return all(_close(ours.get(name), theirs.get(name)) for name in ("top1", "nll"))


def _close(first: float | None, second: float | None) -> bool:
    return first == second or (first is not None and second is not None and math.isclose(first, second, rel_tol=5e-3))
