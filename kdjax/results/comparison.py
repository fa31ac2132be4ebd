"""Which arms of a run are shown and compared, and with which.

Arms are those of results.json. All is decided on their weights and on validation, nothing on test images.
"""

from collections.abc import Mapping
from typing import Any

from kdjax.objective.terms import TERMS
from kdjax.results import intervals


def uses_teacher(arm: Mapping[str, Any]) -> bool:
    """Whether a term that needs the teacher has a weight in this arm; a term of an older version is taken for one."""
    return any(value and (term not in TERMS or TERMS[term].needs_teacher) for term, value in arm["weights"].items())


def validation_top1(arm: Mapping[str, Any]) -> float | None:
    """Mean over the seeds, None where all failed."""
    return intervals.mean(arm["val_top1"])


def select(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For each family of arms its trial with the highest mean validation top-1, the first of equals.

    An arm without a family is one of its own.
    """
    chosen: dict[str, str] = {}
    score = lambda name: validation_top1(arms[name]) or 0.0
    for name, arm in arms.items():
        family = arm.get("family", name)
        if family not in chosen or score(name) > score(chosen[family]):
            chosen[family] = name
    return chosen


def shown_arms(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arms of the table: of a family its selected trial."""
    names = results["selected"].values() if "selected" in results else results["arms"]
    return {name: results["arms"][name] for name in names}


def baselines(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The arms that use no teacher."""
    return [name for name, arm in arms.items() if not uses_teacher(arm)]


def find_alone(arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The arm that the others are compared with: of those that use no teacher the best on validation.

    With few labels that may be the student of all tiles or the one of the labelled tiles only, and a gain over the
    weaker one would be no gain by distillation. The first of equals; None where every arm uses the teacher.
    """
    score = lambda name: -1.0 if (top1 := validation_top1(arms[name])) is None else top1
    return max(baselines(arms), key=score, default=None)
