"""Quantizes a folded network to 8 bits for onnxruntime.

There are several candidate settings, calibrated on training images; the caller chooses one on validation.

Weights are int8 and activations uint8, as QuantizeLinear/DequantizeLinear pairs that onnxruntime turns into integer
kernels. Activations are unsigned because there are no negative values after ReLU6, and because x86 multiplies unsigned
by signed bytes fastest. ReLU6 itself costs nothing: it becomes the range of the integers. The resize stays in floats.

Naive quantization harms MobileNetV2 in particular: after folding, the filters of one layer differ in size by orders of
magnitude (Nagel et al., arXiv 1906.04721). A scale for each output channel of the weights solves that. The activations
still share one scale for all channels; `equalize` and percentile calibration reduce the damage there.
`bias_correction` removes the shift of a layer's mean output that rounding the weights causes.

onnxruntime has no integer kernel for MobileNetV3's hard swish. It is computed in floats between two conversions, so 8
bits make the file smaller but not necessarily faster. We tried to express it in integers, as a minimum and a product,
and that took about as long.
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
        equalized: whether to apply `equalize` first.
        per_channel: whether each output channel of the weights has a scale, and biases are corrected. Otherwise the
            whole tensor has one scale, and biases stay as they are.
        calibration: range of an activation over the calibration images: 'minmax', or 'percentile' for 99.99 % of its
            values.
        reduce_range: whether weights have 7 bits. On x86 CPUs without VNNI, sums of 8-bit products can saturate.
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
"""The first is naive quantization.

Other settings were tried on UC Merced and are left out: entropy calibration chose the same ranges as 'minmax', int8
activations gave the same accuracy more slowly, and a stem or head in floats changed nothing.
"""


def quantize(network: Graph, images: np.ndarray, settings: Settings, properties: dict[str, str]) -> onnx.ModelProto:
    """The network in 8 bits.

    Args:
        network: see `fold.fold`.
        images: (n, *network.image_shape) to calibrate with, in batches of `CALIBRATION_BATCH`.
        settings: how to quantize.
        properties: for the model's metadata_props.
    """
    # Without this mark onnxruntime warns that it has not preprocessed the model, which needs no preprocessing.
    preprocessed = {"onnx.quant.pre_process": "onnxruntime.quant"}
    model = _clip_inputs(onnx_graph.build(_before_rounding(network, images, settings), preprocessed))
    method = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[settings.calibration]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        quantize_static(
            model,
            path,
            _Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            # The stride makes both methods process one batch after another.
            extra_options={"CalibStridedMinMax": 1, "CalibPercentile": 99.99},
        )
        model = onnx.load(path)
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    return model


def _before_rounding(network: Graph, images: np.ndarray, settings: Settings) -> Graph:
    """The network in floats, equalized and with corrected biases as `settings` say."""
    if settings.equalized:
        network = equalize(network, images)
    if settings.per_channel:
        network = correct(network, images, STEPS_OF_7_BITS if settings.reduce_range else bias_correction.STEPS)
    return network


def _clip_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Clips the inputs of hard activations to `LIMITS`, in place, which does not change the function.

    The quantizer makes the limits the range of the integers, as it does for ReLU6, so no integers are wasted on inputs
    whose outputs are all the same.
    """
    nodes = list(model.graph.node)
    values = {value for node in nodes for value in LIMITS.get(node.op_type, ()) if value is not None}
    constant_name = lambda value: "" if value is None else f"hard.{value:g}"
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), constant_name(value)) for value in sorted(values)
    )
    del model.graph.node[:]
    for node in nodes:
        if node.op_type in LIMITS:
            clipped = f"{node.input[0]}.limited"
            inputs = [node.input[0], *map(constant_name, LIMITS[node.op_type])]
            model.graph.node.append(helper.make_node("Clip", inputs, [clipped], name=clipped))
            node.input[0] = clipped
        model.graph.node.append(node)
    return model


class _Batches(CalibrationDataReader):
    """Gives the calibration images in batches; onnxruntime can ask for a range of batches."""

    def __init__(self, images: np.ndarray):
        self._images = images
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self._images) // CALIBRATION_BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._remaining = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._remaining, None)
        if batch is None:
            return None
        return {onnx_graph.INPUT: self._images[batch * CALIBRATION_BATCH : (batch + 1) * CALIBRATION_BATCH]}
