"""A grid over temperature, loss weights and learning rate: twelve trials of each arm, the best chosen on validation.

    launch/local.sh --config=configs/sweep.py --workdir=runs/sweep --config.dataset.path=data/uc_merced.zip

Every arm of the ablation gets the same number of trials. That includes the student alone, which tries weight decays
where the others try temperatures and soft weights. All trials are students of one population and share one pass of the
teacher. The argument is that of `ablation.py`. Run for a few steps only, so there are no results yet.
"""

import itertools
from pathlib import Path

from kdjax.config import base, from_file

LEARNING_RATES = (5e-4, 1e-3, 2e-3)
WEIGHT_DECAYS = (0.001, 0.01, 0.03, 0.1)
COSINE_WEIGHTS = (0.1, 0.3, 1.0, 3.0)
TEMPERATURES_AND_WEIGHTS = ((2.0, 0.3), (2.0, 1.0), (4.0, 0.3), (4.0, 1.0))

# Four settings of each arm, each tried with every learning rate. The cosine of logits does not depend on temperature.
FAMILIES = {
    "student_alone": [{"weight_decay": decay} for decay in WEIGHT_DECAYS],
    "kl": [{"kl": w, "temperature": t} for t, w in TEMPERATURES_AND_WEIGHTS],
    "cosine": [{"cosine": w} for w in COSINE_WEIGHTS],
    "kl_cosine": [{"kl": w, "cosine": w, "temperature": t} for t, w in TEMPERATURES_AND_WEIGHTS],
}


def get_config(arg=""):
    """`arg` is NAME or NAME,ARGUMENT; "" means uc_merced."""
    name, _, argument = (arg or "uc_merced").partition(",")
    config = from_file(Path(__file__).with_name(f"{name}.py"), argument)
    config.name = f"sweep_{config.name}"
    arms = {}
    for family, settings in FAMILIES.items():
        for number, (rate, setting) in enumerate(itertools.product(LEARNING_RATES, settings)):
            arms[f"{family}_{number:02d}"] = {"ce": 1.0, "learning_rate": rate, **setting, "family": family}
    # What every trial sets for itself does nothing here, such as the demo's rate.
    config.student.learning_rate = base().student.learning_rate
    config.distill.temperature = base().distill.temperature
    config.arms = arms
    config.distill.arms = tuple(arms)
    return config
