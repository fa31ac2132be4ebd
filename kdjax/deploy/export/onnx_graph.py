"""A folded network as an ONNX graph, shaped as PyTorch would write it: NCHW, one node an operation."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import kdjax
from kdjax.data.meaning import Meaning
from kdjax.deploy.trust import PROBABILITIES
from kdjax.networks import graph as g

# Old enough for the runtimes of some years ago, new enough for quantization by channel.
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = g.INPUT, g.OUTPUT
BANDS = 4


def metadata(network: g.Graph, classes: Sequence[str], meaning: Meaning) -> dict[str, str]:
    """What the model files say of themselves: for `kdjax.deploy.predict`, and in words for people.

    Args:
        network: for its sizes.
        classes: class names, in the order of the logits.
        meaning: what the training tiles were.
    """
    side, size = network.storage_size, network.image_size
    return {
        "kdjax_version": kdjax.__version__,
        "classes": json.dumps(classes, ensure_ascii=False),
        "storage_size": str(side),
        "image_size": str(size),
        **meaning.metadata(),
        "input": (
            f"{network.dtype}, (batch, {side}, {side}, {len(network.mean)}), {_channels(network, meaning)}; "
            f"resize to {size} px and normalization are inside"
        ),
        "resize": (
            "decode (EXIF orientation applied, transparent pixels made black, gray and palette made RGB), then "
            f"Pillow's Lanczos filter to {side} x {side} px; an image that is not square is squeezed, not cropped"
        ),
        "output": f"logits, float32; {PROBABILITIES}",
    }


def _channels(network: g.Graph, meaning: Meaning) -> str:
    if meaning.bands is None:
        return "RGB, 0 to 255"
    said = f"the bands {' '.join(meaning.names)}, 0 to {np.iinfo(network.dtype).max}"
    return said + (" for the values {:g} to {:g}".format(*meaning.value_range) if meaning.value_range else "")


def bands(resize: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A resize of rows as products of a few small matrices, each with the rows that its band of the result needs.

    A row of the result reads a few neighboring rows, so most of the one large matrix is 0; and bytes are quick to
    gather. Measured with onnxruntime, four bands take a third less than the whole matrix.

    Args:
        resize: (target, source) float32.

    Returns:
        Rows to read, (bands, rows) int64, and their weights, (bands, target / bands, rows) float32.
    """
    target, source = resize.shape
    parts = resize.reshape(math.gcd(target, BANDS), -1, source)
    used = [np.flatnonzero(part.any(axis=0)) for part in parts]
    rows = max(one[-1] - one[0] for one in used) + 1
    first = np.minimum([one[0] for one in used], source - rows)
    read = first[:, None] + np.arange(rows)
    return read, np.take_along_axis(parts, read[:, None, :], axis=2)


