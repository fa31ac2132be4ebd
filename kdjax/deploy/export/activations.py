"""What the tensors of a folded network are like over some images, channel by channel."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from kdjax.deploy.export import onnx_graph
from kdjax.networks.graph import Graph

LIMITS: dict[str, tuple[float, float | None]] = {"HardSigmoid": (-3.0, 3.0), "HardSwish": (-3.0, None)}
"""Beyond these an input of such an operation changes nothing, or what becomes of it is 0."""
BATCH = 8  # all activations of a batch are in memory at once


def largest(network: Graph, images: np.ndarray, tensors: Sequence[str]) -> dict[str, np.ndarray]:
    """The largest absolute value of each channel of these tensors over the images, (C,) float32."""
    return _folded(network, images, tensors, lambda values: sizes(values, axis=1), np.maximum)


def means(network: Graph, images: np.ndarray, tensors: Sequence[str]) -> dict[str, np.ndarray]:
    """The mean of each channel of these tensors over the images and their cells, (C,) float64."""
    sums = _folded(network, images, tensors, _summed, np.add)
    return {name: total / len(images) for name, total in sums.items()}


def sizes(values: np.ndarray, axis: int) -> np.ndarray:
    """The largest absolute value at each place of an axis."""
    return np.abs(values).max(tuple(other for other in range(values.ndim) if other != axis))


def _summed(values: np.ndarray) -> np.ndarray:
    """Over the images, of the means over their cells."""
    return values.mean(tuple(range(2, values.ndim)), dtype=np.float64).sum(0)


def _folded(
    network: Graph,
    images: np.ndarray,
    tensors: Sequence[str],
    reduced: Callable[[np.ndarray], np.ndarray],
    together: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """By tensor: `reduced` of each batch, (C,), joined by `together`."""
    model = onnx_graph.build(network, {})
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(images), BATCH):
        values = session.run(tensors, {onnx_graph.INPUT: images[start : start + BATCH]})
        for name, value in zip(tensors, values, strict=True):
            one = reduced(value)
            found[name] = together(found[name], one) if name in found else one
    return found
