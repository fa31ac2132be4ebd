"""A folded network in 8 bits: candidates, calibrated on training images; the caller chooses among them on validation.

Weights are int8 and activations uint8, as QuantizeLinear/DequantizeLinear pairs that onnxruntime turns into integer
kernels: after ReLU6 there are no negative values to keep a bit for, and unsigned times signed is what x86 multiplies
fastest. ReLU6 itself costs nothing: it is the range of the integers. The resize stays in floats.

MobileNetV2 is the network that naive 8 bits harm: after folding, the filters of one layer differ in size by orders of
magnitude (Nagel et al., arXiv 1906.04721). A scale for each output channel of the weights helps. What is left are
the activations, which share one scale for all channels; `equalize` and the percentile calibration are for them.
`bias_correction` takes back what rounding the weights moves the mean of an output by.

onnxruntime has no integer kernel for MobileNetV3's hard swish: it is computed in floats between two conversions, so
that 8 bits make the file smaller but need not make it faster. In integers it would be a minimum and a product; tried,
that took about as long.
"""

import contextlib
import dataclasses
import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from kdjax.deploy.export import bias_correction, onnx_graph
from kdjax.deploy.export.activations import LIMITS
from kdjax.deploy.export.bias_correction import correct
from kdjax.deploy.export.equalize import equalize
from kdjax.networks.graph import Graph

QUANTIZED = [
    *("Conv", "Relu", "Clip", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"),
    *("HardSigmoid", "HardSwish", "Mul", "Reshape"),
]
CALIBRATION_BATCH = 8  # all activations of a batch are in memory at once
STEPS_OF_7_BITS = 64  # onnxruntime's reduced range is ±64, not ±63


@dataclasses.dataclass(frozen=True)
class Settings:
    """One way to quantize.

    Attributes:
        equalized: `equalize` first.
        per_channel: a scale for each output channel of the weights and corrected biases; else one scale for the whole
            tensor, and the biases as they are.
        calibration: 'minmax' or 'percentile' (99.99 % of an activation's values) of the calibration images.
        reduce_range: weights of 7 bits. On x86 CPUs without VNNI the sums of 8-bit products can saturate.
    """

    equalized: bool = False
    per_channel: bool = True
    calibration: str = "minmax"
    reduce_range: bool = False

    def __str__(self) -> str:
        return ", ".join(
            [
                *["equalized"] * self.equalized,
                "per channel" if self.per_channel else "per tensor",
                self.calibration,
                *["7-bit weights"] * self.reduce_range,
            ]
        )


CANDIDATES = (
    Settings(per_channel=False),
    Settings(),
    Settings(calibration="percentile"),
    Settings(equalized=True),
    Settings(equalized=True, calibration="percentile"),
    Settings(equalized=True, reduce_range=True),
)
"""The first is the naive one. Entropy calibration chose what 'minmax' did, int8 activations gave the same accuracy more
slowly, and a stem or head in floats changed nothing (all seen on UC Merced), so these are not tried each time."""


def quantize(network: Graph, images: np.ndarray, settings: Settings, properties: dict[str, str]) -> onnx.ModelProto:
    """The network in 8 bits.

    Args:
        network: see `fold.fold`.
        images: (n, *network.image_shape) to calibrate with; a multiple of CALIBRATION_BATCH counts.
        settings: how.
        properties: go into the model's metadata_props.
    """
    # onnxruntime asks for models it has prepared itself; there is nothing left to prepare in this one.
    prepared = {"onnx.quant.pre_process": "onnxruntime.quant"}
    graph = _limited(onnx_graph.build(_in_floats(network, images, settings), prepared))
    method = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[settings.calibration]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        quantize_static(
            graph,
            path,
            _Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            # Stride: one batch after the other, for both methods.
            extra_options={"CalibStridedMinMax": 1, "CalibPercentile": 99.99},
        )
        model = onnx.load(path)
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    return model


def _in_floats(network: Graph, images: np.ndarray, settings: Settings) -> Graph:
    """The network that is rounded."""
    if settings.equalized:
        network = equalize(network, images)
    if settings.per_channel:
        network = correct(network, images, STEPS_OF_7_BITS if settings.reduce_range else bias_correction.STEPS)
    return network


def _limited(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the inputs of hard activations cut to `LIMITS`, in place: the function stays the same.

    The quantizer makes such a cut the range of the integers, as it does with ReLU6, so that none of them is spent on
    values that all become 0.
    """
    nodes = list(model.graph.node)
    values = {value for node in nodes for value in LIMITS.get(node.op_type, ()) if value is not None}
    name = lambda value: "" if value is None else f"hard.{value:g}"
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name(value)) for value in sorted(values)
    )
    del model.graph.node[:]
    for node in nodes:
        if node.op_type in LIMITS:
            limited = f"{node.input[0]}.limited"
            inputs = [node.input[0], *map(name, LIMITS[node.op_type])]
            model.graph.node.append(helper.make_node("Clip", inputs, [limited], name=limited))
            node.input[0] = limited
        model.graph.node.append(node)
    return model


class _Batches(CalibrationDataReader):
    """Images in batches, to be read in ranges of batches."""

    def __init__(self, images: np.ndarray):
        self._images = images
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self._images) // CALIBRATION_BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._left, None)
        if batch is None:
            return None
        return {onnx_graph.INPUT: self._images[batch * CALIBRATION_BATCH : (batch + 1) * CALIBRATION_BATCH]}
