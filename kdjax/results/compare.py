"""Compares an arm of one run with an arm of another on the same test images, paired by their common seeds.

    python -m kdjax.results.compare runs/labels_10:kl_cosine runs/labels_10_only:student_alone

ARM is an arm or a family of trials; of a family, the trial with the best validation accuracy is compared. If an arm and
a family share a name, the arm is meant. The output is JSON: the arms that were compared, the accuracies of both, and
their mean difference with two 95 % intervals: Student's t over the seeds (from three on, unless all differences are
equal), and a bootstrap over the test images. The same follows for macro recall, whose bootstrap resamples within each
class. The labels are those that the runs were evaluated with. Runs whose test images have the same names but different
labels or pixels are refused; pixels are compared if both runs store them in the same size, bands and values.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.errors import InputError
from kdjax.results import comparison, document, intervals, logits
from kdjax.runtime import files
from kdjax.runtime.command import run_command

_FIX = "run --stages=evaluate of that run again"

_STORAGE_FIELDS = ("storage_size", "value_range", "sensor", "file_bands", "bands")
"""Fields of config.dataset that affect how an image is stored, and so its pixels."""


@dataclasses.dataclass(frozen=True)
class TestImages:
    """The images that a run was tested on.

    Attributes:
        names: names of the test images.
        classes: the class name of each image.
        hashes: uint8 (images, 32), hashes of the images' pixels.
        storage: what determines the pixels of an image; only hashes with equal `storage` can be compared.
    """

    names: list[str]
    classes: list[str]
    hashes: np.ndarray
    storage: list[Any]


@dataclasses.dataclass(frozen=True)
class Answers:
    """Which test images the students of one arm classify correctly.

    Attributes:
        place: the directory of the run, and the arm; for a family, the selected trial.
        images: the test images.
        correct: by seed (images,) bool, without the seeds that failed.
    """

    place: tuple[str, str]
    images: TestImages
    correct: dict[int, np.ndarray]


def read_answers(name: str) -> Answers:
    """Reads which test images the students of one arm classify correctly.

    Args:
        name: RUN:ARM, the directory of an evaluated run and one of its arms or families.

    Raises:
        InputError: there is no such run or arm; a file of the run is damaged, or from an earlier version, which stored
            no labels; or its students have not finished training.
    """
    folder, _, arm = name.rpartition(":")
    if not folder or not (Path(folder) / "results.json").is_file():
        raise InputError(f"{name}: give RUN:ARM, the directory of an evaluated run and one of its arms")
    results = document.read_final(Path(folder) / "results.json", _FIX)
    if arm not in results["arms"]:
        arm = comparison.select(results["arms"], comparison.judged_by(results["dataset"])).get(arm, arm)
    if arm not in results["arms"]:
        raise InputError(f"{name}: {folder} has no such arm; give one of {', '.join(results['arms'])}")
    seeds, columns = results["arms"][arm]["seeds"], list(results["arms"])
    images, stored = read_test_images(Path(folder), results, (len(seeds), len(columns)))
    predicted = stored["student_test"][:, columns.index(arm)].argmax(-1)
    rows = zip(seeds, results["arms"][arm]["test_top1"], predicted == stored["labels_test"], strict=True)
    correct = {seed: row for seed, top1, row in rows if top1 is not None}
    return Answers((os.path.realpath(folder), arm), images, correct)


def read_test_images(
    folder: Path, results: Mapping[str, Any], students: tuple[int | None, int | None] = (None, None)
) -> tuple[TestImages, dict[str, np.ndarray]]:
    """Reads the images that a run was tested on, and the arrays of its evaluation.

    Args:
        folder: the run's directory.
        results: its results.json.
        students: expected number of seeds and arms; None = any.

    Raises:
        InputError: a file of the run is damaged, or from an earlier version, which stored no labels.
    """
    images, classes = test_split(folder / "splits.json")
    shapes = {
        "student_test": (*students, len(images), len(classes)),
        "labels_test": (len(images),),
        "hashes_test": (len(images), 32),
    }
    stored = logits.read(folder / "evaluation" / "logits.npz", shapes, _FIX, results.get("logits_sha256"))
    section = results["config"].get("dataset", {})
    storage = [files.read_json(folder / "splits.json", _FIX).get("value_range"), *map(section.get, _STORAGE_FIELDS)]
    labels = [classes[label] for label in stored["labels_test"]]
    return TestImages(images, labels, stored["hashes_test"], storage), stored


def test_split(path: Path) -> tuple[list[str], list[str]]:
    """Reads the names of the test images and of the classes from a run's splits.json.

    Raises:
        InputError: the file does not list them.
    """
    splits = files.read_json(path, "restore that file of the run")
    lists: list[Any] = [splits.get(key) if isinstance(splits, dict) else None for key in ("test", "classes")]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise InputError(f"{path} does not list test images and classes: restore that file of the run")
    return lists[0], lists[1]


def compare(first: str, second: str) -> dict[str, Any]:
    """Returns what `main` prints for two RUN:ARM.

    Raises:
        InputError: see `read_answers`; both name the same arm, their test images differ, or they share no seed.
    """
    our_answers, their_answers = read_answers(first), read_answers(second)
    if our_answers.place == their_answers.place:
        raise InputError(f"{first} and {second} name one arm twice, {our_answers.place[1]}: give two arms, or two runs")
    check_images(first, our_answers.images, second, their_answers.images)
    seeds = sorted(our_answers.correct.keys() & their_answers.correct.keys())
    if not seeds:
        raise InputError(f"{first} and {second} have no successful seed in common: train both with the same seeds")
    ours, theirs = (np.array([answers.correct[seed] for seed in seeds]) for answers in (our_answers, their_answers))
    labels = np.unique(our_answers.images.classes, return_inverse=True)[1]

    def differences(means: tuple[list[float], list[float]], by_class: np.ndarray | None) -> dict[str, Any]:
        return {
            "over_seeds": intervals.summary(intervals.paired_differences(*means)),
            "over_images": intervals.paired_bootstrap(ours, theirs, by_class),
        }

    def macro_recall(correct: np.ndarray) -> list[float]:
        return np.mean([correct[:, labels == label].mean(1) for label in np.unique(labels)], axis=0).tolist()

    top1, recall = (ours.mean(1).tolist(), theirs.mean(1).tolist()), (macro_recall(ours), macro_recall(theirs))
    return {
        "arms": [first, second],
        "compared": [our_answers.place[1], their_answers.place[1]],
        "seeds": seeds,
        "test_top1": top1,
        **differences(top1, None),
        "macro_recall": {"test": recall, **differences(recall, labels)},
    }


def check_images(first: str | Path, ours: TestImages, second: str | Path, theirs: TestImages) -> None:
    """Checks that the runs `first` and `second` were tested on the same images, with the same labels.

    Raises:
        InputError: they were not.
    """
    if ours.names != theirs.names:
        raise InputError(f"{first} and {second} have different test images: give both runs the same dataset.splits")
    for image, our_class, their_class in zip(ours.names, ours.classes, theirs.classes, strict=True):
        if our_class != their_class:
            raise InputError(
                f"{image} is {our_class} in {first} and {their_class} in {second}: give both runs the same data"
            )
    differ = np.flatnonzero((ours.hashes != theirs.hashes).any(1))
    if ours.storage == theirs.storage and len(differ):
        raise InputError(
            f"{first} and {second} have different test images: {len(differ)} of {len(ours.names)} differ in their "
            f"pixels, such as {ours.names[differ[0]]}: give both runs the same data; if they have it, run "
            "--stages=evaluate of both on one machine"
        )


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments in (["--help"], ["-h"]):
        print(__doc__.strip())
    elif len(arguments) != 2:
        raise InputError("give two RUN:ARM, such as runs/a:kl_cosine runs/b:student_alone; --help says more")
    else:
        print(json.dumps(compare(*arguments), indent=2))


if __name__ == "__main__":
    run_command(main)
