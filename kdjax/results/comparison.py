"""Which arms of a run are shown and compared, and with which.

Arms are those of results.json. All is decided on their weights and on validation, nothing on test images.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.objective.terms import TERMS
from kdjax.results import intervals

UNEQUAL = 3.0
"""Classes are unequal where the largest has more than so many times the images of the smallest."""

NAMES = {"top1": "top-1", "macro_recall": "macro recall"}
"""What a run may be judged by."""


def judged_by(dataset: Mapping[str, Any]) -> str:
    """What a run is judged by: "macro_recall" where classes are unequal in training, else "top1".

    Top-1 mostly counts the frequent classes. Its steps are chosen by the same, on validation, and so are arms, trials
    and the student that is exported, so test images have no say. An older version's run has no counts, and figures of
    top-1 only.

    Args:
        dataset: the section of results.json, or {"class_counts": …} of its images.
    """
    counts = dataset.get("class_counts", {}).get("train", ())
    return "macro_recall" if any(counts) and max(counts) > UNEQUAL * min(counts) else "top1"


def judged_by_all(datasets: Iterable[Mapping[str, Any]]) -> str:
    """What runs are judged by that are put beside each other: "macro_recall" where one of them is."""
    return max(map(judged_by, datasets), key=tuple(NAMES).index)


def paired(
    first: Mapping[str, Any], second: Mapping[str, Any], measure: str
) -> tuple[list[float | None], list[float | None]]:
    """What two arms have on test with each seed that both have, in the order of the first; None where one failed."""
    tested = lambda arm: arm["test_top1"] if measure == "top1" else arm[measure]["test"]
    ours, theirs = (dict(zip(arm["seeds"], tested(arm), strict=True)) for arm in (first, second))
    shared = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]


def figures(arm: Mapping[str, Any], measure: str) -> Mapping[str, Any]:
    """Mean, std, ci95, p_vs_alone, minus_alone and bootstrap of an arm by this measure."""
    return arm if measure == "top1" else arm[measure]


def failed_seeds(arm: Mapping[str, Any]) -> list[int]:
    """The seeds of an arm without a finite result on test."""
    return [seed for seed, top1 in zip(arm["seeds"], arm["test_top1"], strict=True) if top1 is None]


def uses_teacher(arm: Mapping[str, Any]) -> bool:
    """Whether a term that needs the teacher has a weight in this arm; a term of an older version is taken for one."""
    return any(value and (term not in TERMS or TERMS[term].needs_teacher) for term, value in arm["weights"].items())


def on_validation(arm: Mapping[str, Any], measure: str) -> float | None:
    """Mean over the seeds, None where all failed."""
    return intervals.mean(arm[f"val_{measure}"])


def rank(arm: Mapping[str, Any], measure: str = "top1") -> tuple[float, float, float]:
    """What the best on validation has most of: the share of the seeds that ended well, then the mean over these.

    The mean alone would prefer an arm for the seeds that it lost. Of equals the lower mean NLL is better, as where
    `export` chooses; an earlier version did not keep it.
    """
    values, nll = arm[f"val_{measure}"], intervals.mean(arm.get("val_nll", ()))
    return (
        sum(value is not None for value in values) / max(len(values), 1),
        on_validation(arm, measure) or 0.0,
        -math.inf if nll is None else -nll,
    )


def select(arms: Mapping[str, Mapping[str, Any]], measure: str) -> dict[str, str]:
    """For each family of arms its best trial on validation by `rank`, the first of equals.

    An arm without a family is one of its own.
    """
    chosen: dict[str, str] = {}
    for name, arm in arms.items():
        family = arm.get("family", name)
        if family not in chosen or rank(arm, measure) > rank(arms[chosen[family]], measure):
            chosen[family] = name
    return chosen


def selected(results: Mapping[str, Any]) -> dict[str, str]:
    """The arm of each family that the table shows; an arm without a family is one of its own."""
    return dict(results["selected"]) if "selected" in results else {name: name for name in results["arms"]}


def shown_arms(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arms of the table: of a family its selected trial."""
    return {name: results["arms"][name] for name in selected(results).values()}


def baselines(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The arms that use no teacher."""
    return [name for name, arm in arms.items() if not uses_teacher(arm)]


def find_alone(arms: Mapping[str, Mapping[str, Any]], measure: str) -> str | None:
    """The arm that the others are compared with: of those that use no teacher the best on validation by `rank`.

    With few labels that may be the student of all tiles or the one of the labeled tiles only, and a gain over the
    weaker one would be no gain by distillation. The first of equals; None where every arm uses the teacher.
    """
    return max(baselines(arms), key=lambda name: rank(arms[name], measure), default=None)


def passed_over(arms: Mapping[str, Mapping[str, Any]], alone: str | None, measure: str) -> list[str]:
    """The arms without a teacher that lost more seeds than `alone`, and with the others do better on validation.

    What is better than `alone` may still be worse than these.
    """
    reached = (on_validation(arms[alone], measure) or 0.0) if alone else 0.0
    return [name for name in baselines(arms) if (on_validation(arms[name], measure) or 0.0) > reached]
