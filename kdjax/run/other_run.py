"""Networks of another run as this run's teacher, and the checks that they fit its config and data."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from kdjax.data import class_weights
from kdjax.data.dataset import Dataset
from kdjax.data.meaning import ranges_differ
from kdjax.errors import InputError
from kdjax.run import record
from kdjax.run.arms import has_term
from kdjax.run.teacher_source import GivenTeacher, given_teachers

FREE = ("workdir", "students", "ensemble", "weights", "weights_pixels")
"""Fields of `config.teacher` that may differ from the other run's: where a teacher comes from or started from."""

TRAINED_BY = ("class_weights", "sampling")
"""Fields of `config.dataset` that affect a teacher's training."""


@dataclasses.dataclass(frozen=True)
class OtherRun:
    """A run whose networks are this run's teacher.

    Attributes:
        field: the field of this run's configuration that names it.
        workdir: its directory.
        section: the section of its configuration that its networks were trained by, "teacher" or "student".
        arm: the arm of its students; '' = all arms, or its teacher.
    """

    field: str
    workdir: Path
    section: str
    arm: str = ""

    @property
    def folder(self) -> Path:
        """The folder of its networks."""
        return self.workdir / ("teacher" if self.section == "teacher" else "distill")

    def read(self, name: str, *keys: str) -> Mapping[str, Any]:
        """Reads one of its JSON files, which must have these keys.

        Raises:
            InputError: the file cannot be read, or lacks a key.
        """
        path = self.workdir / name
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            document = {}
        if not isinstance(document, dict) or not document.keys() >= set(keys):
            what = "a teacher" if self.section == "teacher" else "its students"
            raise InputError(
                f"{self.field}: {path} is not there, or not of this version: give a run that has trained {what}"
            )
        return document

    def config(self) -> dict[str, Any]:
        """Reads its configuration, in the form that this version writes."""
        return record.completed(self.read("config.json", "teacher", "student", "dataset", "arms", "distill"))


def borrowed_runs(config: Any) -> tuple[OtherRun, ...]:
    """Returns the runs that a configuration takes teachers from."""
    return tuple(run for teacher in given_teachers(config) if (run := borrowed_run(teacher)))


def borrowed_run(teacher: GivenTeacher) -> OtherRun | None:
    """Returns the run that a teacher is taken from; None if it is not taken from a run."""
    if teacher.kind == "workdir":
        return OtherRun(teacher.field, Path(teacher.place), "teacher")
    if teacher.kind == "students":
        place, arm = teacher.run_and_arm
        return OtherRun(teacher.field, Path(place), "student", arm)
    return None


def check_config(config: Any) -> None:
    """Compares the teacher that this run's configuration describes with the networks of the runs it names.

    Raises:
        InputError: a run is missing or has trained no such networks, a field differs (the message names the first one),
            or a member of the ensemble takes larger images than this run stores.
    """
    for other in borrowed_runs(config):
        if other.section == "teacher":
            total_steps(other)
        else:
            trained_students(other)
        other_config = other.config()
        theirs = dict(other_config["teacher"]) if other.section == "teacher" else {}
        theirs["image_size"] = theirs.get("image_size") or other_config["dataset"]["image_size"]
        if other.field == "teacher.ensemble":  # each member keeps the settings of its own run
            if theirs["image_size"] > config.dataset.storage_size:
                raise InputError(
                    f"{other.field}: {other.workdir} takes images of {theirs['image_size']} px, but "
                    f"dataset.storage_size is {config.dataset.storage_size}: store them larger"
                )
        else:
            ours = dict(json.loads(config.teacher.to_json()))
            ours["image_size"] = ours["image_size"] or config.dataset.image_size
            for field in sorted(theirs if other.section == "student" else ours.keys() - FREE):
                if theirs.get(field) != ours[field]:
                    raise InputError(
                        f"{other.field}: teacher.{field} is {ours[field]!r} here and {theirs.get(field)!r} in "
                        f"{other.workdir}: set teacher.{field} to what it was"
                    )
            if other.section == "teacher" and config.teacher.fit != "nothing":
                _check_training(other, other_config["dataset"], json.loads(config.dataset.to_json()))


