"""From a step of the plan to what networks see: views, keys and mixtures. Pure functions of arrays.

Random bits are keyed by (data seed, example, view), by (seed, step, place in the global batch), and by nothing else:
they do not depend on the number of devices or on the neighbors in a batch.
"""

import jax
import jax.numpy as jnp
from flax import struct

from kdjax.inputs import augment
from kdjax.inputs.augment import Augmentation
from kdjax.inputs.tiled import Tiled
from kdjax.objective.outputs import Array, Outputs
from kdjax.runtime.keys import key


@struct.dataclass
class Examples:
    """A split in device memory, a whole copy on every device."""

    images: Array | Tiled
    """(examples, side, side, bands) uint8 or uint16, in tiles on a TPU; None where the plan brings the images along."""
    labels: Array
    """(examples,) int32, −1 for unlabeled; None for a teacher, which needs none."""
    teacher: Outputs | None = None
    """Outputs of the teacher, leaves (views, examples, …): logits float32 and features float16; or None."""
    data_seed: Array = 0
    """() int32, which keys the views."""


@struct.dataclass
class PlanStep:
    """What a step trains on: this device's share, with leading axes (seed, batch), or (seed, group, batch) where groups
    of arms train on examples of their own. The feed puts an axis of steps in front."""

    examples: Array
    """int32 index into the training split."""
    views: Array
    """int32 view of that example, which fixes its augmentation."""
    places: Array = None
    """int32 place in the global batch, which keys the dropout, or None where there is none."""
    partners: Array = None
    """int32 index of the example that each is mixed with, or None."""
    partner_views: Array = None
    """int32 view of the partner, or None."""
    images: Array = None
    """(…, side, side, bands) uint8 or uint16 of these examples where they are not in device memory, else None."""
    partner_images: Array = None
    """The same of the partners."""
    teacher: Array = None
    """`Outputs` of the teacher for these examples in these views, leaves (…, n) as in `Examples`, where not all are in
    device memory, else None."""


@struct.dataclass
class Batch:
    """Network inputs and targets, with the leading axes of the plan's step; one student's have (batch,) alone."""

    images: Array
    """(…, batch, size, size, bands) float in [0, 1]."""
    labels: Array
    """(…, batch) int32."""
    teacher: Outputs | None
    """Outputs of the teacher, leaves (…, batch, …) float, or None."""
    keys: Array
    """(…, batch) PRNG keys for dropout, shared by the arms of a seed."""
    mixed: tuple[Array, Array] | None = None
    """Labels of the second image and share of the first, (…, batch) each, where images are mixtures."""


def view_keys(data_seed: Array, examples: Array, views: Array) -> jax.Array:
    """Augmentation keys of (data seed, example, view); `examples` and `views` are int arrays of one shape."""
    root = key(data_seed)
    fold = jnp.vectorize(lambda example, view: jax.random.fold_in(jax.random.fold_in(root, example), view))
    return fold(examples, views)


def dropout_keys(seeds: jax.Array, step: jax.Array, places: jax.Array) -> jax.Array:
    """Dropout keys of (seed, step, place in the global batch): seeds (seed,), places (seed, …, batch)."""

    def one(seed: jax.Array, row: jax.Array) -> jax.Array:
        root = jax.random.fold_in(key(seed), step)
        return jnp.vectorize(lambda place: jax.random.fold_in(root, place))(row)

    return jax.vmap(one)(seeds, places)


def mixing_shares(keys: jax.Array, alpha: float) -> jax.Array:
    """Shares of the first image in a mixture, from Beta(alpha, alpha): keys (...) to (...) float32 in [0, 1]."""
    draw = lambda key: jax.random.beta(jax.random.fold_in(key, 1 << 16), alpha, alpha, dtype=jnp.float32)
    return jnp.vectorize(draw)(keys)  # 1 << 16: far from the numbers of dropout layers


def render(images: jax.Array, keys: jax.Array, size: int, augmentation: Augmentation = augment.DEFAULT) -> jax.Array:
    """Augmented views in [0, 1].

    Args:
        images: (..., side, side, bands) uint8 or uint16.
        keys: (...), one an image.
        size: side of the views, px.
        augmentation: how they differ from their images.

    Returns:
        (..., size, size, bands) float.
    """
    transform = lambda image, key: augment.augment(image, key, size, augmentation, dtype=jnp.result_type(float))
    for _ in range(keys.ndim):
        transform = jax.vmap(transform)
    return transform(images, keys)


def eval_views(images: jax.Array, size: int) -> jax.Array:
    """Resized images: (batch, side, side, bands) uint8 or uint16 to (batch, size, size, bands) float in [0, 1]."""
    return jax.vmap(lambda image: augment.eval_view(image, size, dtype=jnp.result_type(float)))(images)
