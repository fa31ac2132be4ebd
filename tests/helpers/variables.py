"""Variables of networks as tests need them."""

import jax
import jax.numpy as jnp
import numpy as np


def randomized(model, size):
    """Variables with statistics and scales as far from their initial values as a trained network's.

    Depthwise kernels are larger than initially by the root of their channels: with running statistics around 1 the
    logits of MobileNetV2 would else be the same for every image.
    """
    variables = jax.tree.map(np.asarray, dict(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))))
    rng = np.random.default_rng(0)

    def spread(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        if name in ("bias", "mean"):
            return rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype)
        if leaf.ndim == 3:
            return leaf * np.sqrt(leaf.shape[-1]).astype(leaf.dtype)
        return leaf * 10 if "head" in [key.key for key in path] else leaf

    return jax.tree_util.tree_map_with_path(spread, variables)


def with_statistics_of(model, variables, images):
    """The variables with running statistics that let images through: else every image has the same logits.

    The variances are a third larger than those of the images, (n, side, side, 3) in [0, 1]: a deep random network else
    magnifies rounding.
    """
    if "batch_stats" not in variables:
        return {"params": variables["params"], "batch_stats": {}}
    mutated = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)[1]
    statistics = jax.tree_util.tree_map_with_path(
        lambda path, new, old: np.asarray((new - 0.9 * old) / 0.1 * (1.3 if path[-1].key == "var" else 1)),
        mutated["batch_stats"],
        variables["batch_stats"],
    )
    return {"params": variables["params"], "batch_stats": statistics}
