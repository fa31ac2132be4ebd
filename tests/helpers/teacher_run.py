"""A run whose teacher, or students, another run takes; as far as `run.other_run` reads it."""

import json
from types import SimpleNamespace

from kdjax.config import base


def write_teacher(folder):
    """A run that trained a teacher; returns a configuration that names it."""
    there = base()
    there.teacher.weights = "elsewhere.safetensors"
    (folder / "teacher").mkdir()
    (folder / "config.json").write_text(there.to_json())
    splits = {"train": ["a/1", "b/1"], "validation": ["a/2"], "test": ["a/3", "b/3"], "unlabeled": ["tile"]}
    (folder / "splits.json").write_text(json.dumps({**splits, "classes": ["a", "b"]}))
    (folder / "teacher" / "program.json").write_text('{"arms_at_once": null, "steps": 12}')
    here = base()
    here.teacher.workdir = str(folder)
    return here


def dataset(classes=("a", "b"), validation=("a/2",), test=("a/3", "b/3"), value_range=(), hidden=(), digests=None):
    """Of a run, what is compared with the teacher's."""
    return SimpleNamespace(
        classes=classes,
        validation=SimpleNamespace(names=validation),
        test=SimpleNamespace(names=test),
        value_range=value_range,
        members={"label_hidden": hidden},
        digests=digests or {},
    )
