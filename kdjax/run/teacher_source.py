"""Where a run's teacher comes from, by its configuration: the run trains it, or the user gives one from elsewhere."""

import dataclasses
import itertools
import os
import re
from pathlib import Path

import ml_collections

from kdjax.errors import InputError

KINDS = ("workdir", "students", "onnx", "logits")
"""Kinds of given teachers: a run's teacher, a run's students, an ONNX file, or a folder of stored logits."""


@dataclasses.dataclass(frozen=True)
class GivenTeacher:
    """A teacher that the run does not train itself.

    Attributes:
        kind: one of `KINDS`.
        place: its location: RUN, RUN[:ARM], FILE or FOLDER, by its kind.
        field: the configuration field that gives it, for messages.
    """

    kind: str
    place: str
    field: str

    @property
    def title(self) -> str:
        """The name of the teacher in tables."""
        if self.kind == "workdir":
            return f"teacher of {self.place}"
        return f"students of {self.place}" if self.kind == "students" else Path(self.place).name

    @property
    def run_and_arm(self) -> tuple[str, str]:
        """The directory of the run and the arm; the arm is '' for all arms, and for teachers that are not students.

        Raises:
            InputError: no arm follows the colon.
        """
        run, colon, arm = self.place.rpartition(":")
        if self.kind != "students" or not colon or "/" in arm:
            return self.place, ""
        if not arm:
            raise InputError(f"{self.field}: {self.place!r} names no arm after the colon: give RUN or RUN:ARM")
        return run, arm


def given_field(config: ml_collections.ConfigDict) -> str | None:
    """Returns the configuration field that gives the teacher; None if the run trains its own.

    Raises:
        InputError: several fields give one.
    """
    fields = {
        "teacher.workdir": config.teacher.workdir,
        "teacher.students": config.teacher.students,
        "teacher.onnx": config.teacher.onnx,
        "teacher.ensemble": config.teacher.ensemble,
        "distill.logits": config.distill.logits,
    }
    set_fields = [field for field, value in fields.items() if value]
    if len(set_fields) > 1:
        raise InputError(f"{' and '.join(set_fields)} are set: choose one teacher, or name all in teacher.ensemble")
    return set_fields[0] if set_fields else None


def given_teachers(config: ml_collections.ConfigDict) -> tuple[GivenTeacher, ...]:
    """Returns the teachers that the configuration gives; () if the run trains its own. Their logits are averaged.

    Raises:
        InputError: several fields give teachers, one is given twice, a folder of logits is not a string, or a member of
            the ensemble is not KIND=PLACE.
    """
    field = given_field(config)
    if field is None:
        return ()
    if field == "distill.logits":
        for folder in config.distill.logits:
            if not isinstance(folder, str):
                raise InputError(f"distill.logits: {folder!r} names no folder: give texts, as ('FOLDER',)")
        folders = tuple(GivenTeacher("logits", folder, field) for folder in config.distill.logits)
        _refuse_repeats(folders)
        return folders
    if field != "teacher.ensemble":
        kind = field.rpartition(".")[2]
        return (GivenTeacher(kind, config.teacher[kind], field),)
    members = tuple(_member(text) for text in config.teacher.ensemble)
    _refuse_repeats(members)
    return members


def gives_features(config: ml_collections.ConfigDict) -> bool:
    """Whether the teacher provides features besides logits. Several teachers have no features in common."""
    teachers = given_teachers(config)
    if not teachers:
        return True
    if len(teachers) > 1 or teachers[0].field == "teacher.ensemble":
        return False
    encoder = teachers[0].kind == "onnx" and config.teacher.onnx_gives == "embeddings"
    return teachers[0].kind == "workdir" or encoder


def _refuse_repeats(teachers: tuple[GivenTeacher, ...]) -> None:
    for first, second in itertools.combinations(teachers, 2):
        (first_run, first_arm), (second_run, second_arm) = first.run_and_arm, second.run_and_arm
        if second.kind != first.kind or os.path.realpath(second_run) != os.path.realpath(first_run):
            continue
        if second_arm == first_arm:
            raise InputError(f"{second.field} names {second.place} twice: its logits would count twice")
        if not (second_arm and first_arm):
            raise InputError(
                f"{second.field} names {first.place} and {second.place}: the students of both would count twice: leave "
                "one of them out"
            )


def _member(text: object) -> GivenTeacher:
    match = re.fullmatch(rf"({'|'.join(KINDS)})=(.+)", text) if isinstance(text, str) else None
    if not match:
        raise InputError(
            f"teacher.ensemble: {text!r} names no teacher: give 'workdir=RUN', 'students=RUN', 'students=RUN:ARM', "
            "'onnx=FILE' or 'logits=FOLDER'"
        )
    return GivenTeacher(match[1], match[2], "teacher.ensemble")
