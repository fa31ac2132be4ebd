"""Opens the teachers of a run, of whatever kind, and their soft targets."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import InputError
from kdjax.run import other_run
from kdjax.run.arms import head_weights
from kdjax.run.onnx_teacher import check_metadata, declared_facts
from kdjax.run.run import Run, other_networks
from kdjax.run.teacher_source import GivenTeacher, given_teachers
from kdjax.runtime.devices import DeviceMapping, barrier, first_process_says
from kdjax.teacher import store
from kdjax.teacher.fitted_head import NAME, Head, read_head, write_head
from kdjax.teacher.onnx import OnnxDeclaration, OnnxFile, from_encoder, from_onnx, open_onnx
from kdjax.teacher.targets import Source, Targets
from kdjax.teacher.teacher import Teacher, ViewSettings
from kdjax.teacher.trained import Mean, from_network
from kdjax.training.learner import Learner
from kdjax.training.probe import Probe, probe


def open_targets(run: Run) -> Targets:
    """Opens the soft targets of a run.

    Raises:
        InputError: no teacher has been trained, a given teacher does not fit, or the run began with another teacher.
    """
    view_settings = _view_settings(run)
    parts = {
        "examples": run.dataset.fingerprint,
        "augmentation": run.augmentation.describe(),
        "data_seed": run.config.data_seed,
    }
    classes = len(run.dataset.classes)

    def source_of(teacher: Teacher) -> Source:
        return Source(store.cached_folder(run.cache_dir, {**parts, **teacher.parts}, classes, run.log), teacher)

    def given_source(given: GivenTeacher) -> Source:
        if given.kind == "logits":  # existing arrays replace the teacher
            return Source(store.existing_folder(given.place, given.field, parts, classes, run.log), None)
        make = _onnx_teacher if given.kind == "onnx" else _teacher_of_other_run
        return source_of(make(run, given, view_settings))

    teachers = given_teachers(run.config)
    sources = tuple(map(given_source, teachers)) or (source_of(_own_teacher(run, view_settings)),)
    _refuse_duplicates(teachers, sources)
    targets = Targets(sources, run.workdir, run.results_dir, run.log)
    targets.check(ended=run.student.has_ended)
    return targets


def has_teacher(run: Run) -> bool:
    """Whether a run has a teacher: an arm learns from it, it was given, or it was trained in this run.

    The answer is the same in every process.
    """
    learns = any(arm.needs_teacher for arm in run.arms)
    return learns or run.teacher is None or bool(first_process_says(run.teacher.has_checkpoints))


def _refuse_duplicates(teachers: tuple[GivenTeacher, ...], sources: tuple[Source, ...]) -> None:
    """Refuses a teacher that is given under two names, such as a run and the folder of its logits."""
    pairs = zip(teachers, (source.folder for source in sources), strict=False)
    for (first, first_folder), (second, second_folder) in itertools.combinations(pairs, 2):
        # Logits that were made elsewhere may not record their teacher.
        if second_folder.fingerprint == first_folder.fingerprint and "teacher" in second_folder.parts:
            raise InputError(
                f"{second.field}: {first.place} and {second.place} are one teacher, whose logits would count twice: "
                "leave one of them out"
            )


def fit_encoder_heads(run: Run) -> list[tuple[str, Probe]]:
    """Fits a linear head to each encoder that the run names and has no head for, and stores it in the run's directory.

    Returns:
        The encoder files and their fits. Only the first of several processes fits; the others return an empty list.
    """
    fitted = []
    for teacher in given_teachers(run.config):
        if teacher.kind == "onnx" and run.config.teacher.onnx_gives == "embeddings":
            file, _ = _open_onnx(run, teacher, run.teacher_size)
            parts = _head_parts(run, file)
            folder = run.workdir / "teacher" / parts["teacher"][:16]
            if first_process_says(read_head(folder, parts) is None):
                if jax.process_index() == 0:
                    fit = _fit_head(run, file)
                    write_head(folder, Head(fit.kernel, fit.bias, parts, fit.figures))
                    fitted.append((teacher.place, fit))
                barrier("the head is stored")
    return fitted


def _fit_head(run: Run, file: OnnxFile) -> Probe:
    train, validation = run.dataset.train.labeled(), run.dataset.validation
    pairs = [(file.plain(split.images), split.labels) for split in (train, validation)]
    weights = head_weights(run.config, run.dataset)
    return probe(*pairs, classes=len(run.dataset.classes), weights=weights, selected_by=run.selected_by)


def check_files(run: Run) -> None:
    """Opens the ONNX files that the run names, in the same way as when their outputs are needed.

    Raises:
        InputError: a file cannot be used.
    """
    view_settings = _view_settings(run)
    for teacher in given_teachers(run.config):
        if teacher.kind == "onnx":
            _onnx_teacher(run, teacher, view_settings)


def _view_settings(run: Run) -> ViewSettings:
    return ViewSettings(run.teacher_size, run.config.data_seed, run.augmentation)


def _head_parts(run: Run, file: OnnxFile) -> dict[str, Any]:
    """Returns everything that the head fitted to an encoder depends on; its folder is named by the encoder."""
    weights = head_weights(run.config, run.dataset)
    weighting = {"class_weights": list(weights)} if weights else {}
    selection = {"selected_by": run.selected_by} if run.selected_by != "top1" else {}
    return {**file.parts, "examples": run.dataset.fingerprint, **weighting, **selection}


def _own_teacher(run: Run, view_settings: ViewSettings) -> Teacher:
    """Returns the network that this run has trained, or uses as it is, as its teacher."""
    assert run.teacher is not None
    return _network_teacher(run, run.teacher, run.teacher.finished().one(0, 0), view_settings)


def _teacher_of_other_run(run: Run, teacher: GivenTeacher, view_settings: ViewSettings) -> Teacher:
    """Returns the teacher of another run, or the mean of its students of one arm or of all arms.

    Raises:
        InputError: all of these students failed.
    """
    other = other_run.borrowed_run(teacher)
    assert other is not None
    learner = other_networks(run, other)
    view_settings = dataclasses.replace(view_settings, size=learner.size)
    finished = learner.finished()
    if other.section == "teacher":
        return _network_teacher(run, learner, finished.one(0, 0), view_settings)
    members = [
        finished.one(row, column)
        for row, column in np.argwhere(finished.usable)
        if other.arm in ("", learner.arm_names[column])
    ]
    if not members:
        raise InputError(f"{other.field}: the students of {other.workdir} {other.arm} failed: choose others")
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    return from_network(
        f"mean of {len(members)} {learner.section.model}",
        Mean(learner.network, len(members)),
        {kind: {"network": leaves} for kind, leaves in stacked.items()},
        view_settings,
        dtype=str(jnp.dtype(learner.network.dtype)),
        on_device=run.on_device(run.dataset.train.images),
        mapping=DeviceMapping(),
    )


def _network_teacher(run: Run, learner: Learner, variables: dict[str, Any], view_settings: ViewSettings) -> Teacher:
    return from_network(
        learner.section.model,
        learner.network,
        variables,
        view_settings,
        dtype=str(jnp.dtype(learner.network.dtype)),
        on_device=run.on_device(run.dataset.train.images),
        mapping=learner.mapping,
    )


def _open_onnx(run: Run, teacher: GivenTeacher, size: int) -> tuple[OnnxFile, OnnxDeclaration]:
    declaration = declared_facts(run.config.teacher, run.dataset)
    file = open_onnx(teacher.place, declaration, size)
    check_metadata(file, run.config.teacher, run.dataset)
    return file, declaration


def _onnx_teacher(run: Run, teacher: GivenTeacher, view_settings: ViewSettings) -> Teacher:
    file, declaration = _open_onnx(run, teacher, view_settings.size)
    if declaration.gives != "embeddings":
        return from_onnx(file, declaration, run.dataset.classes, view_settings)
    parts = _head_parts(run, file)
    folder = run.workdir / "teacher" / parts["teacher"][:16]
    head = read_head(folder, parts)
    if head is None:
        raise InputError(
            f"{teacher.field}: {folder / NAME}, the head of {teacher.place} for these images, is not there: run "
            "--stages=teacher first"
        )
    return from_encoder(file, head, view_settings)
