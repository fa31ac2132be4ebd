"""NWPU-RESISC45: 45 classes of 700 aerial images of 256 px, ImageNet weights, 80/20 train/test. Not run yet.

    launch/local.sh --config=configs/resisc45.py --workdir=runs/resisc45 --config.dataset.path=data/NWPU-RESISC45.zip

The argument is the image size in px, 224 by default. The same images from TensorFlow Datasets (the archive has to be
downloaded by hand; if the data are not prepared yet, the error says how to prepare them):

    launch/local.sh --config=configs/resisc45.py --workdir=runs/resisc45 --config.dataset.source=tfds \
        --config.dataset.builder=resisc45 --config.dataset.path=~/tensorflow_datasets
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg` is the image size in px; "" means 224."""
    size = int(arg or 224)
    config = base()
    config.name = f"resisc45_{size}"
    config.dataset.path = "data/NWPU-RESISC45.zip"
    config.dataset.image_size = size
    config.dataset.storage_size = size * 8 // 7
    config.teacher.weights = "timm/vgg16.tv_in1k"
    config.teacher.batch_size = 64
    config.teacher.dropout = 0.2
    config.student.weights = "timm/mobilenetv2_100.ra_in1k"
    config.student.epochs = 30
    config.student.batch_size = 128
    return config
