"""The rendered demo: a pure function of (seed, class, index), balanced, and with classes that can be told apart."""

import numpy as np
import pytest

from kdjax.data import load
from kdjax.data.rendering.canvas import Canvas
from kdjax.data.rendering.palette import BANDS, CARS, CONCRETE, GRASS, ROOFS, SOIL, WATERS, WOOD
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_color_alone_does_not_solve_the_demo():
    """Nearest class mean of channel means and deviations: better than chance, far from what a network reaches."""
    data = load(**OPTIONS | {"demo_train": 300, "demo_test": 200})

    def features(split):
        pixels = np.asarray(split.images).reshape(len(split), -1, 3).astype(float)
        return np.concatenate([pixels.mean(1), pixels.std(1)], 1)

    train, test = features(data.train), features(data.test)
    means = np.stack([train[data.train.labels == k].mean(0) for k in range(10)])
    nearest = ((test[:, None] - means) ** 2 / train.var(0)).sum(-1).argmin(1)
    assert 0.15 < (nearest == data.test.labels).mean() < 0.75


def test_the_scenes_stay_those_of_published_results():
    """Mean levels, to half of one: another version of Pillow may round otherwise, another order of chance would not."""
    known = (102.0, 71.3, 109.6, 115.4, 139.4, 105.1, 113.6, 101.8, 96.7, 68.4, 103.6, 110.5)
    np.testing.assert_allclose([render(0, name, 0, 32).mean() for name in SCENES], known, atol=0.5)


@pytest.mark.parametrize("name", SCENES)
def test_infrared_leaves_the_colors_as_they_are(name):
    for index in range(3):
        image = render(2, name, index, 40, infrared=True)
        assert image.shape == (40, 40, len(BANDS)) and image[..., 3:].std() > 4
        np.testing.assert_array_equal(image[..., :3], render(2, name, index, 40))
        np.testing.assert_array_equal(image, render(2, name, index, 40, infrared=True))


def test_infrared_tells_plants_water_and_ground_apart_as_spectral_indices_do():
    def seen(color):
        """What a photograph has of ground of one color: mean reflectance of each band over twenty of them."""
        pictures = []
        for seed in range(20):
            canvas = Canvas(np.random.default_rng(seed), 16, infrared=True)
            canvas.fill(canvas.tint(color))
            pictures.append(canvas.photograph().reshape(-1, len(BANDS)).mean(0))
        return dict(zip(BANDS, np.mean(pictures, 0), strict=True))

    def index(bands, first, second):
        return (bands[first] - bands[second]) / (bands[first] + bands[second])

    for plants in (GRASS, WOOD):
        assert index(seen(plants), "nir", "red") > 0.2 and index(seen(plants), "swir16", "nir") < -0.2  # NDVI, NDBI
    for water in WATERS:  # McFeeters' and Xu's water indices, whatever its color
        assert index(seen(water), "green", "nir") > 0.4 and index(seen(water), "green", "swir16") > 0.6
        assert max(seen(water)[band] for band in BANDS[3:]) < 30
    for ground in (SOIL, CONCRETE, ROOFS[0]):
        assert index(seen(ground), "swir16", "nir") > 0.02 and seen(ground)["swir22"] > 2 * seen(GRASS)["swir22"]
    # A dark car and water look alike in color; infrared tells.
    assert seen(CARS[1])["swir16"] > 5 * seen(WATERS[2])["swir16"]


@pytest.mark.slow
def test_bands_of_the_demo_are_taken_by_name():
    plain = load(**OPTIONS)
    taken = load(**OPTIONS, bands=("NIR", "green"))
    assert taken.train.names == plain.train.names and taken.train.images.dtype == np.uint8
    np.testing.assert_array_equal(taken.test.images[:][..., 1], plain.test.images[:][..., 1])
    label, number = taken.test.names[0].rsplit("_", 1)
    expected = render(0, label.split("/")[0], int(number), 32, infrared=True)[..., 3]
    np.testing.assert_array_equal(taken.test.images[0][..., 0], expected)
    pixels = taken.train.images[:].reshape(-1, 2) / 255
    np.testing.assert_allclose(taken.statistics.mean, pixels.mean(0), rtol=1e-6)
    assert taken.meaning.names == ("NIR", "green") and plain.meaning.bands is None
    with pytest.raises(InputError, match="dataset.bands: the demo has no band 'B08'; it renders red, .*, swir22"):
        load(**OPTIONS, bands=("red", "B08"))


def test_bad_numbers_are_refused():
    for change, pattern in (
        ({"demo_classes": 1}, "dataset.demo_classes is 1: give a whole number of at least 2 and at most 12"),
        ({"demo_classes": 99}, "demo_classes"),
        ({"demo_test": 5}, "dataset.demo_test: 5 is too few"),
        ({"data_seed": -1}, "data_seed"),
    ):
        with pytest.raises(InputError, match=pattern):
            load(**OPTIONS | change)
