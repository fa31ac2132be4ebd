"""Narrower students: the paper's arms at another width of MobileNetV2.

    launch/local.sh --config=configs/width.py:0.5 --workdir=runs/width_50 --config.dataset.path=data/uc_merced.zip

The argument is WIDTH, and may be followed by another config of this folder and its argument, as in `0.35,eurosat`. Of
the ImageNet weights only those of width 1.0 are at hand, so narrower students start from scratch; `scratch.py` is what
width 1.0 does so.
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
