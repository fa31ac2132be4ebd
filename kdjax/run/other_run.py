"""Networks of other runs as teacher, their own teachers or their students: whether they fit this one."""

import dataclasses
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
from kdjax.run.teacher_source import Given, given_teachers

FREE = ("workdir", "students", "ensemble", "weights", "weights_pixels")
"""Fields of `config.teacher` that may differ from that run's: where it was read from, and where it began."""

TRAINED_BY = ("class_weights", "sampling")
"""Fields of `config.dataset` that shape a teacher's training."""


@dataclasses.dataclass(frozen=True)
class OtherRun:
    """A run whose networks are this one's teacher.

    Attributes:
        field: of the configuration, that names it.
        workdir: its directory.
        section: of its configuration, that its networks were trained by.
        arm: which of its students; '' = all, or its teacher.
    """

    field: str
    workdir: Path
    section: str
    arm: str = ""

    @property
    def folder(self) -> Path:
        """Of its networks."""
        return self.workdir / ("teacher" if self.section == "teacher" else "distill")

    def read(self, name: str, *keys: str) -> Mapping[str, Any]:
        """A JSON file of it, with these keys.

        Raises:
            InputError: it is not there, or lacks a key.
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
        """Its configuration as this version writes it."""
        return record.completed(self.read("config.json", "teacher", "student", "dataset", "arms", "distill"))


def named(config: Any) -> tuple[OtherRun, ...]:
    """The runs that a configuration takes teachers from."""
    return tuple(found for one in given_teachers(config) if (found := of(one)))


def of(one: Given) -> OtherRun | None:
    """The run that a teacher is taken from, or None."""
    if one.kind == "workdir":
        return OtherRun(one.field, Path(one.place), "teacher")
    if one.kind == "students":
        place, arm = one.run_and_arm
        return OtherRun(one.field, Path(place), "student", arm)
    return None


def check_config(config: Any) -> None:
    """Compares this run's teacher, as configured, with the networks of the runs it names.

    Raises:
        InputError: no such run, training that is not at its end, or the first field that differs.
    """
    for other in named(config):
        if other.section == "teacher":
            total_steps(other)
        else:
            trained_students(other)
        there = other.config()
        theirs = dict(there["teacher"]) if other.section == "teacher" else {}
        theirs["image_size"] = theirs.get("image_size") or there["dataset"]["image_size"]
        if other.field == "teacher.ensemble":  # each member is as its own run says
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
                _check_training(other, there["dataset"], json.loads(config.dataset.to_json()))


def _check_training(other: OtherRun, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compares how the classes counted: results.json would else claim it of a teacher that was trained otherwise."""
    for field in TRAINED_BY:
        both_balanced = class_weights.is_balanced(theirs[field]) and class_weights.is_balanced(ours[field])
        if theirs[field] != ours[field] and not both_balanced:
            raise InputError(
                f"{other.field}: dataset.{field} is {ours[field]!r} here, and the teacher of {other.workdir} was "
                f"trained with {theirs[field]!r}: set dataset.{field} to that, or take the teacher as it is by "
                f"teacher.ensemble=('workdir={other.workdir}',)"
            )


def check_data(config: Any, dataset: Dataset, log: Callable[[str], None]) -> None:
    """Makes sure that the teacher names the same classes, and saw none of this run's validation and test images.

    A teacher whose best step, or the penalty of whose head, was chosen on validation images saw these too: they may not
    be this run's test images. Students saw what their own teacher saw, and the teacher of that.
    Images are known by their names and by their content, but for runs of earlier versions, which kept names only. How
    many test images are not known is told, and how many labels that teacher knew which are hidden here.

    Raises:
        InputError: other classes, images on another side, or values that were mapped to other pixels.
    """
    for other in named(config):
        _check_data(other, dataset, log)


def _check_data(other: OtherRun, dataset: Dataset, log: Callable[[str], None]) -> None:
    there = other.read("splits.json", "classes", "train", "validation", "test")
    if there["classes"] != list(dataset.classes):
        raise InputError(f"{other.field}: {other.workdir} has not the classes of this data set, or not in their order")
    theirs, ours = there.get("value_range"), list(dataset.value_range)
    if ranges_differ(theirs, ours, named=False):
        raise InputError(
            f"{other.field}: {other.workdir} maps the values {theirs}, this run {ours}: set dataset.value_range to the "
            "first"
        )
    unknown = set(dataset.test.names) - _shared(there, record.IMAGES, dataset, dataset.test.names)
    if unknown:
        log(
            f"{other.field}: {len(unknown)} of {len(dataset.test.names)} test images of this run are not known in "
            f"{other.workdir}: make sure that the teacher was not trained on them in another form"
        )
    if hidden := hidden_labels([other], dataset):
        log(f"{other.field}: the teacher of {other.workdir} was trained with {hidden} labels that are hidden here")
    for one in _with_teachers(other, log):
        _check_seen(one, dataset)


