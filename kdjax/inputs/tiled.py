"""Images as a device keeps them. On a TPU each is a whole number of tiles, and a batch is gathered from where they lie.

A TPU keeps arrays in tiles of 32 x 128 bytes. It would lay (examples, side, side, bands) out with the examples or the
sides along the tiles, whichever wastes least, and a program that gathers examples from that copies all of them first,
on every call. An image as (k, 128) with k a multiple of 32 has one layout that wastes nothing, and lies in one piece.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import struct

from kdjax.data.rows import Images
from kdjax.objective.outputs import Array

ROWS, LANES = 32, 128
"""Of a tile of bytes; one of two bytes a value has half the rows."""


@struct.dataclass
class Tiled:
    """Images of one shape, indexed as the array (examples, *shape) would be by an array of integers."""

    tiles: Array
    """(examples, k, 128) of the images' dtype, k a multiple of 32: an image's values in their order, then zeros."""
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    """Of one image."""

    def __getitem__(self, examples: Array) -> jax.Array:
        """(…, *shape) for an int array (…)."""
        gathered: Any = self.tiles[examples]
        flat = gathered.reshape(*gathered.shape[:-2], -1)[..., : int(np.prod(self.shape))]
        return flat.reshape(*gathered.shape[:-2], *self.shape)


def held(images: np.ndarray, device: jax.Device) -> np.ndarray | Tiled:
    """Images (examples, …) as a device keeps them: on a TPU in tiles, which are copied on the host."""
    if device.platform != "tpu":
        return images
    planned = _layout(images)
    tiles = np.zeros(planned.tiles.shape, images.dtype)
    tiles.reshape(len(images), -1)[:, : images[0].size] = images.reshape(len(images), -1)
    return dataclasses.replace(planned, tiles=tiles)


def held_layout(images: Images, device: jax.Device) -> jax.ShapeDtypeStruct | Tiled:
    """`held` in shapes and dtypes; nothing is read or made."""
    return jax.ShapeDtypeStruct(images.shape, images.dtype) if device.platform != "tpu" else _layout(images)


def _layout(images: Images) -> Tiled:
    count, *shape = images.shape
    rows = -(-int(np.prod(shape)) // (ROWS * LANES)) * ROWS
    return Tiled(jax.ShapeDtypeStruct((count, rows, LANES), images.dtype), tuple(shape))
