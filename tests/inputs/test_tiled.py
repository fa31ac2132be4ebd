"""Images in tiles are the images, bit for bit, and each is a whole number of a TPU's tiles."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.inputs.tiled import Tiled, device_layout, to_device_layout

TPU = SimpleNamespace(platform="tpu")


@pytest.mark.parametrize("side, bands, dtype", [(5, 3, np.uint8), (72, 3, np.uint8), (64, 4, np.uint16)])
def test_gathers_what_the_array_would(side, bands, dtype):
    images = np.random.default_rng(0).integers(0, 256, (7, side, side, bands)).astype(dtype)
    tiles = to_device_layout(images, TPU)
    chosen = np.array([[6, 0, 3], [3, 3, 1]])
    assert tiles.tiles.dtype == dtype
    np.testing.assert_array_equal(jax.jit(lambda tiles, chosen: tiles[chosen])(tiles, chosen), images[chosen])
    np.testing.assert_array_equal(jax.tree.map(jnp.asarray, tiles)[chosen[0]], images[chosen[0]])


@pytest.mark.parametrize("side", [64, 72, 224, 252])
def test_an_image_is_a_whole_number_of_tiles(side):
    """32 rows of 128 bytes: a layout that wastes nothing is the one the compiler takes for an argument."""
    images = np.broadcast_to(np.uint8(0), (3, side, side, 3))
    planned = device_layout(images, TPU)
    count, rows, lanes = planned.tiles.shape
    assert (count, rows % 32, lanes) == (3, 0, 128)
    assert 0 <= rows * lanes - side * side * 3 < 4096


def test_elsewhere_the_array_stays_as_it_is():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    for device in (jax.devices()[0], SimpleNamespace(platform="gpu")):
        assert to_device_layout(images, device) is images
        assert device_layout(images, device) == jax.ShapeDtypeStruct(images.shape, images.dtype)
    assert isinstance(to_device_layout(images, TPU), Tiled)
