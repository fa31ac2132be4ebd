"""A teacher: whatever turns the views of the training images into outputs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from kdjax.data.rows import Images
from kdjax.inputs import augment
from kdjax.inputs.augment import Augmentation
from kdjax.objective.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher that can be run.

    Attributes:
        parts: what its logits depend on besides the data, as JSON values.
        views: from training images (N, side, side, bands) uint8 or uint16, example indices (n,) and a view to outputs
            of n examples; with features where it is a network or an encoder, but for the mean of several networks.
        clean: from images (n, side, side, bands) uint8 or uint16 to the logits (n, classes) of the plainly resized
            images.
        network: the flax module and its variables, where it is one: only such a teacher can be online.
        measured: what validation said as its head was fitted, where it is an encoder with one; see `encoder.Head`.
    """

    parts: dict[str, Any]
    views: Callable[[Images, np.ndarray, int], Outputs]
    clean: Callable[[Images], np.ndarray]
    network: tuple[nn.Module, Any] | None = None
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Shown:
    """How a teacher is shown an image: the views that the students see, at its own size.

    Attributes:
        size: side of its input, px.
        data_seed: keys the views, see `batch.view_keys`.
        augmentation: how views differ from their images.
    """

    size: int
    data_seed: int
    augmentation: Augmentation = augment.DEFAULT
