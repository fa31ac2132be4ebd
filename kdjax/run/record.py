"""The record that a run keeps of its config and data, and the checks that a later start is still the same run."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from kdjax.config import base
from kdjax.data.dataset import Dataset
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.run.arms import BASELINE
from kdjax.runtime import devices, files
from kdjax.training import checkpoint
from kdjax.training.learner import WEIGHTS

REMOVED: dict[tuple[str, str], Any] = {
    ("student", "depthwise"): None,
    ("teacher", "convolution"): None,
    ("teacher", "onnx_classes"): [],
    ("distill", "cosine_on"): "logits",
}
"""Fields that were removed, each with the value that meant what kdjax does now; None = any value."""

RENAMED = {
    ("dataset", "unlabelled"): "unlabeled",
    ("dataset", "unlabelled_dir"): "unlabeled_dir",
}
"""Fields that were renamed, with their current names."""

IMAGES = ("train", "validation", "test", "unlabeled")
"""Entries of splits.json that list images; no image is in two of them."""

STAGES = {"teacher": "teacher", "student": "distill"}
"""The stage that trains the networks of a section of the configuration; it has a folder of that name."""

MOVABLE = ("splits", "places", "unlabeled_dir")
"""Fields of `config.dataset` that name a file or folder that may move. splits.json records what came of its content:
the side, label and digest of each image."""

DIGITS = 16
"""Hexadecimal digits of an image's digest in splits.json. The chance that any two of ten million images share them is
1 in 400 000."""

FIX = "it says which run the checkpoints here belong to: restore it or choose another workdir"


def completed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a config.json as this version would write it.

    Fields that an older file lacks get their defaults. Removed fields are dropped if their value meant what kdjax does
    now; otherwise they stay, and the comparison with the current config refuses them.
    """
    defaults = json.loads(base().to_json())
    section_names = ("dataset", "teacher", "student", "distill", "run")  # not the arms: each run defines its own
    sections = {
        name: {RENAMED.get((name, field), field): value for field, value in document[name].items()}
        for name in section_names
        if isinstance(document.get(name), dict)
    }
    full = {**document, **{name: {**defaults[name], **section} for name, section in sections.items()}}
    for (section, field), equivalent in REMOVED.items():
        if section in sections and field in full[section] and equivalent in (None, full[section][field]):
            del full[section][field]
    return full


def first_difference(new: Any, old: Any, path: str = "") -> str | None:
    """Returns where two JSON documents first differ, as "field is new, was old"; None if they are equal."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted({*new, *old}):
            difference = first_difference(new.get(key), old.get(key), f"{path}.{key}" if path else key)
            if difference:
                return difference
        return None
    return None if new == old else f"{path} is {new!r}, was {old!r}"


def has_begun(workdir: Path) -> bool:
    """Whether a run has checkpoints. Before the first one, the config and data of its directory may still change."""
    return any(map(checkpoint.has_begun, workdir.glob("*")))


def begun_sections(workdir: Path) -> list[str]:
    """Returns the sections of the configuration whose networks have checkpoints in a run's directory."""
    return [section for section, stage in STAGES.items() if checkpoint.has_begun(workdir / stage)]


def with_dtype(
    config: ConfigDict, workdir: Path, *, goes_on: bool, follows: bool = False
) -> tuple[ConfigDict, dict[str, Any]]:
    """Returns a copy of the config with the dtype that the run computes in, and the content of its config.json.

    dtype=auto is decided when a run begins, and the decision is written into its config.json. Its teacher outputs,
    checkpoints and figures then have one precision, on whatever machine the later stages run. Earlier versions wrote
    "auto", which does not say where the run began: such a run uses the dtype of the current backend, and its file
    keeps "auto".

    Args:
        config: the configuration as the user gave it; it is not changed.
        workdir: the run's directory.
        goes_on: whether the directory holds a run with checkpoints.
        follows: whether another process writes the run; that process may not have written a checkpoint yet.

    Raises:
        InputError: config.json cannot be read, or is not the record of a run.
    """
    config = config.copy_and_resolve_references()
    goes_on = goes_on or (follows and (workdir / "config.json").is_file())
    recorded_dtype = read(workdir, "config.json").get("dtype") if goes_on else None
    if config.dtype == "auto" and recorded_dtype in ("float32", "bfloat16"):
        config.dtype = recorded_dtype
    document = json.loads(config.to_json())
    if config.dtype == "auto":
        config.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        if not goes_on:
            document["dtype"] = config.dtype
    return config, document


