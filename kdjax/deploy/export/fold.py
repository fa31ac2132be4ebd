"""Folds a trained network into a `Graph` that takes images as they are stored.

The graph takes uint8 images (or uint16, see `data.meaning`) and resizes them itself, by two products with a constant
matrix, as evaluation in training does in floats. If its input had the network's size instead, images would have to be
rounded to uint8 once more: on UC Merced that changed logits by up to 0.25 and one predicted class in 420. Resizing in
the graph changes logits by 2e-5 and no class.
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
    """The network as it is exported; nodes have the names of the layers in the first of the model's namings.

    Args:
        model: a key of `networks.MODELS`.
        variables: {'params': ..., 'batch_stats': ...} of one network of that name.
        storage_size: side of the stored images, px.
        image_size: side of the images that the network was trained on, px.
        bands: mean and deviation of the network's bands; None = those of its published weights, for red, green and
            blue.
        dtype: of the images; the network sees its largest value as 1.

    Raises:
        ValueError: the model's `graph` does not return the node that it drew last.
    """
    spec = MODELS[model]
    names = {layer: place.name for layer, place in next(iter(spec.names.values())).items()}
    largest, bands = float(np.iinfo(dtype).max), bands or InputBands(tuple(spec.mean), tuple(spec.std))
    mean, std = largest * np.array(bands.mean), largest * np.array(bands.std)
    draw = Builder(variables, names, image_size, (1 / std).tolist())
    output = spec.graph(draw)
    if draw.nodes[-1].name != output:
        raise ValueError(f"graph of {model}: {output} is not what was drawn last")
    resize = None if storage_size == image_size else resize_matrix(storage_size, image_size)
    nodes = tuple(draw.nodes)
    return Graph(model, storage_size, image_size, resize, mean.astype(np.float32), nodes, np.dtype(dtype).name)


def resize_matrix(source: int, target: int) -> np.ndarray:
    """The triangle filter as a matrix (target, source) float32 whose rows sum to 1.

    When shrinking, the filter is as wide as the scale requires. `augment.eval_view` applies this matrix to the rows and
    to the columns of an image.
    """
    step = source / target  # source pixels per target pixel
    centers = (np.arange(target) + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(np.arange(source)[None, :] - centers[:, None]) / max(step, 1.0), 0.0)
    return np.ascontiguousarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
