"""Biases that take back what rounding the weights moves a layer's output by, in the mean over images.

A rounded filter sums to a little more or less than the filter it stands for, so its output is off by a constant, which
the layers behind it add up. The bias can take that constant (Nagel et al., arXiv 1906.04721, equation 18, with measured
means).
"""

import dataclasses

import numpy as np

from kdjax.deploy.export import activations
from kdjax.networks import graph as g

STEPS = 127
"""Integers on either side of zero of 8-bit weights."""


def correct(network: g.Graph, images: np.ndarray, steps: int = STEPS) -> g.Graph:
    """The network with other biases; its kernels are still to be rounded, with a scale for each output channel.

    Args:
        network: see `fold.fold`.
        images: (n, *network.image_shape), over which the means are taken.
        steps: the largest integer that a weight becomes.
    """
    layers = [node for node in network.nodes if isinstance(node, g.Convolution | g.Dense)]
    # A layer whose kernel is the error of rounding gives the error of the output: exactly, also where a map is padded.
    errors = [
        dataclasses.replace(
            layer,
            name=f"{layer.name}.error",
            kernel=rounded(layer.kernel, steps) - layer.kernel,
            bias=np.zeros_like(layer.bias),
        )
        for layer in layers
    ]
    *others, last = network.nodes
    measured = dataclasses.replace(network, nodes=(*others, *errors, last))
    moved = activations.means(measured, images, [error.name for error in errors])
    corrected: dict[str, g.Node] = {
        layer.name: dataclasses.replace(layer, bias=(layer.bias - moved[error.name]).astype(np.float32))
        for layer, error in zip(layers, errors, strict=True)
    }
    return dataclasses.replace(network, nodes=tuple(corrected.get(node.name, node) for node in network.nodes))


def rounded(kernel: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """The kernel, (O, ...), as its integers stand for it: the largest weight of each output is `steps` of them."""
    scale = (activations.sizes(kernel, axis=0) / steps).reshape(-1, *[1] * (kernel.ndim - 1))
    return np.rint(np.divide(kernel, scale, out=np.zeros_like(kernel), where=scale > 0)) * scale
