"""Writes a folded network as a LiteRT (TFLite) flatbuffer: NHWC, with rectifiers fused into the preceding operators.

The classes of the schema come with ai-edge-litert, so neither a converter nor TensorFlow is needed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kdjax.networks import graph as g
from kdjax.networks.padding import Padding, same

VERSION, IDENTIFIER = 3, b"TFL3"
INPUT, OUTPUT = g.INPUT, g.OUTPUT
CEILINGS = {math.inf: "RELU", 6.0: "RELU6"}
NO_PADDING: Padding = ((0, 0), (0, 0))

Shape = tuple[int, ...]


def build(network: g.Graph, dtype: type = np.uint8) -> bytes:
    """The network as the content of a .tflite file.

    Args:
        network: see `fold.fold`.
        dtype: of the images: uint8, or float32 for a model to be quantized.

    Returns:
        A model that maps images (batch, storage_size, storage_size, 3), 0 to 255, to logits (batch, classes) float32.
        The batch size is 1 until the interpreter resizes its input. Each tensor has the name of its node, except that
        the last one is called `OUTPUT`, and that the output of a layer with a fused rectifier has the rectifier's name.

    Raises:
        ValueError: the format lacks an operation.
    """
    draw = _Drawing(network)
    _draw_image(draw, network, dtype)
    for node in network.nodes:
        if node.name not in draw.shapes:  # otherwise it is a rectifier, fused into the layer before it
            WRITERS[type(node)](draw, node)
    return draw.content()


class _Drawing:
    """A LiteRT model under construction.

    Attributes:
        shapes: of the tensors computed from the images, without the batch: (height, width, channels) or (channels,).
    """

    def __init__(self, network: g.Graph):
        self.shapes: dict[str, Shape] = {}
        self._readers: dict[str, list[g.Node]] = {}
        for node in network.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        self._writers = {node.name: node for node in network.nodes}
        self._last = network.nodes[-1].name
        self._indices: dict[str, int] = {}
        self._graph, self._model = schema.SubGraphT(), schema.ModelT()
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._model.version, self._model.description, self._model.subgraphs = VERSION, "kdjax", [self._graph]
        self._model.operatorCodes = []
        self._model.buffers = [schema.BufferT()]  # by convention, buffer 0 is empty: that of tensors without data

    def content(self) -> bytes:
        """The content of the file."""
        self._graph.inputs, self._graph.outputs = [self._indices[INPUT]], [self._indices[OUTPUT]]
        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        for name, maps in ((INPUT, "inputs"), (OUTPUT, "outputs")):
            tensor_map = schema.TensorMapT()
            tensor_map.name, tensor_map.tensorIndex = name, self._indices[name]
            setattr(signature, maps, [tensor_map])
        self._model.signatureDefs = [signature]
        builder = flatbuffers.Builder(0)
        builder.Finish(self._model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def images(self, side: int, dtype: type) -> str:
        """Adds the input and returns its name."""
        return self._activation(INPUT, (side, side, 3), dtype)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Adds a constant, unless its name exists already, and returns the name."""
        if name not in self._indices:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self._model.buffers.append(buffer)
            self._tensor(name, values.shape, values.dtype).buffer = len(self._model.buffers) - 1
        return name

    def operator(self, kind: str, inputs: Sequence[str], name: str, shape: Shape, **options: Any) -> str:
        """Adds an operator and its output tensor, and returns the name of that tensor.

        Args:
            kind: a name in `schema.BuiltinOperator`.
            inputs: names of tensors.
            name: of the output; the network's last one gets the name `OUTPUT` instead.
            shape: of the output, without the batch.
            options: fields of the operator's class in `OPTIONS`.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._opcode_index(getattr(schema.BuiltinOperator, kind))
        operator.inputs = [self._indices[tensor] for tensor in inputs]
        name = self._activation(OUTPUT if name == self._last else name, shape, np.float32)
        operator.outputs = [self._indices[name]]
        if kind in OPTIONS:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, OPTIONS[kind])
            operator.builtinOptions = getattr(schema, f"{OPTIONS[kind]}T")(**options)
        self._graph.operators.append(operator)
        return name

    def fused_rectifier(self, node: g.Node) -> tuple[str, int]:
        """The name of a layer's output and the code of the rectifier fused into it.

        A rectifier is fused if nothing else reads the layer; its name is then that of the output.
        """
        readers = self._readers.get(node.name, [])
        if len(readers) == 1 and isinstance(readers[0], g.Rectify):
            return readers[0].name, getattr(schema.ActivationFunctionType, _rectifier_kind(readers[0]))
        return node.name, schema.ActivationFunctionType.NONE

    def padded(self, x: str, padding: Padding, size: int, stride: int) -> tuple[str, int]:
        """Pads the map `x` with zeros if needed.

        Returns:
            The name of the map to read, and the schema's code of the padding for the operator that reads it.
        """
        if padding == NO_PADDING:
            return x, schema.Padding.VALID
        height, width, channels = self.shapes[x]
        if padding == same((height, width), size, stride):
            return x, schema.Padding.SAME
        edges = self.constant(f"padding.{padding}", np.array([(0, 0), *padding, (0, 0)], np.int32))
        name = f"{x}.padded{padding}"
        if name not in self.shapes:
            self.operator("PAD", [x, edges], name, (height + sum(padding[0]), width + sum(padding[1]), channels))
        return name, schema.Padding.VALID

    def lower_bound(self, x: str) -> float:
        """A lower bound of the values of the tensor `x`."""
        return 0.0 if isinstance(self._writers.get(x), g.Rectify) else -math.inf

    def _activation(self, name: str, shape: Shape, dtype: type) -> str:
        self._tensor(name, (1, *shape), np.dtype(dtype)).shapeSignature = [-1, *shape]
        self.shapes[name] = shape
        return name

    def _tensor(self, name: str, shape: Shape, dtype: np.dtype) -> Any:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(schema.TensorType, dtype.name.upper())
        self._indices[name] = len(self._graph.tensors)
        self._graph.tensors.append(tensor)
        return tensor

    def _opcode_index(self, kind: int) -> int:
        """The index of an operator kind in the model's table, to which it is added if it is not in it."""
        opcodes = self._model.operatorCodes
        kinds = [opcode.builtinCode for opcode in opcodes]
        if kind not in kinds:
            opcode = schema.OperatorCodeT()
            opcode.builtinCode = opcode.deprecatedBuiltinCode = kind
            opcodes.append(opcode)
            return len(kinds)
        return kinds.index(kind)


