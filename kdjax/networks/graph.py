"""A trained network as the fewest operations, as data: what every exporter writes down in its own way.

A family draws its networks with a `Builder`, which folds what is constant:

- BatchNorm in evaluation is affine and joins the convolution in front of it (Jacob et al., arXiv 1712.05877, 3.2).
- The division by 255 and by the standard deviation joins the kernels that read the image. The subtraction of the mean
  does not: a convolution pads with zeros of the *normalized* image, which are not zeros of the pixels.
- An average over fewer cells than a dense layer reads joins its kernel.

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
"""What exported files call the tensors that a user gives and gets."""


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation; its name is also that of the tensor that it gives. Maps are (channels, height, width)."""

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
        groups: 1, or O where every channel has its own filter.
    """

    kernel: np.ndarray
    bias: np.ndarray
    stride: int
    padding: Padding
    groups: int


@dataclasses.dataclass(frozen=True)
class Rectify(Node):
    """min(max(x, 0), ceiling): ReLU where the ceiling is infinite, ReLU6 where it is 6."""

    ceiling: float


@dataclasses.dataclass(frozen=True)
class MaxPool(Node):
    """Maximum over size x size cells, every `stride` of them; what is left over is dropped.

    Attributes:
        size, stride: in both directions.
        padding: cells of -inf all around.
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
    """Mean over the map: a vector of channels."""


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
    """A map, the first input, with each of its channels multiplied by its number in a vector, the second."""


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
        image_size: side at which it looks at them, px.
        resize: (image_size, storage_size) float32, rows sum to 1; None where the sizes are equal.
        mean: (bands,) float32, what is subtracted from the pixels; the difference is the node `IMAGE`.
        nodes: in an order in which they can be computed; the last one is the logits.
        dtype: of the images it reads, "uint8" or "uint16".
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
        """Of an image that it reads, (storage_size, storage_size, bands)."""
        return self.storage_size, self.storage_size, len(self.mean)


class Builder:
    """Draws a network from its variables, node by node. Every method returns the name of the node it added.

    Attributes:
        nodes: what was drawn so far.
        shapes: of the tensor of each node, (channels, height, width) or (channels,).
    """

    def __init__(
        self, variables: Mapping[str, Any], names: Mapping[str, str], image_size: int, scale: Sequence[float]
    ) -> None:
        """A drawing that holds the image alone.

        Args:
            variables: {'params': ..., 'batch_stats': ...} of one network.
            names: of the nodes, by the path of their layer in the parameters ('block_1/expand').
            image_size: side of the image, px.
            scale: of each band, what a layer that reads the image expects it to be multiplied by.
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
        """The convolution `layer`, and the BatchNorm after it.

        Args:
            x: what it reads.
            layer: its path: a kernel (k, k, I, O), (I, O) for 1 x 1, or (k, k, C) with one filter a channel.
            norm: path of the BatchNorm.
            eps: of the BatchNorm.
            stride: in both directions.
            padding: one of `padding.PADDINGS`.

        The products are taken in float64 and rounded once.
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
        size, before = kernel.shape[-1], self.shapes[x][1:]
        edges = PADDINGS[padding](before, size, stride)
        sides = [(side + sum(edge) - size) // stride + 1 for side, edge in zip(before, edges, strict=True)]
        node = Convolution(self._names[layer], (x,), _float32(kernel), _float32(bias), stride, edges, groups)
        return self._added(node, len(kernel), *sides)

    def rectify(self, x: str, ceiling: float = math.inf) -> str:
        """min(max(x, 0), ceiling)."""
        kind = "relu" if math.isinf(ceiling) else f"relu{ceiling:g}"
        return self._added(Rectify(f"{x}.{kind}", (x,), ceiling), *self.shapes[x])

    def max_pool(self, x: str, size: int = 2, stride: int = 2, padding: int = 0) -> str:
        """Maximum over size x size cells, with `padding` cells of -inf all around."""
        channels, *sides = self.shapes[x]
        node = MaxPool(f"{x}.max", (x,), size, stride, padding)
        return self._added(node, channels, *((side + 2 * padding - size) // stride + 1 for side in sides))

    def adaptive_average(self, x: str, side: int) -> str:
        """PyTorch's AdaptiveAvgPool2d to side x side cells: see `layers.adaptive_average_pool`."""
        channels, *sides = self.shapes[x]
        if sides == [side, side]:
            return x
        rows, columns = (_means(length, side) for length in sides)
        return self._added(Resample(f"{x}.resampled", (x,), rows, columns), channels, side, side)

    def mean(self, x: str) -> str:
        """Mean over the map."""
        return self._added(Mean(f"{x}.mean", (x,)), self.shapes[x][0])

    def add(self, x: str, y: str, name: str) -> str:
        """The sum of two tensors of one shape."""
        if self.shapes[x] != self.shapes[y]:
            raise ValueError(f"{x} {self.shapes[x]} and {y} {self.shapes[y]} differ in shape")
        return self._added(Add(name, (x, y)), *self.shapes[x])

    def hard_sigmoid(self, x: str) -> str:
        """min(max(x + 3, 0), 6) / 6."""
        return self._added(HardSigmoid(f"{x}.hard_sigmoid", (x,)), *self.shapes[x])

    def hard_swish(self, x: str) -> str:
        """x * min(max(x + 3, 0), 6) / 6."""
        return self._added(HardSwish(f"{x}.hard_swish", (x,)), *self.shapes[x])

    def scale(self, x: str, gate: str) -> str:
        """The map x with each of its channels multiplied by its number in the vector `gate`."""
        if self.shapes[gate] != self.shapes[x][:1]:
            raise ValueError(f"{gate} {self.shapes[gate]} is not a number for each channel of {x} {self.shapes[x]}")
        return self._added(Scale(f"{x}.scaled", (x, gate)), *self.shapes[x])

    def dense(self, x: str, layer: str) -> str:
        """The linear layer `layer`, kernel (I, O) over a vector or over a map that is flattened as (H, W, C)."""
        params = self._leaves("params", layer)
        kernel = np.asarray(params["kernel"])
        channels, *sides = self.shapes[x]
        if sides:
            kernel = kernel.reshape(*sides, channels, -1).transpose(3, 2, 0, 1)
            last = self.nodes[-1]
            if isinstance(last, Resample) and last.name == x and last.rows.shape[1] <= last.rows.shape[0]:
                # One output at a time: in float64 the kernels of VGG16's first dense layer would take 800 MB.
                rows, columns = last.rows.astype(np.float64), last.columns.astype(np.float64)
                kernel = np.stack([_float32(rows.T @ one.astype(np.float64) @ columns) for one in kernel])
                self.nodes.pop()
                x = last.inputs[0]
        else:
            kernel = kernel.T
        node = Dense(self._names[layer], (x,), _float32(kernel), _float32(params["bias"]))
        return self._added(node, len(node.bias))

    def has(self, layer: str) -> bool:
        """Whether the network has this layer: some have a choice of heads."""
        try:
            self._leaves("params", layer)
        except KeyError:
            return False
        return True

    def _added(self, node: Node, *shape: int) -> str:
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


def _means(length: int, size: int) -> np.ndarray:
    """The means over the bins of PyTorch's AdaptiveAvgPool2d along one axis, as a matrix (size, length)."""
    matrix = np.zeros((size, length))
    for i, (first, end) in enumerate(bins(length, size)):
        matrix[i, first:end] = 1 / (end - first)
    return _float32(matrix)


def _float32(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
