"""A finished student as files for deployment: safetensors, ONNX in float32 and int8, StableHLO; each measured."""

import importlib.util

from kdjax.errors import InputError

PACKAGES = ("onnx", "onnxruntime", "flatbuffers")


def check() -> None:
    """Whether students can be exported here; to be asked before they are trained.

    Raises:
        InputError: an optional package is missing (names the extra to install).
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs {', '.join(missing)}: pip install 'kdjax[export]'")
