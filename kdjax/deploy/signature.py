"""What an exported ONNX file says of its tensors and of itself, for those who describe or serve it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, reason


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its data type as onnxruntime calls it, its dimensions; a free one has a name."""

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """Of a file with one input and one output.

    Attributes:
        given, result: the tensors.
        facts: its metadata, in words.
    """

    given: Tensor
    result: Tensor
    facts: Mapping[str, str]


def read_signature(path: Path) -> Signature:
    """The signature of a file that `classifier.Classifier` has opened.

    Raises:
        InputError: it is not ONNX.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise InputError(f"artifact {path}: not a readable ONNX file ({reason(error)})") from error
    (given,), (result,) = map(_tensors, (session.get_inputs(), session.get_outputs()))
    return Signature(given, result, session.get_modelmeta().custom_metadata_map)


def _tensors(nodes: list[Any]) -> list[Tensor]:
    return [Tensor(node.name, node.type, tuple(node.shape)) for node in nodes]
