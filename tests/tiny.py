"""A configuration that goes through every stage in seconds."""

from kdjax.config import base
from kdjax.networks import mobilenet_v2, vgg16

BLOCKS = ((64,), (128,), (256,))
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2))
"""Three convolutions, and four blocks with every kind of layer: the whole networks would be compiled for minutes."""


def get_config(arg=""):
    vgg16.BLOCKS, mobilenet_v2.STAGES = BLOCKS, STAGES
    config = base()
    config.name = "tiny"
    config.seeds = (0, 1)
    config.dataset.source = "folder"
    config.dataset.image_size = 32
    config.dataset.storage_size = 36
    config.teacher.model = "vgg16_bn"
    config.teacher.width = 0.25
    config.teacher.epochs = 2
    config.teacher.batch_size = 16
    config.teacher.learning_rate = 1e-3
    config.student.width = 0.1
    config.student.epochs = 2
    config.student.batch_size = 16
    config.run.log_seconds = 0.0  # tests wait for lines
    return config
