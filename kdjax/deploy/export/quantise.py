"""A folded network in 8 bits: candidates, calibrated on training images; the caller chooses among them on validation.

Weights are int8 and activations uint8, as QuantizeLinear/DequantizeLinear pairs that onnxruntime turns into integer
kernels: after ReLU6 there are no negative values to keep a bit for, and unsigned times signed is what x86 multiplies
fastest. ReLU6 itself costs nothing: it is the range of the integers. The resize stays in floats.

MobileNetV2 is the network that naive 8 bits harm: after folding, the filters of one layer differ in size by orders of
magnitude (Nagel et al., arXiv 1906.04721). A scale for each output channel of the weights mends that. What is left are
the activations, which share one scale for all channels; `equalise` and the percentile calibration are for them.
"""

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from kdjax.deploy.export import onnx_graph
from kdjax.deploy.export.fold import Convolution, Network

QUANTISED = ["Conv", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"]
CALIBRATION_IMAGES = 256
CALIBRATION_BATCH = 8  # all activations of a batch are in memory at once


@dataclasses.dataclass(frozen=True)
class Settings:
    """One way to quantise.

    Attributes:
      equalised: `equalise` first.
      per_channel: a scale for each output channel of the weights, else one for the whole tensor.
      calibration: 'minmax' or 'percentile' (99.99 % of an activation's values) of the calibration images.
      reduce_range: weights of 7 bits. On x86 CPUs without VNNI the sums of 8-bit products can saturate.
    """

    equalised: bool = False
    per_channel: bool = True
    calibration: str = "minmax"
    reduce_range: bool = False


CANDIDATES = (
    Settings(per_channel=False),
    Settings(),
    Settings(calibration="percentile"),
    Settings(equalised=True),
    Settings(equalised=True, calibration="percentile"),
    Settings(equalised=True, reduce_range=True),
)
"""The first is the naive one. Entropy calibration chose what 'minmax' did, int8 activations gave the same accuracy more
slowly, and a stem or head in floats changed nothing (all seen on UC Merced), so these are not tried each time."""


def equalise(network: Network, images: np.ndarray) -> Network:
    """The same function with the channels of every linear bottleneck brought to like sizes.

    Cross-layer equalisation (Nagel et al., arXiv 1906.04721, equation 11), with one scale a channel for everything that
    writes a bottleneck and everything that reads it: the residual additions tie these together. It is exact, as nothing
    but additions lies between. The writers' weights have a scale for each of these channels anyway, so the size of the
    activations takes their place, as in SmoothQuant (Xiao et al., arXiv 2211.10438, equation 4 with alpha = 1/2).

    The pairs of layers around a ReLU6 are left alone: scaled, each channel would need a ceiling of its own, for which
    there is no integer kernel.

    Args:
      network: see `fold.fold`.
      images: (n, storage_size, storage_size, 3) uint8, whose activations are measured.
    """
    layers = {layer.name: layer for layer in _convolutions(network)}
    bottlenecks = list(_bottlenecks(network))
    largest = _largest(network, images, [tensor for _, _, tensors in bottlenecks for tensor in tensors])
    for writers, readers, tensors in bottlenecks:
        written = np.max([largest[tensor] for tensor in tensors], axis=0)
        read = np.max([np.abs(layers[name].kernel).max((0, 2, 3)) for name in readers], axis=0)
        # A channel that is dead on one side stays as it is.
        scale = np.sqrt(np.divide(written, read, out=np.ones_like(read), where=(written > 0) & (read > 0)))
        for name in writers:
            layer = layers[name]
            layers[name] = dataclasses.replace(
                layer, kernel=layer.kernel / scale[:, None, None, None], bias=layer.bias / scale
            )
        for name in readers:
            layers[name] = dataclasses.replace(layers[name], kernel=layers[name].kernel * scale[None, :, None, None])
    return dataclasses.replace(
        network,
        blocks=tuple(
            dataclasses.replace(block, convolutions=tuple(layers[layer.name] for layer in block.convolutions))
            for block in network.blocks
        ),
        last=layers[network.last.name],
    )


def quantise(network: Network, images: np.ndarray, settings: Settings, properties: dict[str, str]) -> onnx.ModelProto:
    """The network in 8 bits.

    Args:
      network: see `fold.fold`.
      images: (n, storage_size, storage_size, 3) uint8 to calibrate with; a multiple of CALIBRATION_BATCH counts.
      settings: how.
      properties: go into the model's metadata_props.
    """
    # onnxruntime asks for models it has prepared itself; there is nothing left to prepare in this one.
    prepared = {"onnx.quant.pre_process": "onnxruntime.quant"}
    graph = onnx_graph.build(equalise(network, images) if settings.equalised else network, prepared)
    method = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[settings.calibration]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        quantize_static(
            graph,
            path,
            _Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
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


def _convolutions(network: Network) -> Iterator[Convolution]:
    yield network.stem
    for block in network.blocks:
        yield from block.convolutions
    yield network.last


def _bottlenecks(network: Network) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """For each bottleneck: the layers that write it, those that read it, and its tensors in the graph, by name."""
    writers: list[str] = []
    readers: list[str] = []
    tensors: list[str] = []
    linear = False  # the stem's output, which a narrow network may add to, is rectified
    for number, block in enumerate(network.blocks, 1):
        project = block.convolutions[-1].name
        readers.append(block.convolutions[0].name)
        if not block.residual:
            if linear:
                yield writers, readers, tensors
            writers, readers, tensors, linear = [], [], [], True
        writers.append(project)
        tensors += [project, onnx_graph.sum_name(number)] if block.residual else [project]
    if linear:
        yield writers, [*readers, network.last.name], tensors


def _largest(network: Network, images: np.ndarray, tensors: list[str]) -> dict[str, np.ndarray]:
    """The largest absolute value of each channel of these tensors over the images, (C,) float32."""
    model = onnx_graph.build(network, {})
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest: dict[str, np.ndarray] = {}
    for start in range(0, len(images), CALIBRATION_BATCH):
        values = session.run(tensors, {onnx_graph.INPUT: images[start : start + CALIBRATION_BATCH]})
        for name, value in zip(tensors, values, strict=True):
            value = np.abs(value).max((0, 2, 3))
            largest[name] = np.maximum(largest.get(name, value), value)
    return largest
