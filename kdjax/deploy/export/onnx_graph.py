"""Writes a folded network as an ONNX graph of the form that PyTorch would export: NCHW, one node per operation."""

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

# Old enough for runtimes that are a few years old, new enough for quantization per channel.
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = g.INPUT, g.OUTPUT
ROW_BANDS = 4
"""Number of bands into which `row_bands` divides a resize."""


def metadata(network: g.Graph, classes: Sequence[str], meaning: Meaning) -> dict[str, str]:
    """The metadata of the model files: fields for `kdjax.deploy.predict`, and descriptions for people.

    Args:
        network: gives the sizes and the data type of the images.
        classes: class names, in the order of the logits.
        meaning: what the numbers and the size of the training tiles were.
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
    description = f"the bands {' '.join(meaning.names)}, 0 to {np.iinfo(network.dtype).max}"
    return description + (" for the values {:g} to {:g}".format(*meaning.value_range) if meaning.value_range else "")


def row_bands(resize: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits a resize of rows into a few small products, each for a band of the result and the rows that it needs.

    A row of the result depends on a few neighboring rows only, so most of the large matrix is 0, and gathering bytes is
    fast. Measured with onnxruntime, four bands take a third less time than the whole matrix.

    Args:
        resize: (target, source) float32.

    Returns:
        The rows that each band reads, (bands, rows) int64, and their weights, (bands, target / bands, rows) float32.
    """
    target, source = resize.shape
    bands = resize.reshape(math.gcd(target, ROW_BANDS), -1, source)
    used_rows = [np.flatnonzero(band.any(axis=0)) for band in bands]
    count = max(rows[-1] - rows[0] for rows in used_rows) + 1
    first = np.minimum([rows[0] for rows in used_rows], source - count)
    read_rows = first[:, None] + np.arange(count)
    return read_rows, np.take_along_axis(bands, read_rows[:, None, :], axis=2)


def build(network: g.Graph, properties: dict[str, str]) -> onnx.ModelProto:
    """The network as a checked ONNX model.

    Args:
        network: see `fold.fold`.
        properties: for the model's metadata_props, such as those of `metadata`.

    Returns:
        A model that maps images (batch, *network.image_shape) of network.dtype to logits (batch, classes) float32, for
        any batch size. Each tensor has the name of its node, except that the last one is called `OUTPUT`.
    """
    draw = _Drawing()
    _draw_image(draw, network)
    for node in network.nodes:
        WRITERS[type(node)](draw, node, OUTPUT if node is network.nodes[-1] else node.name)
    shape: list[str | int | None] = ["batch", *network.image_shape]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(network.dtype))
    logits_layer: Any = network.nodes[-1]  # a g.Dense
    graph = helper.make_graph(
        draw.nodes,
        network.model,
        [helper.make_tensor_value_info(INPUT, dtype, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(logits_layer.bias)])],
        list(draw.constants.values()),
    )
    model = helper.make_model(
        graph, producer_name="kdjax", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Drawing:
    """The nodes and constants of an ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: np.ndarray) -> str:
        """Adds a constant, unless its name exists already, and returns the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Adds a node whose only output has the node's name, and returns the name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _draw_image(draw: _Drawing, network: g.Graph) -> None:
    """Draws the resize and the subtraction of the mean, from the input to the tensor g.IMAGE."""
    (source, _, channels), size = network.image_shape, network.image_size
    if network.resize is None:
        x = draw.node("Transpose", [INPUT], "nchw", perm=[0, 3, 1, 2])
        x = draw.node("Cast", [x], "pixels", to=TensorProto.FLOAT)
        draw.node("Sub", [x, draw.constant("mean", network.mean.reshape(-1, 1, 1))], g.IMAGE)
    else:
        rows, weights = row_bands(network.resize)
        x = draw.node("Reshape", [INPUT, draw.constant("rows.shape", np.array([0, source, channels * source]))], "rows")
        x = draw.node("Gather", [x, draw.constant("bands.rows", rows)], "bands", axis=1)
        x = draw.node("Cast", [x], "pixels", to=TensorProto.FLOAT)
        x = draw.node("MatMul", [draw.constant("bands.weights", weights), x], "lower")
        # The weights of a resize sum to 1, so the mean can be subtracted before the last product. If it came after it,
        # OpenVINO 2026.4 would fuse the two, take the means of the channels for means of the columns, and refuse the
        # file. The mean is repeated over whole rows, because onnxruntime takes 20 times as long to subtract a constant
        # that is only as long as the channels.
        x = draw.node("Sub", [x, draw.constant("mean", np.tile(network.mean, source))], "centered")
        x = draw.node("Reshape", [x, draw.constant("lower.shape", np.array([0, size, source, channels]))], "lower.nhwc")
        x = draw.node("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
        # With the matrix on the right, onnxruntime computes one product for the whole batch.
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
