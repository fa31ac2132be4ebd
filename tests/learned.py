"""A configuration whose networks learn within a minute, and in which what could be confused differs.

The teacher's size is not the students', the data seed is no seed, arms have temperatures and rates of their own, the
teacher has BatchNorm, and the students have dropout, averages of their weights and the mean of all views as target.
"""

from kdjax.config import base
from kdjax.networks import mobilenet_v2, vgg16

BLOCKS = ((64,), (128,), (256,))
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2))
"""Three convolutions, and four blocks with every kind of layer: the whole networks would be compiled for minutes."""


def get_config(arg=""):
    vgg16.BLOCKS, mobilenet_v2.STAGES = BLOCKS, STAGES
    config = base()
    config.name = "learned"
    config.data_seed = 5
    config.seeds = (3, 8)
    config.dataset.source = "folder"
    config.dataset.image_size = 32
    config.dataset.storage_size = 48
    config.dataset.test_fraction = 0.3
    config.dataset.validation_fraction = 0.3
    config.teacher.model = "vgg16_bn"
    config.teacher.width = 0.125
    config.teacher.image_size = 40
    config.teacher.dropout = 0.2
    config.teacher.epochs = 6
    config.teacher.batch_size = 16
    config.teacher.learning_rate = 3e-3
    config.student.width = 0.1
    config.student.epochs = 10
    config.student.batch_size = 16
    config.student.learning_rate = 1e-2
    config.student.dropout = 0.2
    config.student.ema = 0.7
    config.distill.views = 3
    config.distill.target = "mean"
    config.distill.arms = ("student_alone", "kl", "kl_cosine", "dist")
    config.arms.student_alone.learning_rate = 3e-4  # clearly worse, so that there are gains
    config.arms.kl.temperature = 2.0
    config.arms.kl_cosine.learning_rate = 6e-3
    return config
