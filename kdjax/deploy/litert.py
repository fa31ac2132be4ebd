"""LiteRT (TFLite) files of an export: what they say of themselves, and their logits by ai-edge-litert.

The facts are a zip archive behind the model, which is where the format keeps files that go with a model: any zip reader
finds them (`unzip -p student.tflite kdjax.json`), and interpreters do not look there.
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
FACTS = "kdjax.json"


def recognized(path: str | Path) -> bool:
    """Whether a file is of this format, by its content."""
    with open(path, "rb") as file:
        return file.read(8)[4:] == MAGIC


def installed() -> bool:
    """Whether such files can be run here."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def with_facts(content: bytes, facts: Mapping[str, str]) -> bytes:
    """A model with facts behind it."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as held:
        # A ZipInfo by itself is of 1980, so that the same student gives the same bytes.
        held.writestr(zipfile.ZipInfo(FACTS), json.dumps(facts, ensure_ascii=False, indent=1))
    return file.getvalue()


def facts(path: str | Path) -> dict[str, str]:
    """What `with_facts` wrote.

    Raises:
        ValueError: nothing that can be read.
    """
    try:
        with zipfile.ZipFile(path) as held:
            found = json.loads(held.read(FACTS))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"no {FACTS} behind the model") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"{FACTS} holds no facts")
    return found


class Model:
    """A file that is ready to run on the CPU.

    Attributes:
        given: shape of an image, (height, width, channels).
        result: shape of its logits, (classes,).
    """

    def __init__(self, source: str | Path | bytes, threads: int | None = None):
        """Opens a file or its content; all cores of this process are used where `threads` is not given.

        Raises:
            ValueError, RuntimeError: not a model, of other inputs and outputs than an export's, or damaged.
        """
        from ai_edge_litert.interpreter import Interpreter

        threads = threads or host.cores()
        named = {"model_content": source} if isinstance(source, bytes) else {"model_path": os.fspath(source)}
        self._interpreter = Interpreter(**named, num_threads=threads)
        (self._input,), (output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if self._input["dtype"] is not np.uint8:
            raise ValueError(f"images are {np.dtype(self._input['dtype'])}")
        self._output, (self._scale, self._zero) = output["index"], output["quantization"]
        self.given, self.result = (tuple(map(int, one["shape"][1:])) for one in (self._input, output))
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
        return (values.astype(np.float32) - self._zero) * np.float32(self._scale)
