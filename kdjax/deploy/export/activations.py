"""Statistics of each channel of a folded network's tensors over some images."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from kdjax.deploy.export import onnx_graph
from kdjax.networks.graph import Graph

LIMITS: dict[str, tuple[float, float | None]] = {"HardSigmoid": (-3.0, 3.0), "HardSwish": (-3.0, None)}
"""ONNX operation -> limits (low, high) outside of which its input does not change the output; None = no limit.

Below the lower limit the output is 0.
"""

BATCH = 8  # all activations of a batch are in memory at once


def largest(network: Graph, images: np.ndarray, tensors: Sequence[str]) -> dict[str, np.ndarray]:
    """The largest absolute value of each channel of these tensors over the images, (C,) float32."""
    return _reduce_batches(network, images, tensors, lambda values: sizes(values, axis=1), np.maximum)


def means(network: Graph, images: np.ndarray, tensors: Sequence[str]) -> dict[str, np.ndarray]:
    """The mean of each channel of these tensors over the images and their spatial positions, (C,) float64."""
    sums = _reduce_batches(network, images, tensors, _sum_of_means, np.add)
    return {name: channel_sums / len(images) for name, channel_sums in sums.items()}


def sizes(values: np.ndarray, axis: int) -> np.ndarray:
    """The largest absolute value at each index of `axis`."""
    return np.abs(values).max(tuple(other for other in range(values.ndim) if other != axis))


def _sum_of_means(values: np.ndarray) -> np.ndarray:
    """The means over the spatial positions, summed over the images, (C,) float64."""
    return values.mean(tuple(range(2, values.ndim)), dtype=np.float64).sum(0)


def _reduce_batches(
    network: Graph,
    images: np.ndarray,
    tensors: Sequence[str],
    reduce: Callable[[np.ndarray], np.ndarray],
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """Applies `reduce` to each batch of each tensor, giving (C,), and merges the batches with `combine`."""
    model = onnx_graph.build(network, {})
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    statistics: dict[str, np.ndarray] = {}
    for start in range(0, len(images), BATCH):
        values = session.run(tensors, {onnx_graph.INPUT: images[start : start + BATCH]})
        for name, value in zip(tensors, values, strict=True):
            reduced = reduce(value)
            statistics[name] = combine(statistics[name], reduced) if name in statistics else reduced
    return statistics
