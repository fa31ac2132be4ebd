"""The fields of dataset.augmentation."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from kdjax.config import base
from kdjax.data.bands import Bands
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError
from kdjax.inputs.augment import DEFAULT, draw
from kdjax.run.augmentation import augmentation
from kdjax.run.run import Run


def test_the_configuration_has_the_same_defaults():
    assert augmentation(base().dataset.augmentation) == DEFAULT


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(scale=(0.0, 1.0)), "scale"),
        (dict(scale=(0.5, 1.5)), "scale"),
        (dict(scale=0.5), "scale"),
        (dict(ratio=(2.0, 1.0)), "ratio"),
        (dict(ratio=(2.0, 3.0), scale=(0.25, 1.0)), "ratio is .2, 3.* of 1 of .* at most 0.5"),
        (dict(ratio=(0.25, 0.5), scale=(0.25, 0.6)), "ratio is .* at most 0.5"),
        (dict(brightness=-0.1), "brightness"),
        (dict(contrast="much"), "contrast"),
        (dict(saturation=float("nan")), "saturation"),
        (dict(symmetries=3), "symm"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(InputError, match=word):
        augmentation(options)


@pytest.mark.parametrize("scale, ratio", [((0.2, 0.5), (2.0, 3.0)), ((0.3, 0.7), (0.5, 0.7)), ((0.5, 1.0), (1.0, 1.0))])
def test_crops_have_the_ratio_that_is_asked_for(scale, ratio):
    options = augmentation({"scale": scale, "ratio": ratio})
    views = jax.vmap(lambda key: draw(key, options))(jax.random.split(jax.random.key(0), 500))
    drawn = np.asarray(views.width / views.height)
    assert drawn.min() > ratio[0] * (1 - 1e-5) and drawn.max() < ratio[1] * (1 + 1e-5)


@pytest.mark.parametrize(("bands", "varied"), [(None, True), (Bands(("B08", "B04", "B03")), False)])
def test_only_plain_red_green_and_blue_vary_in_color(bands, varied):
    run = SimpleNamespace(config=base(), dataset=SimpleNamespace(meaning=Meaning(bands=bands)))
    shown = Run.augmentation.fget(run)
    assert [one > 0 for one in (shown.brightness, shown.contrast, shown.saturation)] == [varied] * 3
