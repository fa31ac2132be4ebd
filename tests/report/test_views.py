"""The augmented views of the report are those of training, and the networks are asked about what the page shows."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.dataset import Split
from kdjax.inputs import augment, batch
from kdjax.report import stage
from kdjax.report.composite import Composite
from kdjax.results.metrics import log_softmax

CLASSES = ("field", "forest", "sea")
GENTLE = augment.Augmentation(scale=(0.8, 1.0), brightness=0.1)


def predicting(images):
    """Logits of two seeds and two arms: the mean of each color, scaled."""
    assert images.dtype == np.uint8
    means = images.mean((1, 2)) / 64
    return np.stack([[means, 2 * means], [3 * means, 4 * means]])


@pytest.fixture
def run(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 12, 12, 3), dtype=np.uint8)
    labels = np.array([-1, 2, 0, 0, 1, 2, -1, 1, 0], np.int32)
    teacher = SimpleNamespace(clean=lambda images: np.arange(3) + images[:, 0, 0] / 50.0, parts={"size": 10})
    monkeypatch.setattr(stage, "open_targets", lambda run: SimpleNamespace(sources=[SimpleNamespace(teacher=teacher)]))
    selected = SimpleNamespace(best=SimpleNamespace(variables={"params": 1}))
    return SimpleNamespace(
        dataset=SimpleNamespace(classes=CLASSES, train=Split(images, labels, tuple(f"{k}.png" for k in range(9)))),
        config=SimpleNamespace(
            data_seed=5, student=SimpleNamespace(epochs=20), distill=SimpleNamespace(views=0), teacher=None
        ),
        augmentation=GENTLE,
        student=SimpleNamespace(size=8, finished=lambda: selected, predicting=lambda variables: predicting),
        teacher_size=10,
    )


def view(run, example, number, size):
    key = batch.view_keys(5, np.array(example), np.array(number))
    image = augment.augment(jnp.asarray(run.dataset.train.images[example]), key, size, GENTLE)
    return np.rint(255 * np.asarray(image)).astype(np.uint8)


@pytest.mark.slow
def test_views_are_those_of_training(run):
    found = stage._views(run, [(0, 0), (1, 1), (1, 0)], Composite(), has_teacher=True)
    assert list(found.names) == ["2.png", "4.png", "1.png"] and list(found.labels) == [0, 1, 2]
    np.testing.assert_array_equal(found.images, run.dataset.train.images[[2, 4, 1]])
    assert found.views.shape == (3, stage.VIEWS, 8, 8, 3)
    for row, example in enumerate((2, 4, 1)):
        for number in range(stage.VIEWS):
            # Compiled alone and together the pictures may differ by a rounding of 8 bits.
            difference = found.views[row, number].astype(int) - view(run, example, number, 8)
            assert abs(difference).max() <= 1


@pytest.mark.slow
def test_networks_are_asked_about_these_pictures(run):
    found = stage._views(run, [(0, 0), (1, 1), (1, 0)], Composite(), has_teacher=True)
    means = found.views.mean((2, 3)) / 64
    np.testing.assert_allclose(found.students, [log_softmax(scale * means) for scale in (1, 4, 3)], atol=1e-12)
    corner = np.array([[view(run, example, number, 10)[0, 0] for number in range(3)] for example in (2, 4, 1)])
    np.testing.assert_allclose(found.teacher, log_softmax(np.arange(3) + corner / 50.0), atol=2 / 50)


def test_no_more_views_than_in_training_and_no_teacher_where_there_is_none(run, monkeypatch):
    monkeypatch.setattr(stage, "open_targets", lambda run: SimpleNamespace(sources=[SimpleNamespace(teacher=None)]))
    run.config.distill.views = 2
    found = stage._views(run, [], Composite(), has_teacher=True)
    assert found.views.shape[1] == 2 and found.teacher is None and found.students.shape == (0, 3, 2, 3)
    run.config.student.epochs = 1
    assert stage._views(run, [(0, 1)], Composite(), has_teacher=True).students.shape == (1, 3, 1, 3)
    monkeypatch.setattr(stage, "open_targets", None)  # a run without one has none to open
    assert stage._views(run, [(0, 1)], Composite(), has_teacher=False).teacher is None
