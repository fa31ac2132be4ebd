"""The soft targets of a run: what its teacher says of each view, computed once and read from disk after that."""

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
from kdjax.training.checkpoint import begun

RECORD = "teacher_logits.json"
"""In a run's directory: where its teacher's logits lie, their fingerprints, and how many images they took."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A teacher and its outputs.

    Attributes:
        folder: where its outputs lie.
        teacher: what makes them; None where arrays made before take its place.
    """

    folder: LogitsFolder
    teacher: Teacher | None


@dataclasses.dataclass(frozen=True)
class Targets:
    """The soft targets of a run.

    Attributes:
        sources: the teachers; of the logits of several the mean is taken.
        workdir: of the run, whose record says what it began with.
        results_dir: where this process writes its record: the same, unless it follows the run.
        log: takes lines for the person who waits.
    """

    sources: tuple[Source, ...]
    workdir: Path
    results_dir: Path
    log: Callable[[str], None]

    @property
    def network(self) -> tuple[nn.Module, Any] | None:
        """The flax module and its variables, where the only teacher is one: only such a teacher can be online."""
        teacher = self.sources[0].teacher if len(self.sources) == 1 else None
        return teacher.network if teacher else None

    @property
    def digests(self) -> list[str]:
        """SHA-256 of each teacher that can be run: of its variables, or its file."""
        return [source.teacher.parts["teacher"] for source in self.sources if source.teacher]

    @property
    def fitted_heads(self) -> list[dict[str, float]]:
        """What validation said as the head of each encoder was fitted, in their order."""
        return [dict(source.teacher.measured) for source in self.sources if source.teacher and source.teacher.measured]

    def views(self, images: Images, count: int, *, features: bool = False) -> Outputs:
        """Teacher outputs of the training images (examples, side, side, bands).

        Args:
            images: of the training split.
            count: number of views.
            features: whether features are asked for; of several teachers there are none in common.

        Returns:
            Leaves (views, examples, classes) float32 and (views, examples, F) float16, as `Views`.

        Raises:
            InputError: logits that are not finite, among others of `LogitsFolder.read`.
        """
        names = [view_name(view) for view in range(count)]

        def compute(teacher: Teacher, name: str, start: int, end: int) -> Outputs:
            return teacher.views(images, np.arange(start, end), names.index(name))

        found = self._stored("views", dict.fromkeys(names, len(images)), compute, features=features)
        logits = Views([[one.logits for one in said] for said in found])
        return Outputs(logits, Views([[one.features for one in said] for said in found]) if features else None)

    def clean(self, splits: Mapping[str, Images]) -> dict[str, np.ndarray]:
        """Teacher logits (examples, classes) of the plain images of each split, by its name.

        A folder of logits may come from a run that only began to distil, with views but without these: then they are
        not known, and NaN, as of a teacher that failed. Students are measured without it.
        """

        def compute(teacher: Teacher, name: str, start: int, end: int) -> Outputs:
            return Outputs(teacher.clean(Rows.of(splits[name]).select(slice(start, end))))

        rows = {name: len(images) for name, images in splits.items()}
        unknown = {name: self._unknown(name) for name in splits}
        found = self._stored("clean", {name: count for name, count in rows.items() if not unknown[name]}, compute)
        said = iter(found)
        return {
            name: np.full((count, self.sources[0].folder.classes), np.nan, np.float32)
            if unknown[name]
            else np.asarray(Views([[one.logits for one in next(said)]]))[0]
            for name, count in rows.items()
        }

    def pin(self) -> None:
        """Records what a run distils from, when it begins to."""
        document = self._read(self.results_dir)
        document["fingerprints"] = [source.folder.fingerprint for source in self.sources]
        document["teachers"] = self._teachers
        self._write(document)

    def check(self, *, ended: bool = False) -> None:
        """Makes sure that these are the soft targets that the run began with, if its students have.

        The same teachers on images that are decoded otherwise, as by another version of a library, are taken for
        students that have learned all they will, and logged.

        Args:
            ended: whether the students have.

        Raises:
            InputError: they are others.
        """
        document = self._read(self.workdir)
        if not self._begun:
            return
        now = [source.folder.fingerprint for source in self.sources]
        began = document.get("fingerprints")
        if not began:  # before there were any a run recorded folders; one that was given may have any name
            began = [Path(folder).name for folder in document.get("views", {}).get("folders", ())]
            names = [source.folder.folder.name for source in self.sources]
            now = [one if source.teacher else name for source, one, name in zip(self.sources, now, names, strict=True)]
        if not began or began == now:
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
                f"workdir {self.workdir} was distilled from the teacher outputs {', '.join(began)}, but the teacher "
                f"given now makes {', '.join(now)}: put that teacher back, or choose another workdir"
            )

    @property
    def _teachers(self) -> list[str]:
        """Fingerprints of all but the images."""
        parts = [{**source.folder.parts, "examples": None} for source in self.sources]
        return [fingerprint(one) for one in parts]

    def record(self) -> dict[str, Any]:
        """What was computed for the run, "views" and "clean", by this process and the one that trains."""
        return {**self._read(self.workdir), **self._read(self.results_dir)}

    @property
    def _begun(self) -> bool:
        """Whether students have learned from them. Until then the run may choose another teacher."""
        return begun(self.workdir / "distill")

    def _unknown(self, name: str) -> bool:
        """Whether the outputs of a split can neither be read nor computed: a folder made elsewhere has none of them."""
        without = [source.folder for source in self.sources if not source.teacher and not source.folder.has(name)]
        if unknown := bool(first_process_says(len(without))):
            self.log(f"teacher logits: there are none of {name} in the folder given: the teacher is not measured on it")
        return unknown

    def _stored(
        self,
        kind: str,
        rows: dict[str, int],
        compute: Callable[[Teacher, str, int, int], Outputs],
        *,
        features: bool = False,
    ) -> list[list[Outputs]]:
        """The outputs of each name and teacher, read where they are on disk; the images that went through a teacher are
        counted.

        The count is of what was missing when this run first asked these teachers, so that an interruption does not
        change it; what had to be computed again after one is counted apart.
        """
        document = self._read(self.results_dir)
        asked = {"images": rows, "features": features}
        before = {"features": False, **document.get(kind, {})}
        whose = [Path(folder).name for folder in before.get("folders", ())]  # wherever the cache lies by now
        others = not self._begun and whose != [source.folder.folder.name for source in self.sources]
        if others or any(before.get(name, asked[name]) != asked[name] for name in asked) or kind not in document:
            missing = [
                end - start
                for source in self.sources
                if source.teacher
                for name, count in rows.items()
                for start, end in source.folder.missing(name, count, features=features)
            ]
            document[kind] = {
                "folders": [str(source.folder.folder) for source in self.sources],
                **asked,
                "forward_images": sum(missing),
                "started_images": 0,
            }
        self._check_given(rows, features)
        found = []
        for number, (name, count) in enumerate(rows.items()):

            def counted(teacher: Teacher, start: int, end: int, name: str = name, number: int = number) -> Outputs:
                if preemption.requested():  # one process alone ends at once; several must end at the same shard
                    raise Preempted("teacher logits: ended by SIGTERM; the shards computed so far are saved")
                self.log(f"teacher logits: {name} ({number + 1} of {len(rows)}), images {start} to {end}")
                document[kind]["started_images"] += end - start
                self._write(document)
                return compute(teacher, name, start, end)

            found.append(
                [
                    source.folder.read(
                        name,
                        count,
                        functools.partial(counted, source.teacher) if source.teacher else None,
                        features=features,
                        finite=kind == "views",  # a teacher that fails on an image is not measured on that split
                    )
                    for source in self.sources
                ]
            )
        self._write(document)
        self.log(
            f"teacher logits: {', '.join(document[kind]['folders'])}: {kind} complete, "
            f"{document[kind]['started_images']} images went through the teacher"
        )
        return found

    def _check_given(self, rows: dict[str, int], features: bool) -> None:
        """Whether folders without a teacher have all of it: now rather than after the other teachers have computed."""
        for source in self.sources:
            if source.teacher is None:
                missing = (bool(source.folder.missing(*one, features=features)) for one in rows.items())
                lacking = next((number for number, gone in enumerate(missing, 1) if gone), 0)
                if lacking := first_process_says(lacking):  # the others need not have the disk
                    raise source.folder.lacks(list(rows)[lacking - 1])

    def _read(self, directory: Path) -> dict[str, Any]:
        path = directory / RECORD
        if not path.exists():
            return {}
        document = files.read_json(path, "remove it; the counts of images begin again")
        return document if isinstance(document, dict) else {}

    def _write(self, document: dict[str, Any]) -> None:
        if jax.process_index() == 0:
            files.write_json(self.results_dir / RECORD, document)
