"""Rendered land-use scenes, trained from scratch: teacher, students and evaluation in five minutes on two CPU cores.

    launch/local.sh

With the argument `bands` the same scenes have infrared beside their colors: a teacher of six bands teaches students
that see red, green and blue.

    launch/local.sh --config=configs/demo.py:bands --workdir=runs/demo_bands

Results: docs/results/README.md, "Demo" and "A teacher that sees infrared".
"""

from kdjax.config import base


def get_config(arg=""):
    """`arg`: nothing, or "bands"."""
    if arg not in ("", "bands"):
        raise ValueError(f"demo.py takes the argument 'bands' or none, got {arg!r}")
    config = base()
    config.name = "demo"
    config.seeds = (0, 1, 2)
    config.dataset.source = "demo"
    config.dataset.image_size = 48
    config.dataset.storage_size = 56
    config.teacher.model = "vgg16_bn"
    config.teacher.width = 0.5
    config.teacher.epochs = 8
    config.teacher.learning_rate = 1e-3
    config.teacher.head_factor = 1.0
    config.teacher.dropout = 0.2
    config.student.width = 0.35
    config.student.epochs = 12
    config.student.batch_size = 16
    config.student.learning_rate = 3e-3
    config.distill.temperature = 2.0
    if arg == "bands":
        config.name = "demo_bands"
        config.dataset.bands = ("red", "green", "blue", "nir", "swir16", "swir22")
        config.student.bands = ("red", "green", "blue")
    config.run.note = (
        "The demo trains from scratch on rendered scenes: its teacher is VGG16-BN at width 0.5 and its students are "
        "MobileNetV2 at width 0.35. It shows the path, not what the networks reach on real images."
    )
    return config
