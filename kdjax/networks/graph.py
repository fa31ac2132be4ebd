"""A trained network as a graph of as few operations as possible, which every exporter writes in its own format.

A family draws its networks with a `Builder`, which folds constant operations:

- BatchNorm in evaluation is affine, and is folded into the convolution before it (Jacob et al., arXiv 1712.05877, 3.2).
- Division by 255 and by the standard deviation is folded into the kernels that read the image. Subtraction of the mean
  is not: a convolution pads the *normalized* image with zeros, which are not zeros of the pixels.
- Averages over bins are folded into the dense layer that reads them, if the map has no more cells than there are bins.

A new kind of operation is one class here, and one function in each of `onnx_graph`, `litert_graph` and `stablehlo`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.networks.padding import PADDINGS, Padding, bins

IMAGE = "image"
INPUT, OUTPUT = "images", "logits"
"""Names in exported files of the tensors that a user passes in and gets back."""


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation. Its name is also that of its output tensor. Maps are (channels, height, width)."""

    name: str
    inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Convolution(Node):
    """A convolution.

    Attributes:
        kernel: (O, I / groups, k, k) float32.
        bias: (O,) float32.
        stride: in both directions.
        padding: ((top, bottom), (left, right)).
        groups: 1, or O if every channel has its own filter.
    """

    kernel: np.ndarray
    bias: np.ndarray
    stride: int
    padding: Padding
    groups: int


@dataclasses.dataclass(frozen=True)
class Rectify(Node):
    """min(max(x, 0), ceiling): ReLU if the ceiling is infinite, ReLU6 if it is 6."""

    ceiling: float


@dataclasses.dataclass(frozen=True)
class MaxPool(Node):
    """Maximum over windows of size x size cells, one every `stride` cells; left-over cells are dropped.

    Attributes:
        size, stride: in both directions.
        padding: cells of -inf on every side.
    """

    size: int
    stride: int
    padding: int


@dataclasses.dataclass(frozen=True)
class Resample(Node):
    """Sums of rows and of columns: (h, H) @ x @ (w, W).T for every channel.

    Attributes:
        rows, columns: (h, H) and (w, W) float32.
    """

    rows: np.ndarray
    columns: np.ndarray


@dataclasses.dataclass(frozen=True)
class Mean(Node):
    """Mean over a map: a vector with one value per channel."""


@dataclasses.dataclass(frozen=True)
class Add(Node):
    """The sum of two tensors of one shape."""


@dataclasses.dataclass(frozen=True)
class HardSigmoid(Node):
    """min(max(x + 3, 0), 6) / 6."""


@dataclasses.dataclass(frozen=True)
class HardSwish(Node):
    """x * min(max(x + 3, 0), 6) / 6."""


@dataclasses.dataclass(frozen=True)
class Scale(Node):
    """Each channel of a map, the first input, times its value in a vector, the second input."""


