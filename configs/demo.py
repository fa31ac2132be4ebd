"""Rendered land-use scenes of which one in twenty has a label: teacher, students, evaluation.

    launch/local.sh

The teacher and the students' baseline learn from the 30 labeled scenes alone. The distilled students also see the 570
others, with the teacher's outputs as targets. All networks are trained from scratch, in about five minutes on two CPU
cores.

With the argument `bands` all 600 scenes have labels, and infrared bands in addition to their colors: a teacher that
sees six bands teaches students that see red, green and blue.

    launch/local.sh --config=configs/demo.py:bands --workdir=runs/demo_bands

Results: docs/results/README.md, "Demo" and "A teacher that sees infrared".
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg`: nothing, or "bands"."""
    if arg not in ("", "bands"):
        raise ValueError(f"demo.py takes the argument 'bands' or none, got {arg!r}")
    config = base()
    config.dataset.source = "demo"
    config.teacher.model = "vgg16_bn"
    config.teacher.width = 0.5
    config.teacher.learning_rate = 1e-3
    config.teacher.head_factor = 1.0
    config.teacher.dropout = 0.2
    config.student.width = 0.35
    config.distill.temperature = 2.0
    if arg == "bands":
        _bands(config)
    else:
        _few_labels(config)
    config.run.note = (
        "The demo trains from scratch on rendered scenes: its teacher is VGG16-BN at width 0.5 and its students are "
        "MobileNetV2 at width 0.35. It shows the path, not what the networks reach on real images."
    )
    return config


def _few_labels(config):
    config.name = "demo"
    config.seeds = (0, 1, 2, 3)
    config.dataset.image_size = 32
    config.dataset.storage_size = 36
    config.dataset.label_fraction = 0.05
    config.teacher.batch_size = 15
    config.teacher.epochs = 150
    config.teacher.select = "last"  # ten labeled validation images are too few to select a step
    # In the last blocks BatchNorm computes its moments over a batch of 1 x 1 maps. With batches of 16, students learned
    # less from the teacher.
    config.student.batch_size = 64
    config.student.epochs = 80
    config.student.learning_rate = 4e-3
    config.student.select = "last"
    config.distill.arms = ("labeled_alone", "kl_cosine")
    config.distill.target = "mean"


def _bands(config):
    config.name = "demo_bands"
    config.seeds = (0, 1, 2)
    config.dataset.image_size = 48
    config.dataset.storage_size = 56
    config.dataset.bands = ("red", "green", "blue", "nir", "swir16", "swir22")
    config.teacher.epochs = 8
    config.student.bands = ("red", "green", "blue")
    config.student.batch_size = 16
    config.student.epochs = 12
    config.student.learning_rate = 3e-3
