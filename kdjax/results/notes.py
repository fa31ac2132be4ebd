"""What a reader must know to read the closing table: sentences, without markup."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdjax.results import document, formats, intervals
from kdjax.results.comparison import (
    NAMES,
    baselines,
    failed_seeds,
    figures,
    find_alone,
    judged_by,
    passed_over,
    shown_arms,
)


def table_notes(results: Mapping[str, Any]) -> list[str]:
    """One sentence or two each.

    Args:
        results: as from `document.build`, or read from results.json.
    """
    arms, student, dataset = shown_arms(results), results["student"], results["dataset"]
    judged = judged_by(dataset)
    alone = find_alone(arms, judged)
    notes = []
    if not document.is_final(results):
        notes.append(f"NOT FINAL: the students are at step {student['step']} of {student['total_steps']}.")
    return [
        *notes,
        *_unequal(dataset),
        *_one_image(dataset),
        _seeds(results),
        *_comparison(arms, alone, judged),
        *_symmetries(arms),
        *_trials(results),
        *_failed(arms),
        *([] if results["teacher"] is None else _teacher(results["teacher"], arms, alone, judged)),
        *([] if results["teacher"] is None else [compression(results["teacher"], student)]),
    ]


def labels(dataset: Mapping[str, Any]) -> str:
    """600 of 5 940 labels; empty where every training image has one."""
    counts = dataset.get("labels")
    if counts is None or counts["labeled"] == counts["total"]:
        return ""
    return f"{formats.grouped(counts['labeled'])} of {formats.grouped(counts['total'])} labels"


def _unequal(dataset: Mapping[str, Any]) -> Iterator[str]:
    """That macro figures come first, and why."""
    if judged_by(dataset) == "top1":
        return
    sides = ((dataset["class_counts"][side], name) for side, name in (("train", "training"), ("test", "test")))
    spans = [f"{_span(counts)} labeled {name} images" for counts, name in sides if any(counts)]
    yield (
        f"Classes are unequal, {' and '.join(spans)} per class, so macro recall (balanced accuracy), the mean over the "
        "classes, comes first. Intervals, p and all choices on validation use it. Top-1 mostly counts the frequent "
        "classes."
    )


def _span(counts: Sequence[int]) -> str:
    """8 to 60, or 40."""
    low, high = min(counts), max(counts)
    return f"{low} to {high}" if low < high else f"{low}"


def _one_image(dataset: Mapping[str, Any]) -> Iterator[str]:
    """What a single test image is worth."""
    tested, judged = dataset["splits"]["test"], judged_by(dataset)
    if not tested:
        return
    if judged == "top1":
        yield f"{tested} test images: one of them is {formats.points(1 / tested)} points of top-1."
        return
    counts = [count for count in dataset["class_counts"]["test"] if count]
    worth = [formats.points(1 / len(counts) / count) for count in (min(counts), max(counts))]
    yield f"{tested} test images: one of them is " + (
        f"{worth[0]} points of macro recall."
        if worth[0] == worth[1]
        else f"{worth[1]} points of macro recall in the largest class and {worth[0]} in the smallest."
    )


def _seeds(results: Mapping[str, Any]) -> str:
    """What the seeds can and cannot show."""
    arms, taught = shown_arms(results), results["teacher"] is not None
    shared = "one split and one teacher" if taught else "one split"
    others = "other splits or other teachers" if taught else "other splits"
    if not any(len(arm["seeds"]) > 1 for arm in results["arms"].values()):
        return (
            "One seed proves nothing: it allows neither an interval nor a test. Set several seeds to compare "
            f"arms; they would still share {shared}."
        )
    seeds = sorted({seed for arm in arms.values() for seed in arm["seeds"]})
    over = f"Over seeds {', '.join(map(str, seeds))}: mean ± standard deviation (n - 1)"
    judged = judged_by(results["dataset"])
    several = [arm for arm in arms.values() if sum(one is not None for one in arm["test_top1"]) >= intervals.FEWEST]
    if not several:
        return (
            f"{over}. An interval or a test takes {intervals.FEWEST} seeds. All seeds share {shared}, so their spread "
            f"says nothing about {others}."
        )
    alike = not all(figures(arm, judged)["ci95"] for arm in several)
    return (
        f"{over} and 95 % interval (Student's t in Wilson's form, which stays between 0 and 100). All seeds share "
        f"{shared}, so the interval says nothing about {others}."
        + (" Identical seeds have no spread, and so no interval." if alike else "")
    )


def _comparison(arms: Mapping[str, Mapping[str, Any]], alone: str | None, judged: str) -> Iterator[str]:
    """Against which arm, by which test, and the bootstrap over the test images."""
    without, better = baselines(arms), passed_over(arms, alone, judged)
    if len(without) > 1 and len(arms) > len(without):
        which = f"Gains are over {alone}: of {' and '.join(without)}, which use no teacher,"
        if better:
            yield (
                f"{which} it lost the fewest seeds. With the seeds that succeeded {' and '.join(better)} did better "
                f"on validation, so a gain over {alone} does not show that distillation helps."
            )
        else:
            yield f"{which} none does better on validation."
    found = {name: figures(arm, judged) for name, arm in arms.items()}
    compared = [name for name, one in found.items() if one["p_vs_alone"] is not None]
    if compared:
        yield (
            f"p: two-sided paired t-test against {alone} over the same seeds, Holm-corrected over "
            f"{len(compared)} {'arm' if len(compared) == 1 else 'arms'}."
        )
    gains = {name: one["bootstrap"] for name, one in found.items() if one.get("bootstrap")}
    if gains:
        yield (
            f"Points of {NAMES[judged]} over {alone}, and 95 % interval of a paired bootstrap over the test images"
            f"{' of each class' if judged != 'top1' else ''}: "
            + ", ".join(
                f"{name} {formats.signed_points(gain['difference'])} "
                f"({' to '.join(map(formats.signed_points, gain['ci95']))})"
                for name, gain in gains.items()
            )
            + ". It says what other test images might have shown of these students, not what other seeds would."
        )


def _symmetries(arms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    symmetric = {
        name: intervals.summary(arm["symmetries_top1"]) for name, arm in arms.items() if "symmetries_top1" in arm
    }
    if symmetric:
        yield (
            "Top-1 with the mean probabilities over the eight symmetries of each test image, at eight times the cost: "
            + ", ".join(
                f"{name} {formats.percent_and_spread(one['mean'], one['std'])}" for name, one in symmetric.items()
            )
            + " %."
        )


def _trials(results: Mapping[str, Any]) -> Iterator[str]:
    if "selected" in results:
        trials = {name: 0 for name in results["selected"]}
        for name, arm in results["arms"].items():
            trials[arm.get("family", name)] += 1
        yield (
            f"Each row is the trial with the best validation {NAMES[judged_by(results['dataset'])]} of its family: "
            + ", ".join(f"{name} of {count}" for name, count in trials.items())
            + ". The other trials are in results.json."
        )


def _failed(arms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, arm in arms.items():
        if failed := failed_seeds(arm):
            yield lost(name, numbered(failed), len(failed))


def lost(name: str, which: str, count: int) -> str:
    """That an arm, or a row, has not all its seeds; `which` names the `count` that failed."""
    left = f"{'is' if count == 1 else 'are'} left out of its mean and of every comparison with it"
    return f"{name}: {which} failed (no finite result) and {left}."


def numbered(seeds: Sequence[int]) -> str:
    """Seed 1, or seeds 1, 2."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _teacher(
    teacher: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]], alone: str | None, judged: str
) -> Iterator[str]:
    """How the students stand to the teacher, and whether it is the weaker network."""
    theirs = teacher["test"].get(judged)
    means = {name: figures(arm, judged)["mean"] for name, arm in arms.items()}
    if hidden := teacher.get("hidden_labels"):
        yield f"The teacher was trained with {hidden} labels that are hidden from the students."
    if teacher["forward_images"] is not None:
        yield f"The teacher was run on {teacher['forward_images']} images for all students together."
    gaps = {name: mean - theirs for name, mean in means.items() if theirs is not None and mean is not None}
    if not gaps:
        return
    yield (
        f"Student minus teacher, points of test {NAMES[judged]}: "
        + ", ".join(f"{name} {formats.signed_points(gap)}" for name, gap in gaps.items())
        + "."
    )
    if alone in gaps and gaps[alone] > intervals.ROUNDING:
        yield (
            f"The teacher is the weaker network here: {formats.percent(theirs)} % against "
            f"{formats.percent(means[alone])} % of {alone}, which never saw it. So a gain from distillation is "
            "not that of a better network passing on what it knows."
        )
    elif alone not in gaps and max(gaps.values()) > intervals.ROUNDING:
        best = max(gaps, key=lambda name: gaps[name])
        yield (
            f"The teacher is the weaker network here: {formats.percent(theirs)} % against "
            f"{formats.percent(means[best])} % of {best}."
        )


def compression(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    """How much smaller the student is, with and without VGG16's fully connected head, in plain words.

    Args:
      teacher, student: params, macs and, where known, activation_bytes; teacher: head and heads (head -> its params),
        where there is a choice of heads.
    """
    kinds = {"params": "parameters", "macs": "multiply-adds", "activation_bytes": "bytes of activations"}
    ratios = [
        f"{teacher[key] / student[key]:.3g} times the {words} "
        f"({formats.short(teacher[key])} to {formats.short(student[key])})"
        for key, words in kinds.items()
        if teacher.get(key) and student.get(key)
    ]
    if not ratios:
        return "The size of the teacher is not known."
    text = f"Teacher to student: {', '.join(ratios)}."
    if "activation_bytes" in teacher:
        text += " Activations: the largest input and output of one layer together, float32, one image."
    for head, cost in teacher.get("heads", {}).items():
        if head != teacher["head"]:
            which = "With VGG16's fully connected head" if head == "fc" else "Without its fully connected head"
            text += (
                f" {which} the teacher would have {formats.short(cost['params'])} parameters, "
                f"{cost['params'] / student['params']:.3g} times the student's."
            )
    return text
