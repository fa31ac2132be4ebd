"""A run that the report reads."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.report_material import ARMS, CLASSES, PARITY, exported, material

from kdjax.config import base
from kdjax.data.dataset import Split
from kdjax.report import stage


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The files of a finished run, in place of the run only what the report reads of it; it renders no views."""
    given = material(seeds=(0,), parity=PARITY)
    for name in ("evaluation", "distill", "teacher", "export"):
        (tmp_path / name).mkdir()
    for name in ("distill", "teacher"):
        lines = "".join(f"{json.dumps(one)}\n" for one in given.records[name])
        (tmp_path / name / "metrics.jsonl").write_text(lines)
    (tmp_path / "results.json").write_text(json.dumps(given.results))
    (tmp_path / "export" / "parity.json").write_text(json.dumps(exported(given)))
    sides = {"test": given.test, "validation": given.validation}
    teacher = {f"teacher_{name}": side.teacher for name, side in sides.items()}
    students = {f"student_{name}": side.students[None] for name, side in sides.items()}
    np.savez(tmp_path / "evaluation" / "logits.npz", **teacher, **students)
    splits = {name: Split(side.images, side.labels, side.names) for name, side in sides.items()}
    dataset = base().dataset
    dataset.source = "demo"
    monkeypatch.setattr(stage, "_views", lambda run, students, to_pictures, has_teacher: given.views)
    return SimpleNamespace(
        workdir=tmp_path,
        dataset=SimpleNamespace(
            statistics=None, fingerprint="f00d", classes=CLASSES, members={}, train=splits["validation"], **splits
        ),
        config=SimpleNamespace(
            dataset=dataset,
            teacher=SimpleNamespace(workdir=None, students=None, onnx=None, ensemble=()),
            distill=SimpleNamespace(logits=()),
            run=SimpleNamespace(note="Rendered scenes."),
        ),
        student=SimpleNamespace(arm_names=tuple(ARMS), seeds=(0,), rows=(1, len(ARMS))),
        log=print,
    )
