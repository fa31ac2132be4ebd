"""The teacher of a run, whatever kind it is, and the soft targets that it makes."""

from collections.abc import Callable

import jax.numpy as jnp

from kdjax.run.checks import given_teacher
from kdjax.run.run import Run
from kdjax.teacher.onnx import Declared, from_onnx
from kdjax.teacher.store import cached, named
from kdjax.teacher.targets import Targets
from kdjax.teacher.teacher import Shown, Teacher
from kdjax.teacher.trained import from_network


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
        folders = tuple(named(run.config.distill.logits, parts, classes, run.log))
    else:
        folders = (cached(run.cache_dir, parts, classes, run.log),)
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
    "teacher.onnx": _onnx,
    "distill.logits": _stored,
}
"""By the field that gives the teacher, see `checks.given_teacher`."""
