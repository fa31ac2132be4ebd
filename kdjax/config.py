"""The configuration: every field with its default. A file in `configs/` changes the fields that its experiment needs.

Nothing here imports JAX, so that `--help` and mistakes in flags are answered at once. Values are checked in
`run.checks`.
"""

import runpy
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import config_dict

from kdjax.errors import InputError

ARMS = {
    "student_alone": {"ce": 1.0, "kl": 0.0, "cosine": 0.0},
    "kl": {"ce": 1.0, "kl": 1.0, "cosine": 0.0},
    "cosine": {"ce": 1.0, "kl": 0.0, "cosine": 1.0},
    "kl_cosine": {"ce": 1.0, "kl": 1.0, "cosine": 1.0},
}
"""The paper's ablation. The weights are ours: the abstract of arXiv 2606.14886 does not state them. Nor does it say
whether its cosine is of logits or of probabilities: `cosine_probabilities` below is the other reading."""

FURTHER_ARMS = {
    "labeled_alone": {"ce": 1.0, "labeled_only": True},
    "cosine_probabilities": {"ce": 1.0, "cosine_probabilities": 1.0},
    "kl_cosine_probabilities": {"ce": 1.0, "kl": 1.0, "cosine_probabilities": 1.0},
    "dist": {"ce": 1.0, "dist_inter": 1.0, "dist_intra_batch": 1.0},
    "decoupled": {"ce": 1.0, "target_class": 1.0, "other_classes": 2.0},
    "kl_standardized": {"ce": 1.0, "kl_standardized": 1.0, "temperature": 2.0},
    "cosine_batch": {"ce": 1.0, "cosine_batch": 1.0},
    "features_cosine": {"ce": 1.0, "features_cosine": 1.0},
    "features_mse": {"ce": 1.0, "features_mse": 1.0},
    "kl_features": {"ce": 1.0, "kl": 1.0, "features_cosine": 1.0},
    "relational": {"ce": 1.0, "relational_distance": 25.0},
    "similarity": {"ce": 1.0, "similarity": 3000.0},
}
"""Further arms for `distill.arms`: a baseline that sees the labeled tiles only, and objectives of other papers, see
`objective.terms`. Weights and temperatures are ours, except the weights of `relational` and `similarity`, which are
from their papers. An arm may set its own `temperature`, `learning_rate`, `weight_decay` and `class_weights`. Arms with
the same `family` are trials of one arm, and the results use the one that is best on validation."""

DEFAULT_VIEWS = 8
"""Largest number of views if `distill.views` is unset. Validation accuracy rises up to here, see docs/results."""


def base() -> ml_collections.ConfigDict:
    """All fields with their defaults."""
    config = ml_collections.ConfigDict()
    config.name = "experiment"
    config.data_seed = 0  # split, views and the rendered demo
    config.splits = 1  # repeat the whole run, teacher included, with data_seed, data_seed + 1, …
    config.seeds = (0,)  # one student per seed and arm: head initialization, order of examples, dropout
    config.dtype = "auto"  # compute dtype: float32 on CPU, bfloat16 elsewhere; parameters and losses stay float32
    config.dataset = _dataset()
    config.teacher = _teacher()
    config.student = _student()
    config.distill = _distill()
    config.arms = ml_collections.ConfigDict({**ARMS, **FURTHER_ARMS})
    config.run = _run()
    config.lock()  # setting an unknown field raises
    config.arms.unlock()  # experiments may add their own arms
    return config


