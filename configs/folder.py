"""Your own tiles: a directory or zip with one folder of images per class.

    launch/local.sh --config=configs/folder.py --workdir=runs/mine --config.dataset.path=tiles

The argument is the image size in px, 128 by default: `configs/folder.py:224`. Unlabeled tiles join the training split
with `--config.dataset.unlabeled_dir=more_tiles`, and a fair baseline joins the arms. See docs/own_tiles.md.
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg` is the image size in px; "" means 128."""
    size = int(arg or 128)
    config = base()
    config.name = f"folder_{size}"
    config.dataset.image_size = size
    config.dataset.storage_size = size * 9 // 8
    config.teacher.weights = "timm/vgg16.tv_in1k"
    config.teacher.dropout = 0.2
    config.student.weights = "timm/mobilenetv2_100.ra_in1k"
    config.student.epochs = 20
    return config
