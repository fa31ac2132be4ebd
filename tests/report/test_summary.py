"""How the report words what a run found."""

import pytest

from kdjax.report import summary


def gain(mean, ci95=None, p=None, boot=None, seeds=1, **arms):
    """results.json with an arm that differs from the student alone by `mean`."""
    arm = lambda top1, **more: {
        "weights": {"ce": 1.0, "kl": 0.0}, "val_top1": [0.5] * seeds, "test_top1": [top1] * seeds, "mean": top1,
        "seeds": list(range(seeds)), "minus_alone": None, "p_vs_alone": None, "bootstrap": None, **more,
    }  # fmt: skip
    taught = arm(0.8 + mean, minus_alone={"mean": mean, "ci95": ci95}, p_vs_alone=p, bootstrap=boot and {"ci95": boot})
    taught["weights"] = {"ce": 1.0, "kl": 1.0}
    return {
        "arms": {"student_alone": arm(0.8), "kl": taught, **{name: arm(**changes) for name, changes in arms.items()}},
        "dataset": {"splits": {"test": 100}},
        "teacher": {"test": {"top1": 0.9}},
    }


HELPS = "On this split and with this teacher, distillation helps."
HARMS = "On this split and with this teacher, distillation harms."
OPEN = "The interval contains 0: these seeds do not show that distillation helps or harms."


UNKNOWN = "How far another seed would move it is not known: without spread there is no interval and no test."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.05, [0.01, 0.09], 0.03), f"+5.00 points, 95 % interval +1.00 to +9.00, p = 0.030. {HELPS}"),
        ((0.05, [0.01, 0.09], 0.0004), f"+5.00 points, 95 % interval +1.00 to +9.00, p < 0.001. {HELPS}"),
        ((0.05, None, None), f"+5.00 points, the same for each of them. {UNKNOWN}"),
        ((0.05, [0.05, 0.05], None), f"+5.00 points, the same for each of them. {UNKNOWN}"),  # of an older version
        ((-0.05, None, None), f"−5.00 points, the same for each of them. {UNKNOWN}"),
        (
            (0.0, None, 1.0),
            "+0.00 points, the same for each of them. How far another seed would move it is not known: without spread "
            "there is no interval, and p = 1.000 says only that they are equal.",
        ),
        (
            (0.05, None, None, [0.01, 0.09]),
            "+5.00 points, the same for each of them. Other test images might have shown +1.00 to +9.00 points. "
            f"{UNKNOWN}",
        ),
        ((-0.05, [-0.09, -0.01], 0.03), f"−5.00 points, 95 % interval −9.00 to −1.00, p = 0.030. {HARMS}"),
        ((0.05, [-0.01, 0.11], 0.2), f"+5.00 points, 95 % interval −1.00 to +11.00, p = 0.200. {OPEN}"),
        ((0.05, [0.0, 0.1], 0.05), f"+5.00 points, 95 % interval +0.00 to +10.00, p = 0.050. {OPEN}"),
        (
            (0.05, [0.01, 0.09], 0.05),
            "+5.00 points, 95 % interval +1.00 to +9.00, p = 0.050. The interval lies on one side of 0, but p is not "
            "below 0.05: weak evidence that it helps.",
        ),
    ],
)
def test_the_finding_over_seeds(arguments, said):
    top1 = f"{80 + 100 * arguments[0]:.2f}"
    assert summary.finding(gain(*arguments, seeds=4)) == (
        f"The student kl is right on {top1} % of the 100 test images, the student trained alone on 80.00 %, the "
        f"teacher on 90.00 %. Over 4 seeds the difference is {said}"
    )


@pytest.mark.parametrize(
    ("seeds", "boot", "said"),
    [
        (1, [0.01, 0.09], "one seed. Other test images might have shown +1.00 to +9.00 points. How far another seed "
         "would move it is not known: one seed proves nothing."),
        (1, None, "one seed. How far another seed would move it is not known: one seed proves nothing."),
        (2, None, "2 seeds. It takes 3 seeds to say how far another seed would move it."),
    ],
)  # fmt: skip
def test_the_finding_of_few_seeds(seeds, boot, said):
    text = summary.finding(gain(0.05, boot=boot, seeds=seeds))
    assert text.endswith(f"The difference is +5.00 points, from {said}")


def test_seeds_that_failed_are_not_counted():
    found = gain(0.05, [0.01, 0.09], 0.03, seeds=4)
    found["arms"]["kl"]["test_top1"][1] = None
    found["arms"]["student_alone"]["test_top1"][3] = None
    assert "Over 2 seeds" in summary.finding(found)
    assert summary.finding(found) == (
        "The student kl is right on 85.00 % of the 100 test images (over 3 of 4 seeds), the student trained alone on "
        "80.00 % (over 3 of 4 seeds), the teacher on 90.00 %. Over 2 seeds, those in which both succeeded, the "
        f"difference is +5.00 points, 95 % interval +1.00 to +9.00, p = 0.030. {HELPS}"
    )


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ((1, 2), "The difference is +5.00 points, from one seed, the only one in which both succeeded. How far "),
        ((1,), "The difference is +5.00 points, from 2 seeds, those in which both succeeded. It takes "),
        ((), "Over 3 seeds the difference is +5.00 points, the same for each of them. How far "),
    ],
)
def test_where_seeds_were_lost_it_is_said_over_which_the_difference_is(failed, said):
    found = gain(0.05, seeds=3)
    for seed in failed:
        found["arms"]["kl"]["test_top1"][seed] = None
    text = summary.finding(found)
    assert said in text and (
        f"(over {3 - len(failed)} of 3 seeds), the student trained alone on 80.00 %, " in text
    ) == (len(failed) > 0)