def _check_seen(other: OtherRun, dataset: Dataset) -> None:
    there = other.read("splits.json", "train", "validation")
    trained = ("train", "unlabeled", "unlabelled")  # as earlier versions called them
    chosen = ("validation",) if _selected(other) else ()
    for did, theirs, side in (
        ("trained on", trained, "validation"),
        ("trained on", trained, "test"),
        ("was selected on", chosen, "test"),
    ):
        if both := _shared(there, theirs, dataset, getattr(dataset, side).names):
            raise InputError(
                f"{other.field}: {other.workdir} {did} {len(both)} of this run's {side} images, such as "
                f"{min(both)}: set dataset.splits={other.workdir}/splits.json or data_seed to that run's"
            )


def _shared(there: Mapping[str, Any], theirs: Sequence[str], dataset: Dataset, names: Sequence[str]) -> set[str]:
    """Those of these names in `dataset` whose images are under `theirs` in another run's splits.json."""
    listed = {name for side in theirs for name in there.get(side, ())}
    contents = {digest for side in theirs for digest in there.get("digests", {}).get(side, ())}
    known = lambda name: name in listed or dataset.digests.get(name, "")[: record.DIGITS] in contents
    return {name for name in names if known(name)}


def hidden_labels(others: Iterable[OtherRun], dataset: Dataset) -> int:
    """How many images these teachers, or theirs, were trained on with labels that this run's students are not shown.

    Raises:
        InputError: no such run.
    """
    known: set[str] = set()
    for other in others:
        for one in _with_teachers(other):
            if one.section == "student" or one.config()["teacher"]["fit"] != "nothing":
                there = one.read("splits.json", "train")
                known |= set(there["train"]) - set(there.get("label_hidden", ()))
    return len(known.intersection(dataset.members.get("label_hidden", ())))


def _with_teachers(other: OtherRun, log: Callable[[str], None] = lambda line: None) -> list[OtherRun]:
    """A run whose networks are a teacher, and those whose networks taught these, and so on.

    Args:
        other: the run.
        log: is told of one that is not where that run found it, of which nothing can be known.
    """
    found = [other]
    for one in found:  # which grows
        for teacher in named(ml_collections.ConfigDict(one.config())) if _taught(one) else ():
            teacher = dataclasses.replace(teacher, field=other.field)
            if teacher in found:
                continue
            if (teacher.workdir / "config.json").is_file() and (teacher.workdir / "splits.json").is_file():
                found.append(teacher)
            else:
                log(
                    f"{other.field}: {one.workdir} learned from {teacher.workdir}, which is not there: make sure that "
                    "none of this run's test images were used for it"
                )
    return found


def _taught(other: OtherRun) -> bool:
    """Whether its networks learned from a teacher."""
    if other.section == "teacher":
        return False
    arms = other.config()["arms"]
    names = [other.arm] if other.arm else trained_students(other)["arms"]
    return any(has_term(arms.get(name, {}), "needs_teacher") for name in names)


def _selected(other: OtherRun) -> bool:
    """Whether validation chose anything of these networks, or of the teacher that they learned from.

    Students of other runs, and logits, are no teacher of that run: see `_with_teachers`.
    """
    config = other.config()
    if _chooses(config[other.section]) or not _taught(other):
        return _chooses(config[other.section])
    given = given_teachers(ml_collections.ConfigDict(config))
    own = not given or any(one.kind not in ("students", "logits") for one in given)
    return own and _chooses(config["teacher"])


def _chooses(section: Mapping[str, Any]) -> bool:
    if section.get("onnx"):
        return section["onnx_gives"] == "embeddings"  # a head is fitted to these; other files are taken as they are
    return section["select"] == "best" or section.get("fit") == "head"


def weights(other: OtherRun) -> str | None:
    """What that teacher's training started from; None = from scratch. Raises InputError as `check_config`."""
    return other.read("config.json", "teacher")["teacher"]["weights"]


def total_steps(other: OtherRun) -> int:
    """Updates of that teacher's whole training.

    Raises:
        InputError: no teacher was trained there.
    """
    return other.read("teacher/program.json", "steps")["steps"]


def trained_students(other: OtherRun) -> Mapping[str, Any]:
    """The population of that run, as `record.program` has it.

    Raises:
        InputError: none was trained there, or it has no such arm.
    """
    document = other.read("distill/program.json", "steps", "seeds", "arms", "projection")
    if other.arm and other.arm not in document["arms"]:
        raise InputError(
            f"{other.field}: {other.workdir} has no arm {other.arm!r}; it has {', '.join(document['arms'])}"
        )
    return document
