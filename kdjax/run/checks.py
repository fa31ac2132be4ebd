"""All checks of a configuration that need no data."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from kdjax import data
from kdjax.config import base, check_fields
from kdjax.data import class_weights
from kdjax.data.bands import check_names, requested_bands
from kdjax.data.checks import check_both
from kdjax.errors import InputError
from kdjax.fields import INT32_MAX, check_choice, check_number, check_whole, is_whole
from kdjax.networks import MODELS
from kdjax.networks.layers import FORMS
from kdjax.networks.pretrained import PIXELS
from kdjax.objective.arms import OVERRIDES
from kdjax.objective.terms import TERMS
from kdjax.run.arms import check_comparison, check_overrides, has_term
from kdjax.run.augmentation import augmentation
from kdjax.run.teacher_source import given_field, given_teachers, gives_features
from kdjax.teacher import onnx
from kdjax.teacher.store import read_parts

FITS = ("all", "head", "nothing")
"""Which part of the teacher is trained."""

LARGEST_TEMPERATURE = 1000
"""At higher temperatures, softened probabilities differ only in the last digits of float32, which T² then loses."""


def validate(config: ml_collections.ConfigDict, begun: Collection[str] = ()) -> None:
    """Checks everything that can be checked without data.

    Args:
        config: the configuration.
        begun: the sections whose networks have checkpoints, and so no longer need the file that they started from.

    Raises:
        InputError: a field is wrong; the message names the first one.
    """
    check_fields(config)
    _check_top(config)
    data.check(config.dataset)
    augmentation(config.dataset.augmentation)
    _check_sizes(config)
    for name in ("teacher", "student"):
        _check_network(name, config[name])
        if name not in begun:
            _check_weights_exist(name, config[name].weights)
    _check_teacher(config)
    for name, arm in config.arms.items():
        _check_arm(name, arm, config.dataset.sampling)
    _check_distill(config)
    check_comparison(config)
    check_overrides(config)
    _check_run(config.run)


def check_splits(config: ml_collections.ConfigDict) -> None:
    """Checks that the other fields are compatible with several splits.

    The run of a single split cannot check this, because its own configuration has splits=1.

    Raises:
        InputError: a field is not; the message names it.
    """
    one_split = {
        "dataset.splits": config.dataset.splits,
        "distill.logits": config.distill.logits,
        "teacher.workdir": config.teacher.workdir,
        "teacher.students": config.teacher.students,
        "teacher.ensemble": config.teacher.ensemble,
    }
    last = config.data_seed + config.splits - 1
    if last > INT32_MAX:
        raise InputError(f"data_seed is {config.data_seed}, and of the last of {config.splits} splits {last}: lower it")
    for field, value in one_split.items():
        if config.splits > 1 and value:
            raise InputError(f"splits is {config.splits}, but {field} belongs to one split: choose one of them")
    fixed = {
        "teacher.fit='nothing'": config.teacher.fit == "nothing",
        "teacher.onnx": config.teacher.onnx and config.teacher.onnx_gives != "embeddings",
    }
    for field, value in fixed.items():
        if config.splits > 1 and value:
            raise InputError(
                f"splits is {config.splits}, but {field} gives each split the same teacher, which may have seen the "
                "test images of any: choose one of them"
            )
    if config.splits > 1 and config.dataset.split_by == "place" and config.dataset.fold:
        raise InputError(
            f"splits is {config.splits}, and with dataset.split_by 'place' these are the folds, one after the other: "
            "leave dataset.fold out, or set splits=1"
        )


def expand_paths(config: ml_collections.ConfigDict) -> None:
    """Expands a leading ~ in paths, in place, because the shell does not expand it after --config.field=."""
    fields = (
        (config.teacher, ("weights", "workdir", "students", "onnx")),
        (config.student, ("weights",)),
        (config.run, ("cache_dir",)),
    )
    for section, names in fields:
        for name in names:
            if section[name]:
                section[name] = os.path.expanduser(section[name])
    config.distill.logits = tuple(
        os.path.expanduser(folder) if isinstance(folder, str) else folder for folder in config.distill.logits
    )
    config.teacher.ensemble = tuple(map(_expand_member, config.teacher.ensemble))


def _expand_member(member: Any) -> Any:
    """Returns KIND=PLACE with ~ expanded in PLACE. Anything but a string is left as it is and refused later."""
    if not isinstance(member, str):
        return member
    kind, sign, place = member.partition("=")
    return f"{kind}{sign}{os.path.expanduser(place)}"


def _check_top(config: ml_collections.ConfigDict) -> None:
    if not re.fullmatch(r"[\w.+ -]*\w[\w.+ -]*", config.name):
        raise InputError(
            f"name is {config.name!r}: give letters, digits, '-', '_', '.' or '+', as it names a folder in runs/"
        )
    check_choice("dtype", config.dtype, ("auto", "float32", "bfloat16"))
    check_whole("data_seed", config.data_seed, 0)
    check_whole("teacher.seed", config.teacher.seed, 0)
    check_whole("splits", config.splits, 1)
    check_splits(config)
    if not config.seeds:
        raise InputError("seeds is empty: give at least one, as (0,)")
    for seed in config.seeds:
        check_whole("seeds", seed, 0)
    if len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"seeds {tuple(config.seeds)} repeat: give each once")


def _check_sizes(config: ml_collections.ConfigDict) -> None:
    if config.teacher.image_size:
        check_whole("teacher.image_size", config.teacher.image_size, 32)
    largest = max(config.dataset.image_size, config.teacher.image_size)
    if config.dataset.storage_size < largest:
        raise InputError(
            f"dataset.storage_size is {config.dataset.storage_size}: images kept at that size would be enlarged to the "
            f"{largest} px of image_size; set it to {largest * 9 // 8}, or give the size as argument of the config"
        )


def _check_network(name: str, section: ml_collections.ConfigDict) -> None:
    check_names(f"{name}.bands", section.bands)
    check_choice(f"{name}.model", section.model, tuple(MODELS))
    check_choice(f"{name}.head", section.head, MODELS[section.model].heads)
    check_choice(f"{name}.select", section.select, ("best", "last"))
    check_whole(f"{name}.epochs", section.epochs, 1, 10**6)
    check_whole(f"{name}.batch_size", section.batch_size, 2, 10**6)
    for field in ("width", "learning_rate", "head_factor"):
        check_number(f"{name}.{field}", section[field], above=0)
    for field in ("weight_decay", "warmup_epochs", "clip"):
        check_number(f"{name}.{field}", section[field], least=0)
    for field in ("dropout", "ema"):
        check_number(f"{name}.{field}", section[field], least=0, below=1)
    if section.weights == "None":
        raise InputError(f"{name}.weights is 'None': for a start from scratch give --config.{name}.weights=")
    check_choice(f"{name}.weights_pixels", section.weights_pixels, PIXELS)
    if section.weights_pixels != PIXELS[0] and not section.weights:
        raise InputError(
            f"{name}.weights_pixels is {section.weights_pixels!r}, but there is no {name}.weights, so it does nothing: "
            "leave it out"
        )
    if section.warmup_epochs >= section.epochs:
        raise InputError(
            f"{name}.warmup_epochs is {section.warmup_epochs}: give less than {name}.epochs, which is {section.epochs}"
        )


def _check_weights_exist(name: str, source: str | None) -> None:
    if source and source.endswith(".safetensors") and ":" not in source and not Path(source).is_file():
        raise InputError(
            f"{name}.weights: no file {source}: give a .safetensors file or a hub id org/name[@revision][:file]"
        )


def _check_teacher(config: ml_collections.ConfigDict) -> None:
    """Checks how the teacher is trained, or where it comes from."""
    teacher, field = config.teacher, given_field(config)
    check_choice("teacher.fit", teacher.fit, FITS)
    if teacher.fit != "all" and field not in (None, "teacher.workdir"):
        raise InputError(f"teacher.fit is {teacher.fit!r}, but {field} gives the teacher: leave one of them out")
    if teacher.fit != "all" and not teacher.weights:
        raise InputError(f"teacher.fit is {teacher.fit!r}, so the weights stay as they are: give teacher.weights")
    if teacher.fit == "head" and teacher.head != "average":
        raise InputError(
            f"teacher.fit='head' fits one layer, but teacher.head is {teacher.head!r}: set it to 'average'"
        )
    onnx_files = [given for given in given_teachers(config) if given.kind == "onnx"]
    if teacher.bands and field not in (None, "teacher.workdir") and not onnx_files:
        raise InputError(f"teacher.bands is {tuple(teacher.bands)}, but {field} has its own: leave it out")
    if teacher.classes and teacher.fit != "nothing" and not onnx_files:
        raise InputError(
            "teacher.classes names the logits of a network that was trained elsewhere: give teacher.onnx, or "
            "teacher.fit='nothing' and teacher.weights"
        )
    for name, default in base().teacher.items():
        is_default = list(teacher[name]) == list(default) if isinstance(default, tuple) else teacher[name] == default
        if name.startswith("onnx_") and not is_default and not onnx_files:
            raise InputError(
                f"teacher.{name} is {teacher[name]!r}, but no ONNX file is given: set teacher.onnx, or leave it"
            )
    _check_onnx(config)
    for given in given_teachers(config):
        if given.kind == "onnx" and not Path(given.place).is_file():
            raise InputError(f"{given.field}: no file {given.place}: give an ONNX file")
        if given.kind == "logits":
            read_parts(given.place, given.field)
    if config.distill.views == 0 and field in ("teacher.onnx", "teacher.ensemble", "distill.logits"):
        raise InputError(
            f"distill.views is 0 (online), but {field} is set: only a kdjax network can run inside the step; set "
            "distill.views to at least 1"
        )


def _check_onnx(config: ml_collections.ConfigDict) -> None:
    teacher = config.teacher
    check_choice("teacher.onnx_layout", teacher.onnx_layout, onnx.LAYOUTS)
    check_choice("teacher.onnx_input", teacher.onnx_input, onnx.INPUTS)
    check_choice("teacher.onnx_gives", teacher.onnx_gives, onnx.GIVES)
    if teacher.onnx_gives == "embeddings" and teacher.classes:
        raise InputError("teacher.classes is set, but teacher.onnx_gives='embeddings' has no classes: leave it out")
    for field in ("onnx_mean", "onnx_std"):
        values = tuple(teacher[field])
        if (teacher.onnx_input == "normalized") != bool(values):
            raise InputError(
                f"teacher.{field} is {values}, but teacher.onnx_input is {teacher.onnx_input!r}: give it with "
                "'normalized', and only then"
            )
        for value in values:
            check_number(f"teacher.{field}", value, above=0 if field == "onnx_std" else None)
            if abs(value) > 1:
                raise InputError(f"teacher.{field} is {values}: it is for pixels of 0 to 1, so divide by 255")
        if values and len(values) != 3 and not requested_bands(config.dataset):
            raise InputError(f"teacher.{field} is {values}: give three numbers, of red, green and blue in 0 to 1")


def _check_distill(config: ml_collections.ConfigDict) -> None:
    distill = config.distill
    if distill.views is not None:
        check_whole("distill.views", distill.views, 0)
    check_choice("distill.target", distill.target, ("view", "mean"))
    if distill.target == "mean" and distill.views == 0:
        raise InputError("distill.target is 'mean', but distill.views is 0 (online): there are no views to average")
    check_number("distill.mixup", distill.mixup, least=0)
    if distill.mixup and distill.views != 0:
        raise InputError(
            f"distill.mixup is {distill.mixup}: mixtures have no stored teacher logits; set distill.views=0 (online)"
        )
    check_number("distill.temperature", distill.temperature, above=0, most=LARGEST_TEMPERATURE)
    if not distill.arms:
        raise InputError("distill.arms is empty: name at least one of " + ", ".join(config.arms))
    if len(set(distill.arms)) < len(distill.arms):
        raise InputError(f"distill.arms {tuple(distill.arms)} repeat: give each once")
    for name in distill.arms:
        check_choice("distill.arms", name, tuple(config.arms))
        feature_terms = [term for term in TERMS if TERMS[term].needs_features and config.arms[name].get(term)]
        if feature_terms and not gives_features(config):
            raise InputError(
                f"arms.{name}.{feature_terms[0]} compares features, and {given_field(config)} gives only logits: take "
                "a single kdjax network or an ONNX file of embeddings, or leave the arm out"
            )


def _check_arm(name: str, arm: Any, sampling: str) -> None:
    if not isinstance(arm, Mapping | ml_collections.ConfigDict):
        raise InputError(f"arms.{name} is {arm!r}: give weights of terms, as {{'ce': 1.0, 'kl': 1.0}}")
    if "/" in name or ":" in name or not name.strip():  # "/" separates an arm from a seed, ":" from a run
        raise InputError(f"arms: {name!r} is not a name for an arm: leave out '/' and ':'")
    for path, label in (("arms", name), (f"arms.{name}.family", arm.get("family"))):
        if label == "teacher":  # the teacher's name in tables, the report and results.csv
            raise InputError(f"{path}: 'teacher' is the teacher's own name: choose another")
    for field, value in arm.items():
        path = f"arms.{name}.{field}"
        if field == "family":
            if not isinstance(value, str) or not value:
                raise InputError(f"{path} is {value!r}: give the name that its trials share")
        elif field == "class_weights":
            class_weights.check(path, value)
            check_both(path, value, sampling)
            if value and not has_term(arm, "hard"):
                raise InputError(f"{path} does nothing: the arm has no term that asks for the label; leave it out")
        elif field == "labeled_only":
            if not isinstance(value, bool):
                raise InputError(f"{path} is {value!r}: give True or False")
        elif field in TERMS or field == "weight_decay":
            check_number(path, value, least=0)
        elif field == "temperature":
            check_number(path, value, above=0, most=LARGEST_TEMPERATURE)
        elif field in OVERRIDES:
            check_number(path, value, above=0)
        else:
            raise InputError(
                f"{path}: unknown loss term; choose from {', '.join(TERMS)}, or an override of {', '.join(OVERRIDES)}"
            )
    if not any(arm.get(term, 0) for term in TERMS):
        raise InputError(f"arms.{name}: every weight is 0; give at least one of {', '.join(TERMS)}")


def _check_run(run: ml_collections.ConfigDict) -> None:
    check_choice("run.form", run.form, ("auto", *FORMS))
    check_choice("run.images", run.images, ("auto", "device", "host"))
    check_number("run.log_seconds", run.log_seconds, least=0)
    if run.arms_at_once is not None:
        check_whole("run.arms_at_once", run.arms_at_once, 1)
    profile = tuple(run.profile)
    if profile and not (len(profile) == 2 and all(map(is_whole, profile)) and 0 <= profile[0] <= profile[1]):
        raise InputError(f"run.profile is {profile}: give (first, last) with 0 <= first <= last")
