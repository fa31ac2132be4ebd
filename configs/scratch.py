"""Students from scratch; their teacher starts from ImageNet weights.

    launch/local.sh --config=configs/scratch.py --workdir=runs/scratch --config.dataset.path=data/uc_merced.zip

The argument names another config in this folder, with its own argument after a comma, as in `uc_merced,128`. A student
from scratch trains for four times as many epochs as one from ImageNet weights; the factor is our choice. Run for a few
steps only, so there are no results yet.
"""

from pathlib import Path

from kdjax.config import from_file


def get_config(arg=""):
    """`arg` is NAME or NAME,ARGUMENT; "" means uc_merced."""
    name, _, argument = (arg or "uc_merced").partition(",")
    config = from_file(Path(__file__).with_name(f"{name}.py"), argument)
    config.name = f"{config.name}_scratch"
    config.seeds = (0, 1, 2)
    config.student.weights = None
    config.student.epochs *= 4
    return config