def _dataset() -> ml_collections.ConfigDict:
    dataset = ml_collections.ConfigDict()
    dataset.source = "folder"  # a name of kdjax.data.sources: demo | folder | tfds
    dataset.path = config_dict.placeholder(str)  # folder: directory or zip of class folders; tfds: data_dir
    dataset.builder = config_dict.placeholder(str)  # tfds: name of the builder, such as "eurosat/rgb"
    dataset.image_size = 64  # side of the students' input, px
    dataset.storage_size = 72  # side at which images are decoded and kept, px; crops are taken from it
    dataset.test_fraction = 0.2
    dataset.validation_fraction = 0.1  # of the images that are not in the test split
    dataset.tfds_splits = ()  # or three tfds split strings: train, validation, test
    dataset.splits = config_dict.placeholder(str)  # a splits.json of an earlier run to use again
    dataset.split_by = "image"  # what stays on one side: image (identical ones) | place (tiles that lie together)
    dataset.places = config_dict.placeholder(str)  # CSV or GeoJSON with locations of tiles; unset = from GeoTIFF tiles
    dataset.block_km = 1.0  # side of a place, km
    dataset.group_near_duplicates = False  # images that are nearly the same stay on one side, too
    dataset.fold = ()  # (number, folds): the test split is that one of so many folds
    dataset.unlabeled_dir = config_dict.placeholder(str)  # tiles without labels for the training split
    dataset.label_fraction = 1.0  # fraction of training and validation images that keep their labels
    dataset.unlabeled = "keep"  # training images without a label: keep (soft losses count them) | drop
    dataset.class_weights = ()  # in terms that use the label: () | 'balanced' | one per class | 'NAME=WEIGHT', …
    dataset.sampling = "uniform"  # draws of an epoch: uniform (each image once) | balanced (classes equally often)
    dataset.on_error = "refuse"  # unreadable images: refuse | skip
    dataset.value_range = ()  # (low, high) of 16-bit and float images; () = the sensor's, or inferred, and logged
    # "" (red, green and blue) | sentinel2_l1c | sentinel2_l2a | either with _offset, see data.bands
    dataset.sensor = ""
    dataset.file_bands = ()  # names of the bands in files that have no descriptions, in their order
    dataset.bands = ()  # names of the bands to read; () = all of the sensor's or of file_bands
    dataset.demo_classes = 10
    dataset.demo_train = 600
    dataset.demo_validation = 200
    dataset.demo_test = 400
    augmentation = ml_collections.ConfigDict()  # of training views; see kdjax.inputs.augment.Augmentation
    augmentation.scale = (0.5, 1.0)  # share of the image's area in a crop
    augmentation.ratio = (3 / 4, 4 / 3)  # width over height of a crop
    augmentation.brightness = 0.2
    augmentation.contrast = 0.2
    augmentation.saturation = 0.2
    augmentation.symmetries = 8  # 1 (none) | 2 (up-down) | 4 (both flips) | 8 (with rotations)
    dataset.augmentation = augmentation
    return dataset


def _network() -> ml_collections.ConfigDict:
    """The fields that teacher and student share."""
    network = ml_collections.ConfigDict()
    network.bands = ()  # names of the dataset.bands that it sees; () = all
    network.width = 1.0
    network.head = "average"  # average: global average pooling; fc: VGG16's own two layers of 4096
    network.weights = config_dict.placeholder(str)  # safetensors file or Hugging Face hub id; unset = scratch
    network.weights_pixels = "network"  # pixels for `weights`: network (its own kind) | caffe (BGR, 0 to 255 − mean)
    network.weight_decay = 0.01
    network.clip = 1.0  # largest global gradient norm; 0 = none
    network.ema = 0.0  # decay of moving averages, which are then evaluated and selected; 0 = none
    network.select = "best"  # step that is used: best on validation | last, for tiny validation splits
    return network


def _teacher() -> ml_collections.ConfigDict:
    teacher = _network()
    teacher.model = "vgg16"
    teacher.image_size = 0  # side of the teacher's input, px; 0 = the students'
    teacher.fit = "all"  # which part is trained: all | head (a linear one, on frozen weights) | nothing (not even that)
    teacher.classes = ()  # names in the order of its logits, if trained elsewhere; () = from its file's metadata
    teacher.workdir = config_dict.placeholder(str)  # a run whose trained teacher is used
    teacher.students = config_dict.placeholder(str)  # RUN or RUN:ARM: the mean of a finished run's students is used
    teacher.ensemble = ()  # 'workdir=RUN', 'students=RUN:ARM', 'onnx=FILE', 'logits=FOLDER', …; their mean is used
    teacher.onnx = config_dict.placeholder(str)  # an ONNX file as teacher, instead of training one
    teacher.onnx_layout = "NHWC"  # layout of its input: NHWC | NCHW
    teacher.onnx_input = "imagenet"  # its pixels: imagenet (its mean and std) | normalized (as below) | unit | uint8
    teacher.onnx_mean = ()  # mean of each channel, in 0 to 1, for normalized
    teacher.onnx_std = ()  # standard deviation of each channel
    teacher.onnx_output = ""  # name of the output to use; "" = the only one
    teacher.onnx_gives = (
        "logits"  # kind of that output: logits | probabilities (after a softmax) | sigmoid | embeddings
    )
    teacher.seed = 0
    teacher.epochs = 8
    teacher.batch_size = 32
    teacher.learning_rate = 1e-4
    teacher.head_factor = 10.0  # the head learns this many times faster than the rest
    teacher.warmup_epochs = 0.5
    teacher.dropout = 0.5
    return teacher


