"""The rendered demo: a pure function of (seed, class, index), balanced, and with classes that can be told apart."""

import time

import numpy as np
import pytest

from kdjax.data import load
from kdjax.data.rendering.scenes import SCENES
from kdjax.data.sources.demo import render
from kdjax.errors import InputError

OPTIONS = dict(
    source="demo",
    image_size=32,
    storage_size=32,
    data_seed=0,
    cache_dir=None,
    log=lambda line: None,
    demo_train=120,
    demo_validation=24,
    demo_test=36,
)


@pytest.mark.parametrize("name", SCENES)
def test_scenes_repeat_and_differ(name):
    first = render(3, name, 5, 40)
    assert first.shape == (40, 40, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, render(3, name, 5, 40))
    for other in (render(4, name, 5, 40), render(3, name, 6, 40)):
        assert np.abs(first.astype(int) - other).mean() > 5
    for index in range(20):  # no scene is flat, black or burnt out
        image = render(0, name, index, 32).astype(float)
        assert image.std() > 4 and 15 < image.mean() < 235


def test_the_demo_is_balanced_and_its_splits_are_disjoint():
    data = load(**OPTIONS, demo_classes=12)
    assert data.classes == tuple(SCENES) and len(data.classes) >= 12
    for split, count in ((data.train, 120), (data.validation, 24), (data.test, 36)):
        assert len(split) == count and set(np.bincount(split.labels)) == {count // 12}
        assert [name.split("/")[0] for name in split.names] == [data.classes[k] for k in split.labels]
    names = data.train.names + data.validation.names + data.test.names
    assert len(set(names)) == 180
    assert load(**OPTIONS, demo_classes=12).fingerprint == data.fingerprint
    assert load(**OPTIONS | {"data_seed": 1}, demo_classes=12).fingerprint != data.fingerprint


def test_colour_alone_does_not_solve_the_demo():
    """Nearest class mean of channel means and deviations: better than chance, far from what a network reaches."""
    data = load(**OPTIONS | {"demo_train": 300, "demo_test": 200})

    def features(split):
        pixels = np.asarray(split.images).reshape(len(split), -1, 3).astype(float)
        return np.concatenate([pixels.mean(1), pixels.std(1)], 1)

    train, test = features(data.train), features(data.test)
    means = np.stack([train[data.train.labels == k].mean(0) for k in range(10)])
    nearest = ((test[:, None] - means) ** 2 / train.var(0)).sum(-1).argmin(1)
    assert 0.15 < (nearest == data.test.labels).mean() < 0.75


def test_rendering_is_fast():
    started = time.process_time()
    for index in range(5):
        for name in SCENES:
            render(1, name, index, 64)
    assert (time.process_time() - started) / (5 * len(SCENES)) < 0.05  # seconds an image; about 0.007 was measured


def test_bad_numbers_are_refused():
    for change, pattern in (
        ({"demo_classes": 1}, "dataset.demo_classes: 1"),
        ({"demo_classes": 99}, "demo_classes"),
        ({"demo_test": 5}, "dataset.demo_test: 5 is too few"),
        ({"data_seed": -1}, "data_seed"),
    ):
        with pytest.raises(InputError, match=pattern):
            load(**OPTIONS | change)
