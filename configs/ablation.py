"""The paper's ablation: its four arms over five seeds, in one program.

    launch/local.sh --config=configs/ablation.py --workdir=runs/ablation --config.dataset.path=data/uc_merced.zip

The argument names another config in this folder, with that config's own argument after a comma:
`configs/ablation.py:eurosat`, `configs/ablation.py:uc_merced,128`. `--config.splits=3` repeats everything, teacher
included, on three splits. Run for a few steps only, so there are no results yet; see docs/results/README.md.
"""

from pathlib import Path

from kdjax.config import from_file


def get_config(arg=""):
    """`arg` is NAME or NAME,ARGUMENT; "" means uc_merced."""
    name, _, argument = (arg or "uc_merced").partition(",")
    config = from_file(Path(__file__).with_name(f"{name}.py"), argument)
    config.name = f"ablation_{config.name}"
    config.seeds = (0, 1, 2, 3, 4)
    return config
