"""The configuration: every field with its default, and the checks made before anything runs."""

import json
import math
import os
import runpy
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import config_dict

from kdjax.errors import InputError
from kdjax.networks import MODELS
from kdjax.objective import terms
from kdjax.teacher import teachers

ARMS = {
    "student_alone": {"ce": 1.0, "kl": 0.0, "cosine": 0.0},
    "kl": {"ce": 1.0, "kl": 1.0, "cosine": 0.0},
    "cosine": {"ce": 1.0, "kl": 0.0, "cosine": 1.0},
    "kl_cosine": {"ce": 1.0, "kl": 1.0, "cosine": 1.0},
}
"""The paper's ablation. The weights are ours: the abstract of arXiv 2606.14886 does not state them."""

FURTHER_ARMS = {
    "dist": {"ce": 1.0, "dist_inter": 1.0, "dist_intra_batch": 1.0},
    "decoupled": {"ce": 1.0, "target_class": 1.0, "other_classes": 2.0},
    "kl_standardised": {"ce": 1.0, "kl_standardised": 1.0, "temperature": 2.0},
    "cosine_batch": {"ce": 1.0, "cosine_batch": 1.0},
}
"""Objectives of other papers, see `terms`, for `distill.arms`. Weights and temperatures are ours."""

ARM_OVERRIDES = ("temperature", "learning_rate", "weight_decay")
"""What an arm may set for itself beside its weights. `family` makes it one of several trials: the results compare each
family's best by validation."""


