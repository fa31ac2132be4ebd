"""What a run has written down of itself, and whether it is still the same run."""

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
from kdjax.run.arms import BASELINE
from kdjax.runtime import files
from kdjax.training import checkpoint

REMOVED: dict[tuple[str, str], Any] = {
    ("student", "depthwise"): None,
    ("teacher", "convolution"): None,
    ("teacher", "onnx_classes"): [],
    ("distill", "cosine_on"): "logits",
}
"""Fields of earlier versions, and the value with which they meant what this version does; None: any."""

RENAMED = {
    ("dataset", "unlabelled"): "unlabeled",
    ("dataset", "unlabelled_dir"): "unlabeled_dir",
}
"""Fields of earlier versions that have another name now."""

IMAGES = ("train", "validation", "test", "unlabeled")
"""Entries of splits.json that name images, each in one of them."""

DIGITS = 16
"""Of the digest of an image in splits.json. Two of ten million images share these with a chance of 1 in 400 000."""

FIX = "it says which run the checkpoints here belong to: restore it or choose another workdir"


def completed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.json as this version writes it.

    Fields that it is too old to have get their defaults; fields that are gone are dropped where their value meant what
    kdjax does now, and kept, so that they are refused, where it did not.
    """
    defaults = json.loads(base().to_json())
    sections = ("dataset", "teacher", "student", "distill", "run")  # of arms each run has its own
    held = {
        name: {RENAMED.get((name, field), field): value for field, value in document[name].items()}
        for name in sections
        if isinstance(document.get(name), dict)
    }
    full = {**document, **{name: {**defaults[name], **section} for name, section in held.items()}}
    for (section, field), meant in REMOVED.items():
        if section in held and field in full[section] and meant in (None, full[section][field]):
            del full[section][field]
    return full


def first_difference(new: Any, old: Any, path: str = "") -> str | None:
    """Where two JSON documents first differ, as "field: new (was old)", or None where they agree."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted({*new, *old}):
            found = first_difference(new.get(key), old.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if new == old else f"{path} is {new!r}, was {old!r}"


def begun(workdir: Path) -> bool:
    """Whether a run has checkpoints. Until it has one, its directory may change its mind."""
    return any(map(checkpoint.begun, workdir.glob("*")))


def with_dtype(
    config: ConfigDict, workdir: Path, *, goes_on: bool, follows: bool = False
) -> tuple[ConfigDict, dict[str, Any]]:
    """A configuration whose dtype is the one that the run computes in, and the content of its config.json.

    dtype=auto is decided where a run begins and written into its config.json: its teacher's outputs, checkpoints and
    figures are then of one precision, on whatever machine the later stages run. Runs of earlier versions wrote "auto",
    which does not say where they began: they compute as the backend says, and keep it.

    Args:
        config: as asked for; left as it is.
        workdir: the run's directory.
        goes_on: whether it holds a run with checkpoints.
        follows: whether another process writes it, which may have none yet.

    Raises:
        InputError: that file cannot be read, or holds something else.
    """
    config = config.copy_and_resolve_references()
    goes_on = goes_on or (follows and (workdir / "config.json").is_file())
    kept = read(workdir, "config.json").get("dtype") if goes_on else None
    if config.dtype == "auto" and kept in ("float32", "bfloat16"):
        config.dtype = kept
    document = json.loads(config.to_json())
    if config.dtype == "auto":
        config.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        if not goes_on:
            document["dtype"] = config.dtype
    return config, document


def check_same_config(workdir: Path, document: Mapping[str, Any]) -> None:
    """Makes sure that a run with checkpoints goes on with its configuration.

    Images may have moved, and each process may have its own: `check_same_data` looks at what they are.

    Args:
        workdir: its directory.
        document: the configuration now, as JSON.

    Raises:
        InputError: names the first field that differs.
    """
    before = read(workdir, "config.json")
    if not all(isinstance(before.get(name), dict) for name in ("dataset", "student", "distill", "arms")):
        raise InputError(f"{workdir / 'config.json'} is not the record of a run: {FIX}")
    before = completed(before)
    joined = _baseline_joined(workdir)
    found = first_difference(_deciding(document, joined), _deciding(before, joined))
    if found:
        raise InputError(
            f"workdir {workdir} holds a run of another config: {found}; set it back or choose another workdir"
        )


def splits_document(dataset: Dataset) -> dict[str, Any]:
    """The content of splits.json: the splits, and what tells whether their names still mean the same images.

    With the digests of the images of each split, by which other runs know them under other names; and the values that
    became black and white, () of bytes: a data set that says nothing of them chose its own.
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
    """SHA-256 of which class each image of the splits has."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    labels = {side: dict(zip(one.names, one.labels.tolist(), strict=True)) for side, one in splits.items()}
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()


def check_same_data(workdir: Path, dataset: Dataset, path: str, log: Callable[[str], None]) -> None:
    """Refuses data of other names, classes or labels than the run's, and logs other pixels under the same names.

    Other versions of the decoding libraries may change the last bit of a pixel. Other names would put images that were
    trained on among those that measure.

    Args:
        workdir: the run's directory.
        dataset: the data now.
        path: where they were read, `dataset.path`.
        log: takes lines.

    Raises:
        InputError: names, the order of the classes, labels, or the values of black and white differ; or pixels do that
            are read elsewhere than before.
    """
    before, now = read(workdir, "splits.json"), splits_document(dataset)
    sides = sorted(now.keys() - {"fingerprint", "labels", "digests", "value_range"})
    listed = (before.get(side, []) for side in sides)
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in listed):
        raise InputError(f"{workdir / 'splits.json'} is not the record of a run: {FIX}")
    for side in sides:
        differing = set(before.get(side, ())) ^ set(now[side])
        if differing:
            raise InputError(
                f"workdir {workdir} holds a run on other data: {len(differing)} names under {side!r} of its "
                f"splits.json differ, such as {min(differing)}: put the data back or choose another workdir"
            )
    if before.get("classes", now["classes"]) != now["classes"]:
        raise InputError(
            f"workdir {workdir} holds a run whose classes have another order, {', '.join(before['classes'][:3])}, … in "
            f"its splits.json, now {', '.join(now['classes'][:3])}, …: put the data back or choose another workdir"
        )
    if before.get("labels", now["labels"]) != now["labels"]:
        raise InputError(
            f"workdir {workdir} holds a run on images with other labels: put the data back or choose another workdir"
        )
    if before.get("value_range", now["value_range"]) != now["value_range"]:
        raise InputError(
            f"workdir {workdir} holds a run for which the values {before['value_range']} became black and white, now "
            f"{now['value_range']}, as the images have changed: put them back or choose another workdir"
        )
    if before.get("fingerprint", now["fingerprint"]) != now["fingerprint"]:
        was = read(workdir, "config.json")["dataset"].get("path", path)
        if was != path:
            raise InputError(
                f"workdir {workdir} holds a run on other images of the same names: dataset.path is {path!r}, was "
                f"{was!r}; set it back or choose another workdir"
            )
        log("data: the images are not those that this run began with: decoded by other versions, or changed")


def read(workdir: Path, name: str) -> dict[str, Any]:
    """A file in which a run with checkpoints says which run it is.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    document = files.read_json(workdir / name, FIX)
    if not isinstance(document, dict):
        raise InputError(f"{workdir / name} is not the record of a run: {FIX}")
    return document


def _baseline_joined(workdir: Path) -> bool:
    """Whether the students that have been trained are also those of the arm that no field names."""
    program = workdir / "distill" / "program.json"
    if not program.exists():
        return False
    document = files.read_json(program, "remove it; it is written again")
    return isinstance(document, dict) and BASELINE in document.get("arms", ())


def _deciding(document: Mapping[str, Any], baseline_joined: bool) -> dict[str, Any]:
    """What decides the results of a run: all but where the images lie, `run` and the arms that are not trained."""
    used = (*document["distill"].get("arms", ()), *[BASELINE] * baseline_joined)
    arms = {BASELINE: json.loads(base().to_json())["arms"][BASELINE], **document["arms"]}
    dataset = {**document["dataset"], "path": None}
    trained = {name: arm for name, arm in arms.items() if name in used}
    return {**document, "dataset": dataset, "run": None, "arms": trained}
