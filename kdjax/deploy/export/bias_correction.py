"""Corrects biases for the mean shift that rounding the weights causes in a layer's output.

A rounded filter sums to a little more or less than the original, so its output is off by a constant on average, and
these errors add up from layer to layer. The bias can absorb the constant (Nagel et al., arXiv 1906.04721, equation 18,
with measured means).
"""

import dataclasses

import numpy as np

from kdjax.deploy.export import activations
from kdjax.networks import graph as g

STEPS = 127
"""Largest integer of an 8-bit weight; the range is symmetric."""


def correct(network: g.Graph, images: np.ndarray, steps: int = STEPS) -> g.Graph:
    """The network with corrected biases. Its kernels are not rounded yet; each output channel will have its own scale.

    Args:
        network: see `fold.fold`.
        images: (n, *network.image_shape), over which the mean shifts are measured.
        steps: largest integer of a rounded weight.
    """
    layers = [node for node in network.nodes if isinstance(node, g.Convolution | g.Dense)]
    # A layer whose kernel is the rounding error computes the output's error: exactly, even at padded edges.
    error_layers = [
        dataclasses.replace(
            layer,
            name=f"{layer.name}.error",
            kernel=rounded(layer.kernel, steps) - layer.kernel,
            bias=np.zeros_like(layer.bias),
        )
        for layer in layers
    ]
    *others, last = network.nodes
    with_errors = dataclasses.replace(network, nodes=(*others, *error_layers, last))
    shifts = activations.means(with_errors, images, [error.name for error in error_layers])
    corrected: dict[str, g.Node] = {
        layer.name: dataclasses.replace(layer, bias=(layer.bias - shifts[error.name]).astype(np.float32))
        for layer, error in zip(layers, error_layers, strict=True)
    }
    return dataclasses.replace(network, nodes=tuple(corrected.get(node.name, node) for node in network.nodes))


def rounded(kernel: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """The kernel (O, ...) with its weights rounded to integers times a scale.

    Each output channel has its own scale, with which its largest weight becomes the integer `steps`.
    """
    scale = (activations.sizes(kernel, axis=0) / steps).reshape(-1, *[1] * (kernel.ndim - 1))
    return np.rint(np.divide(kernel, scale, out=np.zeros_like(kernel), where=scale > 0)) * scale
