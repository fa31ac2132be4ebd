"""Cross-layer equalization: brings the channels of tensors to similar ranges before a network is quantized.

Sums, ReLU, maxima, averages and the map that a gate scales commute with a positive factor for each channel. The tensors
that such operations connect can therefore be scaled together, with the layers that write and read them, without
changing the function (Nagel et al., arXiv 1906.04721, equation 11). In the MobileNets these tensors are the linear
bottlenecks; in MobileNetV3 also the tensors between a filter with ReLU, its gate and the projection; in VGG16 all
tensors between two convolutions.

Layers around a ReLU6 or a hard swish are not equalized: after scaling, each channel would need its own ceiling, for
which there is no integer kernel, or its own swish.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kdjax.deploy.export import activations
from kdjax.networks import graph as g


@dataclasses.dataclass(frozen=True)
class TiedTensors:
    """Tensors whose channels can only be scaled together.

    Attributes:
        writers, readers: names of the convolutions and dense layers that write and read the tensors.
        tensors: names of the tensors, without those that only a ReLU reads.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    tensors: tuple[str, ...]


def equalize(network: g.Graph, images: np.ndarray) -> g.Graph:
    """The same function with similar channel ranges within each group of tied tensors.

    The quantized weights of a writer have a scale for each of these channels anyway. The factors are therefore computed
    from the activations instead of the writer's weights, as in SmoothQuant (Xiao et al., arXiv 2211.10438, equation 4
    with alpha = 1/2).

    Args:
        network: see `fold.fold`.
        images: (n, *network.image_shape), over which the activations are measured.
    """
    layers: dict[str, Any] = {node.name: node for node in network.nodes}
    groups = list(tied_groups(network))
    if not groups:
        return network
    largest = activations.largest(network, images, [tensor for group in groups for tensor in group.tensors])
    for group in groups:
        activation_sizes = np.max([largest[tensor] for tensor in group.tensors], axis=0)
        weight_sizes = np.max([activations.sizes(layers[name].kernel, axis=1) for name in group.readers], axis=0)
        # A channel that is zero on one side keeps its scale.
        nonzero = (activation_sizes > 0) & (weight_sizes > 0)
        scale = np.sqrt(np.divide(activation_sizes, weight_sizes, out=np.ones_like(weight_sizes), where=nonzero))
        for name in group.writers:
            layer = layers[name]
            kernel = layer.kernel / scale.reshape(-1, *[1] * (layer.kernel.ndim - 1))
            layers[name] = dataclasses.replace(layer, kernel=kernel, bias=layer.bias / scale)
        for name in group.readers:
            layer = layers[name]
            kernel = layer.kernel * scale.reshape(1, -1, *[1] * (layer.kernel.ndim - 2))
            layers[name] = dataclasses.replace(layer, kernel=kernel)
    return dataclasses.replace(network, nodes=tuple(layers.values()))


def tied_groups(network: g.Graph) -> Iterator[TiedTensors]:
    """Yields the groups of tensors whose channels can be scaled, in the order of the graph."""
    groups: dict[str, list[str]] = {g.IMAGE: [g.IMAGE]}
    for node in network.nodes:
        merged = [node.name]
        for name in _scalable_inputs(node):
            if groups[name] is not merged:
                merged = groups[name] + merged
                for member in merged:
                    groups[member] = merged
        groups[node.name] = merged
    nodes = {node.name: node for node in network.nodes}
    unique = {id(group): group for group in groups.values()}
    for group in unique.values():
        writers = [name for name in group if not (name in nodes and _scalable_inputs(nodes[name]))]
        consumers = {name: [node for node in network.nodes if name in node.inputs] for name in group}
        readers = {
            consumer.name: consumer
            for name, nodes_reading in consumers.items()
            for consumer in nodes_reading
            if name not in _scalable_inputs(consumer)
        }
        scalable = all(_has_weights(nodes.get(name)) for name in writers) and all(
            _has_weights(node) and getattr(node, "groups", 1) == 1 for node in readers.values()
        )
        if scalable and network.nodes[-1].name not in group:
            only_rectified = lambda name: all(isinstance(node, g.Rectify) for node in consumers[name])  # noqa: B023
            yield TiedTensors(tuple(writers), tuple(readers), tuple(name for name in group if not only_rectified(name)))


def _scalable_inputs(node: g.Node) -> tuple[str, ...]:
    """The inputs for which a positive factor on a channel becomes the same factor on that channel of the output."""
    if isinstance(node, g.Rectify):
        return node.inputs if math.isinf(node.ceiling) else ()
    if isinstance(node, g.Scale):
        return node.inputs[:1]
    return node.inputs if isinstance(node, g.Add | g.MaxPool | g.Resample | g.Mean) else ()


def _has_weights(node: g.Node | None) -> bool:
    return isinstance(node, g.Convolution | g.Dense)
