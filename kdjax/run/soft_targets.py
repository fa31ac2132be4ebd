"""The teachers of a run, whatever kind they are, and the soft targets that they make."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import InputError
from kdjax.run import other_run
from kdjax.run.arms import head_weights
from kdjax.run.onnx_teacher import check_said, declared
from kdjax.run.run import Run, other_networks
from kdjax.run.teacher_source import Given, given_teachers
from kdjax.runtime.devices import DeviceMapping, barrier, first_process_says
from kdjax.teacher import store
from kdjax.teacher.fitted_head import NAME, Head, read_head, write_head
from kdjax.teacher.onnx import Declared, OnnxFile, from_encoder, from_onnx, opened
from kdjax.teacher.targets import Source, Targets
from kdjax.teacher.teacher import Shown, Teacher
from kdjax.teacher.trained import Mean, from_network
from kdjax.training.learner import Learner
from kdjax.training.probe import Probe, probe


def open_targets(run: Run) -> Targets:
    """The soft targets of a run; those that it began with, if it has begun.

    Raises:
        InputError: there is no trained teacher, what was given does not fit, or it is another than the run began with.
    """
    shown = _shown(run)
    parts = {
        "examples": run.dataset.fingerprint,
        "augmentation": run.augmentation.describe(),
        "data_seed": run.config.data_seed,
    }
    classes = len(run.dataset.classes)

    def made(teacher: Teacher) -> Source:
        return Source(store.cached(run.cache_dir, {**parts, **teacher.parts}, classes, run.log), teacher)

    def found(one: Given) -> Source:
        if one.kind == "logits":  # arrays made before take the place of a teacher
            return Source(store.named(one.place, one.field, parts, classes, run.log), None)
        return made(_onnx(run, one, shown) if one.kind == "onnx" else _of_another_run(run, one, shown))

    given = given_teachers(run.config)
    sources = tuple(map(found, given)) or (made(_own(run, shown)),)
    _refuse_one_twice(given, sources)
    targets = Targets(sources, run.workdir, run.results_dir, run.log)
    targets.check(ended=run.student.has_ended)
    return targets


def has_teacher(run: Run) -> bool:
    """Whether a run has one: its arms learn from it, it was given, or trained here; the same in every process."""
    taught = any(arm.needs_teacher for arm in run.student.arms)
    return taught or run.teacher is None or bool(first_process_says(run.teacher.has_checkpoints))


def _refuse_one_twice(given: tuple[Given, ...], sources: tuple[Source, ...]) -> None:
    """One teacher may have two names, as that of a run and the folder of its logits."""
    for (before, its), (one, own) in itertools.combinations(zip(given, sources, strict=False), 2):
        # Arrays that were made elsewhere may say nothing of who made them.
        if own.folder.fingerprint == its.folder.fingerprint and "teacher" in own.folder.parts:
            raise InputError(
                f"{one.field}: {before.place} and {one.place} are one teacher, whose logits would count twice: leave "
                "one of them out"
            )


def fit_encoder_heads(run: Run) -> list[tuple[str, Probe]]:
    """Fits a linear head to each encoder that the run names and has none for; they are kept in its directory.

    Returns:
        The files and their fits; of several processes the first one fits.
    """
    fitted = []
    for one in given_teachers(run.config):
        if one.kind == "onnx" and run.config.teacher.onnx_gives == "embeddings":
            file, _ = _opened(run, one, run.teacher_size)
            parts = _fitted_to(run, file)
            folder = run.workdir / "teacher" / parts["teacher"][:16]
            if first_process_says(read_head(folder, parts) is None):
                if jax.process_index() == 0:
                    fit = _fit_head(run, file)
                    write_head(folder, Head(fit.kernel, fit.bias, parts, fit.figures))
                    fitted.append((one.place, fit))
                barrier("the head is stored")
    return fitted


def _fit_head(run: Run, file: OnnxFile) -> Probe:
    train, validation = run.dataset.train.labeled(), run.dataset.validation
    pairs = [(file.plain(split.images), split.labels) for split in (train, validation)]
    weights = head_weights(run.config, run.dataset)
    return probe(*pairs, classes=len(run.dataset.classes), weights=weights, selected_by=run.student.selected_by)


def check_files(run: Run) -> None:
    """Opens the ONNX files that the run names, as they will be opened when their outputs are needed.

    Raises:
        InputError: one cannot be used.
    """
    shown = _shown(run)
    for one in given_teachers(run.config):
        if one.kind == "onnx":
            _onnx(run, one, shown)


def _shown(run: Run) -> Shown:
    return Shown(run.teacher_size, run.config.data_seed, run.augmentation)


def _fitted_to(run: Run, file: OnnxFile) -> dict[str, Any]:
    weights = head_weights(run.config, run.dataset)
    weighed = {"class_weights": list(weights)} if weights else {}
    measure = run.student.selected_by
    chosen = {"selected_by": measure} if measure != "top1" else {}
    return {**file.parts, "examples": run.dataset.fingerprint, **weighed, **chosen}


def _own(run: Run, shown: Shown) -> Teacher:
    """The network that this run has trained, or taken as it is."""
    assert run.teacher is not None
    return _network(run, run.teacher, run.teacher.finished().one(0, 0), shown)


def _of_another_run(run: Run, one: Given, shown: Shown) -> Teacher:
    """The teacher of another run, or the mean of its students: those of one arm, or all."""
    other = other_run.of(one)
    assert other is not None
    learner = other_networks(run, other)
    shown = dataclasses.replace(shown, size=learner.size)
    finished = learner.finished()
    if other.section == "teacher":
        return _network(run, learner, finished.one(0, 0), shown)
    chosen = [
        finished.one(row, column)
        for row, column in np.argwhere(finished.usable)
        if other.arm in ("", learner.arms[column].name)
    ]
    if not chosen:
        raise InputError(f"{other.field}: the students of {other.workdir} {other.arm} failed: choose others")
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)
    return from_network(
        f"mean of {len(chosen)} {learner.section.model}",
        Mean(learner.network, len(chosen)),
        {kind: {"network": leaves} for kind, leaves in stacked.items()},
        shown,
        dtype=str(jnp.dtype(learner.network.dtype)),
        on_device=run.on_device(run.dataset.train.images),
        mapping=DeviceMapping(),
    )


def _network(run: Run, learner: Learner, variables: dict[str, Any], shown: Shown) -> Teacher:
    return from_network(
        learner.section.model,
        learner.network,
        variables,
        shown,
        dtype=str(jnp.dtype(learner.network.dtype)),
        on_device=run.on_device(run.dataset.train.images),
        mapping=learner.mapping,
    )


def _opened(run: Run, one: Given, size: int) -> tuple[OnnxFile, Declared]:
    said = declared(run.config.teacher, run.dataset)
    file = opened(one.place, said, size)
    check_said(file, run.config.teacher, run.dataset)
    return file, said


def _onnx(run: Run, one: Given, shown: Shown) -> Teacher:
    file, said = _opened(run, one, shown.size)
    if said.gives != "embeddings":
        return from_onnx(file, said, run.dataset.classes, shown)
    parts = _fitted_to(run, file)
    folder = run.workdir / "teacher" / parts["teacher"][:16]
    head = read_head(folder, parts)
    if head is None:
        raise InputError(
            f"{one.field}: {folder / NAME}, the head of {one.place} for these images, is not there: run "
            "--stages=teacher first"
        )
    return from_encoder(file, head, shown)
