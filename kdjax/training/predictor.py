"""Exact evaluation: every example counts once, and the padding of the last batch is cut away."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.data.rows import Images, Rows
from kdjax.networks import cost
from kdjax.results import metrics
from kdjax.runtime import heap
from kdjax.runtime.devices import DeviceMapping
from kdjax.training.step import eval_step

BATCH_PER_DEVICE, LEAST_BATCH = 64, 16
LAYER_BYTES = 1 << 30
"""Largest input and output of a layer on a device, for all students together, so large populations at large image sizes
get smaller batches. It is a constant so that the same program runs on all machines of a kind."""


def predictor(network: nn.Module, *, size: int, mapping: DeviceMapping) -> Callable[[Any, Images], np.ndarray]:
    """A compiled function from the variables of a population and images to logits.

    Args:
        network: the network.
        size: side of its input, px; images are resized to it.
        mapping: the devices.

    Returns:
        A function of variables (leaves lead with (seed, arm)) and images (N, side, side, bands) uint8 or uint16.
        It returns logits (seed, arm, N, classes) float32, the same in every process. Each process reads its own share
        of a batch.
    """
    # Counted at the first use, because a teacher whose logits are on disk never predicts.
    image_bytes = functools.cache(lambda: cost(network, size)["activation_bytes"])
    step, trim = compiled(network, size=size, mapping=mapping), heap.Trim()

    def predict(variables: Any, images: Images) -> np.ndarray:
        # Less than a full batch is rounded up to a power of two: small splits of similar lengths then share a program.
        rounded = max(LEAST_BATCH, 1 << (len(images) - 1).bit_length())
        batch = min(
            len(mapping.devices) * batch_per_device(variables, image_bytes()),
            _next_multiple(rounded, len(mapping.devices)),
        )
        logits = []
        for start in range(0, len(images), batch):
            # The last batch is padded with the last image.
            share = mapping.split(np.minimum(np.arange(start, start + batch), len(images) - 1))
            logits.append(np.asarray(step(variables, images[share]))[:, :, : len(images) - start])
            trim()
        return np.concatenate(logits, axis=2)

    return predict


def compiled(network: nn.Module, *, size: int, mapping: DeviceMapping) -> Any:
    """`eval_step` mapped over the devices, as a function of a population's variables and a batch of images."""
    return mapping.map(functools.partial(eval_step, network=network, size=size), ("rows", "batch"), "rows")


def batch_per_device(variables: Any, image_bytes: int) -> int:
    """How many images a device evaluates at once.

    Args:
        variables: the population's variables, whose leaves lead with (seed, arm).
        image_bytes: the largest input and output of a layer for one image and one student, see `networks.cost`.
    """
    students = math.prod(jax.tree.leaves(variables)[0].shape[:2])
    return max(1, min(BATCH_PER_DEVICE, LAYER_BYTES // (students * image_bytes)))


def mean_over_symmetries(predict: Callable[[Images], np.ndarray], images: Images) -> np.ndarray:
    """Mean probabilities over the eight rotations and reflections of each image, as an aerial image has no upright.

    Args:
        predict: a function from images to logits (..., N, classes).
        images: (N, side, side, bands).

    Returns:
        (..., N, classes) float64 logarithms of the means.
    """

    def transform(block: np.ndarray, *, turns: int, reflected: bool) -> np.ndarray:
        return np.rot90(block[:, :, ::-1] if reflected else block, turns, (1, 2))

    orientations = [
        Rows.of(images).viewed(functools.partial(transform, turns=turns, reflected=reflected))
        for reflected in (False, True)
        for turns in range(4)
    ]
    return np.logaddexp.reduce([metrics.log_softmax(predict(view)) for view in orientations]) - np.log(8)


def _next_multiple(value: int, of: int) -> int:
    return -(-value // of) * of


def population_metrics(logits: np.ndarray, labels: np.ndarray) -> list[list[dict[str, Any]]]:
    """`metrics.classification` for every (seed, arm) of logits (seed, arm, N, classes) and labels (N,)."""
    return [[metrics.classification(student, labels) for student in row] for row in logits]
