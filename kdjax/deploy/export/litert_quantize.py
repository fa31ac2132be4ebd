"""Quantizes a folded network to an integer-only LiteRT file: uint8 images, int8 weights, activations and logits.

Google's ai-edge-quantizer converts the float file. Its own calibration uses a moving average over batches, which
depends on their order, so the ranges over all calibration images are computed here and passed to it.

Unlike in the ONNX file, the resize is computed in integers too, because the accelerators and microcontrollers that such
files are for compute in nothing else. Its weights and its two products have 8 bits.
"""

import contextlib
import dataclasses
import io
import warnings

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import qtyping, quantizer, recipe

from kdjax.deploy import trust
from kdjax.deploy.export import litert_graph
from kdjax.deploy.export.activations import LIMITS
from kdjax.deploy.export.bias_correction import correct
from kdjax.deploy.export.equalize import equalize
from kdjax.networks.graph import Graph
from kdjax.runtime import host

BATCH = 8  # all activations of a batch are in memory at once
OUTPUT = "logits, int8: (value - zero_point) * scale, which are in the tensor's quantization; " + trust.PROBABILITIES


@dataclasses.dataclass(frozen=True)
class Settings:
    """One way to quantize.

    Attributes:
        equalized: whether to apply `equalize` first.
        rare: share of an activation's values in a batch that its range leaves out, at either end.
    """

    equalized: bool = False
    rare: float = 0.0

    def __str__(self) -> str:
        values = f"without {100 * self.rare:g} % at either end" if self.rare else "all values"
        return ", ".join([*["equalized"] * self.equalized, values])


CANDIDATES = tuple(Settings(equalized, rare) for equalized in (False, True) for rare in (0.0, 1e-4, 5e-4))


def quantize(network: Graph, images: np.ndarray, settings: Settings) -> bytes:
    """The network in 8 bits, as the content of a .tflite file.

    The weights have a scale for each output channel, and the biases are corrected.

    Args:
        network: see `fold.fold`.
        images: (n, storage_size, storage_size, 3) uint8 to calibrate with.
        settings: how to quantize.

    Raises:
        ValueError: ai-edge-quantizer gave no model, or left a tensor in floats.
    """
    network = correct(equalize(network, images) if settings.equalized else network, images)
    float_model = litert_graph.build(network, np.float32)
    converter = quantizer.Quantizer(bytearray(float_model), recipe.static_wi8_ai8())
    converter.update_quantization_recipe(".*", qtyping.TFLOperationName.INPUT, _BYTES)
    ranges = {
        name: {"min": np.full((1, 1, 1, 1), low, np.float32), "max": np.full((1, 1, 1, 1), high, np.float32)}
        for name, (low, high) in _clip_ranges(network, _ranges(float_model, images, settings.rare)).items()
    }
    # One of its progress bars cannot be turned off, and the way it opens models makes interpreters warn.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning: Enabling `experimental_preserve_all_tensors`")
        result = converter.quantize(ranges, enable_progress_report=False)
    if result.quantized_model is None:
        raise ValueError("ai-edge-quantizer gave no model")
    content = bytes(result.quantized_model)
    tensors = Interpreter(model_content=content).get_tensor_details()
    float_tensors = [tensor["name"] for tensor in tensors if tensor["dtype"] == np.float32]
    if float_tensors:
        raise ValueError(f"in floats: {', '.join(float_tensors)}")
    return content


_BYTES = qtyping.OpQuantizationConfig(
    activation_tensor_config=qtyping.TensorQuantizationConfig(
        num_bits=8, symmetric=False, dtype=qtyping.TensorDataType.UINT
    ),
    weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8),
    compute_precision=qtyping.ComputePrecision.INTEGER,
)
"""Quantization of the input: its range is that of bytes, so the scale is 1 and the zero point 0."""


def _clip_ranges(network: Graph, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Clips the ranges of tensors that only one kind of hard activation reads to its `LIMITS`."""
    clipped = dict(ranges)
    for node in network.nodes:
        readers = {type(other).__name__ for other in network.nodes if node.name in other.inputs}
        if len(readers) == 1 and (reader := readers.pop()) in LIMITS and node.name in clipped:
            least_input, most_input = LIMITS[reader]
            low, high = clipped[node.name]
            clipped[node.name] = (max(low, least_input), high if most_input is None else min(high, most_input))
    return clipped


def _ranges(model: bytes, images: np.ndarray, rare: float) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each activation, by name.

    They span the ranges of all batches, each without the share `rare` of its values at either end.
    """
    interpreter = Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        # The default delegates would not preserve all tensors.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        num_threads=host.cores(),
    )
    (input_details,) = interpreter.get_input_details()
    batch_ranges: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].astype(np.float32)
        interpreter.resize_tensor_input(input_details["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(input_details["index"], batch)
        interpreter.invoke()
        for tensor in interpreter.get_tensor_details():
            if tensor["shape_signature"][:1] == [-1]:
                values = interpreter.get_tensor(tensor["index"]).ravel()
                ends = (int(rare * len(values)), len(values) - 1 - int(rare * len(values)))
                batch_ranges.setdefault(tensor["name"], []).append(np.partition(values, ends)[[*ends]])
    ranges = {litert_graph.INPUT: (0.0, 255.0)}
    for name, ends_by_batch in batch_ranges.items():
        lows, highs = np.transpose(ends_by_batch)
        ranges.setdefault(name, (float(lows.min()), float(highs.max())))
    return ranges
