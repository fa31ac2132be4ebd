"""The notes below the closing table: what a reader must know to interpret it, as sentences without markup."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kdjax.results import document, formats, intervals
from kdjax.results.comparison import (
    NAMES,
    baselines,
    better_baselines,
    failed_seeds,
    figures,
    find_alone,
    judged_by,
    settings,
    shown_arms,
)


def table_notes(results: Mapping[str, Any]) -> list[str]:
    """Returns the notes of a run, each one or two sentences or more.

    Args:
        results: from `document.build`, or read from results.json.
    """
    arms, student, dataset = shown_arms(results), results["student"], results["dataset"]
    measure = judged_by(dataset)
    alone = find_alone(arms, measure)
    notes = []
    if not document.is_final(results):
        notes.append(f"NOT FINAL: the students are at step {student['step']} of {student['total_steps']}.")
    return [
        *notes,
        *_unequal(dataset),
        *_one_image(dataset),
        _seeds(results),
        *_comparison(arms, alone, measure),
        *_settings(results, arms, alone),
        *_symmetries(arms),
        *_trials(results),
        *_failures(arms),
        *([] if results["teacher"] is None else _teacher(results["teacher"], arms, alone, measure)),
        *([] if results["teacher"] is None else [compression(results["teacher"], student)]),
    ]


def labels(dataset: Mapping[str, Any]) -> str:
    """600 of 5 940 labels; empty if every training image has one."""
    counts = dataset.get("labels")
    if counts is None or counts["labeled"] == counts["total"]:
        return ""
    return f"{formats.grouped(counts['labeled'])} of {formats.grouped(counts['total'])} labels"


def _unequal(dataset: Mapping[str, Any]) -> Iterator[str]:
    """Explains why macro figures come first if classes are unequal."""
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
    """8 to 60; 40 if all counts are equal."""
    low, high = min(counts), max(counts)
    return f"{low} to {high}" if low < high else f"{low}"


def _one_image(dataset: Mapping[str, Any]) -> Iterator[str]:
    """States how many points a single test image is worth."""
    test_images, measure = dataset["splits"]["test"], judged_by(dataset)
    if not test_images:
        return
    if measure == "top1":
        yield f"{test_images} test images: one of them is {formats.points(1 / test_images)} points of top-1."
        return
    counts = [count for count in dataset["class_counts"]["test"] if count]
    worth = [formats.points(1 / len(counts) / count) for count in (min(counts), max(counts))]
    yield f"{test_images} test images: one of them is " + (
        f"{worth[0]} points of macro recall."
        if worth[0] == worth[1]
        else f"{worth[1]} points of macro recall in the largest class and {worth[0]} in the smallest."
    )


def _seeds(results: Mapping[str, Any]) -> str:
    """States what the seeds can and cannot show."""
    arms, has_teacher = shown_arms(results), results["teacher"] is not None
    common = "one split and one teacher" if has_teacher else "one split"
    others = "other splits or other teachers" if has_teacher else "other splits"
    if not any(len(arm["seeds"]) > 1 for arm in results["arms"].values()):
        return (
            "One seed proves nothing: it allows neither an interval nor a test. Set several seeds to compare "
            f"arms; they would still share {common}."
        )
    seeds = sorted({seed for arm in arms.values() for seed in arm["seeds"]})
    intro = f"Over seeds {', '.join(map(str, seeds))}: mean ± standard deviation (n - 1)"
    measure = judged_by(results["dataset"])
    with_interval = [
        arm for arm in arms.values() if sum(top1 is not None for top1 in arm["test_top1"]) >= intervals.FEWEST
    ]
    if not with_interval:
        return (
            f"{intro}. An interval or a test takes {intervals.FEWEST} seeds. All seeds share {common}, so their spread "
            f"says nothing about {others}."
        )
    identical = not all(figures(arm, measure)["ci95"] for arm in with_interval)
    return (
        f"{intro} and 95 % interval (Student's t in Wilson's form, which stays between 0 and 100). All seeds share "
        f"{common}, so the interval says nothing about {others}."
        + (" Identical seeds have no spread, and so no interval." if identical else "")
    )


def _comparison(arms: Mapping[str, Mapping[str, Any]], alone: str | None, measure: str) -> Iterator[str]:
    """Names the arm that the others are compared with and the test, and gives the bootstrap over the test images."""
    yield from baseline_note(alone, baselines(arms), better_baselines(arms, alone, measure), len(arms))
    figures_by_arm = {name: figures(arm, measure) for name, arm in arms.items()}
    arms_with_p = [name for name, arm_figures in figures_by_arm.items() if arm_figures["p_vs_alone"] is not None]
    if arms_with_p:
        yield (
            f"p: two-sided paired t-test against {alone} over the same seeds, Holm-corrected over "
            f"{len(arms_with_p)} {'arm' if len(arms_with_p) == 1 else 'arms'}."
        )
    gains = {
        name: arm_figures["bootstrap"] for name, arm_figures in figures_by_arm.items() if arm_figures.get("bootstrap")
    }
    if gains:
        yield (
            f"Points of {NAMES[measure]} over {alone}, and 95 % interval of a paired bootstrap over the test images"
            f"{' of each class' if measure != 'top1' else ''}: "
            + ", ".join(
                f"{name} {formats.signed_points(gain['difference'])} "
                f"({' to '.join(map(formats.signed_points, gain['ci95']))})"
                for name, gain in gains.items()
            )
            + ". It says what other test images might have shown of these students, not what other seeds would."
        )


def baseline_note(alone: str | None, without_teacher: Sequence[str], better: Sequence[str], arms: int) -> Iterator[str]:
    """Says why gains are over `alone` if others could have been the baseline.

    Args:
        alone: from `comparison.find_alone`.
        without_teacher: from `comparison.baselines`.
        better: from `comparison.better_baselines`.
        arms: the number of all arms.
    """
    if not 1 < len(without_teacher) < arms:
        return
    intro = f"Gains are over {alone}: of {' and '.join(without_teacher)}, which use no teacher,"
    if better:
        yield (
            f"{intro} it lost the fewest seeds. With the seeds that succeeded {' and '.join(better)} did better on "
            f"validation, so a gain over {alone} does not show that distillation helps."
        )
    else:
        yield f"{intro} none does better on validation."


def _settings(results: Mapping[str, Any], arms: Iterable[str], alone: str | None) -> Iterator[str]:
    """Names the settings besides the losses in which arms differ from the arm that they are compared with."""
    if alone is None:
        return
    baseline = settings(results, alone)
    settings_by_arm = {name: settings(results, name) for name in arms}
    arms_by_text: dict[str, list[str]] = {}
    for name, arm_settings in settings_by_arm.items():
        if differences := setting_differences(arm_settings, baseline):
            arms_by_text.setdefault(differences, []).append(name)
    if baseline["labeled_only"] and not all(arm["labeled_only"] for arm in settings_by_arm.values()):
        yield f"{alone} sees the labeled images only, so a gain over it includes what the other images teach."
    if arms_by_text:
        differences = "; ".join(f"{' and '.join(names)} with {text}" for text, names in arms_by_text.items())
        yield (
            f"Some arms differ from {alone} in more than their losses, which may explain a gain as well: {differences}."
        )


def setting_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """learning_rate 0.003 and 0.001, class_weights 5.5, 0.55, 5.5, … and none; empty if nothing differs.

    It leaves out that a baseline sees the labeled images only, because that is what makes it the fair one.

    Args:
        ours, theirs: from `comparison.settings`.
    """
    return ", ".join(
        f"{name} {_setting(value)} and {_setting(theirs[name])}"
        for name, value in ours.items()
        if value != theirs[name] and not (name == "labeled_only" and theirs[name])
    )


def _setting(value: Any) -> str:
    """Returns the value of a setting; of class weights the first three."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join([*(f"{weight:g}" for weight in value[:3]), *["…"] * (len(value) > 3)]) or "none"


