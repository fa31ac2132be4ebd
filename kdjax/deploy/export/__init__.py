"""A finished student as files for deployment: safetensors, ONNX in float32 and int8, StableHLO; each measured."""

import importlib.util
from typing import Any

from kdjax.errors import InputError

MODEL = "mobilenet_v2"
PACKAGES = ("onnx", "onnxruntime", "flatbuffers")


def check(config: Any) -> None:
    """Whether the students of a run of this configuration can be exported here; to be asked before they are trained.

    Raises:
        InputError: an optional package is missing (names the extra to install), or the student is no MobileNetV2.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs {', '.join(missing)}: pip install 'kdjax[export]'")
    if config.student.model != MODEL:
        raise InputError(f"student.model is {config.student.model!r}: only {MODEL} can be exported")
