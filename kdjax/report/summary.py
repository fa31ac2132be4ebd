"""States the finding of a run in plain words, with its uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.results import formats, intervals, notes
from kdjax.results.comparison import (
    NAMES,
    baselines,
    better_baselines,
    failed_seeds,
    figures,
    find_alone,
    judged_by,
    on_validation,
    rank,
    shown_arms,
    uses_teacher,
)


def leading_arm(results: Mapping[str, Any], measure: str | None = None) -> str | None:
    """Returns the arm that the report examines closely: the best one on validation of those that use the teacher.

    If no arm uses the teacher, or all that do have failed, it is the best of the others; None if all failed.

    Args:
        results: the content of results.json.
        judged: the measure; None = the one that the run is judged by.
    """
    arms, measure = shown_arms(results), measure or judged_by(results["dataset"])
    successful = [
        name for name, arm in arms.items() if arm["mean"] is not None and on_validation(arm, measure) is not None
    ]
    taught_arms = [name for name in successful if uses_teacher(arms[name])]
    return max(taught_arms or successful, key=lambda name: rank(arms[name], measure), default=None)


def finding(results: Mapping[str, Any]) -> str:
    """States how the leading arm compares with the student alone and the teacher, and how certain the gain is.

    Args:
        results: the content of results.json.
    """
    arms, name = shown_arms(results), leading_arm(results)
    if name is None:
        return "No student ended with a finite result, so there is nothing to compare."
    measure = judged_by(results["dataset"])
    arms = {arm: {**values, **figures(values, measure)} for arm, values in arms.items()}
    arm, alone = arms[name], find_alone(arms, measure)
    better_alone = better_baselines(arms, alone, measure)
    test_images = results["dataset"]["splits"]["test"]
    trials = [trial for trial in results["arms"].values() if uses_teacher(trial) == uses_teacher(arm)]
    selection = " (chosen on validation)" if len(trials) > 1 else ""
    theirs = arms[alone] if alone is not None and name != alone and arms[alone]["mean"] is not None else None
    label_count = notes.labels(results["dataset"])
    subject = f"With {label_count}, the student" if label_count else "The student"
    text = f"{subject} {name}{selection} is right on {formats.percent(arm['mean'])} % of the {test_images} test images"
    text += _seed_share(arm)
    if measure != "top1":
        text += f", averaged over the classes ({NAMES[measure]})"
    if theirs is not None:
        baseline = "the student trained alone"
        if better_alone:
            baseline = f"{alone}, which lost the fewest seeds of those trained without the teacher,"
        elif len(baselines(arms)) > 1:
            baseline = f"{alone}, on validation no worse than any other trained without the teacher,"
        text += f", {baseline} on {formats.percent(theirs['mean'])} %{_seed_share(theirs)}"
    teacher = results["teacher"] and results["teacher"]["test"].get(measure)
    text += f", the teacher on {formats.percent(teacher)} %." if teacher is not None else "."
    if not uses_teacher(arm):
        if any(map(uses_teacher, arms.values())):
            return f"{text} Every student that learned from the teacher failed."
        return f"{text} No student that learned from a teacher is here to compare with."
    if theirs is None:
        if alone is not None:
            return f"{text} Every seed of {alone}, trained without the teacher, failed."
        return f"{text} No student trained without the teacher is here to compare with."
    gain = arm["minus_alone"]
    if gain is None or gain["mean"] is None:
        return f"{text} The two students have no successful seed in common, so they cannot be compared."
    return f"{text} {_uncertainty(arm, theirs, gain, len(arms), better_alone)}"


def _finished_seeds(arm: Mapping[str, Any]) -> set[int]:
    return set(arm["seeds"]) - set(failed_seeds(arm))


def _seed_share(arm: Mapping[str, Any]) -> str:
    """States how many seeds count in a mean; empty if no seed failed."""
    succeeded, count = len(_finished_seeds(arm)), len(arm["seeds"])
    return f" (over {succeeded} of {count} seeds)" if succeeded < count else ""


def _uncertainty(
    arm: Mapping[str, Any], theirs: Mapping[str, Any], gain: Mapping[str, Any], arms: int, better: Sequence[str]
) -> str:
    """States how certain the gain is; `better` holds the names from `comparison.better_baselines`."""
    seeds = len(_finished_seeds(arm) & _finished_seeds(theirs))
    # If seeds failed, the paired difference is not the difference of the two means.
    some_failed = bool(failed_seeds(arm) or failed_seeds(theirs))
    restriction = ", those in which both succeeded" if some_failed else ""
    difference = f"{signed(gain['mean'])} points"
    intro = f"Over {seeds} seeds{restriction}{',' if some_failed else ''} the difference is {difference}"
    p = arm["p_vs_alone"]
    # Older versions gave equal differences an interval that is a single point.
    if gain["ci95"] is None or p is None:
        bounds = arm["bootstrap"]["ci95"] if arm.get("bootstrap") else None
        over_images = (
            f"Other test images might have shown {signed(bounds[0])} to {signed(bounds[1])} points. " if bounds else ""
        )
        if seeds >= intervals.FEWEST:
            # If all differences are 0, the table has p = 1.
            test = " and no test" if p is None else f", and p = {p:.3f} says only that they are equal"
            return (
                f"{intro}, the same for each of them. {over_images}How far another seed would move it is "
                f"not known: without spread there is no interval{test}."
            )
        if seeds > 1:
            return (
                f"The difference is {difference}, from {seeds} seeds{restriction}. {over_images}It takes "
                f"{intervals.FEWEST} seeds to say how far another seed would move it."
            )
        only = ", the only one in which both succeeded" if some_failed else ""
        return (
            f"The difference is {difference}, from one seed{only}. {over_images}How far another seed would move it is "
            "not known: one seed proves nothing."
        )
    low, high = gain["ci95"]
    text = f"{intro}, 95 % interval {signed(low)} to {signed(high)}"
    text += f", p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}" + (" after Holm's correction" if arms > 2 else "")
    if low <= 0 <= high:
        return f"{text}. The interval contains 0: these seeds do not show that distillation helps or harms."
    if better and gain["mean"] > 0:
        return (
            f"{text}. But with the seeds that succeeded {' and '.join(better)} did better on validation, so this does "
            "not show that distillation helps."
        )
    direction = "helps" if gain["mean"] > 0 else "harms"
    if p < 0.05:
        return f"{text}. On this split and with this teacher, distillation {direction}."
    return f"{text}. The interval lies on one side of 0, but p is not below 0.05: weak evidence that it {direction}."


def signed(fraction: float) -> str:
    """0.0123 → +1.23, −0.0123 → −1.23, with the typographic minus sign."""
    return formats.signed_points(fraction).replace("-", "−")