def base() -> ml_collections.ConfigDict:
    """All fields with their defaults. A file in `configs/` changes what its experiment needs."""
    config = ml_collections.ConfigDict()
    config.name = "experiment"
    config.data_seed = 0  # split, views and the rendered demo
    config.splits = 1  # repeat the whole run, teacher included, with data_seed, data_seed + 1, …
    config.seeds = (0,)  # one student per seed and arm: head initialisation, order of examples, dropout
    config.dtype = "auto"  # compute dtype: float32 on CPU, bfloat16 elsewhere; parameters and losses stay float32

    config.dataset = ml_collections.ConfigDict()
    config.dataset.source = "folder"  # demo | folder | tfds
    config.dataset.path = config_dict.placeholder(str)  # folder: directory or zip of class folders; tfds: data_dir
    config.dataset.builder = config_dict.placeholder(str)  # tfds: name of the builder, such as "eurosat/rgb"
    config.dataset.image_size = 64  # side of the students' input, px
    config.dataset.storage_size = 72  # side at which images are decoded and kept, px; crops are taken from it
    config.dataset.test_fraction = 0.2
    config.dataset.validation_fraction = 0.1  # of what the test split leaves
    config.dataset.tfds_splits = ()  # or three tfds split strings: train, validation, test
    config.dataset.splits = config_dict.placeholder(str)  # a splits.json of an earlier run to use again
    config.dataset.unlabelled_dir = config_dict.placeholder(str)  # tiles without labels for the training split
    config.dataset.label_fraction = 1.0  # fraction of training and validation images that keep their labels
    config.dataset.unlabelled = "keep"  # training images without a label: keep (soft losses count them) | drop
    config.dataset.on_error = "refuse"  # unreadable images: refuse | skip
    config.dataset.value_range = ()  # (low, high) of 16-bit and float images; () = inferred, and logged
    config.dataset.demo_classes = 10
    config.dataset.demo_train = 600
    config.dataset.demo_validation = 200
    config.dataset.demo_test = 400

    config.teacher = ml_collections.ConfigDict()
    config.teacher.model = "vgg16"
    config.teacher.width = 1.0
    config.teacher.head = "average"  # average: global average pooling; fc: VGG16's own two layers of 4096
    config.teacher.convolution = "auto"  # winograd on CPU, conv elsewhere: equal to rounding
    config.teacher.weights = config_dict.placeholder(str)  # safetensors file or Hugging Face hub id; unset = scratch
    config.teacher.image_size = 0  # side of the teacher's input, px; 0 = the students'
    config.teacher.workdir = config_dict.placeholder(str)  # a run whose trained teacher is taken
    config.teacher.onnx = config_dict.placeholder(str)  # an ONNX file as teacher, in place of training one
    config.teacher.onnx_layout = "NHWC"  # of its input: NHWC | NCHW
    config.teacher.onnx_input = "imagenet"  # its pixels: imagenet (mean and deviation) | unit (0 to 1) | uint8
    config.teacher.onnx_classes = ()  # names in the order of its logits; () = as its metadata say
    config.teacher.seed = 0
    config.teacher.epochs = 8
    config.teacher.batch_size = 32
    config.teacher.learning_rate = 1e-4
    config.teacher.head_factor = 10.0  # the head learns this many times faster than the rest
    config.teacher.weight_decay = 0.01
    config.teacher.warmup_epochs = 0.5
    config.teacher.clip = 1.0  # largest global gradient norm; 0 = none
    config.teacher.dropout = 0.5
    config.teacher.ema = 0.0  # decay of moving averages, which are then what is evaluated and selected; 0 = none
    config.teacher.select = "best"  # step that is used: best on validation | last, for validation splits that are tiny

    config.student = ml_collections.ConfigDict()
    config.student.model = "mobilenet_v2"
    config.student.width = 1.0
    config.student.weights = config_dict.placeholder(str)
    config.student.depthwise = "auto"  # shift on CPU, conv elsewhere: equal to rounding
    config.student.epochs = 15
    config.student.batch_size = 64
    config.student.learning_rate = 1e-3
    config.student.head_factor = 1.0
    config.student.weight_decay = 0.01
    config.student.warmup_epochs = 1.0
    config.student.clip = 1.0
    config.student.dropout = 0.2
    config.student.ema = 0.0
    config.student.select = "best"

    config.distill = ml_collections.ConfigDict()
    config.distill.views = config_dict.placeholder(int)  # views an example has; unset = min(8, epochs); 0 = online
    config.distill.target = "view"  # teacher logits of the view that is shown | mean of those of all views
    config.distill.logits = ()  # folders of logits made before, in place of a teacher; of several the mean is taken
    config.distill.mixup = 0.0  # Beta parameter of mixup, online teacher only (views = 0); 0 = none
    config.distill.temperature = 4.0  # ours: the paper's is not public
    config.distill.cosine_on = "logits"  # logits | probabilities (softened by the temperature)
    config.distill.arms = tuple(ARMS)  # names of the arms to train
    config.arms = ml_collections.ConfigDict({**ARMS, **FURTHER_ARMS})

    config.run = ml_collections.ConfigDict()  # fields that cannot change results
    config.run.cache_dir = config_dict.placeholder(str)  # unset = kdjax in the user's cache directory
    config.run.images = "auto"  # training images: device (its memory) | host (read ahead) | auto (device if they fit)
    config.run.arms_at_once = config_dict.placeholder(int)  # arms side by side in a step; unset = as memory allows
    config.run.profile = ()  # (first, last) step of a jax.profiler trace in the stage's folder
    config.run.log_seconds = 10.0
    config.run.test_symmetries = False  # report, beside the rest, the mean over the eight symmetries of a test image
    config.run.tensorboard = True  # where its packages are installed
    config.run.note = ""  # sentence printed below the closing table
    return config


