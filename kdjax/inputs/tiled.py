"""The layout of images in device memory; on a TPU each image fills a whole number of tiles.

A TPU keeps arrays in tiles of 32 x 128 bytes. It would lay (examples, side, side, bands) out with the examples or the
sides along the tiles, whichever wastes least, and a program that gathers examples from that layout would first copy all
of them on every call. An image as (k, 128), with k a multiple of 32, has a single layout that wastes nothing, and is
contiguous, so a batch is gathered without such a copy.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import struct

from kdjax.data.rows import Images
from kdjax.objective.outputs import Array

ROWS, LANES = 32, 128
"""Shape of a tile of bytes; a tile of two-byte values has half as many rows."""


@struct.dataclass
class Tiled:
    """Images of one shape in tiles, indexed by an int array as the array (examples, *shape) would be."""

    tiles: Array
    """(examples, k, 128) in the images' dtype, k a multiple of 32: the values of each image in order, then zeros."""
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    """Shape of one image."""

    def __getitem__(self, examples: Array) -> jax.Array:
        """Returns images (…, *shape) for an int array (…)."""
        gathered: Any = self.tiles[examples]
        flat = gathered.reshape(*gathered.shape[:-2], -1)[..., : int(np.prod(self.shape))]
        return flat.reshape(*gathered.shape[:-2], *self.shape)


def to_device_layout(images: np.ndarray, device: jax.Device) -> np.ndarray | Tiled:
    """Returns images (examples, …) in the device's layout: tiles, made on the host, for a TPU; unchanged for others."""
    if device.platform != "tpu":
        return images
    layout = _layout(images)
    tiles = np.zeros(layout.tiles.shape, images.dtype)
    tiles.reshape(len(images), -1)[:, : images[0].size] = images.reshape(len(images), -1)
    return dataclasses.replace(layout, tiles=tiles)


def device_layout(images: Images, device: jax.Device) -> jax.ShapeDtypeStruct | Tiled:
    """Returns the shapes and dtypes of `held(images, device)` without reading or copying any image."""
    return jax.ShapeDtypeStruct(images.shape, images.dtype) if device.platform != "tpu" else _layout(images)


def _layout(images: Images) -> Tiled:
    count, *shape = images.shape
    rows = -(-int(np.prod(shape)) // (ROWS * LANES)) * ROWS
    return Tiled(jax.ShapeDtypeStruct((count, rows, LANES), images.dtype), tuple(shape))
