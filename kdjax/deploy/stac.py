"""Builds the STAC item of an exported student for catalogs of models, with the Machine Learning Model extension.

Fields without the prefix `mlm:` (https://stac-extensions.github.io/mlm/) are common metadata of STAC 1.1. Neither has a
field for accuracy, which is in `kdjax:metrics`. This module does no I/O.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from kdjax.deploy.classifier import Classifier
from kdjax.deploy.landuse_map import legend
from kdjax.results.text import printable

VERSION = "1.1.0"
MLM = "https://stac-extensions.github.io/mlm/v1.6.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

TASKS = ["scene-classification", "classification"]

FORMATS: dict[str, dict[str, Any]] = {
    ".onnx": {
        "type": "application/octet-stream; framework=onnx",
        "roles": ["mlm:model", "mlm:compiled", "data"],
        "mlm:artifact_type": "onnx",
        "mlm:framework": "ONNX",
    },
    ".stablehlo": {
        "type": "application/octet-stream; framework=jax",
        "roles": ["mlm:model", "mlm:compiled", "data"],
        "mlm:artifact_type": "jax.export",
        "mlm:framework": "JAX",
    },
    ".tflite": {
        "type": "application/octet-stream; framework=tflite",
        "roles": ["mlm:model", "mlm:compiled", "data"],
        "mlm:artifact_type": "tflite",
        "mlm:framework": "TensorFlow",
    },
    ".safetensors": {
        "type": "application/octet-stream; framework=pytorch",
        "roles": ["mlm:weights", "data"],
        "mlm:framework": "PyTorch",
    },
    ".html": {"type": "text/html", "roles": ["overview"]},
    ".md": {"type": "text/markdown", "roles": ["metadata"]},
    ".json": {"type": "application/json", "roles": ["metadata"]},
}
"""Suffix of a file -> fields of its asset. A file of tensors is not a model, because it needs code to run."""

OTHER = {"type": "application/octet-stream", "roles": ["data"]}


@dataclasses.dataclass(frozen=True)
class Context:
    """Facts that are in no file of the export.

    Attributes:
        written: when the item is written, RFC 3339, UTC.
        time: when the images were taken, first and last moment, RFC 3339; () = not known.
        bounds: west, south, east and north, degrees, of the area that the model is for; west > east if it crosses 180
            degrees; () = not known.
        bounds_source: what these bounds are, in words.
        license: an SPDX identifier; None = not known.
    """

    written: str
    time: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    bounds_source: str = ""
    license: str | None = None


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the export: its name, its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


def item(
    document: Mapping[str, Any],
    classifier: Classifier,
    exported: Sequence[File],
    context: Context,
) -> dict[str, Any]:
    """The item, as plain JSON data.

    Without bounds the geometry is null, which in STAC means that there is no location; the whole earth would be a false
    claim. STAC requires a time: if that of the images is not known, it is the time at which the item is written. The
    description tells which of these cases applies.

    Args:
        document: the content of parity.json.
        classifier: student.onnx.
        exported: the files that become assets; they must lie beside the item.
        context: facts that are in none of these files.
    """
    student, network = document["student"], document["network"]
    name = f"kdjax-{_slug(student['run'])}"
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [MLM, FILE],
        "id": f"{name}-{_slug(student['arm'])}-{student['seed']}",
        **_geometry(context.bounds),
        "properties": {
            "title": f"{printable(student['run'])}: {network['model']} for {len(classifier.classes)} land-use classes",
            "description": _description(document, context),
            **_time(context),
            **({"license": context.license} if context.license else {}),
            **({"gsd": classifier.meaning.pixel_size_m} if classifier.meaning.pixel_size_m else {}),
            "bands": [{"name": band} for band in classifier.meaning.names],
            "mlm:name": name,
            "mlm:architecture": network["model"],
            "mlm:tasks": TASKS,
            "mlm:framework": "JAX",
            "mlm:total_parameters": network["params"],
            **_pretrained(network["weights"]),
            "mlm:accelerator": None,
            "mlm:input": [_input(classifier)],
            "mlm:output": _outputs(classifier),
            "mlm:hyperparameters": _hyperparameters(classifier, student),
            "kdjax:metrics": {side: student[side] for side in ("validation", "test")},
        },
        "links": [],
        "assets": {file.name: _asset(file, document["artifacts"], classifier.meaning.names) for file in exported},
    }


def _slug(text: str) -> str:
    """A name of ASCII letters, digits, '_' and '-' for a model or a class; never empty."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-_") or "unnamed"


