"""Turns a step of the plan into what networks see (views, keys and mixtures), with pure functions of arrays.

Random bits depend only on (data seed, example, view), or on (seed, step, place in the global batch). They depend
neither on the number of devices nor on the neighbors in a batch.
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
    """A split in device memory, with a full copy on every device."""

    images: Array | Tiled
    """(examples, side, side, bands) uint8 or uint16, in tiles on a TPU; None if the plan's steps carry the images."""
    labels: Array
    """(examples,) int32, −1 for unlabeled; None for a teacher, which needs none."""
    teacher: Outputs | None = None
    """Outputs of the teacher, leaves (views, examples, …): logits float32 and features float16; or None."""
    data_seed: Array = 0
    """() int32, the seed of the views."""


@struct.dataclass
class PlanStep:
    """This device's share of what a step trains on.

    Leading axes are (seed, batch), or (seed, group, batch) if groups of arms train on different examples. The feed adds
    an axis of steps in front.
    """

    examples: Array
    """int32 indices into the training split."""
    views: Array
    """int32 view of each example, which determines its augmentation."""
    places: Array = None
    """int32 place of each example in the global batch, which determines its dropout; None if there is none."""
    partners: Array = None
    """int32 index of the example that each is mixed with, or None."""
    partner_views: Array = None
    """int32 view of each partner, or None."""
    images: Array = None
    """(…, side, side, bands) uint8 or uint16 of these examples if they are not in device memory; else None."""
    partner_images: Array = None
    """The same for the partners."""
    teacher: Array = None
    """`Outputs` of the teacher for these examples in these views, leaves (…, n) as in `Examples`, if they are not in
    device memory; else None."""


@struct.dataclass
class Batch:
    """Network inputs and targets, with the leading axes of the `PlanStep`; for one student just (batch,)."""

    images: Array
    """(…, batch, size, size, bands) float in [0, 1]."""
    labels: Array
    """(…, batch) int32."""
    teacher: Outputs | None
    """Outputs of the teacher, leaves (…, batch, …) float, or None."""
    keys: Array
    """(…, batch) PRNG keys for dropout, shared by the arms of a seed."""
    mixed: tuple[Array, Array] | None = None
    """Labels of the second image and share of the first, (…, batch) each, if images are mixtures; else None."""


def view_keys(data_seed: Array, examples: Array, views: Array) -> jax.Array:
    """Returns augmentation keys for (data seed, example, view); `examples` and `views` are int arrays of one shape."""
    root = key(data_seed)
    fold = jnp.vectorize(lambda example, view: jax.random.fold_in(jax.random.fold_in(root, example), view))
    return fold(examples, views)


def dropout_keys(seeds: jax.Array, step: jax.Array, places: jax.Array) -> jax.Array:
    """Returns dropout keys for (seed, step, place in the global batch): seeds (seed,), places (seed, …, batch)."""

    def keys_of_seed(seed: jax.Array, row: jax.Array) -> jax.Array:
        root = jax.random.fold_in(key(seed), step)
        return jnp.vectorize(lambda place: jax.random.fold_in(root, place))(row)

    return jax.vmap(keys_of_seed)(seeds, places)


def mixing_shares(keys: jax.Array, alpha: float) -> jax.Array:
    """Draws shares of the first image in mixtures, from Beta(alpha, alpha): keys (...) to (...) float32 in [0, 1]."""
    # 1 << 16 is far from the numbers of dropout layers, which are folded into the same keys.
    draw = lambda key: jax.random.beta(jax.random.fold_in(key, 1 << 16), alpha, alpha, dtype=jnp.float32)
    return jnp.vectorize(draw)(keys)


def render(images: jax.Array, keys: jax.Array, size: int, augmentation: Augmentation = augment.DEFAULT) -> jax.Array:
    """Renders augmented views in [0, 1].

    Args:
        images: (..., side, side, bands) uint8 or uint16.
        keys: (...), one per image.
        size: side of the views, px.
        augmentation: how views differ from their images.

    Returns:
        (..., size, size, bands) float.
    """
    transform = lambda image, key: augment.augment(image, key, size, augmentation, dtype=jnp.result_type(float))
    for _ in range(keys.ndim):
        transform = jax.vmap(transform)
    return transform(images, keys)


def eval_views(images: jax.Array, size: int) -> jax.Array:
    """Resizes images (batch, side, side, bands) uint8 or uint16 to (batch, size, size, bands) float in [0, 1]."""
    return jax.vmap(lambda image: augment.eval_view(image, size, dtype=jnp.result_type(float)))(images)