def test_students_that_failed_are_not_called_absent():
    found = gain(0.05, seeds=2)
    found["arms"]["student_alone"] |= {"mean": None, "test_top1": [None] * 2, "val_top1": [None] * 2}
    assert summary.finding(found).endswith(
        "on 90.00 %. Every seed of student_alone, trained without the teacher, failed."
    )
    found = gain(0.05, seeds=2)
    found["arms"]["kl"] |= {"mean": None, "test_top1": [None] * 2, "val_top1": [None] * 2}
    assert summary.finding(found) == (
        "The student student_alone is right on 80.00 % of the 100 test images, the teacher on 90.00 %. Every student "
        "that learned from the teacher failed."
    )


def test_with_few_labels_the_finding_names_them_and_the_better_baseline():
    found = gain(0.05, [-0.01, 0.09], 0.2, seeds=3, labeled_alone={"top1": 0.84, "val_top1": [0.6] * 3})
    found["dataset"]["labels"] = {"labeled": 600, "total": 5940}
    assert summary.finding(found).startswith(
        "With 600 of 5 940 labels, the student kl is right on 85.00 % of the 100 test images, labeled_alone, on "
        "validation no worse than any other trained without the teacher, on 84.00 %, the teacher on 90.00 %. "
    )
    assert "p = 0.200 after Holm's correction." in summary.finding(found)
    found["arms"]["labeled_alone"]["val_top1"] = [0.4] * 3
    assert "student_alone, on validation no worse than any other" in summary.finding(found)
    found["dataset"]["labels"]["labeled"] = 5940
    assert summary.finding(found).startswith("The student kl")


def test_a_student_was_chosen_where_there_were_other_trials_that_learned_from_the_teacher():
    """In the table they may be one row, beside several of students alone."""
    chosen = "The student kl (chosen on validation) is right on 85.00 %"
    assert summary.finding(gain(0.05, labeled_alone={"top1": 0.84})).startswith("The student kl is right on 85.00 %")
    worse = {"top1": 0.7, "weights": {"ce": 1.0, "kl": 2.0}, "val_top1": [0.4]}
    assert summary.finding(gain(0.05, other=worse)).startswith(chosen)
    found = gain(0.05, other={**worse, "family": "soft"})
    found["arms"]["kl"]["family"] = "soft"
    found["selected"] = {"student_alone": "student_alone", "soft": "kl"}
    assert summary.finding(found).startswith(chosen)


def test_a_baseline_that_was_passed_over_for_its_failed_seeds_takes_the_claim_back():
    lost = {"top1": 0.95, "val_top1": [0.9, 0.9, None], "test_top1": [0.95, 0.95, None]}
    found = gain(0.05, [0.01, 0.09], 0.03, seeds=3, labeled_alone=lost)
    said = summary.finding(found)
    assert "student_alone, which lost the fewest seeds of those trained without the teacher, on 80.00 %" in said
    assert said.endswith(
        "But with the seeds that succeeded labeled_alone did better on validation, so this does not show that "
        "distillation helps."
    )
    found = gain(-0.05, [-0.09, -0.01], 0.03, seeds=3, labeled_alone=lost)
    assert summary.finding(found).endswith(HARMS)


def test_where_there_is_nothing_to_compare_it_says_so():
    found = gain(0.05)
    del found["arms"]["student_alone"]
    assert summary.finding(found).endswith(
        "on 90.00 %. No student trained without the teacher is here to compare with."
    )
    found = gain(0.05)
    del found["arms"]["kl"]
    found["teacher"]["test"] = {}
    assert summary.finding(found) == (
        "The student student_alone is right on 80.00 % of the 100 test images. No student that learned from a "
        "teacher is here to compare with."
    )
    found = gain(0.05)
    found["arms"]["kl"]["minus_alone"]["mean"] = None
    assert summary.finding(found).endswith("no successful seed in common, so they cannot be compared.")
    for arm in found["arms"].values():
        arm["mean"] = None
    assert summary.finding(found) == "No student ended with a finite result, so there is nothing to compare."
    assert summary.leading_arm(found) is None


def test_the_leading_arm_is_chosen_on_validation_among_the_taught():
    found = gain(-0.1)
    found["arms"]["student_alone"]["val_top1"] = [0.9, 0.9]
    assert summary.leading_arm(found) == "kl"
    found["arms"]["other"] = {**found["arms"]["kl"], "val_top1": [0.6, 0.6], "mean": 0.1}
    assert summary.leading_arm(found) == "other"
    found["arms"]["other"]["val_top1"] = [0.6, None]
    assert summary.leading_arm(found) == "kl"
    found["arms"]["other"]["val_top1"] = [0.6]
    found["arms"]["other"]["mean"] = None
    assert summary.leading_arm(found) == "kl"
    found["arms"]["kl"]["mean"] = None
    assert summary.leading_arm(found) == "student_alone"
