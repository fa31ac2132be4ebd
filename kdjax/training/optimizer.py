"""The optimizer: AdamW with per-student settings that may be traced arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from kdjax.training.state import PROJECTION

SMALL = 2**12
"""Leaves of at most so many elements are updated together, as one vector. Most leaves are that small, such as those of
BatchNorm, and each on its own adds a dozen operations to trace and compile. Copies of larger leaves would slow the
steps."""


def _path_mask(predicate: Callable[[list[str]], bool]) -> Callable[[Any], Any]:
    def mask(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: predicate([key.key for key in path]), tree)

    return mask


_is_kernel = _path_mask(lambda names: names[-1] == "kernel")
_is_small = functools.partial(jax.tree.map, lambda leaf: leaf.size <= SMALL)
_is_large = functools.partial(jax.tree.map, lambda leaf: leaf.size > SMALL)
# Only the last layer of the head: its hidden layers, if any, come from the file of weights, as the body does.
_is_new = _path_mask(lambda names: PROJECTION in names or names[:-1] in (["head"], ["head", "logits"]))


def schedule(total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Factor on the peak learning rate: linear from 0 to 1 over `warmup_steps`, then half a cosine down to 0.

    The half cosine is that of arXiv 1608.03983 without restarts. Takes and returns scalars; may be traced.
    """
    return optax.schedules.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps, total_steps)


def adamw(
    learning_rate: jax.Array | float,
    weight_decay: jax.Array | float,
    *,
    clip: float,
    head_factor: float,
) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) after clipping by the global norm, with optax's b1 = 0.9, b2 = 0.999 and eps = 1e-8.

    Like the rest of the update, the decay is multiplied by the learning rate of the step and by `head_factor`.

    The transformation is built inside the traced step, so that `learning_rate` and `weight_decay` can be one student's
    entries of an array. The layout of its state depends on neither.

    Args:
        learning_rate: learning rate of this step.
        weight_decay: decay per unit of learning rate, on leaves named "kernel" only: BatchNorm and biases are spared.
        clip: largest global gradient norm; 0 leaves gradients as they are.
        head_factor: factor on the learning rate of the layers that start from scratch: the layer of the classes and
            the projection.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.masked(optax.flatten(optax.scale_by_adam()), _is_small),
        optax.masked(optax.scale_by_adam(), _is_large),
        optax.add_decayed_weights(weight_decay, mask=_is_kernel),
        optax.masked(optax.scale(head_factor), _is_new),
        optax.scale_by_learning_rate(learning_rate),
    )
