"""What gives a run its teacher, by the configuration: a network that it trains itself, or networks from elsewhere."""

import dataclasses
import itertools
import os
import re
from pathlib import Path

import ml_collections

from kdjax.errors import InputError

KINDS = ("workdir", "students", "onnx", "logits")
"""Members of `teacher.ensemble`: the teacher of a run, the students of one, an ONNX file, a folder of stored logits."""


@dataclasses.dataclass(frozen=True)
class Given:
    """A teacher from elsewhere.

    Attributes:
        kind: one of `KINDS`.
        place: where it is: RUN, RUN[:ARM], FILE or FOLDER.
        field: that names it, for messages.
    """

    kind: str
    place: str
    field: str

    @property
    def words(self) -> str:
        """What the teacher is called in tables."""
        if self.kind == "workdir":
            return f"teacher of {self.place}"
        return f"students of {self.place}" if self.kind == "students" else Path(self.place).name

    @property
    def run_and_arm(self) -> tuple[str, str]:
        """Of students, named as RUN or RUN:ARM, the run and the arm, '' = all; of others the place and ''.

        Raises:
            InputError: there is no arm behind the colon.
        """
        run, colon, arm = self.place.rpartition(":")
        if self.kind != "students" or not colon or "/" in arm:
            return self.place, ""
        if not arm:
            raise InputError(f"{self.field}: {self.place!r} names no arm after the colon: give RUN or RUN:ARM")
        return run, arm


def given_field(config: ml_collections.ConfigDict) -> str | None:
    """The field that gives the teacher, in place of training one; None where the run trains its own.

    Raises:
        InputError: several do.
    """
    fields = {
        "teacher.workdir": config.teacher.workdir,
        "teacher.students": config.teacher.students,
        "teacher.onnx": config.teacher.onnx,
        "teacher.ensemble": config.teacher.ensemble,
        "distill.logits": config.distill.logits,
    }
    chosen = [field for field, value in fields.items() if value]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} are set: choose one teacher, or name all in teacher.ensemble")
    return chosen[0] if chosen else None


def given_teachers(config: ml_collections.ConfigDict) -> tuple[Given, ...]:
    """The teachers that the configuration names, of whose logits the mean is taken; () where the run trains its own.

    Raises:
        InputError: several fields name some, or a member of the ensemble is not KIND=PLACE.
    """
    field = given_field(config)
    if field is None:
        return ()
    if field == "distill.logits":
        for folder in config.distill.logits:
            if not isinstance(folder, str):
                raise InputError(f"distill.logits: {folder!r} names no folder: give texts, as ('FOLDER',)")
        folders = tuple(Given("logits", folder, field) for folder in config.distill.logits)
        _refuse_repeats(folders)
        return folders
    if field != "teacher.ensemble":
        kind = field.rpartition(".")[2]
        return (Given(kind, config.teacher[kind], field),)
    members = tuple(_member(text) for text in config.teacher.ensemble)
    _refuse_repeats(members)
    return members


def gives_features(config: ml_collections.ConfigDict) -> bool:
    """Whether the teacher has features beside its logits: of several there are none in common."""
    teachers = given_teachers(config)
    if not teachers:
        return True
    if len(teachers) > 1 or teachers[0].field == "teacher.ensemble":
        return False
    encoder = teachers[0].kind == "onnx" and config.teacher.onnx_gives == "embeddings"
    return teachers[0].kind == "workdir" or encoder


def _refuse_repeats(teachers: tuple[Given, ...]) -> None:
    for before, one in itertools.combinations(teachers, 2):
        (there, its_arm), (here, arm) = before.run_and_arm, one.run_and_arm
        if one.kind != before.kind or os.path.realpath(here) != os.path.realpath(there):
            continue
        if arm == its_arm:
            raise InputError(f"{one.field} names {one.place} twice: its logits would count twice")
        if not (arm and its_arm):
            raise InputError(
                f"{one.field} names {before.place} and {one.place}: the students of both would count twice: leave one "
                "of them out"
            )


def _member(text: object) -> Given:
    found = re.fullmatch(rf"({'|'.join(KINDS)})=(.+)", text) if isinstance(text, str) else None
    if not found:
        raise InputError(
            f"teacher.ensemble: {text!r} names no teacher: give 'workdir=RUN', 'students=RUN', 'students=RUN:ARM', "
            "'onnx=FILE' or 'logits=FOLDER'"
        )
    return Given(found[1], found[2], "teacher.ensemble")
