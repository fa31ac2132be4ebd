"""Runs an exported student without JAX: with onnxruntime, or with ai-edge-litert."""

import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data import decode
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import Decoded
from kdjax.deploy import litert
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError, one_line
from kdjax.results.metrics import log_softmax


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of an ONNX graph.

    Attributes:
        name: in the graph.
        type: data type, as onnxruntime names it.
        shape: dimensions; a dynamic one is given by its name.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """The tensors and the metadata of an ONNX file, for code that describes or serves it.

    Attributes:
        input, output: the image tensor and the logit tensor.
        metadata: the file's custom metadata, see `onnx_graph.metadata`.
    """

    input: Tensor
    output: Tensor
    metadata: Mapping[str, str]


class Classifier:
    """An exported ONNX or LiteRT file, ready to run on the CPU.

    Attributes:
        path: of the file.
        classes: class names, in the order of the logits.
        size: side of the images that the network takes, px.
        meaning: what the numbers and the size of the training tiles were.
        trust: calibration and limits fitted on validation; None for files of earlier versions.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        """Opens `path`.

        Args:
            path: the file.
            threads: number of threads for a call of the network. None leaves it to onnxruntime; LiteRT then uses all
                cores of this process.

        Raises:
            InputError: the runtime is not installed, or the file does not exist, is in neither format, was not
                exported by kdjax, or has metadata that do not match its graph.
        """
        if not os.path.isfile(path):
            student = os.path.join(path, "student.onnx")
            advice = student if os.path.isfile(student) else "student.onnx, or another file of an export"
            raise InputError(f"artifact: no file {path}: give {advice}")
        try:
            model = (_litert if litert.recognized(path) else _onnx)(path, threads)
            self.classes = _class_names(model.metadata["classes"])
            self.size = int(model.metadata["storage_size"])
            self.meaning = Meaning.from_metadata(model.metadata)
            self.trust = Trust.from_metadata(model.metadata)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"artifact {path}: not exported by kdjax ({type(error).__name__}: {one_line(error)} in its metadata)"
            ) from error
        shape = (self.size, self.size, len(self.meaning.names))
        if model.logits_shape != (len(self.classes),) or model.image_shape != shape:
            raise InputError(
                f"artifact {path}: its metadata name {len(self.classes)} classes and images {list(shape)}, "
                f"its graph has {model.logits_shape} logits and images {model.image_shape}: export it again"
            )
        if model.image_dtype != self.meaning.dtype.name:
            raise InputError(
                f"artifact {path}: its images are tensor({model.image_dtype}), those of its run {self.meaning.dtype}: "
                "give the file that was exported"
            )
        self.path, self._model = path, model

    @property
    def signature(self) -> Signature:
        """The tensors and the metadata of an ONNX file.

        Raises:
            InputError: the file is a LiteRT file.
        """
        if self._model.signature is None:
            raise InputError(f"artifact {self.path}: not an ONNX file")
        return self._model.signature

    def prepare(
        self, data: bytes, inspect: Callable[[Decoded], None] | None = None, *, outside: bool = False
    ) -> np.ndarray:
        """Decodes and resizes an encoded image file as for training, to (size, size, bands).

        Args:
            data: content of the file.
            inspect: called with the decoded image before it is resized, if its numbers are of the same kind as in
                training.
            outside: whether the image belongs to the training data set, whose images may lie outside of the value
                range; see `Meaning.to_stored`.

        Raises:
            DecodeError: the file is not an image, or its numbers are of another kind than in training.
        """
        with decode.decoding_warnings(), decode.open_image(data, self.meaning.bands) as decoded:
            stored = self.meaning.to_stored(decoded, outside=outside)
            if inspect is not None:
                inspect(decoded)
            return decode.resize(stored, self.size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) float32 of images (n, size, size, bands)."""
        return self._model.logits(images)

    def answers(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities (n, classes) float64, and which images are unlike those of validation, (n,) bool.

        Raises:
            InputError: the logits are not finite, as those of a damaged file. No limit would mark them as unknown.
        """
        logits = self.logits(images).astype(np.float64)
        if not np.isfinite(logits).all():
            raise InputError(f"artifact {self.path}: its logits are not finite: export it again")
        if self.trust is None:
            return np.exp(log_softmax(logits)), np.zeros(len(logits), bool)
        return self.trust.probabilities(logits), self.trust.unlike(logits)


@dataclasses.dataclass(frozen=True)
class _Model:
    """An opened file of either format.

    Attributes:
        metadata: see `onnx_graph.metadata`.
        image_shape, logits_shape: shapes of one image and of its logits.
        image_dtype: NumPy's name of the data type of the images.
        logits: maps images to logits.
        signature: None for a LiteRT file.
    """

    metadata: Mapping[str, str]
    image_shape: tuple[Any, ...]
    logits_shape: tuple[Any, ...]
    image_dtype: str
    logits: Callable[[np.ndarray], np.ndarray]
    signature: Signature | None = None


def _onnx(path: str | Path, threads: int | None) -> _Model:
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError("predict needs onnxruntime: pip install 'kdjax[export]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise InputError(f"artifact {path}: not a readable ONNX or LiteRT file ({one_line(error)})") from error
    (images_in,), (logits_out,) = map(_tensors, (session.get_inputs(), session.get_outputs()))
    metadata = session.get_modelmeta().custom_metadata_map
    logits = lambda images: session.run(None, {images_in.name: images})[0]
    dtype = images_in.type.removeprefix("tensor(").removesuffix(")")
    signature = Signature(images_in, logits_out, metadata)
    return _Model(metadata, images_in.shape[1:], logits_out.shape[1:], dtype, logits, signature)


def _tensors(nodes: list[Any]) -> list[Tensor]:
    return [Tensor(node.name, node.type, tuple(node.shape)) for node in nodes]


def _litert(path: str | Path, threads: int | None) -> _Model:
    if not litert.installed():
        raise InputError(f"artifact {path}: a LiteRT file needs ai-edge-litert: pip install 'kdjax[litert]'")
    metadata = litert.read_metadata(path)
    try:
        model = litert.Model(path, threads)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"artifact {path}: not a readable LiteRT file ({one_line(error)})") from error
    return _Model(metadata, model.image_shape, model.logits_shape, "uint8", model)


def _class_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("classes are not a list of names")
    return tuple(names)