def check_same_config(workdir: Path, document: Mapping[str, Any]) -> None:
    """Makes sure that a run with checkpoints continues with the configuration that it began with.

    The paths of the images and of the files that split them are not compared: they may have moved, and each process may
    have its own copy of the images. `check_same_data` compares their content. Weights that training started from may
    have moved as well.

    Args:
        workdir: the run's directory.
        document: the current configuration, as JSON.

    Raises:
        InputError: a field differs; the message names the first one.
    """
    recorded = read(workdir, "config.json")
    if not all(isinstance(recorded.get(name), dict) for name in ("dataset", "student", "distill", "arms")):
        raise InputError(f"{workdir / 'config.json'} is not the record of a run: {FIX}")
    recorded = completed(recorded)
    document = _with_recorded_places(workdir, document, recorded)
    baseline_joined = _baseline_joined(workdir)
    difference = first_difference(_result_fields(document, baseline_joined), _result_fields(recorded, baseline_joined))
    if difference:
        raise InputError(
            f"workdir {workdir} holds a run of another config: {difference}; set it back or choose another workdir"
        )


def _with_recorded_places(workdir: Path, document: Mapping[str, Any], recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a configuration with the recorded path in each field whose file or folder may have moved.

    A file of weights is compared with the record of the one that training started from. Networks with checkpoints need
    nothing of it, so one at the recorded path is not read, and may be gone.
    """
    dataset, old = document["dataset"], recorded["dataset"]
    moved = {field: old[field] for field in MOVABLE if dataset.get(field) and old.get(field)}
    document = {**document, "dataset": {**dataset, **moved}}
    for section in begun_sections(workdir):
        weights, recorded_weights = (part.get(section, {}).get("weights") for part in (document, recorded))
        path = workdir / STAGES[section] / WEIGHTS
        if not (weights and recorded_weights and Path(weights).is_file() and path.is_file()):
            continue
        if weights != recorded_weights and files.read_json(path, FIX).get("sha256") == pretrained.digest(weights):
            document = {**document, section: {**document[section], "weights": recorded_weights}}
    return document


def splits_document(dataset: Dataset) -> dict[str, Any]:
    """Returns the content of splits.json: the splits, and what identifies their images and labels.

    The digests let other runs recognize an image under another name. `value_range` holds the values that became black
    and white, () for images of bytes; kdjax chooses them from the images if the user does not, so they are recorded.
    """
    return {
        **dataset.splits_document(),
        "fingerprint": dataset.fingerprint,
        "labels": _labels_digest(dataset),
        "digests": {
            side: [dataset.digests[name][:DIGITS] for name in dataset.members.get(side, ())] for side in IMAGES
        },
        "value_range": list(dataset.value_range),
    }


def _labels_digest(dataset: Dataset) -> str:
    """Returns the SHA-256 of the class of every image, in hexadecimal."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    labels = {side: dict(zip(split.names, split.labels.tolist(), strict=True)) for side, split in splits.items()}
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()


def check_same_data(workdir: Path, dataset: Dataset, path: str, log: Callable[[str], None]) -> None:
    """Refuses data whose names, classes, labels or images differ from the run's, and logs other pixels of the same.

    Different names could put images that were trained on into validation or test. Other pixels of the same images are
    allowed, because another version of a library may resize an image differently in the last bit.

    Args:
        workdir: the run's directory.
        dataset: the current data.
        path: where the data were read from, `dataset.path`.
        log: takes lines for the user.

    Raises:
        InputError: names, the order of the classes, labels, the values of black and white, or images differ; or, for a
            run without digests, the pixels differ, and were read from another path or a training is unfinished.
    """
    recorded, current = read(workdir, "splits.json"), splits_document(dataset)
    sides = sorted(current.keys() - {"fingerprint", "labels", "digests", "value_range"})
    image_lists = (recorded.get(side, []) for side in sides)
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in image_lists):
        raise InputError(f"{workdir / 'splits.json'} is not the record of a run: {FIX}")
    for side in sides:
        differing = set(recorded.get(side, ())) ^ set(current[side])
        if differing:
            raise InputError(
                f"workdir {workdir} holds a run on other data: {len(differing)} names under {side!r} of its "
                f"splits.json differ, such as {min(differing)}: put the data back or choose another workdir"
            )
    if recorded.get("classes", current["classes"]) != current["classes"]:
        old_classes, new_classes = (", ".join(document["classes"][:3]) for document in (recorded, current))
        raise InputError(
            f"workdir {workdir} holds a run whose classes have another order, {old_classes}, … in its splits.json, "
            f"now {new_classes}, …: put the data back or choose another workdir"
        )
    if recorded.get("labels", current["labels"]) != current["labels"]:
        raise InputError(
            f"workdir {workdir} holds a run on images with other labels: put the data back or choose another workdir"
        )
    if recorded.get("value_range", current["value_range"]) != current["value_range"]:
        raise InputError(
            f"workdir {workdir} holds a run for which the values {recorded['value_range']} became black and white, now "
            f"{current['value_range']}, as the images have changed: put them back or choose another workdir"
        )
    if recorded.get("fingerprint", current["fingerprint"]) != current["fingerprint"]:
        _check_same_images(workdir, recorded, current, path, log)


