"""Chooses which arms of a run are shown, and which ones are compared.

Arms are dictionaries as in results.json. Every choice depends on their weights and on validation, never on test images.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.objective.terms import TERMS
from kdjax.results import intervals

UNEQUAL = 3.0
"""Classes count as unequal if the largest has more than this many times the images of the smallest."""

NAMES = {"top1": "top-1", "macro_recall": "macro recall"}
"""The measures that a run may be judged by, with their names in tables."""


def judged_by(dataset: Mapping[str, Any]) -> str:
    """Returns the measure a run is judged by: "macro_recall" if its training classes are unequal, otherwise "top1".

    Top-1 mostly counts the frequent classes. On validation, the same measure chooses the run's steps, arms, trials and
    the student to export, so test images have no influence. A run of an older version has no counts and only top-1.

    Args:
        dataset: the section of results.json, or {"class_counts": …} of the run's images.
    """
    counts = dataset.get("class_counts", {}).get("train", ())
    return "macro_recall" if any(counts) and max(counts) > UNEQUAL * min(counts) else "top1"


def judged_by_all(datasets: Iterable[Mapping[str, Any]]) -> str:
    """Returns the measure for runs that are compared with each other: "macro_recall" if any of them is judged by it."""
    return max(map(judged_by, datasets), key=tuple(NAMES).index)


def paired(
    first: Mapping[str, Any], second: Mapping[str, Any], measure: str
) -> tuple[list[float | None], list[float | None]]:
    """Returns two arms' test values of a measure for their common seeds, in the first arm's order; None = failed."""
    test_values = lambda arm: arm["test_top1"] if measure == "top1" else arm[measure]["test"]
    ours, theirs = (dict(zip(arm["seeds"], test_values(arm), strict=True)) for arm in (first, second))
    shared = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]


def figures(arm: Mapping[str, Any], measure: str) -> Mapping[str, Any]:
    """Returns the dictionary with an arm's mean, std, ci95, p_vs_alone, minus_alone and bootstrap by this measure."""
    return arm if measure == "top1" else arm[measure]


def failed_seeds(arm: Mapping[str, Any]) -> list[int]:
    """Returns the seeds of an arm that have no finite result on test."""
    return [seed for seed, top1 in zip(arm["seeds"], arm["test_top1"], strict=True) if top1 is None]


def uses_teacher(arm: Mapping[str, Any]) -> bool:
    """Whether an arm gives weight to a term that needs the teacher; terms of older versions count as such."""
    return any(value and (term not in TERMS or TERMS[term].needs_teacher) for term, value in arm["weights"].items())


def settings(results: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Returns how an arm trains besides its losses: learning_rate, weight_decay, labeled_only and class_weights.

    Earlier versions recorded the first two in the configuration only; None if that lacks them, too.
    """
    facts, config = results["arms"][arm], results["config"]
    configured = {**config.get("student", {}), **config.get("arms", {}).get(arm, {})}
    rates = {name: facts.get(name, configured.get(name)) for name in ("learning_rate", "weight_decay")}
    return {
        **rates,
        "labeled_only": facts.get("labeled_only", False),
        "class_weights": facts.get("class_weights", []),
    }


def on_validation(arm: Mapping[str, Any], measure: str) -> float | None:
    """Returns an arm's mean on validation over its seeds; None if all failed."""
    return intervals.mean(arm[f"val_{measure}"])


def rank(arm: Mapping[str, Any], measure: str = "top1") -> tuple[float, float, float]:
    """Returns the sort key of an arm on validation, larger = better: share of successful seeds, their mean, −mean NLL.

    The mean alone would favor an arm whose bad seeds failed. The NLL breaks ties, as in the choice of `export`;
    earlier versions did not store it.
    """
    values, nll = arm[f"val_{measure}"], intervals.mean(arm.get("val_nll", ()))
    return (
        sum(value is not None for value in values) / max(len(values), 1),
        on_validation(arm, measure) or 0.0,
        -math.inf if nll is None else -nll,
    )


def select(arms: Mapping[str, Mapping[str, Any]], measure: str) -> dict[str, str]:
    """Returns the best trial of each family on validation by `rank`; the first one wins a tie.

    An arm without a family forms its own.
    """
    best_trials: dict[str, str] = {}
    for name, arm in arms.items():
        family = arm.get("family", name)
        if family not in best_trials or rank(arm, measure) > rank(arms[best_trials[family]], measure):
            best_trials[family] = name
    return best_trials


def selected(results: Mapping[str, Any]) -> dict[str, str]:
    """Returns the arm of each family that the table shows; an arm without a family forms its own."""
    return dict(results["selected"]) if "selected" in results else {name: name for name in results["arms"]}


def shown_arms(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the arms that the table shows: the selected trial of each family."""
    return {name: results["arms"][name] for name in selected(results).values()}


def baselines(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the names of the arms that use no teacher."""
    return [name for name, arm in arms.items() if not uses_teacher(arm)]


def find_alone(arms: Mapping[str, Mapping[str, Any]], measure: str) -> str | None:
    """Returns the arm that the others are compared with: the best one without a teacher, on validation by `rank`.

    With few labels, that may be the student of all tiles or the student of the labeled tiles only; a gain over the
    weaker of the two would not be a gain from distillation. The first one wins a tie; None if every arm uses the
    teacher.
    """
    return max(baselines(arms), key=lambda name: rank(arms[name], measure), default=None)


def better_baselines(arms: Mapping[str, Mapping[str, Any]], alone: str | None, measure: str) -> list[str]:
    """Returns the arms without a teacher whose mean on validation is better than that of `alone`.

    `find_alone` passed them over because more of their seeds failed. An arm that beats `alone` may still be worse than
    one of these.
    """
    best = (on_validation(arms[alone], measure) or 0.0) if alone else 0.0
    return [name for name in baselines(arms) if (on_validation(arms[name], measure) or 0.0) > best]
