"""The teacher of a run, whatever kind it is, and the soft targets that it makes."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import InputError
from kdjax.run.checks import given_teacher
from kdjax.run.other_run import named
from kdjax.run.run import Run, other_students
from kdjax.runtime.devices import Mapping
from kdjax.teacher import store
from kdjax.teacher.onnx import Declared, from_onnx
from kdjax.teacher.targets import Targets
from kdjax.teacher.teacher import Shown, Teacher
from kdjax.teacher.trained import Mean, from_network


def open_targets(run: Run) -> Targets:
    """The soft targets of a run; those that it began with, if it has begun.

    Raises:
        InputError: there is no trained teacher, what was given does not fit, or it is another than the run began with.
    """
    shown = Shown(run.teacher_size, run.config.data_seed, run.augmentation)
    teacher = TEACHERS[given_teacher(run.config)](run, shown)
    parts = {
        "examples": run.dataset.fingerprint,
        "augmentation": run.augmentation.describe(),
        "data_seed": run.config.data_seed,
        **(teacher.parts if teacher else {}),
    }
    classes = len(run.dataset.classes)
    if teacher is None:
        folders = tuple(store.named(run.config.distill.logits, parts, classes, run.log))
    else:
        folders = (store.cached(run.cache_dir, parts, classes, run.log),)
    targets = Targets(teacher, folders, run.workdir, run.results_dir, run.log)
    targets.check()
    return targets


def _trained(run: Run, shown: Shown) -> Teacher:
    """This run's own teacher, or that of the run that it names."""
    learner = run.teacher
    assert learner is not None
    finished = learner.finished()
    return from_network(
        learner.section.model,
        learner.network,
        finished.one(0, 0),
        shown,
        dtype=str(jnp.dtype(learner.network.dtype)),
        on_device=run.on_device(run.dataset.train.images),
        mapping=learner.mapping,
    )


def _students(run: Run, shown: Shown) -> Teacher:
    """The mean of another run's students: those of one arm, or all."""
    learner, other = other_students(run), named(run.config)
    assert other is not None
    finished = learner.finished()
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
        dataclasses.replace(shown, size=learner.size),
        dtype=str(jnp.dtype(learner.network.dtype)),
        on_device=run.on_device(run.dataset.train.images),
        mapping=Mapping(),
    )


def _onnx(run: Run, shown: Shown) -> Teacher:
    section = run.config.teacher
    declared = Declared(
        section.onnx_layout,
        section.onnx_input,
        tuple(section.onnx_classes),
        section.onnx_output,
        section.onnx_gives,
    )
    return from_onnx(section.onnx, declared, run.dataset.classes, shown)


def _stored(run: Run, shown: Shown) -> None:
    """Arrays made before take the place of a teacher."""


TEACHERS: dict[str | None, Callable[[Run, Shown], Teacher | None]] = {
    None: _trained,
    "teacher.workdir": _trained,
    "teacher.students": _students,
    "teacher.onnx": _onnx,
    "distill.logits": _stored,
}
"""By the field that gives the teacher, see `checks.given_teacher`."""