def from_file(path: Path | str, argument: str = "") -> ml_collections.ConfigDict:
    """The config of another file, for a file that varies it: what its `get_config(argument)` returns.

    Raises:
        InputError: there is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"config: there is no file {path}")
    return runpy.run_path(str(path))["get_config"](argument)


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks all that can be checked without data.

    Raises:
        InputError: names the first field that is wrong.
    """
    _choice("dtype", config.dtype, ("auto", "float32", "bfloat16"))
    _seed("data_seed", config.data_seed)
    _seed("teacher.seed", config.teacher.seed)
    _whole("splits", config.splits, 1)
    if config.splits > 1 and config.dataset.splits:
        raise InputError(f"splits is {config.splits}, but dataset.splits names one split: choose one of them")
    for field, value in (("distill.logits", config.distill.logits), ("teacher.workdir", config.teacher.workdir)):
        if config.splits > 1 and value:
            raise InputError(f"splits is {config.splits}, but {field} belongs to one split: choose one of them")
    if not config.seeds:
        raise InputError("seeds is empty: give at least one, as (0,)")
    for seed in config.seeds:
        _seed("seeds", seed)
    if len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"seeds {tuple(config.seeds)} repeat: give each once")
    _choice("dataset.source", config.dataset.source, ("demo", "folder", "tfds"))
    for field, sources in (("path", ("folder", "tfds")), ("builder", ("tfds",))):
        if config.dataset[field] and config.dataset.source not in sources:
            raise InputError(
                f"dataset.{field} is {config.dataset[field]}, but dataset.source is {config.dataset.source!r} and does "
                f"not read it: set dataset.source={sources[0]}, or give a config that does, as configs/folder.py"
            )
    _whole("dataset.image_size", config.dataset.image_size, 32)
    _whole("dataset.storage_size", config.dataset.storage_size, 32)
    _whole("teacher.image_size", config.teacher.image_size or 32, 32)
    largest = max(config.dataset.image_size, config.teacher.image_size)
    if config.dataset.storage_size < largest:
        raise InputError(
            f"dataset.storage_size is {config.dataset.storage_size}: images kept at that size would be enlarged to the "
            f"{largest} px of image_size; set it to {largest * 9 // 8}, or give the size as argument of the config"
        )
    for stage in ("teacher", "student"):
        network = config[stage]
        _choice(f"{stage}.model", network.model, tuple(MODELS))
        _choice(f"{stage}.select", network.select, ("best", "last"))
        _whole(f"{stage}.epochs", network.epochs, 1)
        _whole(f"{stage}.batch_size", network.batch_size, 2)
        for field in ("width", "learning_rate", "head_factor"):
            _number(f"{stage}.{field}", network[field], above=0)
        for field in ("weight_decay", "warmup_epochs", "clip", "dropout", "ema"):
            _number(f"{stage}.{field}", network[field], least=0)
        if network.weights == "None":
            raise InputError(f"{stage}.weights is 'None': for a start from scratch give --config.{stage}.weights=")
        if network.warmup_epochs >= network.epochs:
            raise InputError(f"{stage}.warmup_epochs is {network.warmup_epochs}: must be below {stage}.epochs")
        for field in ("dropout", "ema"):
            if network[field] >= 1:
                raise InputError(f"{stage}.{field} is {network[field]}: must be below 1")
    _choice("teacher.head", config.teacher.head, ("average", "fc"))
    _choice("teacher.convolution", config.teacher.convolution, ("auto", "winograd", "conv"))
    _choice("student.depthwise", config.student.depthwise, ("auto", "shift", "conv"))
    if config.distill.views is not None:
        _whole("distill.views", config.distill.views, 0)
    _choice("teacher.onnx_layout", config.teacher.onnx_layout, teachers.ONNX_LAYOUTS)
    _choice("teacher.onnx_input", config.teacher.onnx_input, teachers.ONNX_INPUTS)
    given_teacher(config)
    if config.distill.views == 0 and (config.teacher.onnx or config.distill.logits):
        raise InputError(
            f"distill.views is 0 (online), but {'teacher.onnx' if config.teacher.onnx else 'distill.logits'} is set: "
            "only a network of kdjax's can run inside the step; set distill.views to at least 1"
        )
    _choice("distill.target", config.distill.target, ("view", "mean"))
    if config.distill.target == "mean" and config.distill.views == 0:
        raise InputError("distill.target is 'mean', but distill.views is 0 (online): there are no views to average")
    _number("distill.mixup", config.distill.mixup, least=0)
    if config.distill.mixup and config.distill.views != 0:
        raise InputError(
            f"distill.mixup is {config.distill.mixup}: mixtures have no stored teacher logits; "
            "set distill.views=0 (online)"
        )
    _choice("run.images", config.run.images, ("auto", "device", "host"))
    _number("run.log_seconds", config.run.log_seconds, least=0)
    if config.run.arms_at_once is not None:
        _whole("run.arms_at_once", config.run.arms_at_once, 1)
    profile = tuple(config.run.profile)
    if profile and not (
        len(profile) == 2 and all(isinstance(n, int) for n in profile) and 0 <= profile[0] <= profile[1]
    ):
        raise InputError(f"run.profile is {profile}: give (first, last) with 0 <= first <= last")
    _number("distill.temperature", config.distill.temperature, above=0)
    _choice("distill.cosine_on", config.distill.cosine_on, terms.COSINE_ON)
    if not config.distill.arms:
        raise InputError("distill.arms is empty: name at least one of " + ", ".join(config.arms))
    if len(set(config.distill.arms)) < len(config.distill.arms):
        raise InputError(f"distill.arms {tuple(config.distill.arms)} repeat: give each once")
    for name in config.distill.arms:
        _choice("distill.arms", name, tuple(config.arms))
    for name, arm in config.arms.items():
        for field, value in arm.items():
            if field == "family":
                if not isinstance(value, str) or not value:
                    raise InputError(f"arms.{name}.family is {value!r}: give the name that its trials share")
            elif field in terms.TERMS:
                _number(f"arms.{name}.{field}", value, least=0)
            elif field not in ARM_OVERRIDES:
                raise InputError(
                    f"arms.{name}.{field}: unknown loss term; choose from {', '.join(terms.TERMS)}, "
                    f"or an override of {', '.join(ARM_OVERRIDES)}"
                )
            elif field == "weight_decay":
                _number(f"arms.{name}.{field}", value, least=0)
            else:
                _number(f"arms.{name}.{field}", value, above=0)
        if not any(arm.get(term, 0) for term in terms.TERMS):
            raise InputError(f"arms.{name}: every weight is 0; give at least one of {', '.join(terms.TERMS)}")


