"""Runs an ONNX file in onnxruntime, reads its metadata and hashes its bytes."""

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.errors import InputError, one_line


def open_session(path: str) -> Any:
    """Opens an ONNX file in onnxruntime, on the CPU, and returns the session.

    Raises:
        InputError: the file cannot be read, or onnx or onnxruntime is not installed.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"teacher.onnx needs {' and '.join(missing)}: pip install 'kdjax[export]'")
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types, none of them public
        raise InputError(f"teacher.onnx: {path} cannot be read: {one_line(error, 200)}") from None


def run(path: str, session: Any, output: str, input_name: str, images: np.ndarray) -> np.ndarray:
    """Returns the values of one output for a batch of images.

    Args:
        path: the file, for messages.
        session: its session.
        output: name of the output.
        input_name: name of the input.
        images: in the dtype and layout that the input takes.

    Raises:
        InputError: the file fails, because its layers were made for another size or batch than its input declares.
    """
    try:
        return np.asarray(session.run([output], {input_name: images})[0])
    except Exception as error:  # onnxruntime raises many types, none of them public
        raise InputError(
            f"teacher.onnx: {path} fails for images {images.shape}: {one_line(error, 200)}: set teacher.image_size to "
            "the side that it was made for, or export it again for any batch"
        ) from None


def json_metadata(session: Any) -> dict[str, Any]:
    """Returns the fields of the file's metadata that hold JSON, parsed, by name; all others are left out."""
    metadata = {}
    for name, text in session.get_modelmeta().custom_metadata_map.items():
        with contextlib.suppress(ValueError):
            metadata[name] = json.loads(text)
    return metadata


def digest(path: str) -> str:
    """Returns the SHA-256, in hexadecimal, of a file and of every other file that holds tensors of it.

    Raises:
        InputError: a file that holds tensors is missing or cannot be read.
    """
    sha256 = hashlib.sha256(Path(path).read_bytes())
    for name in sorted(set(_external_files(path))):
        tensor_path = Path(path).parent / name
        try:
            with tensor_path.open("rb") as file:
                sha256.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(
                f"teacher.onnx: {path} has tensors in {tensor_path}, which cannot be read ({error.strerror})"
            ) from None
    return sha256.hexdigest()


def _external_files(path: str) -> Iterator[str]:
    """Yields the names of the files beside an ONNX file that hold its tensors."""
    import onnx

    def tensors(graph: Any) -> Iterator[Any]:
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for inner in (attribute.g, *attribute.graphs):
                    yield from tensors(inner)

    model = onnx.load(path, load_external_data=False)
    for tensor in tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield next(entry.value for entry in tensor.external_data if entry.key == "location")