def _symmetries(arms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    symmetric = {
        name: intervals.summary(arm["symmetries_top1"]) for name, arm in arms.items() if "symmetries_top1" in arm
    }
    if symmetric:
        yield (
            "Top-1 with the mean probabilities over the eight symmetries of each test image, at eight times the cost: "
            + ", ".join(
                f"{name} {formats.percent_and_spread(summary['mean'], summary['std'])}"
                for name, summary in symmetric.items()
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


def _failures(arms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, arm in arms.items():
        if failed := failed_seeds(arm):
            yield failure_note(name, seed_list(failed), len(failed))


def failure_note(name: str, which: str, count: int) -> str:
    """States that seeds of an arm or a table row failed; `which` names them, and `count` is their number."""
    left = f"{'is' if count == 1 else 'are'} left out of its mean and of every comparison with it"
    return f"{name}: {which} failed (no finite result) and {left}."


def seed_list(seeds: Sequence[int]) -> str:
    """seed 1, or seeds 1, 2."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _teacher(
    teacher: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]], alone: str | None, measure: str
) -> Iterator[str]:
    """Compares the students with the teacher, and warns if the teacher is the weaker network."""
    teacher_value = teacher["test"].get(measure)
    means = {name: figures(arm, measure)["mean"] for name, arm in arms.items()}
    if hidden := teacher.get("hidden_labels"):
        yield f"The teacher was trained with {hidden} labels that are hidden from the students."
    if teacher["forward_images"] is not None:
        yield f"The teacher was run on {teacher['forward_images']} images for all students together."
    gaps = {
        name: mean - teacher_value for name, mean in means.items() if teacher_value is not None and mean is not None
    }
    if not gaps:
        return
    yield (
        f"Student minus teacher, points of test {NAMES[measure]}: "
        + ", ".join(f"{name} {formats.signed_points(gap)}" for name, gap in gaps.items())
        + "."
    )
    if alone in gaps and gaps[alone] > intervals.ROUNDING:
        yield (
            f"The teacher is the weaker network here: {formats.percent(teacher_value)} % against "
            f"{formats.percent(means[alone])} % of {alone}, which never saw it. So a gain from distillation is "
            "not that of a better network passing on what it knows."
        )
    elif alone not in gaps and max(gaps.values()) > intervals.ROUNDING:
        best = max(gaps, key=lambda name: gaps[name])
        yield (
            f"The teacher is the weaker network here: {formats.percent(teacher_value)} % against "
            f"{formats.percent(means[best])} % of {best}."
        )


def compression(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    """States how much smaller the student is, with and without VGG16's fully connected head.

    Args:
        teacher, student: params, macs and, if known, activation_bytes; for a teacher with a choice of heads also head
            and heads (head -> {"params": …}).
    """
    kinds = {"params": "parameters", "macs": "multiply-adds", "activation_bytes": "bytes of activations"}
    ratios = [
        f"{formats.ratio(teacher[key] / student[key])} times the {words} "
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
                f"{formats.ratio(cost['params'] / student['params'])} times the student's."
            )
    return text
