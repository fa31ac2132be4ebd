"""An exported student, ready to run without JAX: by onnxruntime, or by ai-edge-litert."""

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
from kdjax.errors import InputError, reason
from kdjax.results.metrics import log_softmax


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its data type as onnxruntime calls it, its dimensions; a free one has a name."""

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What an ONNX file says of its tensors and of itself, for those who describe or serve it.

    Attributes:
        given, result: the tensors.
        facts: its metadata, in words.
    """

    given: Tensor
    result: Tensor
    facts: Mapping[str, str]


class Classifier:
    """An exported ONNX or LiteRT file, ready to run on the CPU.

    Attributes:
        path: of the file.
        classes: class names, in the order of the logits.
        size: side of the images it reads, px.
        meaning: what the training tiles were.
        trust: what validation says of its answers; None in files of earlier versions.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        """Opens `path`.

        Args:
            path: the file.
            threads: that a call of the network uses; None = as onnxruntime sees fit, and all cores of this process in
                LiteRT.

        Raises:
            InputError: its runtime is missing; no such file, none of these formats, not exported by kdjax, or class
                names that do not fit the logits.
        """
        if not os.path.isfile(path):
            held = os.path.join(path, "student.onnx")
            file = held if os.path.isfile(held) else "student.onnx, or another file of an export"
            raise InputError(f"artifact: no file {path}: give {file}")
        try:
            model = (_litert if litert.recognized(path) else _onnx)(path, threads)
            self.classes = _class_names(model.facts["classes"])
            self.size = int(model.facts["storage_size"])
            self.meaning = Meaning.from_metadata(model.facts)
            self.trust = Trust.from_metadata(model.facts)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"artifact {path}: not exported by kdjax ({type(error).__name__}: {reason(error)} in its metadata)"
            ) from error
        shape = (self.size, self.size, len(self.meaning.names))
        if model.result != (len(self.classes),) or model.given != shape:
            raise InputError(
                f"artifact {path}: its metadata name {len(self.classes)} classes and images {list(shape)}, "
                f"its graph has {model.result} logits and images {model.given}: export it again"
            )
        if model.dtype != self.meaning.dtype.name:
            raise InputError(
                f"artifact {path}: its images are tensor({model.dtype}), those of its run {self.meaning.dtype}: give "
                "the file that was exported"
            )
        self.path, self._model = path, model

    @property
    def signature(self) -> Signature:
        """The signature of an ONNX file.

        Raises:
            InputError: it is a LiteRT file.
        """
        if self._model.signature is None:
            raise InputError(f"artifact {self.path}: not an ONNX file")
        return self._model.signature

    def prepare(
        self, data: bytes, look: Callable[[Decoded], None] | None = None, *, outside: bool = False
    ) -> np.ndarray:
        """An encoded image file as (size, size, bands), decoded and resized as for training.

        Args:
            data: the file.
            look: is given the image as the file has it, where it is of the kind of the training tiles.
            outside: whether it is one of the data set, see `Meaning.stored`.

        Raises:
            DecodeError: not an image, or its numbers are of another kind than in training.
        """
        with decode.warnings_settled(), decode.opened(data, self.meaning.bands) as decoded:
            stored = self.meaning.stored(decoded, outside=outside)
            if look is not None:
                look(decoded)
            return decode.resize(stored, self.size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) float32 of images (n, size, size, bands)."""
        return self._model.logits(images)

    def answers(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities (n, classes) float64, and which images are unlike those of validation, (n,) bool.

        Raises:
            InputError: logits that are not finite, as of a damaged file. Nothing would call such an answer unknown.
        """
        logits = self.logits(images).astype(np.float64)
        if not np.isfinite(logits).all():
            raise InputError(f"artifact {self.path}: its logits are not finite: export it again")
        if self.trust is None:
            return np.exp(log_softmax(logits)), np.zeros(len(logits), bool)
        return self.trust.probabilities(logits), self.trust.unlike(logits)


@dataclasses.dataclass(frozen=True)
class _Model:
    """An opened file.

    Attributes:
        facts: its metadata.
        given, result: shapes of an image and of its logits.
        dtype: of an image.
        logits: from images to logits.
        signature: of an ONNX file.
    """

    facts: Mapping[str, str]
    given: tuple[Any, ...]
    result: tuple[Any, ...]
    dtype: str
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
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise InputError(f"artifact {path}: not a readable ONNX or LiteRT file ({reason(error)})") from error
    (given,), (result,) = map(_tensors, (session.get_inputs(), session.get_outputs()))
    facts = session.get_modelmeta().custom_metadata_map
    logits = lambda images: session.run(None, {given.name: images})[0]
    dtype = given.type.removeprefix("tensor(").removesuffix(")")
    return _Model(facts, given.shape[1:], result.shape[1:], dtype, logits, Signature(given, result, facts))


def _tensors(nodes: list[Any]) -> list[Tensor]:
    return [Tensor(node.name, node.type, tuple(node.shape)) for node in nodes]


def _litert(path: str | Path, threads: int | None) -> _Model:
    if not litert.installed():
        raise InputError(f"artifact {path}: a LiteRT file needs ai-edge-litert: pip install 'kdjax[litert]'")
    facts = litert.facts(path)
    try:
        model = litert.Model(path, threads)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"artifact {path}: not a readable LiteRT file ({reason(error)})") from error
    return _Model(facts, model.given, model.result, "uint8", model)


def _class_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("classes are not a list of names")
    return tuple(names)
