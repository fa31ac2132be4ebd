"""An arm of one run against an arm of another, on the same test images, paired by the seeds that both have.

    python -m kdjax.results.compare runs/labels_10:kl_cosine runs/labels_10_only:student_alone

ARM is an arm, or a family of trials that no arm has the name of: then its trial with the best validation accuracy is
compared. Printed as JSON are the arms that were compared, the accuracies of both, and their mean difference with two
95 % intervals: Student's t over the seeds (from three on, unless their differences are equal), and a bootstrap over the
test images; and the same of macro recall, whose bootstrap draws within the classes. The labels are those that the runs
were evaluated by. Runs whose test images have the same names but other labels or pixels are refused; pixels are
compared where both runs keep them in the same size, bands and values.
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

_STORED_BY = ("storage_size", "value_range", "sensor", "file_bands", "bands")
"""Fields of config.dataset by which the same image has other pixels."""


@dataclasses.dataclass(frozen=True)
class Tested:
    """What a run was tested on.

    Attributes:
        images: names of the test images.
        classes: the name of the class of each.
        hashes: uint8 (images, 32), of the pixels of each image.
        stored: what decides the pixels of an image; hashes of others say nothing.
    """

    images: list[str]
    classes: list[str]
    hashes: np.ndarray
    stored: list[Any]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one arm has right.

    Attributes:
        place: the directory of its run and the arm; of a family the trial that was chosen.
        tested: on what.
        right: by seed (images,) bool, without the seeds that failed.
    """

    place: tuple[str, str]
    tested: Tested
    right: dict[int, np.ndarray]


def right(name: str) -> Answers:
    """What one arm has right.

    Args:
        name: RUN:ARM, the directory of an evaluated run and one of its arms or families.

    Raises:
        InputError: there is no such run or arm, a file of the run is damaged or of an earlier version, which kept no
            labels, or its students have not finished training.
    """
    folder, _, arm = name.rpartition(":")
    if not folder or not (Path(folder) / "results.json").is_file():
        raise InputError(f"{name}: give RUN:ARM, the directory of an evaluated run and one of its arms")
    results = document.read_final(Path(folder) / "results.json", _FIX)
    if arm not in results["arms"]:
        arm = comparison.select(results["arms"], comparison.judged_by(results["dataset"])).get(arm, arm)
    if arm not in results["arms"]:
        raise InputError(f"{name}: {folder} has no such arm; give one of {', '.join(results['arms'])}")
    one, columns = results["arms"][arm], list(results["arms"])
    on, stored = tested(Path(folder), results, (len(one["seeds"]), len(columns)))
    said = stored["student_test"][:, columns.index(arm)].argmax(-1)
    rows = zip(one["seeds"], one["test_top1"], said == stored["labels_test"], strict=True)
    right = {seed: row for seed, top1, row in rows if top1 is not None}
    return Answers((os.path.realpath(folder), arm), on, right)


def tested(
    folder: Path, results: Mapping[str, Any], students: tuple[int | None, int | None] = (None, None)
) -> tuple[Tested, dict[str, np.ndarray]]:
    """What a run was tested on, and the arrays of its evaluation.

    Args:
        folder: its directory.
        results: its results.json.
        students: number of seeds and arms; None for any.

    Raises:
        InputError: a file of the run is damaged or of an earlier version, which kept no labels.
    """
    images, classes = test_split(folder / "splits.json")
    shapes = {
        "student_test": (*students, len(images), len(classes)),
        "labels_test": (len(images),),
        "hashes_test": (len(images), 32),
    }
    stored = logits.read(folder / "evaluation" / "logits.npz", shapes, _FIX, results.get("logits_sha256"))
    section = results["config"].get("dataset", {})
    by = [files.read_json(folder / "splits.json", _FIX).get("value_range"), *map(section.get, _STORED_BY)]
    return Tested(images, [classes[label] for label in stored["labels_test"]], stored["hashes_test"], by), stored


def test_split(path: Path) -> tuple[list[str], list[str]]:
    """Names of test images and classes in a run's splits.json.

    Raises:
        InputError: it does not list them.
    """
    found = files.read_json(path, "restore that file of the run")
    lists: list[Any] = [found.get(key) if isinstance(found, dict) else None for key in ("test", "classes")]
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise InputError(f"{path} does not list test images and classes: restore that file of the run")
    return lists[0], lists[1]


def compare(first: str, second: str) -> dict[str, Any]:
    """What `main` prints, of two RUN:ARM.

    Raises:
        InputError: see `right`; the two are one, have not the same test images, or no seed in common.
    """
    one, other = right(first), right(second)
    if one.place == other.place:
        raise InputError(f"{first} and {second} name one arm twice, {one.place[1]}: give two arms, or two runs")
    check_images(first, one.tested, second, other.tested)
    seeds = sorted(one.right.keys() & other.right.keys())
    if not seeds:
        raise InputError(f"{first} and {second} have no successful seed in common: train both with the same seeds")
    ours, theirs = (np.array([found.right[seed] for seed in seeds]) for found in (one, other))
    labels = np.unique(one.tested.classes, return_inverse=True)[1]

    def measured(means: tuple[list[float], list[float]], by_class: np.ndarray | None) -> dict[str, Any]:
        return {
            "over_seeds": intervals.summary(intervals.paired_differences(*means)),
            "over_images": intervals.paired_bootstrap(ours, theirs, by_class),
        }

    macro = lambda one: np.mean([one[:, labels == label].mean(1) for label in np.unique(labels)], axis=0).tolist()
    top1, recall = (ours.mean(1).tolist(), theirs.mean(1).tolist()), (macro(ours), macro(theirs))
    return {
        "arms": [first, second],
        "compared": [one.place[1], other.place[1]],
        "seeds": seeds,
        "test_top1": top1,
        **measured(top1, None),
        "macro_recall": {"test": recall, **measured(recall, labels)},
    }


def check_images(first: str | Path, one: Tested, second: str | Path, other: Tested) -> None:
    """Whether both were tested on the same images, with the same labels.

    Raises:
        InputError: they were not.
    """
    if one.images != other.images:
        raise InputError(f"{first} and {second} have different test images: give both runs the same dataset.splits")
    for image, here, there in zip(one.images, one.classes, other.classes, strict=True):
        if here != there:
            raise InputError(f"{image} is {here} in {first} and {there} in {second}: give both runs the same data")
    differ = np.flatnonzero((one.hashes != other.hashes).any(1))
    if one.stored == other.stored and len(differ):
        raise InputError(
            f"{first} and {second} have different test images: {len(differ)} of {len(one.images)} differ in their "
            f"pixels, such as {one.images[differ[0]]}: give both runs the same data; if they have it, run "
            "--stages=evaluate of both on one machine"
        )


def main(arguments: list[str]) -> None:
    """The command."""
    if arguments in (["--help"], ["-h"]):
        print(__doc__.strip())
    elif len(arguments) != 2:
        raise InputError("give two RUN:ARM, such as runs/a:kl_cosine runs/b:student_alone; --help says more")
    else:
        print(json.dumps(compare(*arguments), indent=2))


if __name__ == "__main__":
    run_command(main)
