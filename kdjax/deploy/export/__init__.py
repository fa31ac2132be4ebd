"""A finished student as files for deployment: safetensors, ONNX, LiteRT and StableHLO; each measured."""

import importlib.util
from collections.abc import Sequence

from kdjax.errors import InputError

PACKAGES = ("onnx", "onnxruntime", "flatbuffers")
LITERT_PACKAGES = ("ai_edge_litert", "ai_edge_quantizer")


def check(*, litert: bool) -> None:
    """Whether students can be exported here; to be asked before they are trained.

    Args:
        litert: as LiteRT files, too.

    Raises:
        InputError: an optional package is missing (names the extra to install).
    """
    _check("export", PACKAGES, "export")
    if litert:
        _check("run.litert", LITERT_PACKAGES, "litert")


def check_images(*, litert: bool, bands: bool) -> None:
    """Whether a run's images can be exported so; to be asked before its students are trained.

    Args:
        litert: as LiteRT files, too.
        bands: whether the images have other bands than red, green and blue.

    Raises:
        InputError: they cannot.
    """
    if litert and bands:
        raise InputError(
            "run.litert: LiteRT files take red, green and blue, and these images have other bands: leave it out"
        )


def _check(what: str, packages: Sequence[str], extra: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'kdjax[{extra}]'")