def _student() -> ml_collections.ConfigDict:
    student = _network()
    student.model = "mobilenet_v2"
    student.epochs = 15
    student.batch_size = 64
    student.learning_rate = 1e-3
    student.head_factor = 1.0
    student.warmup_epochs = 1.0
    student.dropout = 0.2
    return student


def _distill() -> ml_collections.ConfigDict:
    distill = ml_collections.ConfigDict()
    distill.views = config_dict.placeholder(int)  # views per example; unset = min(DEFAULT_VIEWS, epochs); 0 = online
    distill.target = "view"  # teacher logits: view (those of the view that is shown) | mean (over all views)
    distill.logits = ()  # folders of logits computed earlier, instead of a teacher; the mean of several is used
    distill.mixup = 0.0  # Beta parameter of mixup, online teacher only (views = 0); 0 = none
    distill.temperature = 4.0  # ours, because the paper's is not public
    distill.arms = tuple(ARMS)  # names of the arms to train
    return distill


def _run() -> ml_collections.ConfigDict:
    """Fields that cannot change results."""
    run = ml_collections.ConfigDict()
    run.cache_dir = config_dict.placeholder(str)  # unset = kdjax in the user's cache directory
    run.form = "auto"  # layout in which networks compute: examples_last (fast on CPU) | examples_first | auto
    run.images = "auto"  # training images: device (its memory) | host (read ahead) | auto (device if they fit)
    run.arms_at_once = config_dict.placeholder(int)  # arms trained together in a step; unset = as memory allows
    run.profile = ()  # (first, last) step of a jax.profiler trace in the stage's folder
    run.log_seconds = 10.0
    run.test_symmetries = False  # also report the mean over the eight symmetries of a test image
    run.tensorboard = True  # if its packages are installed
    run.litert = False  # stage export writes LiteRT (TFLite) files as well; needs the extra `litert`
    run.note = ""  # sentence printed below the closing table
    return run


def from_file(path: Path | str, argument: str = "") -> ml_collections.ConfigDict:
    """Returns the config of another file, as a base for variations: the result of its `get_config(argument)`.

    With an empty argument, `get_config()` is called without one.

    Raises:
        InputError: the file does not exist or has no such function.
    """
    if not Path(path).is_file():
        raise InputError(f"--config: there is no file {path}")
    get_config = runpy.run_path(str(path)).get("get_config")
    if get_config is None:
        raise InputError(f"--config: {path} has no get_config()")
    return get_config(argument) if argument else get_config()


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Checks the fields of a configuration and their types against the defaults.

    Raises:
        InputError: a field is unknown or missing, or has another type than its default.
    """
    _compare(config, base(), "")


def _compare(value: Any, default: Any, path: str) -> None:
    if not isinstance(default, ml_collections.ConfigDict):
        if default is not None and not _same_kind(value, default):
            raise InputError(f"{path} is {value!r}: give a {_kind(default)}, such as {default!r}")
        return
    if not isinstance(value, ml_collections.ConfigDict):
        raise InputError(f"{path or 'the config'} is {value!r}: it must be a section, as kdjax.config.base() makes it")
    if path == "arms":
        return
    for name in value:
        if name not in default:
            raise InputError(f"{path}.{name}: there is no such field; kdjax/config.py has all".lstrip("."))
    for name in default:
        if name not in value:
            raise InputError(f"{path}.{name} is missing: begin the config with kdjax.config.base()".lstrip("."))
        _compare(value[name], default[name], f"{path}.{name}".lstrip("."))


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (tuple, list)):
        return isinstance(value, (tuple, list))
    return isinstance(value, type(default))


def _kind(default: Any) -> str:
    return {bool: "truth value", int: "whole number", float: "number", str: "text", tuple: "tuple"}[type(default)]
