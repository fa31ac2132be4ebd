"""EuroSAT RGB: 10 classes, 27 000 Sentinel-2 tiles of 64 px, ImageNet weights, 80/20 train/test.

    launch/local.sh --config=configs/eurosat.py --workdir=runs/eurosat --config.dataset.path=data/eurosat_rgb.zip

The argument is the image size in px, 64 by default. The same tiles from TensorFlow Datasets (if they are not prepared
yet, the error says how to prepare them):

    launch/local.sh --config=configs/eurosat.py --workdir=runs/eurosat --config.dataset.source=tfds \
        --config.dataset.builder=eurosat/rgb --config.dataset.path=~/tensorflow_datasets

A run on a fifth of the training tiles took 35 minutes on two CPU cores; the full config was not run to convergence.
Results: docs/results/README.md, "EuroSAT".
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg` is the image size in px; "" means 64."""
    size = int(arg or 64)
    config = base()
    config.name = f"eurosat_{size}"
    config.dataset.path = "data/eurosat_rgb.zip"
    config.dataset.image_size = size
    config.dataset.storage_size = size
    config.teacher.weights = "timm/vgg16.tv_in1k"
    config.teacher.epochs = 8
    config.teacher.batch_size = 64
    config.teacher.dropout = 0.2
    config.student.weights = "timm/mobilenetv2_100.ra_in1k"
    config.student.epochs = 30
    config.student.batch_size = 128
    return config
