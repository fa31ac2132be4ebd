"""What students and teachers see of some images, one after the other, by the functions that define it."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.inputs import augment

SIZE = 32
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 36, 36, 3), dtype=np.uint8)


def pixels(view=None):
    """The plainly resized images, or a view of them at data seed 5: (11, SIZE, SIZE, 3)."""
    if view is None:
        return np.stack([augment.eval_view(image, SIZE) for image in jnp.asarray(IMAGES)])
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(5), index), view) for index in range(len(IMAGES))]
    return np.stack([augment.augment(image, key, SIZE) for image, key in zip(jnp.asarray(IMAGES), keys, strict=True)])
