"""Pictures of images of any bands."""

import numpy as np
import pytest

from kdjax.report.composite import Composite, composite


def test_true_and_false_color_side_by_side():
    names = ("B02", "B03", "B04", "B08")
    images = np.random.default_rng(0).integers(0, 5000, (4, 20, 20, 4)).astype(np.uint16)
    shown = composite(names, images)
    assert shown.words == "Pictures are in true color and false color (near infrared, red and green)."
    pictures = shown(images)
    assert pictures.shape == (4, 20, 40, 3) and pictures.dtype == np.uint8
    low, high = (np.percentile(images[:, ::5, ::5], q, axis=(0, 1, 2)) for q in (2, 98))
    gray = np.rint(255 * np.clip((images - low) / (high - low), 0, 1))
    np.testing.assert_allclose(pictures[:, :, :20], gray[..., [2, 1, 0]], atol=1)
    np.testing.assert_allclose(pictures[:, :, 20:], gray[..., [3, 2, 1]], atol=1)


@pytest.mark.parametrize(
    "names, places, words",
    [
        (("red", "green", "blue"), ((0, 1, 2),), "true color"),
        (("vv", "vh"), ((0, 0, 0),), "the bands vv, vv, vv"),
        (("B05", "B06", "B07"), ((0, 1, 2),), "the bands B05, B06, B07"),
        (("nir", "red", "green"), ((0, 1, 2),), "false color"),
    ],
)
def test_what_can_be_shown(names, places, words):
    shown = composite(names, np.zeros((2, 8, 8, len(names)), np.uint16))
    assert shown.pictures == places and words in shown.words
    assert not shown(np.zeros((1, 8, 8, len(names)), np.uint16)).any()


def test_colors_are_shown_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert Composite()(images) is images