def _check_same_images(
    workdir: Path, recorded: Mapping[str, Any], current: Mapping[str, Any], path: str, log: Callable[[str], None]
) -> None:
    """Refuses images that have changed, and logs images that are the same but have other pixels after the resize.

    Earlier versions recorded no digests, so changed images cannot be told from images that are decoded differently.
    Then the pixels may differ only for finished networks, and only if the images are where they were.

    Raises:
        InputError: see `check_same_data`.
    """
    back = "put the images, or the packages that decode them, back, or choose another workdir"
    recorded_digests = _digests(recorded)
    if recorded_digests:
        digests = _digests(current)
        changed = sorted(name for name, digest in recorded_digests.items() if digests.get(name) != digest)
        if changed:
            raise InputError(
                f"workdir {workdir} holds a run on other images of the same names: {len(changed)} of "
                f"{len(recorded_digests)} have changed, or are decoded differently, such as {changed[0]}: {back}"
            )
        log("data: the images are those that this run began with, but other versions resize them to other pixels")
        return
    recorded_path = read(workdir, "config.json")["dataset"].get("path", path)
    if devices.first_process_says(recorded_path != path):  # the first process wrote its own path
        raise InputError(
            f"workdir {workdir} holds a run on other images of the same names: dataset.path is {path!r}, was "
            f"{recorded_path!r}; set it back or choose another workdir"
        )
    if devices.first_process_says(_is_unfinished(workdir)):
        raise InputError(
            f"workdir {workdir} holds an unfinished training on images that have changed since, or were decoded "
            f"differently: {back}"
        )
    log("data: the images are not those that this run began with: decoded by other versions, or changed")


def _digests(splits: Mapping[str, Any]) -> dict[str, str]:
    """Returns the digest of each image that a splits.json lists, by its name; {} if the file has no digests."""
    digests = splits.get("digests", {})
    return {
        name: digest
        for side in IMAGES
        for name, digest in zip(splits.get(side, ()), digests.get(side, ()), strict=False)
    }


def _is_unfinished(workdir: Path) -> bool:
    """Whether a training has begun in a run's directory and not reached the last step of its schedule."""
    for stage in map(workdir.joinpath, STAGES.values()):
        program = stage / "program.json"
        steps = files.read_json(program, FIX).get("steps") if program.is_file() else None
        if checkpoint.has_begun(stage) and not (stage / checkpoint.FOLDER / str(steps)).is_dir():
            return True
    return False


def read(workdir: Path, name: str) -> dict[str, Any]:
    """Reads a JSON file that identifies a run with checkpoints.

    Raises:
        InputError: the file cannot be read, or is not the record of a run.
    """
    document = files.read_json(workdir / name, FIX)
    if not isinstance(document, dict):
        raise InputError(f"{workdir / name} is not the record of a run: {FIX}")
    return document


def _baseline_joined(workdir: Path) -> bool:
    """Whether the trained students include the baseline arm, which kdjax adds without a field that names it."""
    program = workdir / "distill" / "program.json"
    if not program.exists():
        return False
    document = files.read_json(program, "remove it; it is written again")
    return isinstance(document, dict) and BASELINE in document.get("arms", ())


def _result_fields(document: Mapping[str, Any], baseline_joined: bool) -> dict[str, Any]:
    """Returns the fields that determine results: all but the images' path, the section `run` and untrained arms."""
    used = (*document["distill"].get("arms", ()), *[BASELINE] * baseline_joined)
    arms = {BASELINE: json.loads(base().to_json())["arms"][BASELINE], **document["arms"]}
    dataset = {**document["dataset"], "path": None}
    trained = {name: arm for name, arm in arms.items() if name in used}
    return {**document, "dataset": dataset, "run": None, "arms": trained}
