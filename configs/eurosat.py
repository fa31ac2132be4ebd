"""EuroSAT RGB: 10 classes, 27 000 Sentinel-2 tiles of 64 px, from ImageNet weights, 80/20 train/test.

    launch/local.sh --config=configs/eurosat.py --workdir=runs/eurosat --config.dataset.path=data/eurosat_rgb.zip

The same tiles through TensorFlow Datasets, prepared once (extra `tensorflow`):

    tfds build eurosat/rgb --file_format=array_record
    launch/local.sh --config=configs/eurosat.py --workdir=runs/eurosat \
        --config.dataset.source=tfds --config.dataset.builder=eurosat/rgb
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg` is not used."""
    config = base()
    config.name = "eurosat"
    config.dataset.source = "folder"
    config.dataset.path = "data/eurosat_rgb.zip"
    config.dataset.image_size = 64
    config.dataset.storage_size = 64
    config.teacher.weights = "timm/vgg16.tv_in1k"
    config.teacher.epochs = 8
    config.teacher.batch_size = 64
    config.teacher.dropout = 0.2
    config.student.weights = "timm/mobilenetv2_100.ra_in1k"
    config.student.epochs = 30
    config.student.batch_size = 128
    return config
