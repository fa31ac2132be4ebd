"""A folded network as an ONNX graph, shaped as PyTorch would write it: NCHW, one node a layer."""

import json
import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import kdjax
from kdjax.deploy.export.fold import CEILING, Convolution, Network

# Old enough for the runtimes of some years ago, new enough for quantisation by channel.
OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "images", "logits"
BANDS = 4


def metadata(network: Network, classes: Sequence[str], value_range: Sequence[float]) -> dict[str, str]:
    """What the model files say of themselves: for `kdjax.deploy.predict`, and in words for people.

    Args:
      network: for its sizes.
      classes: class names, in the order of the logits.
      value_range: (low, high) that 16-bit and float images are mapped by, () where there were none.
    """
    side, size = network.storage_size, network.image_size
    return {
        "kdjax_version": kdjax.__version__,
        "classes": json.dumps(classes, ensure_ascii=False),
        "storage_size": str(side),
        "image_size": str(size),
        "value_range": json.dumps(value_range),
        "input": f"uint8, (batch, {side}, {side}, 3), RGB, 0 to 255; resize to {size} px and normalisation are inside",
        "resize": (
            "decode (EXIF orientation applied, alpha dropped, grey and palette made RGB), then Pillow's Lanczos filter "
            f"to {side} x {side} px; an image that is not square is squeezed, not cropped"
        ),
        "output": "logits, float32; their softmax gives the probabilities of the classes",
    }


def sum_name(number: int) -> str:
    """Name of the tensor that the residual addition of a block (counted from 1) gives."""
    return f"features.{number}"


def bands(resize: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A resize of rows as products of a few small matrices, each with the rows that its band of the result needs.

    A row of the result reads a few neighbouring rows, so most of the one large matrix is 0; and bytes are quick to
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


def build(network: Network, properties: dict[str, str]) -> onnx.ModelProto:
    """The network as a checked ONNX model.

    Args:
      network: see `fold.fold`.
      properties: go into the model's metadata_props, such as `metadata`.

    Returns:
      A model from images (batch, storage_size, storage_size, 3) uint8 to logits (batch, classes) float32; the batch is
      free.
    """
    nodes, constants = [], []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    def node(kind: str, inputs: list[str], name: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def convolution(x: str, layer: Convolution) -> str:
        side = layer.kernel.shape[-1]
        weights = [constant(f"{layer.name}.weight", layer.kernel), constant(f"{layer.name}.bias", layer.bias)]
        x = node(
            "Conv",
            [x, *weights],
            layer.name,
            kernel_shape=[side] * 2,
            strides=[layer.stride] * 2,
            pads=[side // 2] * 4,
            group=layer.groups,
        )
        return node("Clip", [x, zero, ceiling], f"{layer.name}.relu6") if layer.rectified else x

    zero, ceiling = constant("zero", np.float32(0)), constant("ceiling", np.float32(CEILING))
    source, size = network.storage_size, network.image_size
    if network.resize is None:
        x = node("Transpose", [INPUT], "nchw", perm=[0, 3, 1, 2])
        x = node("Cast", [x], "pixels", to=TensorProto.FLOAT)
    else:
        read, weights = bands(network.resize)
        x = node("Reshape", [INPUT, constant("rows.shape", np.array([0, source, 3 * source]))], "rows")
        x = node("Gather", [x, constant("bands.rows", read)], "bands", axis=1)
        x = node("Cast", [x], "pixels", to=TensorProto.FLOAT)
        x = node("MatMul", [constant("bands.weights", weights), x], "lower")
        x = node("Reshape", [x, constant("lower.shape", np.array([0, size, source, 3]))], "lower.nhwc")
        x = node("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
        # A product with a matrix on the right is one product for the whole batch.
        x = node("MatMul", [x, constant("resize.columns", np.ascontiguousarray(network.resize.T))], "resized")
    x = node("Sub", [x, constant("mean", network.mean.reshape(3, 1, 1))], "centred")
    x = convolution(x, network.stem)
    for number, block in enumerate(network.blocks, 1):
        y = x
        for layer in block.convolutions:
            y = convolution(y, layer)
        x = node("Add", [x, y], sum_name(number)) if block.residual else y
    x = convolution(x, network.last)
    x = node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "features")
    head = [constant("classifier.1.weight", network.weight), constant("classifier.1.bias", network.bias)]
    node("Gemm", [x, *head], OUTPUT, transB=1)
    shape = ["batch", network.storage_size, network.storage_size, 3]
    graph = helper.make_graph(
        nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(network.bias)])],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="kdjax", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model
