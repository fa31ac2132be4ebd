"""Narrower students: the paper's arms with MobileNetV2 at another width.

    launch/local.sh --config=configs/width.py:0.35 --workdir=runs/width_35 --config.dataset.path=data/uc_merced.zip

The argument is WIDTH, and another config in this folder and its argument may follow, as in `0.35,eurosat`. There are
ImageNet weights for width 1.0 only, so narrower students start from scratch; for width 1.0 from scratch use
`scratch.py`. Width 0.35 on UC Merced took 24 minutes on two CPU cores. Results: docs/results/README.md, "A narrow
student from scratch".
"""

from pathlib import Path

from kdjax.config import from_file


def get_config(arg=""):
    """`arg` is WIDTH[,NAME[,ARGUMENT]]; "" means 0.35 of uc_merced."""
    width, name, argument = ((arg or "0.35").split(",", 2) + ["", ""])[:3]
    config = from_file(Path(__file__).with_name(f"{name or 'uc_merced'}.py"), argument)
    config.name = f"{config.name}_width_{float(width):g}"
    config.seeds = (0, 1, 2)
    config.student.width = float(width)
    if config.student.width != 1:
        config.student.weights = None
        config.student.epochs *= 4
    return config
