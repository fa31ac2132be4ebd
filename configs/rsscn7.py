"""RSSCN7: 7 classes of 400 scenes from Google Earth at four scales, ImageNet weights, 80/20 train/test.

    launch/local.sh --config=configs/rsscn7.py:128 --workdir=runs/rsscn7_128 --config.dataset.path=data/rsscn7.zip

The argument is the image size in px, 128 by default. The archive has a folder of 400 images a class, 100 of each scale;
the originals are 400 px wide. One region may have been taken at several scales, so a random split may put it on both
sides. `dataset.group_near_duplicates` finds no such pair: at another scale a scene correlates too little with itself.
The weights come from the Hugging Face hub; to use a safetensors file instead, give
`--config.teacher.weights=vgg16.safetensors`. Results with another teacher: docs/results/README.md, "RSSCN7".
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg` is the image size in px; "" means 128."""
    size = int(arg or 128)
    config = base()
    config.name = f"rsscn7_{size}"
    config.dataset.path = "data/rsscn7.zip"
    config.dataset.image_size = size
    config.dataset.storage_size = size * 9 // 8
    config.teacher.weights = "timm/vgg16.tv_in1k"
    config.teacher.epochs = 6
    config.teacher.dropout = 0.2
    config.student.weights = "timm/mobilenetv2_100.ra_in1k"
    config.student.epochs = 15
    return config