@dataclasses.dataclass(frozen=True)
class Dense(Node):
    """A linear layer over a vector, or over all cells of a map.

    Attributes:
        kernel: (O, I), or (O, C, H, W) over a map; float32.
        bias: (O,) float32.
    """

    kernel: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class Graph:
    """A folded network.

    Attributes:
        model: name of the network.
        storage_size: side of the images it reads, px.
        image_size: side to which it resizes them, px.
        resize: (image_size, storage_size) float32, rows sum to 1; None if the sizes are equal.
        mean: (bands,) float32, subtracted from the pixels; the difference is the tensor `IMAGE`.
        nodes: the operations in an order in which they can be computed; the last one gives the logits.
        dtype: dtype of the images it reads, "uint8" or "uint16".
    """

    model: str
    storage_size: int
    image_size: int
    resize: np.ndarray | None
    mean: np.ndarray
    nodes: tuple[Node, ...]
    dtype: str = "uint8"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of an image that it reads, (storage_size, storage_size, bands)."""
        return self.storage_size, self.storage_size, len(self.mean)


class Builder:
    """Draws a network from its variables, node by node. Methods that add a node return its name.

    Attributes:
        nodes: the nodes so far.
        shapes: shape of the tensor of each node, (channels, height, width) or (channels,).
    """

    def __init__(
        self, variables: Mapping[str, Any], names: Mapping[str, str], image_size: int, scale: Sequence[float]
    ) -> None:
        """Begins a graph that consists of the image alone.

        Args:
            variables: {'params': ..., 'batch_stats': ...} of one network.
            names: names of the nodes, by the path of their layer in the parameters ('block_1/expand').
            image_size: side of the image, px.
            scale: factor of each band, which is folded into the layers that read the image.
        """
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, ...]] = {IMAGE: (len(scale), image_size, image_size)}
        self._variables, self._names, self._scale = variables, names, np.asarray(scale, np.float64)

    def convolution(
        self,
        x: str,
        layer: str,
        *,
        norm: str | None = None,
        eps: float = 1e-5,
        stride: int = 1,
        padding: str = "around",
    ) -> str:
        """Adds the convolution `layer` and folds the BatchNorm after it into its kernel.

        The products are computed in float64 and rounded once.

        Args:
            x: name of the node it reads.
            layer: path of the layer, whose kernel is (k, k, I, O), (I, O) for 1 x 1, or (k, k, C) with one filter per
                channel.
            norm: path of the BatchNorm, or None.
            eps: eps of the BatchNorm.
            stride: in both directions.
            padding: one of `padding.PADDINGS`.
        """
        params = self._leaves("params", layer)
        kernel, groups = np.asarray(params["kernel"], np.float64), 1
        if kernel.ndim == 2:
            kernel = kernel[None, None]
        elif kernel.ndim == 3:
            kernel, groups = kernel[:, :, None, :], kernel.shape[-1]
        kernel = kernel.transpose(3, 2, 0, 1)
        bias = np.asarray(params.get("bias", np.zeros(len(kernel))), np.float64)
        if norm is not None:
            affine, running = self._leaves("params", norm), self._leaves("batch_stats", norm)
            factor = np.float64(affine["scale"]) / np.sqrt(np.float64(running["var"]) + eps)
            kernel = kernel * factor[:, None, None, None]
            bias = np.float64(affine["bias"]) + (bias - np.float64(running["mean"])) * factor
        if x == IMAGE:
            kernel = kernel * (self._scale[:, None, None, None] if groups > 1 else self._scale[None, :, None, None])
        size, input_sides = kernel.shape[-1], self.shapes[x][1:]
        edges = PADDINGS[padding](input_sides, size, stride)
        sides = [(side + sum(edge) - size) // stride + 1 for side, edge in zip(input_sides, edges, strict=True)]
        node = Convolution(self._names[layer], (x,), _float32(kernel), _float32(bias), stride, edges, groups)
        return self._add_node(node, len(kernel), *sides)

    def rectify(self, x: str, ceiling: float = math.inf) -> str:
        """Adds min(max(x, 0), ceiling)."""
        kind = "relu" if math.isinf(ceiling) else f"relu{ceiling:g}"
        return self._add_node(Rectify(f"{x}.{kind}", (x,), ceiling), *self.shapes[x])

    def max_pool(self, x: str, size: int = 2, stride: int = 2, padding: int = 0) -> str:
        """Adds a maximum over windows of size x size cells, with `padding` cells of -inf on every side."""
        channels, *sides = self.shapes[x]
        node = MaxPool(f"{x}.max", (x,), size, stride, padding)
        return self._add_node(node, channels, *((side + 2 * padding - size) // stride + 1 for side in sides))

    def adaptive_average(self, x: str, side: int) -> str:
        """Adds PyTorch's AdaptiveAvgPool2d to side x side cells, see `layers.adaptive_average_pool`.

        A map that has this size already is returned as it is.
        """
        channels, *sides = self.shapes[x]
        if sides == [side, side]:
            return x
        rows, columns = (_bin_means(length, side) for length in sides)
        return self._add_node(Resample(f"{x}.resampled", (x,), rows, columns), channels, side, side)

    def mean(self, x: str) -> str:
        """Adds the mean over a map."""
        return self._add_node(Mean(f"{x}.mean", (x,)), self.shapes[x][0])

    def add(self, x: str, y: str, name: str) -> str:
        """Adds the sum of two tensors of one shape, as a node called `name`."""
        if self.shapes[x] != self.shapes[y]:
            raise ValueError(f"{x} {self.shapes[x]} and {y} {self.shapes[y]} differ in shape")
        return self._add_node(Add(name, (x, y)), *self.shapes[x])

    def hard_sigmoid(self, x: str) -> str:
        """Adds min(max(x + 3, 0), 6) / 6."""
        return self._add_node(HardSigmoid(f"{x}.hard_sigmoid", (x,)), *self.shapes[x])

    def hard_swish(self, x: str) -> str:
        """Adds x * min(max(x + 3, 0), 6) / 6."""
        return self._add_node(HardSwish(f"{x}.hard_swish", (x,)), *self.shapes[x])

    def scale(self, x: str, gate: str) -> str:
        """Adds the product of each channel of the map x with its value in the vector `gate`."""
        if self.shapes[gate] != self.shapes[x][:1]:
            raise ValueError(f"{gate} {self.shapes[gate]} is not a number for each channel of {x} {self.shapes[x]}")
        return self._add_node(Scale(f"{x}.scaled", (x, gate)), *self.shapes[x])

    def dense(self, x: str, layer: str) -> str:
        """Adds the linear layer `layer`, kernel (I, O), over a vector or over a map that is flattened as (H, W, C)."""
        params = self._leaves("params", layer)
        kernel = np.asarray(params["kernel"])
        channels, *sides = self.shapes[x]
        if sides:
            kernel = kernel.reshape(*sides, channels, -1).transpose(3, 2, 0, 1)
            last = self.nodes[-1]
            if isinstance(last, Resample) and last.name == x and last.rows.shape[1] <= last.rows.shape[0]:
                # One output at a time, because all kernels of VGG16's first dense layer would take 800 MB in float64.
                rows, columns = last.rows.astype(np.float64), last.columns.astype(np.float64)
                kernel = np.stack([_float32(rows.T @ weights.astype(np.float64) @ columns) for weights in kernel])
                self.nodes.pop()
                x = last.inputs[0]
        else:
            kernel = kernel.T
        node = Dense(self._names[layer], (x,), _float32(kernel), _float32(params["bias"]))
        return self._add_node(node, len(node.bias))

    def has(self, layer: str) -> bool:
        """Whether the network has this layer; some are optional, such as those of other heads."""
        try:
            self._leaves("params", layer)
        except KeyError:
            return False
        return True

    def _add_node(self, node: Node, *shape: int) -> str:
        if node.name in self.shapes:
            raise ValueError(f"two nodes are called {node.name}")
        self.nodes.append(node)
        self.shapes[node.name] = shape
        return node.name

    def _leaves(self, collection: str, layer: str) -> Mapping[str, np.ndarray]:
        tree = self._variables[collection]
        for part in layer.split("/"):
            tree = tree[part]
        return tree


def _bin_means(length: int, size: int) -> np.ndarray:
    """Returns the matrix (size, length) that averages over the bins of PyTorch's AdaptiveAvgPool2d along one axis."""
    matrix = np.zeros((size, length))
    for i, (first, end) in enumerate(bins(length, size)):
        matrix[i, first:end] = 1 / (end - first)
    return _float32(matrix)


def _float32(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
