"""A trained network as a `Graph` that reads images as they are stored.

The network reads them as uint8 (or uint16, see `data.meaning`) and makes them its own size itself, as two products with
a constant matrix. Evaluation in training does that in floats. An input of the network's size would have to be rounded
to uint8 once more: on UC Merced that moved logits by up to 0.25 and one class in 420, against 2e-5 and none this way.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kdjax.networks import MODELS
from kdjax.networks.graph import Builder, Graph
from kdjax.networks.layers import InputBands


def fold(
    model: str,
    variables: Mapping[str, Any],
    *,
    storage_size: int,
    image_size: int,
    bands: InputBands | None = None,
    dtype: DTypeLike = np.uint8,
) -> Graph:
    """The network as it is exported.

    Args:
        model: a key of `networks.MODELS`.
        variables: {'params': ..., 'batch_stats': ...} of one network of that name.
        storage_size: side of the images to read, px.
        image_size: side of the images the network was trained on, px.
        bands: mean and deviation of the bands that it takes; None = red, green and blue as its weights were trained.
        dtype: of the images, whose highest value is 1 to the network.

    Nodes are named as the layers in the first of the model's namings.
    """
    spec = MODELS[model]
    names = {layer: place.name for layer, place in next(iter(spec.names.values())).items()}
    most, known = float(np.iinfo(dtype).max), bands or InputBands(tuple(spec.mean), tuple(spec.std))
    mean, std = most * np.array(known.mean), most * np.array(known.std)
    draw = Builder(variables, names, image_size, (1 / std).tolist())
    output = spec.graph(draw)
    if draw.nodes[-1].name != output:
        raise ValueError(f"graph of {model}: {output} is not what was drawn last")
    resize = None if storage_size == image_size else resize_matrix(storage_size, image_size)
    nodes = tuple(draw.nodes)
    return Graph(model, storage_size, image_size, resize, mean.astype(np.float32), nodes, np.dtype(dtype).name)


def resize_matrix(source: int, target: int) -> np.ndarray:
    """The triangle filter, widened to the scale when shrinking, as a matrix (target, source) float32; rows sum to 1.

    `augment.eval_view` is this matrix along the rows and the columns of an image.
    """
    step = source / target  # source pixels per target pixel
    centers = (np.arange(target) + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(np.arange(source)[None, :] - centers[:, None]) / max(step, 1.0), 0.0)
    return np.ascontiguousarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
