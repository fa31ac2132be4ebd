"""What a run found, in plain words and with its uncertainty."""

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


def leading_arm(results: Mapping[str, Any], judged: str | None = None) -> str | None:
    """The arm that is looked at closely: of those taught by the teacher the one that is best on validation.

    Where no student was taught, or all of those failed, the best of the others; None where all failed. `judged` is by
    what; None = by what the run is.
    """
    arms, judged = shown_arms(results), judged or judged_by(results["dataset"])
    finished = [
        name for name, arm in arms.items() if arm["mean"] is not None and on_validation(arm, judged) is not None
    ]
    taught = [name for name in finished if uses_teacher(arms[name])]
    return max(taught or finished, key=lambda name: rank(arms[name], judged), default=None)


def finding(results: Mapping[str, Any]) -> str:
    """What the leading arm reaches, against the student alone and the teacher, and what that is worth.

    Args:
        results: the content of results.json.
    """
    arms, name = shown_arms(results), leading_arm(results)
    if name is None:
        return "No student ended with a finite result, so there is nothing to compare."
    judged = judged_by(results["dataset"])
    arms = {arm: {**one, **figures(one, judged)} for arm, one in arms.items()}
    arm, alone = arms[name], find_alone(arms, judged)
    better = better_baselines(arms, alone, judged)
    tested = results["dataset"]["splits"]["test"]
    chosen = " (chosen on validation)" if len(arms) > 2 else ""
    theirs = arms[alone] if alone is not None and name != alone and arms[alone]["mean"] is not None else None
    few = notes.labels(results["dataset"])
    who = f"With {few}, the student" if few else "The student"
    said = f"{who} {name}{chosen} is right on {formats.percent(arm['mean'])} % of the {tested} test images"
    said += _of_seeds(arm)
    if judged != "top1":
        said += f", averaged over the classes ({NAMES[judged]})"
    if theirs is not None:
        which = "the student trained alone"
        if better:
            which = f"{alone}, which lost the fewest seeds of those trained without the teacher,"
        elif len(baselines(arms)) > 1:
            which = f"{alone}, on validation no worse than any other trained without the teacher,"
        said += f", {which} on {formats.percent(theirs['mean'])} %{_of_seeds(theirs)}"
    teacher = results["teacher"] and results["teacher"]["test"].get(judged)
    said += f", the teacher on {formats.percent(teacher)} %." if teacher is not None else "."
    if not uses_teacher(arm):
        if any(map(uses_teacher, arms.values())):
            return f"{said} Every student that learned from the teacher failed."
        return f"{said} No student that learned from a teacher is here to compare with."
    if theirs is None:
        if alone is not None:
            return f"{said} Every seed of {alone}, trained without the teacher, failed."
        return f"{said} No student trained without the teacher is here to compare with."
    gain = arm["minus_alone"]
    if gain is None or gain["mean"] is None:
        return f"{said} The two students have no successful seed in common, so they cannot be compared."
    return f"{said} {_uncertainty(arm, theirs, gain, len(arms), better)}"


def _finished_seeds(arm: Mapping[str, Any]) -> set[int]:
    return set(arm["seeds"]) - set(failed_seeds(arm))


def _of_seeds(arm: Mapping[str, Any]) -> str:
    """Over how many of its seeds a mean is, where some failed."""
    finished, every = len(_finished_seeds(arm)), len(arm["seeds"])
    return f" (over {finished} of {every} seeds)" if finished < every else ""


def _uncertainty(
    arm: Mapping[str, Any], theirs: Mapping[str, Any], gain: Mapping[str, Any], arms: int, better: Sequence[str]
) -> str:
    """What the gain is worth; `better` are the arms without a teacher that were passed over for their failed seeds."""
    seeds = len(_finished_seeds(arm) & _finished_seeds(theirs))
    # Where seeds were lost, the difference is not that of the means.
    lost = bool(failed_seeds(arm) or failed_seeds(theirs))
    those = ", those in which both succeeded" if lost else ""
    difference = f"{signed(gain['mean'])} points"
    over = f"Over {seeds} seeds{those}{',' if lost else ''} the difference is {difference}"
    p = arm["p_vs_alone"]
    # An older version gave equal differences an interval, of a single point.
    if gain["ci95"] is None or p is None:
        boot = arm.get("bootstrap")
        over_images = (
            f"Other test images might have shown {signed(boot['ci95'][0])} to {signed(boot['ci95'][1])} points. "
            if boot
            else ""
        )
        if seeds >= intervals.FEWEST:
            # Of differences that are all 0 the table has p = 1.
            test = " and no test" if p is None else f", and p = {p:.3f} says only that they are equal"
            return (
                f"{over}, the same for each of them. {over_images}How far another seed would move it is "
                f"not known: without spread there is no interval{test}."
            )
        if seeds > 1:
            return (
                f"The difference is {difference}, from {seeds} seeds{those}. {over_images}How far another seed would "
                f"move it takes {intervals.FEWEST} seeds to say."
            )
        only = ", the only one in which both succeeded" if lost else ""
        return (
            f"The difference is {difference}, from one seed{only}. {over_images}How far another seed would move it is "
            "not known: one seed proves nothing."
        )
    low, high = gain["ci95"]
    said = f"{over}, 95 % interval {signed(low)} to {signed(high)}"
    said += f", p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}" + (" after Holm's correction" if arms > 2 else "")
    if low <= 0 <= high:
        return f"{said}. The interval contains 0: these seeds do not show that distillation helps or harms."
    if better and gain["mean"] > 0:
        return (
            f"{said}. But with the seeds that succeeded {' and '.join(better)} did better on validation, so this does "
            "not show that distillation helps."
        )
    direction = "helps" if gain["mean"] > 0 else "harms"
    if p < 0.05:
        return f"{said}. On this split and with this teacher, distillation {direction}."
    return f"{said}. The interval lies on one side of 0, but p is not below 0.05: weak evidence that it {direction}."


def signed(fraction: float) -> str:
    """0.0123 → +1.23, with the sign of print."""
    return formats.signed_points(fraction).replace("-", "−")
