"""A folded network as a LiteRT file of integers alone: bytes in, int8 weights and activations, int8 logits out.

Google's ai-edge-quantizer turns the float file into it. Its own calibration takes a moving average over batches, which
depends on their order; it is given the ranges of all calibration images instead.

Unlike in the ONNX file the resize is in integers, too: the accelerators and microcontrollers that such files are for
have nothing else. Its weights and its two results have 8 bits.
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
        equalized: `equalize` first.
        rare: the share of an activation's values in a batch, at either end, that its range leaves out.
    """

    equalized: bool = False
    rare: float = 0.0

    def __str__(self) -> str:
        kept = f"without {100 * self.rare:g} % at either end" if self.rare else "all values"
        return ", ".join([*["equalized"] * self.equalized, kept])


CANDIDATES = tuple(Settings(equalized, rare) for equalized in (False, True) for rare in (0.0, 1e-4, 5e-4))


def quantize(network: Graph, images: np.ndarray, settings: Settings) -> bytes:
    """The content of a .tflite file; weights have a scale for each output channel, and biases are corrected.

    Args:
        network: see `fold.fold`.
        images: (n, storage_size, storage_size, 3) uint8 to calibrate with.
        settings: how.

    Raises:
        ValueError: something was left in floats.
    """
    network = correct(equalize(network, images) if settings.equalized else network, images)
    floats = litert_graph.build(network, np.float32)
    work = quantizer.Quantizer(bytearray(floats), recipe.static_wi8_ai8())
    work.update_quantization_recipe(".*", qtyping.TFLOperationName.INPUT, _BYTES)
    ranges = {
        name: {"min": np.full((1, 1, 1, 1), low, np.float32), "max": np.full((1, 1, 1, 1), high, np.float32)}
        for name, (low, high) in _limited(network, _ranges(floats, images, settings.rare)).items()
    }
    # One of its progress bars cannot be turned off, and it opens models in a way that interpreters warn of.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning: Enabling `experimental_preserve_all_tensors`")
        result = work.quantize(ranges, enable_progress_report=False)
    if result.quantized_model is None:
        raise ValueError("ai-edge-quantizer gave no model")
    content = bytes(result.quantized_model)
    tensors = Interpreter(model_content=content).get_tensor_details()
    left = [one["name"] for one in tensors if one["dtype"] == np.float32]
    if left:
        raise ValueError(f"in floats: {', '.join(left)}")
    return content


_BYTES = qtyping.OpQuantizationConfig(
    activation_tensor_config=qtyping.TensorQuantizationConfig(
        num_bits=8, symmetric=False, dtype=qtyping.TensorDataType.UINT
    ),
    weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8),
    compute_precision=qtyping.ComputePrecision.INTEGER,
)
"""Of the images: with the range of the bytes, their scale is 1 and their zero 0."""


def _limited(network: Graph, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ranges with those of tensors that only hard activations read cut to `LIMITS`."""
    found = dict(ranges)
    for node in network.nodes:
        readers = {type(other).__name__ for other in network.nodes if node.name in other.inputs}
        if len(readers) == 1 and (reader := readers.pop()) in LIMITS and node.name in found:
            least, most = LIMITS[reader]
            low, high = found[node.name]
            found[node.name] = (max(low, least), high if most is None else min(high, most))
    return found


def _ranges(model: bytes, images: np.ndarray, rare: float) -> dict[str, tuple[float, float]]:
    """Least and largest value of each activation, by name: the widest range of a batch without what is rare in it."""
    interpreter = Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,  # which would not preserve them
        num_threads=host.cores(),
    )
    (given,) = interpreter.get_input_details()
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].astype(np.float32)
        interpreter.resize_tensor_input(given["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        for tensor in interpreter.get_tensor_details():
            if tensor["shape_signature"][:1] == [-1]:
                values = interpreter.get_tensor(tensor["index"]).ravel()
                ends = (int(rare * len(values)), len(values) - 1 - int(rare * len(values)))
                found.setdefault(tensor["name"], []).append(np.partition(values, ends)[[*ends]])
    ranges = {litert_graph.INPUT: (0.0, 255.0)}
    for name, each in found.items():
        lows, highs = np.transpose(each)
        ranges.setdefault(name, (float(lows.min()), float(highs.max())))
    return ranges