def given_teacher(config: ml_collections.ConfigDict) -> str | None:
    """The field that gives the teacher, in place of training one; None where the run trains its own.

    Raises:
        InputError: several do.
    """
    fields = {
        "teacher.workdir": config.teacher.workdir,
        "teacher.onnx": config.teacher.onnx,
        "distill.logits": config.distill.logits,
    }
    chosen = [field for field, value in fields.items() if value]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} are set: choose one teacher")
    return chosen[0] if chosen else None


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json, with the fields that it is too old to have at their defaults."""
    defaults = json.loads(base().to_json())
    sections = ("dataset", "teacher", "student", "distill", "run")  # of arms each run has its own
    return {**document, **{name: {**defaults[name], **document[name]} for name in sections if name in document}}


def expand_paths(config: ml_collections.ConfigDict) -> None:
    """Replaces a leading ~ in paths, in place: behind --config.field= the shell leaves it as it is."""
    fields = (
        (config.teacher, ("weights", "workdir", "onnx")),
        (config.student, ("weights",)),
        (config.run, ("cache_dir",)),
    )
    for section, names in fields:
        for name in names:
            if section[name]:
                section[name] = os.path.expanduser(section[name])
    config.distill.logits = tuple(os.path.expanduser(folder) for folder in config.distill.logits)


def first_difference(new: Any, old: Any, path: str = "") -> str | None:
    """Where two JSON documents first differ, as "field: new (was old)", or None where they agree."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted({*new, *old}):
            found = first_difference(new.get(key), old.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if new == old else f"{path} is {new!r}, was {old!r}"


def _choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{field} is {value!r}: choose one of {', '.join(choices)}")


def _whole(field: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{field} is {value!r}: give a whole number of at least {least}")


def _seed(field: str, value: Any) -> None:
    _whole(field, value, 0)
    if value >= 2**31:
        raise InputError(f"{field} is {value}: must be below {2**31}")


def _number(field: str, value: Any, *, above: float | None = None, least: float | None = None) -> None:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{field} is {value!r}: give a finite number")
    if above is not None and value <= above:
        raise InputError(f"{field} is {value!r}: must be above {above}")
    if least is not None and value < least:
        raise InputError(f"{field} is {value!r}: must be at least {least}")
