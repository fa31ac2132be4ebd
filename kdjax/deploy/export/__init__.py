"""Exports a finished student for deployment, as safetensors, ONNX, LiteRT and StableHLO, and measures each file."""

import importlib.util
from collections.abc import Sequence

from kdjax.errors import InputError

PACKAGES = ("onnx", "onnxruntime", "flatbuffers")
LITERT_PACKAGES = ("ai_edge_litert", "ai_edge_quantizer")


def check(*, litert: bool) -> None:
    """Checks that the packages for an export are installed. To be called before students are trained.

    Args:
        litert: whether LiteRT files are requested too.

    Raises:
        InputError: an optional package is missing; the message names the extra to install.
    """
    _check("export", PACKAGES, "export")
    if litert:
        _check("run.litert", LITERT_PACKAGES, "litert")


def check_images(*, litert: bool, bands: bool) -> None:
    """Checks that the requested formats can take a run's images. To be called before its students are trained.

    Args:
        litert: whether LiteRT files are requested.
        bands: whether the images have other bands than red, green and blue.

    Raises:
        InputError: LiteRT files are requested for images with other bands.
    """
    if litert and bands:
        raise InputError(
            "run.litert: LiteRT files take red, green and blue, and these images have other bands: leave it out"
        )


def check_student(arms: Sequence[str], seeds: Sequence[int], arm: str | None, seed: int | None) -> None:
    """Checks that a run has the requested student.

    Args:
        arms, seeds: those of the run.
        arm, seed: the request; None = not given.

    Raises:
        InputError: the arm or seed is unknown.
    """
    for field, value, available in (("arm", arm, arms), ("seed", seed, seeds)):
        if value is not None and value not in available:
            raise InputError(f"--{field}: the run has no {field} {value!r}; it has {', '.join(map(str, available))}")


def _check(subject: str, packages: Sequence[str], extra: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{subject} needs {', '.join(missing)}: pip install 'kdjax[{extra}]'")
