"""The fields of dataset.augmentation."""

import pytest

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.inputs.augment import DEFAULT
from kdjax.run.augmentation import augmentation


def test_the_configuration_has_the_same_defaults():
    assert augmentation(base().dataset.augmentation) == DEFAULT


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(scale=(0.0, 1.0)), "scale"),
        (dict(scale=(0.5, 1.5)), "scale"),
        (dict(scale=0.5), "scale"),
        (dict(ratio=(2.0, 1.0)), "ratio"),
        (dict(brightness=-0.1), "brightness"),
        (dict(contrast="much"), "contrast"),
        (dict(saturation=float("nan")), "saturation"),
        (dict(symmetries=3), "symm"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(InputError, match=word):
        augmentation(options)
