"""Few labels, many tiles: what the soft losses gain when only a fraction of the labels is kept.

    launch/local.sh --config=configs/label_fraction.py:0.1 --workdir=runs/labels_10 \
        --config.dataset.path=data/uc_merced.zip

The argument is FRACTION. Another config in this folder and its argument may follow, as in `0.1,eurosat`. The teacher
and the validation split keep the same fraction of the labels. Students that see only the labeled tiles, for as many
steps and in a new crop every time, are the arm `labeled_alone`; the table states gains over the better baseline.

For an upper bound, a teacher trained with all labels, first run `label_fraction.py:1` as `labels_100`, then

    launch/local.sh --config=configs/label_fraction.py:0.1 --workdir=runs/labels_10_upper \
        --config.dataset.path=data/uc_merced.zip --config.teacher.workdir=runs/labels_100 \
        --config.teacher.epochs=10 --config.distill.arms="('kl_cosine_0','kl_cosine_1')"

A run takes about three quarters of an hour on two CPU cores at 64 px. Results: docs/results/README.md, "Few labels".
"""

from pathlib import Path

from kdjax.config import base, from_file

LEARNING_RATES = (1e-3, 2e-3)  # the trials of each family


def get_config(arg=""):
    """`arg` is FRACTION[,NAME[,ARGUMENT]]; "" means 0.1 of uc_merced."""
    fraction, name, argument = ((arg or "0.1").split(",", 2) + ["", ""])[:3]
    fraction = float(fraction)
    if not 0 < fraction <= 1:
        raise ValueError(f"{arg}: give a fraction above 0 and at most 1")
    config = from_file(Path(__file__).with_name(f"{name or 'uc_merced'}.py"), argument)
    config.name = f"{config.name}_labels_{100 * fraction:g}"
    config.seeds = (0, 1, 2)
    config.dataset.label_fraction = fraction
    # Validation shrinks too, and the best of many steps on 20 images is mostly luck.
    config.teacher.select = config.student.select = "last"
    # A teacher's epoch covers the labeled tiles only, so it gets more epochs when they are few.
    config.teacher.epochs = round(config.teacher.epochs * min(4, 1 / fraction))
    config.distill.target = "mean"
    config.student.learning_rate = base().student.learning_rate  # every trial sets its own
    config.arms = {
        f"{family}_{number}": {**weights, "learning_rate": rate, "family": family}
        for family, weights in config.arms.items()
        for number, rate in enumerate(LEARNING_RATES)
    }
    # With all labels the two baselines are the same.
    families = ("student_alone", *(("labeled_alone",) if fraction < 1 else ()), "kl_cosine")
    config.distill.arms = tuple(f"{family}_{number}" for family in families for number in range(len(LEARNING_RATES)))
    return config
