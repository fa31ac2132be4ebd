"""LiteRT (TFLite) files of an export: reads and writes their metadata, and runs them with ai-edge-litert.

The metadata are in a zip archive appended to the model, where the format keeps the files associated with a model. Any
zip reader finds them (`unzip -p student.tflite kdjax.json`), and interpreters ignore them.
"""

import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdjax.runtime import host

MAGIC = b"TFL3"
METADATA_FILE = "kdjax.json"


def recognized(path: str | Path) -> bool:
    """Whether a file is in this format, judged by its content."""
    with open(path, "rb") as file:
        return file.read(8)[4:] == MAGIC


def installed() -> bool:
    """Whether ai-edge-litert is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The content of a model file with metadata appended."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        # The default date of a ZipInfo is fixed (1980), so the same student gives the same bytes.
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), json.dumps(metadata, ensure_ascii=False, indent=1))
    return file.getvalue()


def read_metadata(path: str | Path) -> dict[str, str]:
    """Reads what `with_metadata` appended.

    Raises:
        ValueError: there are no metadata, or they are not a mapping of strings.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA_FILE))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"no {METADATA_FILE} appended to the model") from error
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{METADATA_FILE} is not an object of strings")
    return metadata


class Model:
    """A model file, ready to run on the CPU.

    Attributes:
        image_shape: shape of an image, (height, width, channels).
        logits_shape: shape of its logits, (classes,).
    """

    def __init__(self, source: str | Path | bytes, threads: int | None = None):
        """Opens a model, given as a path or as the content of a file.

        Args:
            source: the path or the content.
            threads: number of threads; None = one for each core of this process.

        Raises:
            ValueError, RuntimeError: this is not a model, it is damaged, or its inputs and outputs are not those of an
                export.
        """
        from ai_edge_litert.interpreter import Interpreter

        threads = threads or host.cores()
        model = {"model_content": source} if isinstance(source, bytes) else {"model_path": os.fspath(source)}
        self._interpreter = Interpreter(**model, num_threads=threads)
        (self._input,), (output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if self._input["dtype"] is not np.uint8:
            raise ValueError(f"images are {np.dtype(self._input['dtype'])}")
        self._output, (self._scale, self._zero_point) = output["index"], output["quantization"]
        self.image_shape, self.logits_shape = (tuple(map(int, tensor["shape"][1:])) for tensor in (self._input, output))
        self._batch = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) float32 of images (n, height, width, channels) uint8."""
        if len(images) != self._batch:
            self._interpreter.resize_tensor_input(self._input["index"], images.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._batch = len(images)
        self._interpreter.set_tensor(self._input["index"], images)
        self._interpreter.invoke()
        values = self._interpreter.get_tensor(self._output)
        if values.dtype == np.float32:
            return values
        return (values.astype(np.float32) - self._zero_point) * np.float32(self._scale)
