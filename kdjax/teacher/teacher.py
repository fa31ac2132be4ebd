"""The interface of a teacher: whatever turns views of the training images into outputs."""

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
        views: function from training images (N, side, side, bands) uint8 or uint16, example indices (n,) and a view
            number to the outputs of these n examples in that view. They have features if the teacher is an encoder or a
            single network, but not if it is the mean of several.
        clean: function from images (n, side, side, bands) uint8 or uint16 to logits (n, classes) of the images as they
            are, only resized.
        network: the flax module and its variables if the teacher is a network of kdjax's, else None. Only such a
            teacher can be online.
        measured: metrics on validation of an encoder's fitted head, see `fitted_head.Head`; empty for other teachers.
    """

    parts: dict[str, Any]
    views: Callable[[Images, np.ndarray, int], Outputs]
    clean: Callable[[Images], np.ndarray]
    network: tuple[nn.Module, Any] | None = None
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How images are shown to a teacher: in the views that the students see, at the teacher's own size.

    Attributes:
        size: side of the teacher's input, px.
        data_seed: seed of the views, see `batch.view_keys`.
        augmentation: how views differ from their images.
    """

    size: int
    data_seed: int
    augmentation: Augmentation = augment.DEFAULT
