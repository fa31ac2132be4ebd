"""Channels of like sizes before a network is quantized: cross-layer equalization over any graph.

A positive factor for each channel passes through sums, ReLU, maxima and averages, and through the map that a gate
scales. The tensors that such operations tie together, what writes them and what reads them can therefore be scaled, and
the function stays the same (Nagel et al., arXiv 1906.04721, equation 11). In the MobileNets these are the linear
bottlenecks, in MobileNetV3 also what lies between a filter with ReLU, its gate and the projection; in VGG16 all between
two convolutions.

The pairs of layers around a ReLU6 or a hard swish are left alone: scaled, each channel would need a ceiling of its own,
for which there is no integer kernel, or a swish of its own.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kdjax.deploy.export import activations
from kdjax.networks import graph as g


@dataclasses.dataclass(frozen=True)
class Tied:
    """Tensors whose channels can only be scaled together.

    Attributes:
        writers, readers: names of the convolutions and dense layers that write and read them.
        tensors: their names; those that only a ReLU reads are left out.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    tensors: tuple[str, ...]


def equalize(network: g.Graph, images: np.ndarray) -> g.Graph:
    """The same function with the channels of tied tensors brought to like sizes.

    The writers' weights have a scale for each of these channels anyway, so the size of the activations takes their
    place, as in SmoothQuant (Xiao et al., arXiv 2211.10438, equation 4 with alpha = 1/2).

    Args:
        network: see `fold.fold`.
        images: (n, *network.image_shape), whose activations are measured.
    """
    layers: dict[str, Any] = {node.name: node for node in network.nodes}
    groups = list(tied(network))
    if not groups:
        return network
    largest = activations.largest(network, images, [tensor for group in groups for tensor in group.tensors])
    for group in groups:
        written = np.max([largest[tensor] for tensor in group.tensors], axis=0)
        read = np.max([activations.sizes(layers[name].kernel, axis=1) for name in group.readers], axis=0)
        # A channel that is dead on one side stays as it is.
        scale = np.sqrt(np.divide(written, read, out=np.ones_like(read), where=(written > 0) & (read > 0)))
        for name in group.writers:
            layer = layers[name]
            kernel = layer.kernel / scale.reshape(-1, *[1] * (layer.kernel.ndim - 1))
            layers[name] = dataclasses.replace(layer, kernel=kernel, bias=layer.bias / scale)
        for name in group.readers:
            layer = layers[name]
            kernel = layer.kernel * scale.reshape(1, -1, *[1] * (layer.kernel.ndim - 2))
            layers[name] = dataclasses.replace(layer, kernel=kernel)
    return dataclasses.replace(network, nodes=tuple(layers.values()))


def tied(network: g.Graph) -> Iterator[Tied]:
    """The groups of tensors whose channels can be scaled, in the order of the graph."""
    groups: dict[str, list[str]] = {g.IMAGE: [g.IMAGE]}
    for node in network.nodes:
        together = [node.name]
        for name in _passed(node):
            if groups[name] is not together:
                together = groups[name] + together
                for member in together:
                    groups[member] = together
        groups[node.name] = together
    nodes = {node.name: node for node in network.nodes}
    unique = {id(group): group for group in groups.values()}
    for group in unique.values():
        writers = [name for name in group if not (name in nodes and _passed(nodes[name]))]
        consumers = {name: [node for node in network.nodes if name in node.inputs] for name in group}
        readers = {
            node.name: node for name, nodes_ in consumers.items() for node in nodes_ if name not in _passed(node)
        }
        scalable = all(_has_weights(nodes.get(name)) for name in writers) and all(
            _has_weights(node) and getattr(node, "groups", 1) == 1 for node in readers.values()
        )
        if scalable and network.nodes[-1].name not in group:
            only_rectified = lambda name: all(isinstance(node, g.Rectify) for node in consumers[name])  # noqa: B023
            yield Tied(tuple(writers), tuple(readers), tuple(name for name in group if not only_rectified(name)))


def _passed(node: g.Node) -> tuple[str, ...]:
    """The inputs whose positive factors, one for each channel, come out as they went in."""
    if isinstance(node, g.Rectify):
        return node.inputs if math.isinf(node.ceiling) else ()
    if isinstance(node, g.Scale):
        return node.inputs[:1]
    return node.inputs if isinstance(node, g.Add | g.MaxPool | g.Resample | g.Mean) else ()


def _has_weights(node: g.Node | None) -> bool:
    return isinstance(node, g.Convolution | g.Dense)
