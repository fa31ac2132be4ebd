"""The soft targets of a run: its teacher's outputs for each view, computed once and then read from disk."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.data.rows import Images, Rows
from kdjax.errors import InputError, Preempted
from kdjax.objective.outputs import Outputs
from kdjax.runtime import files, preemption
from kdjax.runtime.devices import first_process_says
from kdjax.teacher.store import LogitsFolder, fingerprint, view_name
from kdjax.teacher.teacher import Teacher
from kdjax.teacher.views import Views
from kdjax.training.checkpoint import has_begun

RECORD = "teacher_logits.json"
"""File in a run's directory that records where its teacher's logits are, their fingerprints, and how many images the
teacher had to process."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A teacher and the folder of its outputs.

    Attributes:
        folder: the folder where its outputs are stored.
        teacher: the teacher, or None if existing arrays take its place.
    """

    folder: LogitsFolder
    teacher: Teacher | None


@dataclasses.dataclass(frozen=True)
class Targets:
    """The soft targets of a run.

    Attributes:
        sources: the teachers; the soft targets are the mean of their logits.
        workdir: directory of the run, with the record of what it began with.
        results_dir: directory where this process writes its record: `workdir`, unless it only follows the run.
        log: takes a line of text for the user.
    """

    sources: tuple[Source, ...]
    workdir: Path
    results_dir: Path
    log: Callable[[str], None]

    @property
    def network(self) -> tuple[nn.Module, Any] | None:
        """The flax module and variables of the only teacher, if it is a network and so can be online; else None."""
        teacher = self.sources[0].teacher if len(self.sources) == 1 else None
        return teacher.network if teacher else None

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the variables or the file of each teacher that can be run."""
        return [source.teacher.parts["teacher"] for source in self.sources if source.teacher]

    @property
    def fitted_heads(self) -> list[dict[str, float]]:
        """Validation metrics of the fitted head of each encoder, in order."""
        return [dict(source.teacher.measured) for source in self.sources if source.teacher and source.teacher.measured]

    def views(self, images: Images, count: int, *, features: bool = False) -> Outputs:
        """Returns the teacher outputs for the training images.

        Args:
            images: those of the training split, (examples, side, side, bands).
            count: number of views.
            features: whether to return features too; several teachers have none in common.

        Returns:
            Leaves (views, examples, classes) float32 and (views, examples, F) float16, as `Views`.

        Raises:
            InputError: as `LogitsFolder.read` does, for example if logits are not finite.
        """
        names = [view_name(view) for view in range(count)]

        def compute(teacher: Teacher, name: str, start: int, end: int) -> Outputs:
            return teacher.views(images, np.arange(start, end), names.index(name))

        by_view = self._read_or_compute("views", dict.fromkeys(names, len(images)), compute, features=features)
        logits = Views([[outputs.logits for outputs in teachers] for teachers in by_view])
        if not features:
            return Outputs(logits)
        return Outputs(logits, Views([[outputs.features for outputs in teachers] for teachers in by_view]))

    def clean(self, splits: Mapping[str, Images]) -> dict[str, np.ndarray]:
        """Returns the teacher logits (examples, classes) of the unaugmented images of each split, by its name.

        A folder of logits may come from a run that stopped while it distilled, and then has views but no such logits.
        They are then NaN, like those of a teacher that failed, and students are measured without the teacher.
        """

        def compute(teacher: Teacher, name: str, start: int, end: int) -> Outputs:
            return Outputs(teacher.clean(Rows.of(splits[name]).select(slice(start, end))))

        rows = {name: len(images) for name, images in splits.items()}
        unknown = {name: self._unknown(name) for name in splits}
        known = {name: count for name, count in rows.items() if not unknown[name]}
        by_split = dict(zip(known, self._read_or_compute("clean", known, compute), strict=True))
        return {
            name: np.full((count, self.sources[0].folder.classes), np.nan, np.float32)
            if unknown[name]
            else np.asarray(Views([[outputs.logits for outputs in by_split[name]]]))[0]
            for name, count in rows.items()
        }

    def pin(self) -> None:
        """Records which teacher outputs a run distils from; called when it begins to distil."""
        document = self._read(self.results_dir)
        document["fingerprints"] = [source.folder.fingerprint for source in self.sources]
        document["teachers"] = self._teachers
        self._write(document)

    def check(self, *, ended: bool = False) -> None:
        """Checks that these are the soft targets that the run began to distil from, if it has begun.

        Another version of a library may decode the same images differently. If the teachers are the same, that is an
        error while students still have to be trained. Once their training has ended, it is only logged.

        Args:
            ended: whether the training of the students has ended.

        Raises:
            InputError: the soft targets are different ones.
        """
        document = self._read(self.workdir)
        if not self._begun:
            return
        current = [source.folder.fingerprint for source in self.sources]
        recorded = document.get("fingerprints")
        if not recorded:
            # Earlier versions recorded folders, which are named by fingerprint unless the user gave the folder.
            recorded = [Path(folder).name for folder in document.get("views", {}).get("folders", ())]
            current = [
                digest if source.teacher else source.folder.folder.name
                for source, digest in zip(self.sources, current, strict=True)
            ]
        if not recorded or recorded == current:
            return
        if document.get("teachers") == self._teachers:
            if not ended:
                raise InputError(
                    f"workdir {self.workdir} was distilled from the same teacher on images that were decoded "
                    "differently: put the images, or the packages that decode them, back, or choose another workdir"
                )
            self.log("teacher logits: the teacher is the same, but its images are decoded differently than in training")
        else:
            raise InputError(
                f"workdir {self.workdir} was distilled from the teacher outputs {', '.join(recorded)}, but the teacher "
                f"given now makes {', '.join(current)}: put that teacher back, or choose another workdir"
            )

    @property
    def _teachers(self) -> list[str]:
        """Fingerprint of each teacher and its views, without the images."""
        return [fingerprint({**source.folder.parts, "examples": None}) for source in self.sources]

    def record(self) -> dict[str, Any]:
        """Returns the record of what this process and the one that trains computed for the run."""
        return {**self._read(self.workdir), **self._read(self.results_dir)}

    @property
    def _begun(self) -> bool:
        """Whether students have begun to learn from these targets. Until then the run may choose another teacher."""
        return has_begun(self.workdir / "distill")

    def _unknown(self, name: str) -> bool:
        """Whether a split's outputs can be neither read nor computed: a folder of existing logits may lack them."""
        without = [source.folder for source in self.sources if not source.teacher and not source.folder.has(name)]
        if unknown := bool(first_process_says(len(without))):
            self.log(f"teacher logits: there are none of {name} in the folder given: the teacher is not measured on it")
        return unknown

    def _read_or_compute(
        self,
        kind: str,
        rows: dict[str, int],
        compute: Callable[[Teacher, str, int, int], Outputs],
        *,
        features: bool = False,
    ) -> list[list[Outputs]]:
        """Returns the outputs for each name and teacher; reads those on disk, computes the others, and counts images.

        The record gets two counts of images. `forward_images` are those whose outputs were missing when this run first
        needed them from these teachers; an interruption does not change it. `started_images` are those that went
        through a teacher, including any that were computed again after an interruption.

        Args:
            kind: "views" or "clean", the entry of the record.
            rows: number of examples, by the name of the outputs.
            compute: function from teacher, name, first row and end to outputs.
            features: whether features are needed.
        """
        document = self._read(self.results_dir)
        request = {"images": rows, "features": features}
        previous = {"features": False, **document.get(kind, {})}
        folders = [Path(folder).name for folder in previous.get("folders", ())]  # names: the cache may have been moved
        other_teachers = not self._begun and folders != [source.folder.folder.name for source in self.sources]
        changed = any(previous.get(name, request[name]) != request[name] for name in request)
        if other_teachers or changed or kind not in document:
            missing = [
                end - start
                for source in self.sources
                if source.teacher
                for name, count in rows.items()
                for start, end in source.folder.missing(name, count, features=features)
            ]
            document[kind] = {
                "folders": [str(source.folder.folder) for source in self.sources],
                **request,
                "forward_images": sum(missing),
                "started_images": 0,
            }
        self._check_folders_without_teacher(rows, features)
        result = []
        for number, (name, count) in enumerate(rows.items()):

            def counted(teacher: Teacher, start: int, end: int, name: str = name, number: int = number) -> Outputs:
                if preemption.requested():  # a single process has ended by then; several must end at the same shard
                    raise Preempted("teacher logits: ended by SIGTERM; the shards computed so far are saved")
                self.log(f"teacher logits: {name} ({number + 1} of {len(rows)}), images {start} to {end}")
                document[kind]["started_images"] += end - start
                self._write(document)
                return compute(teacher, name, start, end)

            result.append(
                [
                    source.folder.read(
                        name,
                        count,
                        functools.partial(counted, source.teacher) if source.teacher else None,
                        features=features,
                        finite=kind == "views",  # if a teacher fails on a plain image, it is not measured on that split
                    )
                    for source in self.sources
                ]
            )
        self._write(document)
        self.log(
            f"teacher logits: {', '.join(document[kind]['folders'])}: {kind} complete, "
            f"{document[kind]['started_images']} images went through the teacher"
        )
        return result

    def _check_folders_without_teacher(self, rows: dict[str, int], features: bool) -> None:
        """Raises InputError if a folder without a teacher is incomplete, before the other teachers begin to compute."""
        for source in self.sources:
            if source.teacher is None:
                missing = (bool(source.folder.missing(*item, features=features)) for item in rows.items())
                first_missing = next((number for number, incomplete in enumerate(missing, 1) if incomplete), 0)
                if first_missing := first_process_says(first_missing):  # other processes may lack the folder
                    raise source.folder.missing_error(list(rows)[first_missing - 1])

    def _read(self, directory: Path) -> dict[str, Any]:
        path = directory / RECORD
        if not path.exists():
            return {}
        document = files.read_json(path, "remove it; the counts of images begin again")
        return document if isinstance(document, dict) else {}

    def _write(self, document: dict[str, Any]) -> None:
        if jax.process_index() == 0:
            files.write_json(self.results_dir / RECORD, document)