def _check_training(other: OtherRun, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compares how classes were weighted and sampled, because results.json states it for the teacher as well."""
    for field in TRAINED_BY:
        both_balanced = class_weights.is_balanced(theirs[field]) and class_weights.is_balanced(ours[field])
        if theirs[field] != ours[field] and not both_balanced:
            raise InputError(
                f"{other.field}: dataset.{field} is {ours[field]!r} here, and the teacher of {other.workdir} was "
                f"trained with {theirs[field]!r}: set dataset.{field} to that, or take the teacher as it is by "
                f"teacher.ensemble=('workdir={other.workdir}',)"
            )


def check_data(config: Any, dataset: Dataset, log: Callable[[str], None]) -> None:
    """Makes sure that the teacher has the same classes and saw none of this run's validation and test images.

    If validation images chose a teacher's best step or the penalty of its head, it has seen these images too, so they
    may not be among this run's test images. Students have also seen what their teacher saw, and what the teacher of
    that teacher saw, and so on.

    Images are recognized by name and by content; earlier versions recorded names only. The log says how many test
    images the other run does not know, and how many labels its teacher was trained with that are hidden in this run.

    Raises:
        InputError: the classes differ, an image is on another side of the split, or the value ranges differ.
    """
    for other in borrowed_runs(config):
        _check_data(other, dataset, log)


def _check_data(other: OtherRun, dataset: Dataset, log: Callable[[str], None]) -> None:
    splits = other.read("splits.json", "classes", "train", "validation", "test")
    if splits["classes"] != list(dataset.classes):
        raise InputError(f"{other.field}: {other.workdir} has not the classes of this data set, or not in their order")
    theirs, ours = splits.get("value_range"), list(dataset.value_range)
    if ranges_differ(theirs, ours, named=False):
        raise InputError(
            f"{other.field}: {other.workdir} maps the values {theirs}, this run {ours}: set dataset.value_range to the "
            "first"
        )
    unknown = set(dataset.test.names) - _shared(splits, record.IMAGES, dataset, dataset.test.names)
    if unknown:
        log(
            f"{other.field}: {len(unknown)} of {len(dataset.test.names)} test images of this run are not known in "
            f"{other.workdir}: make sure that the teacher was not trained on them in another form"
        )
    if hidden := hidden_labels([other], dataset):
        log(f"{other.field}: the teacher of {other.workdir} was trained with {hidden} labels that are hidden here")
    for run in _with_teachers(other, log):
        _check_seen(run, dataset)


def _check_seen(other: OtherRun, dataset: Dataset) -> None:
    splits = other.read("splits.json", "train", "validation")
    training_sides = ("train", "unlabeled", "unlabelled")  # the last is the spelling of earlier versions
    selection_sides = ("validation",) if _used_validation(other) else ()
    for usage, their_sides, side in (
        ("trained on", training_sides, "validation"),
        ("trained on", training_sides, "test"),
        ("was selected on", selection_sides, "test"),
    ):
        if shared := _shared(splits, their_sides, dataset, getattr(dataset, side).names):
            raise InputError(
                f"{other.field}: {other.workdir} {usage} {len(shared)} of this run's {side} images, such as "
                f"{min(shared)}: set dataset.splits={other.workdir}/splits.json or data_seed to that run's"
            )


def _shared(splits: Mapping[str, Any], their_sides: Sequence[str], dataset: Dataset, names: Sequence[str]) -> set[str]:
    """Returns the names in `dataset` whose images another run's splits.json lists on the sides `their_sides`."""
    listed_names = {name for side in their_sides for name in splits.get(side, ())}
    listed_digests = {digest for side in their_sides for digest in splits.get("digests", {}).get(side, ())}
    return {
        name
        for name in names
        if name in listed_names or dataset.digests.get(name, "")[: record.DIGITS] in listed_digests
    }


def hidden_labels(others: Iterable[OtherRun], dataset: Dataset) -> int:
    """Counts the images whose label is hidden from this run's students, but not from these teachers or their teachers.

    Raises:
        InputError: a file of a run cannot be read.
    """
    known: set[str] = set()
    hidden = dataset.members.get("label_hidden", ())
    for other in others:
        for run in _with_teachers(other):
            if run.section == "student" or run.config()["teacher"]["fit"] != "nothing":
                known |= _shared(_labeled(run.read("splits.json", "train")), ("train",), dataset, hidden)
    return len(known)


def _labeled(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the training images whose label was not hidden, in the form of splits.json."""
    hidden, digests = set(splits.get("label_hidden", ())), splits.get("digests", {}).get("train", ())
    keep = [name not in hidden for name in splits["train"]]
    return {
        "train": list(itertools.compress(splits["train"], keep)),
        "digests": {"train": list(itertools.compress(digests, keep))},
    }


def _with_teachers(other: OtherRun, log: Callable[[str], None] = lambda line: None) -> list[OtherRun]:
    """Returns a run whose networks are a teacher, the runs whose networks taught these, and so on.

    Args:
        other: the run.
        log: takes a line for each run that is no longer where it was, so that nothing is known of it.
    """
    runs = [other]
    for run in runs:  # grows within the loop
        for teacher in borrowed_runs(ml_collections.ConfigDict(run.config())) if _learned_from_teacher(run) else ():
            teacher = dataclasses.replace(teacher, field=other.field)
            if teacher in runs:
                continue
            if (teacher.workdir / "config.json").is_file() and (teacher.workdir / "splits.json").is_file():
                runs.append(teacher)
            else:
                log(
                    f"{other.field}: {run.workdir} learned from {teacher.workdir}, which is not there: make sure that "
                    "none of this run's test images were used for it"
                )
    return runs


def _learned_from_teacher(other: OtherRun) -> bool:
    """Whether the networks of a run learned from a teacher."""
    if other.section == "teacher":
        return False
    arms = other.config()["arms"]
    names = [other.arm] if other.arm else trained_students(other)["arms"]
    return any(has_term(arms.get(name, {}), "needs_teacher") for name in names)


def _used_validation(other: OtherRun) -> bool:
    """Whether validation images chose anything about these networks, or about the teacher that they learned from.

    Students of other runs and stored logits do not count as the run's teacher here: `_with_teachers` finds such
    students, and nothing is known of logits.
    """
    config = other.config()
    if _chooses(config[other.section]) or not _learned_from_teacher(other):
        return _chooses(config[other.section])
    teachers = given_teachers(ml_collections.ConfigDict(config))
    own_teacher = not teachers or any(teacher.kind not in ("students", "logits") for teacher in teachers)
    return own_teacher and _chooses(config["teacher"])


def _chooses(section: Mapping[str, Any]) -> bool:
    """Whether validation images choose the best step, or the penalty of a head, of the networks of a section."""
    if section.get("onnx"):
        return section["onnx_gives"] == "embeddings"  # only embeddings need a head, which is fitted
    return section["select"] == "best" or section.get("fit") == "head"


def weights(other: OtherRun) -> str | None:
    """Returns the weights that the teacher's training started from; None = from scratch.

    Raises:
        InputError: the configuration of that run cannot be read.
    """
    return other.read("config.json", "teacher")["teacher"]["weights"]


def total_steps(other: OtherRun) -> int:
    """Returns the number of updates in the teacher's whole training.

    Raises:
        InputError: that run has trained no teacher.
    """
    return other.read("teacher/program.json", "steps")["steps"]


def trained_students(other: OtherRun) -> Mapping[str, Any]:
    """Returns the steps, seeds, arms and projection of that run's students, from its distill/program.json.

    Raises:
        InputError: that run has trained no students, or has no such arm.
    """
    document = other.read("distill/program.json", "steps", "seeds", "arms", "projection")
    if other.arm and other.arm not in document["arms"]:
        raise InputError(
            f"{other.field}: {other.workdir} has no arm {other.arm!r}; it has {', '.join(document['arms'])}"
        )
    return document