def _draw_image(draw: _Drawing, network: g.Graph, dtype: type) -> None:
    """Draws the resize and the subtraction of the mean, from the input to the tensor g.IMAGE."""
    x = draw.images(network.storage_size, dtype)
    if dtype != np.float32:
        x = draw.operator("CAST", [x], "pixels", draw.shapes[x])
    if network.resize is not None:
        x = _resampled(draw, x, "resized", network.resize, network.resize)
    mean = draw.constant("mean", network.mean.reshape(1, 1, 1, -1))
    draw.operator("SUB", [x, mean], g.IMAGE, draw.shapes[x])


def _resampled(draw: _Drawing, x: str, name: str, rows: np.ndarray, columns: np.ndarray) -> str:
    """Resizes a map with two dense layers along the last axis, to which the rows and then the columns are moved."""
    height, width, channels = draw.shapes[x]
    low, narrow = len(rows), len(columns)
    x = _transposed(draw, x, f"{name}.rows_last", (0, 2, 3, 1), (width, channels, height))
    x = _along(draw, x, f"{name}.lower", rows, (width, channels, low))
    x = _transposed(draw, x, f"{name}.columns_last", (0, 3, 2, 1), (low, channels, width))
    x = _along(draw, x, f"{name}.smaller", columns, (low, channels, narrow))
    return _transposed(draw, x, name, (0, 1, 3, 2), (low, narrow, channels))


def _transposed(draw: _Drawing, x: str, name: str, order: Shape, shape: Shape) -> str:
    axes = draw.constant(f"order.{order}", np.array(order, np.int32))
    return draw.operator("TRANSPOSE", [x, axes], name, shape)


def _along(draw: _Drawing, x: str, name: str, matrix: np.ndarray, shape: Shape) -> str:
    weights = [
        draw.constant(f"{name}.weight", matrix),
        draw.constant(f"{name}.bias", np.zeros(len(matrix), np.float32)),
    ]
    return draw.operator("FULLY_CONNECTED", [x, *weights], name, shape, keepNumDims=True)


