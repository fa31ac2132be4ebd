"""What the overview says of gains: over which student, from which seeds, in its first sentence."""

import json
import re

import numpy as np
import pytest
from helpers.overview_runs import changed, write
from scipy import stats

from kdjax.report import overview


def finding(page):
    return re.search(r'class="finding">(.*?)</p>', page).group(1)


def shown(*folders):
    """The page without its tags and charts."""
    measure, rows = overview.rows(folders)
    page = overview.render(rows, {"splits": {"test": 12}, "name": "made"}, measure)
    return finding(page), re.sub(r"\s+", " ", re.sub("<style.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page, flags=re.S))


def test_seeds_that_failed_are_counted_and_named(tmp_path):
    lost = {"student_alone": [0.9, 0.7, 0.7], "kl": [0.9, None, None]}
    _, said = shown(write(tmp_path / "a", top1=lost))
    assert "kl 1 of 3 90.00" in said and "student_alone 3 76.67" in said
    assert (
        f"mobilenet_v2 64 px from vgg16_bn (kl of {tmp_path / 'a'}): seeds 1, 2 failed (no finite result) and are left "
        "out of its mean and of every comparison with it."
    ) in said
    assert "(no finite" not in shown(write(tmp_path / "b"))[1]


def test_a_taught_student_of_which_every_seed_failed_is_a_row(tmp_path):
    found, said = shown(write(tmp_path / "a", top1={"student_alone": [0.9, 0.7, 0.7], "kl": [None] * 3}))
    assert "kl 0 of 3 -" in said and "seeds 0, 1, 2 failed" in said
    assert found == "No taught student has a successful seed in common with itself alone: there is no gain to report."


def seeded(folder, *seeds, **given):
    """A run with other seeds."""
    write(folder, **given)
    for name in json.loads((folder / "results.json").read_text())["arms"]:
        changed(folder, f"arms.{name}.seeds", list(seeds))
    return folder


def test_gains_are_over_the_baseline_with_most_seeds_in_common(tmp_path):
    """The best on validation may be of another run with other seeds."""
    best = seeded(tmp_path / "a", 0, 1, 2, top1={"student_alone": [0.9, 0.9, 0.9]}, val={"student_alone": 0.9})
    both = {"student_alone": [0.70, 0.72, 0.74], "kl": [0.75, 0.78, 0.77]}
    for name, seeds in (("b", (3, 4, 5)), ("c", (2, 3, 4))):
        own = seeded(tmp_path / name, *seeds, top1=both)
        rows = overview.rows([best, own])[1]
        assert [(row.run, row.arm) for row in rows[1:]] == [
            (str(best), "student_alone"), (str(own), "student_alone"), (str(own), "kl"),
        ]  # fmt: skip
        assert rows[-1].gain["mean"] == pytest.approx((0.05 + 0.06 + 0.03) / 3) and rows[-1].pairs == 3
    assert f"(kl of {own}): the gain is over student_alone of {own}, from 3 of 3 seeds." in shown(best, own)[1]
    few = seeded(tmp_path / "d", 2, 3, 4, top1={"kl": [0.75, 0.78, 0.77]})
    assert f"(kl of {few}): the gain is over student_alone of {best}, from 1 of 3 seeds." in shown(best, few)[1]
    assert "the gain is over" not in shown(write(tmp_path / "e"))[1]


def test_what_arms_set_for_themselves_is_told_where_it_differs(tmp_path):
    folder = write(tmp_path / "a")
    changed(folder, "config.student.learning_rate", 0.001)
    for rate, told in ((0.001, False), (1e-6, True)):
        changed(folder, "config.arms", {"student_alone": {"ce": 1.0, "learning_rate": rate}, "kl": {"kl": 1.0}})
        said = shown(folder)[1]
        assert ("from 3 of 3 seeds; the two arms set learning_rate 0.001 and 1e-06 for themselves." in said) == told
        assert ("the gain is over" in said) == told


@pytest.mark.parametrize(
    ("top1", "said"),
    [
        (
            {"student_alone": [0.5, 0.5, 0.5], "kl": [0.6, 0.7, 0.8]},
            "mobilenet_v2 64 px from vgg16_bn gains most, +20.00 points. The 95 % interval is −4.84 to +44.84 and "
            "contains 0: these seeds do not show that distillation helps or harms.",
        ),
        (
            {"student_alone": [0.5, 0.5, 0.5], "kl": [0.69, 0.7, 0.71]},
            "mobilenet_v2 64 px from vgg16_bn gains most, +20.00 points. The 95 % interval is +17.52 to +22.48.",
        ),
        (
            {"student_alone": [0.5, 0.5, 0.5], "kl": [0.49, 0.48, None]},
            "No taught student does better than itself alone. mobilenet_v2 64 px from vgg16_bn comes nearest, −1.50 "
            "points. There is no interval: it takes three seeds that differ.",
        ),
        ({"student_alone": [0.5, 0.5, 0.5]}, "No student that learned from a teacher is here to compare with."),
        ({"kl": [0.5, 0.5, 0.5]}, "No student without a teacher is here to compare with."),
        (
            {"student_alone": [0.5, None, None], "kl": [None, 0.5, 0.6]},
            "No taught student has a successful seed in common with itself alone: there is no gain to report.",
        ),
    ],
)
def test_the_first_sentence_is_true_of_gains_losses_and_what_is_not_there(tmp_path, top1, said):
    assert shown(write(tmp_path / "a", top1=top1))[0] == said


def test_the_interval_of_the_largest_of_several_gains_is_corrected_for_the_choice(tmp_path):
    folders = [
        write(tmp_path / "a", top1={"student_alone": [0.5, 0.5, 0.5], "kl": [0.69, 0.7, 0.71]}),
        write(tmp_path / "b", top1={"kl": [0.6, 0.6, 0.7]}, teacher="resnet50", sha="b"),
    ]
    half = stats.t.ppf(1 - 0.025 / 2, 2) * 0.01 / np.sqrt(3)
    assert shown(*folders)[0] == (
        "mobilenet_v2 64 px from vgg16_bn gains most, +20.00 points. The 95 % interval, corrected for the choice of "
        f"the largest of 2 gains on test (Bonferroni), is +{20 - 100 * half:.2f} to +{20 + 100 * half:.2f}."
    )
    assert "Bonferroni" not in shown(folders[0])[0]


def test_a_student_that_is_alone_in_no_run_has_nothing_to_be_compared_with(tmp_path):
    folders = [
        write(tmp_path / "a", top1={"student_alone": [0.5] * 3}),
        write(tmp_path / "b", student="resnet18", top1={"kl": [0.5] * 3}),
    ]
    assert shown(*folders)[0] == "No taught student is here without a teacher as well, so there is no gain to report."