def _geometry(bounds: tuple[float, ...]) -> dict[str, Any]:
    if not bounds:
        return {"geometry": None}
    west, south, east, north = bounds
    parts = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]  # RFC 7946, section 3.1.9
    rings = [[[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in parts]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings[0]}
    if len(rings) > 1:
        geometry = {"type": "MultiPolygon", "coordinates": rings}
    return {"geometry": geometry, "bbox": list(bounds)}


def _time(context: Context) -> dict[str, Any]:
    if not context.time:
        return {"datetime": context.written}
    start, end = context.time
    return {"datetime": None, "start_datetime": start, "end_datetime": end, "created": context.written}


def _description(document: Mapping[str, Any], context: Context) -> str:
    location = f"The area is {context.bounds_source}." if context.bounds else "Where its images lie is not known."
    time = (
        "The time is that of its images."
        if context.time
        else "When its images were taken is not known: the time is that at which this item was written."
    )
    data, test = document["data"], document["student"]["test"]
    return (
        f"Trained on {printable(data['name'])}; {100 * test['top1']:.2f} % of {test['count']} test images right. "
        f"{location} {time}"
    )


def _pretrained(weights: Mapping[str, Any] | None) -> dict[str, Any]:
    if not weights:
        return {"mlm:pretrained": False, "mlm:pretrained_source": None}
    source = weights["source"] if weights["commit"] else PurePosixPath(weights["source"]).name
    return {"mlm:pretrained": True, "mlm:pretrained_source": printable(source)}


def _input(classifier: Classifier) -> dict[str, Any]:
    signature, value_mapping = classifier.signature, ""
    if classifier.meaning.value_range:
        low, high = classifier.meaning.value_range
        value_mapping = (
            f" Of 16-bit and float images, {low:g} to {high:g} become 0 to {np.iinfo(classifier.meaning.dtype).max}."
        )
    return {
        "name": signature.input.name,
        "description": f"{signature.metadata['input']}. Before that: {signature.metadata['resize']}.{value_mapping}",
        "bands": list(classifier.meaning.names),
        "input": {
            "shape": [-1, *signature.input.shape[1:]],
            "dim_order": ["batch", "height", "width", "bands"],
            "data_type": classifier.meaning.dtype.name,
        },
        # The file or the function below does both; the extension has no name for Pillow's Lanczos filter.
        "value_scaling": None,
        "resize_type": None,
        "pre_processing_function": {"format": "python", "expression": "kdjax.deploy.classifier:Classifier.prepare"},
    }


def _outputs(classifier: Classifier) -> list[dict[str, Any]]:
    """The logits and, if a map can hold so many classes, the map, whose cells may also be unknown or without data."""
    names = _class_names(classifier.classes)
    classes = [
        {"value": value, "name": name, "description": title, "color_hint": "{:02X}{:02X}{:02X}".format(*color)}
        for (value, title, color), name in zip(legend.entries(classifier.classes)[:-1], names, strict=True)
    ]
    logits = {
        "name": classifier.signature.output.name,
        "description": classifier.signature.metadata["output"],
        "tasks": TASKS,
        "result": {"shape": [-1, len(classes)], "dim_order": ["batch", "class"], "data_type": "float32"},
        "classification:classes": classes,
        "post_processing_function": {"format": "python", "expression": "kdjax.deploy.classifier:Classifier.answers"},
    }
    if len(classes) > legend.UNKNOWN:
        return [logits]
    other_values = [
        {"value": legend.UNKNOWN, "name": "unknown", "description": "no answer that should be relied on"},
        {"value": legend.NODATA, "name": "nodata", "description": "no data"},
    ]
    map_output = {
        "name": "map",
        "description": "of a raster, by kdjax.deploy.landuse_map; not an output of the model files themselves",
        "tasks": TASKS,
        "result": {"shape": [-1, -1], "dim_order": ["height", "width"], "data_type": "uint8"},
        "classification:classes": [*classes, *other_values],
        "post_processing_function": {"format": "python", "expression": "kdjax.deploy.landuse_map.__main__:main"},
    }
    return [logits, map_output]


def _class_names(classes: Sequence[str]) -> list[str]:
    """A `_slug` for each class; all names are different, and none is one of the map's other values."""
    used = {"unknown", "nodata"}
    names = []
    for k, title in enumerate(classes):
        name = _slug(title)
        while name in used:
            name = f"{name}-{k}"
        used.add(name)
        names.append(name)
    return names


def _hyperparameters(classifier: Classifier, student: Mapping[str, Any]) -> dict[str, Any]:
    """The student's origin, and the limits of student.onnx for its answers; other files have their own limits."""
    parameters = {"arm": printable(student["arm"]), "seed": student["seed"], "step": student["step"]}
    trust = classifier.trust
    if trust is not None:
        parameters |= {
            "limits_of": PurePosixPath(classifier.path).name,
            "temperature": trust.temperature,
            "least_confidence": trust.least_confidence,
            "most_energy": trust.most_energy,
        }
    return parameters


def _asset(file: File, artifacts: Mapping[str, Any], bands: Sequence[str]) -> dict[str, Any]:
    figures, fields = artifacts.get(file.name), FORMATS.get(PurePosixPath(file.name).suffix, OTHER)
    return {
        "href": f"./{file.name}",
        "title": file.name,
        **fields,
        # STAC allows bands in an item only if an asset has bands too.
        **({"bands": [{"name": band} for band in bands]} if "mlm:model" in fields["roles"] else {}),
        "file:size": file.size,
        "file:checksum": f"1220{file.sha256}",  # a multihash: 12 = SHA-256, 20 = 32 bytes
        **({"kdjax:test_top1": figures["top1"]} if figures else {}),
    }
