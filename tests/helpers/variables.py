"""Variables of networks as tests need them."""

import math

import jax
import numpy as np

from kdjax import networks
from kdjax.networks.layers import images_for


def drawn(name, seed, classes=5, **options):
    """Random numbers in the shapes of a network's variables."""
    model = networks.create(name, num_classes=classes, **{"width": 0.25, **options})
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(seed)
    numbers = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), dict(shapes))
    return jax.tree_util.tree_map_with_path(lambda path, leaf: abs(leaf) if path[-1].key == "var" else leaf, numbers)


def randomized(model, size):
    """Variables with statistics and scales as far from their initial values as a trained network's.

    Only the shapes are the model's, so nothing is compiled. Kernels have the variance 2 / fan out, those of the head
    ten times their initial deviation. The fan out of a depthwise kernel is that of one channel: with running statistics
    around 1 the logits of MobileNetV2 would else be the same for every image.
    """
    shapes = dict(jax.eval_shape(model.init, jax.random.key(0), images_for(model, size)))
    rng = np.random.default_rng(4)

    def drawn(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name in ("bias", "mean"):
            values = rng.normal(0, 0.1, leaf.shape)
        else:
            fan_out = math.prod(leaf.shape) // leaf.shape[-1 if len(leaf.shape) == 3 else -2]
            values = rng.normal(0, 0.1 if "head" in [key.key for key in path] else (2 / fan_out) ** 0.5, leaf.shape)
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def with_statistics_of(model, variables, images):
    """The variables with running statistics that let images through: else every image has the same logits.

    The variances are a third larger than those of the images, (n, side, side, 3) in [0, 1]: a deep random network else
    magnifies rounding.
    """
    if "batch_stats" not in variables:
        return {"params": variables["params"], "batch_stats": {}}
    apply = jax.jit(lambda stats, x: model.apply({**variables, "batch_stats": stats}, x, True, mutable=["batch_stats"]))
    # Two starts tell the batch's statistics from the share of them that a step takes.
    zero, one = (
        apply(jax.tree.map(lambda leaf, start=start: np.full_like(leaf, start), variables["batch_stats"]), images)[1]
        for start in (0, 1)
    )
    statistics = jax.tree_util.tree_map_with_path(
        lambda path, low, high: np.asarray(low / (1 - (high - low)) * (1.3 if path[-1].key == "var" else 1)),
        zero["batch_stats"],
        one["batch_stats"],
    )
    return {"params": variables["params"], "batch_stats": statistics}
