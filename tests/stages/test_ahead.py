"""The students' step that is compiled while their teacher trains is the one that they then take, to the letter."""

import numpy as np
import pytest
import tiny
from PIL import Image

from kdjax.run.run import open_run
from kdjax.runtime import compiling
from kdjax.stages import train
from kdjax.training.population import Population


class Stepped(Exception):
    """The students' first step was asked for."""


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for name in ("field", "forest", "water"):
        (folder / name).mkdir()
        for number in range(24):
            Image.fromarray(rng.integers(0, 256, (36, 36, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def opened(workdir, tiles, **fields):
    config = tiny.get_config()
    config.dtype, config.dataset.path, config.teacher.epochs = "float32", str(tiles), 1
    config.update_from_flattened_dict(fields)
    return open_run(config, workdir, workdir.parent / "cache", lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"distill.arms": ("student_alone", "kl_features"), "distill.target": "mean", "run.images": "host"},
        {"distill.arms": ("labelled_alone", "kl"), "dataset.label_fraction": 0.5, "distill.views": 9},
        {"distill.arms": ("student_alone",), "run.arms_at_once": 1, "seeds": (3,)},
    ],
    ids=["plain", "features of the mean", "labels", "no teacher"],
)
def test_the_step_compiled_ahead_is_the_one_the_students_take(tmp_path, tiles, fields, monkeypatch):
    run, ahead, taken = opened(tmp_path / "run", tiles, **fields), [], []
    monkeypatch.setattr(compiling, "ahead", lambda lowered: ahead.append(lowered().as_text()))
    train.train_teacher(run, then_distill=True)
    compiled = Population.compiled

    def recorded(self):
        def call(*args):
            taken.append(compiled(self).lower(*args).as_text())
            raise Stepped

        return call

    monkeypatch.setattr(Population, "compiled", recorded)
    with pytest.raises(Stepped):
        train.distill(run)
    assert len(ahead) == 1 and ahead == taken


def test_no_step_is_compiled_ahead_that_needs_the_trained_teacher(tmp_path, tiles, monkeypatch):
    """One that runs in the step; nor where the stage that would take it does not follow."""
    monkeypatch.setattr(train, "_train", lambda run, learner, data, meanwhile=None: meanwhile and meanwhile())
    monkeypatch.setattr(compiling, "ahead", lambda lowered: pytest.fail("asked"))
    train.train_teacher(opened(tmp_path / "online", tiles, **{"distill.views": 0}), then_distill=True)
    train.train_teacher(opened(tmp_path / "alone", tiles), then_distill=False)