def _convolution(draw: _Drawing, node: g.Convolution) -> None:
    (x,), size = node.inputs, node.kernel.shape[-1]
    name, rectifier = draw.fused_rectifier(node)
    x, padding = draw.padded(x, node.padding, size, node.stride)
    sides = draw.shapes[x][:2]
    if padding == schema.Padding.SAME:
        sides = tuple(side + sum(edge) for side, edge in zip(sides, node.padding, strict=True))
    options: dict[str, Any] = {
        "padding": padding,
        "strideH": node.stride,
        "strideW": node.stride,
        "fusedActivationFunction": rectifier,
    }
    kernel, kind = node.kernel.transpose(0, 2, 3, 1), "CONV_2D"
    if node.groups > 1:
        if node.kernel.shape[1] != 1:
            raise ValueError(f"{node.name}: {node.groups} groups of several channels")
        kernel, kind, options["depthMultiplier"] = node.kernel.transpose(1, 2, 3, 0), "DEPTHWISE_CONV_2D", 1
    weights = [draw.constant(f"{node.name}.weight", kernel), draw.constant(f"{node.name}.bias", node.bias)]
    shape = (*((side - size) // node.stride + 1 for side in sides), len(node.bias))
    draw.operator(kind, [x, *weights], name, shape, **options)


def _rectify(draw: _Drawing, node: g.Rectify) -> None:
    draw.operator(_rectifier_kind(node), node.inputs, node.name, draw.shapes[node.inputs[0]])


def _rectifier_kind(node: g.Rectify) -> str:
    if node.ceiling not in CEILINGS:
        raise ValueError(f"{node.name}: a ceiling of {node.ceiling:g}")
    return CEILINGS[node.ceiling]


def _max_pool(draw: _Drawing, node: g.MaxPool) -> None:
    (x,), edge = node.inputs, node.padding
    if edge and draw.lower_bound(x) < 0:
        raise ValueError(f"{node.name}: the maximum of a map that may be below the zeros around it")
    x, _ = draw.padded(x, ((edge, edge), (edge, edge)), 1, 1)  # with a window of 1 the padding is never SAME
    *sides, channels = draw.shapes[x]
    shape = (*((side - node.size) // node.stride + 1 for side in sides), channels)
    window = {"filterHeight": node.size, "filterWidth": node.size, "strideH": node.stride, "strideW": node.stride}
    draw.operator("MAX_POOL_2D", [x], node.name, shape, padding=schema.Padding.VALID, **window)


def _resample(draw: _Drawing, node: g.Resample) -> None:
    _resampled(draw, node.inputs[0], node.name, node.rows, node.columns)


def _mean(draw: _Drawing, node: g.Mean) -> None:
    axes = draw.constant("mean.axes", np.array([1, 2], np.int32))
    draw.operator("MEAN", [*node.inputs, axes], node.name, draw.shapes[node.inputs[0]][2:])


def _add(draw: _Drawing, node: g.Add) -> None:
    name, rectifier = draw.fused_rectifier(node)
    draw.operator("ADD", node.inputs, name, draw.shapes[node.inputs[0]], fusedActivationFunction=rectifier)


def _hard_sigmoid(draw: _Drawing, node: g.HardSigmoid) -> None:
    shape, relu6 = draw.shapes[node.inputs[0]], schema.ActivationFunctionType.RELU6
    three = draw.constant("three", np.array([3], np.float32))
    x = draw.operator("ADD", [*node.inputs, three], f"{node.name}.above", shape, fusedActivationFunction=relu6)
    draw.operator("MUL", [x, draw.constant("sixth", np.array([1 / 6], np.float32))], node.name, shape)


def _hard_swish(draw: _Drawing, node: g.HardSwish) -> None:
    draw.operator("HARD_SWISH", node.inputs, node.name, draw.shapes[node.inputs[0]])


def _scale(draw: _Drawing, node: g.Scale) -> None:
    x, gate = node.inputs
    channels = draw.shapes[gate][0]
    shape = draw.constant(f"map.{channels}", np.array([-1, 1, 1, channels], np.int32))
    gate = draw.operator("RESHAPE", [gate, shape], f"{gate}.map", (1, 1, channels))
    draw.operator("MUL", [x, gate], node.name, draw.shapes[x])


def _dense(draw: _Drawing, node: g.Dense) -> None:
    kernel = node.kernel
    if kernel.ndim == 4:
        # The operator flattens its input as (height, width, channels).
        kernel = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    name, rectifier = draw.fused_rectifier(node)
    weights = [draw.constant(f"{node.name}.weight", kernel), draw.constant(f"{node.name}.bias", node.bias)]
    shape = (len(node.bias),)
    draw.operator("FULLY_CONNECTED", [*node.inputs, *weights], name, shape, fusedActivationFunction=rectifier)


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "HARD_SWISH": "HardSwishOptions",
    "PAD": "PadOptions",
    "TRANSPOSE": "TransposeOptions",
    "RESHAPE": "ReshapeOptions",
    "CAST": "CastOptions",
}
"""Operator -> class of its options in the schema."""

WRITERS: dict[type, Callable[[_Drawing, Any], None]] = {
    g.Convolution: _convolution,
    g.Rectify: _rectify,
    g.MaxPool: _max_pool,
    g.Resample: _resample,
    g.Mean: _mean,
    g.Add: _add,
    g.HardSigmoid: _hard_sigmoid,
    g.HardSwish: _hard_swish,
    g.Scale: _scale,
    g.Dense: _dense,
}
