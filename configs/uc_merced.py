"""UC Merced Land Use: 21 classes of 100 aerial images, ImageNet weights, 80/20 train/test.

    launch/local.sh --config=configs/uc_merced.py:128 --workdir=runs/uc_merced_128 \
        --config.dataset.path=data/uc_merced.zip

The argument is the image size in px, 64 by default. The weights come from the Hugging Face hub; to use a safetensors
file instead, give `--config.teacher.weights=vgg16.safetensors`. Three seeds of all four arms at 64 px took 30 minutes
on two CPU cores. Results: docs/results/README.md, "UC Merced at 64 px" and "UC Merced at 128 px".
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg` is the image size in px; "" means 64."""
    size = int(arg or 64)
    config = base()
    config.name = f"uc_merced_{size}"
    config.dataset.path = "data/uc_merced.zip"
    config.dataset.image_size = size
    config.dataset.storage_size = size * 9 // 8
    config.teacher.weights = "timm/vgg16.tv_in1k"
    config.teacher.epochs = 6 if size >= 128 else 10
    config.teacher.dropout = 0.2
    config.student.weights = "timm/mobilenetv2_100.ra_in1k"
    config.student.epochs = 15
    return config