def build(network: g.Graph, properties: dict[str, str]) -> onnx.ModelProto:
    """The network as a checked ONNX model.

    Args:
        network: see `fold.fold`.
        properties: go into the model's metadata_props, such as `metadata`.

    Returns:
        A model from images (batch, *network.image_shape) of network.dtype to logits (batch, classes) float32; the batch
        is free. The tensor of each node is called by its name, only that of the last one OUTPUT.
    """
    draw = _Drawing()
    _draw_image(draw, network)
    for node in network.nodes:
        WRITERS[type(node)](draw, node, OUTPUT if node is network.nodes[-1] else node.name)
    shape: list[str | int | None] = ["batch", *network.image_shape]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(network.dtype))
    last: Any = network.nodes[-1]  # the logits' dense layer
    graph = helper.make_graph(
        draw.nodes,
        network.model,
        [helper.make_tensor_value_info(INPUT, dtype, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(last.bias)])],
        list(draw.constants.values()),
    )
    model = helper.make_model(
        graph, producer_name="kdjax", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Drawing:
    """Nodes and constants of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: np.ndarray) -> str:
        """A constant, once for each name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node with one output, called as it is."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _draw_image(draw: _Drawing, network: g.Graph) -> None:
    """From the images to the node g.IMAGE."""
    (source, _, channels), size = network.image_shape, network.image_size
    if network.resize is None:
        x = draw.node("Transpose", [INPUT], "nchw", perm=[0, 3, 1, 2])
        x = draw.node("Cast", [x], "pixels", to=TensorProto.FLOAT)
        draw.node("Sub", [x, draw.constant("mean", network.mean.reshape(-1, 1, 1))], g.IMAGE)
    else:
        read, weights = bands(network.resize)
        x = draw.node("Reshape", [INPUT, draw.constant("rows.shape", np.array([0, source, channels * source]))], "rows")
        x = draw.node("Gather", [x, draw.constant("bands.rows", read)], "bands", axis=1)
        x = draw.node("Cast", [x], "pixels", to=TensorProto.FLOAT)
        x = draw.node("MatMul", [draw.constant("bands.weights", weights), x], "lower")
        # The weights of a resize sum to 1, so the mean may go before its last product. After it, OpenVINO 2026.4 would
        # join the two, take the mean of each channel for one of each column, and refuse the file. Over whole rows, as
        # onnxruntime takes 20 times as long where a constant is as short as the channels.
        x = draw.node("Sub", [x, draw.constant("mean", np.tile(network.mean, source))], "centered")
        x = draw.node("Reshape", [x, draw.constant("lower.shape", np.array([0, size, source, channels]))], "lower.nhwc")
        x = draw.node("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
        # A product with a matrix on the right is one product for the whole batch.
        columns = draw.constant("resize.columns", np.ascontiguousarray(network.resize.T))
        draw.node("MatMul", [x, columns], g.IMAGE)


def _convolution(draw: _Drawing, node: g.Convolution, name: str) -> None:
    weights = [draw.constant(f"{node.name}.weight", node.kernel), draw.constant(f"{node.name}.bias", node.bias)]
    (top, bottom), (left, right) = node.padding
    draw.node(
        "Conv",
        [*node.inputs, *weights],
        name,
        kernel_shape=list(node.kernel.shape[2:]),
        strides=[node.stride] * 2,
        pads=[top, left, bottom, right],
        group=node.groups,
    )


def _rectify(draw: _Drawing, node: g.Rectify, name: str) -> None:
    if math.isinf(node.ceiling):
        draw.node("Relu", node.inputs, name)
        return
    limits = [draw.constant(f"limit.{value:g}", np.array(value, np.float32)) for value in (0, node.ceiling)]
    draw.node("Clip", [*node.inputs, *limits], name)


def _max_pool(draw: _Drawing, node: g.MaxPool, name: str) -> None:
    window = {"kernel_shape": [node.size] * 2, "strides": [node.stride] * 2, "pads": [node.padding] * 4}
    draw.node("MaxPool", node.inputs, name, **window)


def _resample(draw: _Drawing, node: g.Resample, name: str) -> None:
    rows = draw.constant(f"{node.name}.rows", node.rows)
    x = draw.node("MatMul", [rows, *node.inputs], f"{node.name}.lower")
    columns = draw.constant(f"{node.name}.columns", np.ascontiguousarray(node.columns.T))
    draw.node("MatMul", [x, columns], name)


def _mean(draw: _Drawing, node: g.Mean, name: str) -> None:
    draw.node("Flatten", [draw.node("GlobalAveragePool", node.inputs, f"{node.name}.map")], name)


def _add(draw: _Drawing, node: g.Add, name: str) -> None:
    draw.node("Add", node.inputs, name)


def _hard_sigmoid(draw: _Drawing, node: g.HardSigmoid, name: str) -> None:
    draw.node("HardSigmoid", node.inputs, name, alpha=1 / 6, beta=0.5)


def _hard_swish(draw: _Drawing, node: g.HardSwish, name: str) -> None:
    draw.node("HardSwish", node.inputs, name)


def _scale(draw: _Drawing, node: g.Scale, name: str) -> None:
    x, gate = node.inputs
    shape = draw.constant("gate.shape", np.array([0, -1, 1, 1]))
    draw.node("Mul", [x, draw.node("Reshape", [gate, shape], f"{gate}.map")], name)


def _dense(draw: _Drawing, node: g.Dense, name: str) -> None:
    (x,), kernel = node.inputs, node.kernel
    if kernel.ndim == 4:
        x = draw.node("Flatten", [x], f"{node.name}.flat")
        kernel = kernel.reshape(len(kernel), -1)
    weights = [draw.constant(f"{node.name}.weight", kernel), draw.constant(f"{node.name}.bias", node.bias)]
    draw.node("Gemm", [x, *weights], name, transB=1)


WRITERS: dict[type, Callable[[_Drawing, Any, str], None]] = {
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
