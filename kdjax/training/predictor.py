"""Exact evaluation: every example once, the last partial batch padded and its padding cut away again."""

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
"""What a layer of all students together may have as input and output on a device: large populations at large sizes take
smaller batches. A constant, so that the same program runs on every machine of a kind."""


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
    # Counted when first used: of a teacher whose logits are on disk, never.
    image_bytes = functools.cache(lambda: cost(network, size)["activation_bytes"])
    step, trim = compiled(network, size=size, mapping=mapping), heap.Trim()

    def predict(variables: Any, images: Images) -> np.ndarray:
        # A power of two for less than a batch: small splits of about one length share a program.
        whole = max(LEAST_BATCH, 1 << (len(images) - 1).bit_length())
        batch = min(
            len(mapping.devices) * batch_per_device(variables, image_bytes()),
            _next_multiple(whole, len(mapping.devices)),
        )
        pieces = []
        for start in range(0, len(images), batch):
            # The last batch is filled up with the last image, and cut again.
            share = mapping.split(np.minimum(np.arange(start, start + batch), len(images) - 1))
            pieces.append(np.asarray(step(variables, images[share]))[:, :, : len(images) - start])
            trim()
        return np.concatenate(pieces, axis=2)

    return predict


def compiled(network: nn.Module, *, size: int, mapping: DeviceMapping) -> Any:
    """`eval_step` on the devices: of the variables of a population and a batch of images."""
    return mapping.map(functools.partial(eval_step, network=network, size=size), ("rows", "batch"), "rows")


def batch_per_device(variables: Any, image_bytes: int) -> int:
    """How many images a population, whose leaves lead with (seed, arm), is shown at once.

    Args:
        variables: of the population.
        image_bytes: the largest input and output of a layer, one image and one student, see `networks.cost`.
    """
    students = math.prod(jax.tree.leaves(variables)[0].shape[:2])
    return max(1, min(BATCH_PER_DEVICE, LAYER_BYTES // (students * image_bytes)))


def mean_over_symmetries(predict: Callable[[Images], np.ndarray], images: Images) -> np.ndarray:
    """Mean probabilities over the eight rotations and reflections of each image: an aerial image has no upright.

    Args:
        predict: from images to logits (..., N, classes).
        images: (N, side, side, bands).

    Returns:
        (..., N, classes) float64 logarithms of the means.
    """

    def turned(block: np.ndarray, *, turns: int, reflected: bool) -> np.ndarray:
        return np.rot90(block[:, :, ::-1] if reflected else block, turns, (1, 2))

    orientations = [
        Rows.of(images).viewed(functools.partial(turned, turns=turns, reflected=reflected))
        for reflected in (False, True)
        for turns in range(4)
    ]
    return np.logaddexp.reduce([metrics.log_softmax(predict(one)) for one in orientations]) - np.log(8)


def _next_multiple(value: int, of: int) -> int:
    return -(-value // of) * of


def population_metrics(logits: np.ndarray, labels: np.ndarray) -> list[list[dict[str, Any]]]:
    """`metrics.classification` for every (seed, arm) of logits (seed, arm, N, classes) and labels (N,)."""
    return [[metrics.classification(one, labels) for one in row] for row in logits]
