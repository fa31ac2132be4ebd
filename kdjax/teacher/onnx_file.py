"""An ONNX file as bytes and in onnxruntime: its digest, what it says of itself, and running it."""

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.errors import InputError, reason


def session(path: str) -> Any:
    """An ONNX file in onnxruntime, on the CPU.

    Raises:
        InputError: it cannot be read, or there is no onnxruntime.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"teacher.onnx needs {' and '.join(missing)}: pip install 'kdjax[export]'")
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds, none public
        raise InputError(f"teacher.onnx: {path} cannot be read: {reason(error, 200)}") from None


def run(path: str, session: Any, output: str, entry: str, images: np.ndarray) -> np.ndarray:
    """The values of one output for a batch of images.

    Args:
        path: the file, for messages.
        session: of it.
        output: name of the output.
        entry: name of the input.
        images: as the input takes them.

    Raises:
        InputError: the file fails: its layers were made for another size or batch than its input says.
    """
    try:
        return np.asarray(session.run([output], {entry: images})[0])
    except Exception as error:  # onnxruntime has many kinds, none public
        raise InputError(
            f"teacher.onnx: {path} fails for images {images.shape}: {reason(error, 200)}: set teacher.image_size to "
            "the side that it was made for, or export it again for any batch"
        ) from None


def facts(session: Any) -> dict[str, Any]:
    """What the file's metadata say in JSON, by their names; other texts are left out."""
    found = {}
    for name, text in session.get_modelmeta().custom_metadata_map.items():
        with contextlib.suppress(ValueError):
            found[name] = json.loads(text)
    return found


def digest(path: str) -> str:
    """SHA-256 in hexadecimal of a file and of every file that its tensors lie in.

    Raises:
        InputError: a file that it names is not there.
    """
    total = hashlib.sha256(Path(path).read_bytes())
    for name in sorted(set(_external(path))):
        beside = Path(path).parent / name
        try:
            with beside.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(
                f"teacher.onnx: {path} has tensors in {beside}, which cannot be read ({error.strerror})"
            ) from None
    return total.hexdigest()


def _external(path: str) -> Iterator[str]:
    """Names of the files that tensors of an ONNX file lie in."""
    import onnx

    def graphs(graph: Any) -> Iterator[Any]:
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for inner in (attribute.g, *attribute.graphs):
                    yield from graphs(inner)

    model = onnx.load(path, load_external_data=False)
    for tensor in graphs(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield next(one.value for one in tensor.external_data if one.key == "location")
