"""Describes a student for catalogs of models: `python -m kdjax.deploy.catalog EXPORT --license=… --bbox=… --time=…`.

Writes EXPORT/stac_item.json (see `stac`). Also writes the license and the hub's data sets to the head of
EXPORT/README.md, which the Hugging Face hub reads. The rest of the model card stays, including what people have added.

This is a command of its own and not part of every export: a run does not know license, place and time, these may change
without a new export, and a model for a drone needs no catalog. Needs onnxruntime, but not JAX.
"""

import argparse
import datetime
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kdjax.deploy import stac
from kdjax.deploy.classifier import Classifier
from kdjax.errors import InputError, one_line
from kdjax.runtime import files
from kdjax.runtime.command import Parser, run_command, say

ITEM, CARD, FIGURES, MODEL, LABELS = "stac_item.json", "README.md", "parity.json", "student.onnx", "labels.json"
OPTIONAL_FILES = ("try.html", "timm_names.json")
"""Files that only some exports have."""
EXPORT_AGAIN = "export it again"

HUB_LICENSES = {
    name.lower(): name
    for name in ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0")
    + ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-BY-3.0", "CC-BY-SA-3.0")
    + ("MPL-2.0", "Unlicense")
}
"""License on the hub, in lower case -> SPDX identifier. Any other license is `other` on the hub, with its name."""

SPDX = re.compile(r"[A-Za-z0-9.+-]+")


def _license(text: str) -> str:
    if not SPDX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an SPDX identifier, such as CC-BY-4.0")
    return text


def _bbox(text: str) -> tuple[float, ...]:
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        west = south = east = north = math.nan
    # As in RFC 7946, west is larger than east if the box crosses 180 degrees. A box wider than that is a mistake.
    crosses_180 = 0 < west - east and (east - west) % 360 <= 180
    if not (
        -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and (west < east or crosses_180)
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not WEST,SOUTH,EAST,NORTH in degrees, as 5.9,45.8,10.5,47.8")
    return west, south, east, north


def _time(text: str) -> tuple[str, ...]:
    try:
        first, last = map(datetime.date.fromisoformat, text.split("/"))
    except ValueError:
        first, last = datetime.date.max, datetime.date.min
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST/LAST day, as 2016-04-01/2016-09-30")
    return f"{first}T00:00:00Z", f"{last}T23:59:59Z"


def _dataset(text: str) -> str:
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a data set on the hub, such as blanchon/UC_Merced")
    return text


def card_with(text: str, license: str | None, datasets: Sequence[str]) -> tuple[str, str | None]:
    """Writes a license and data sets to the head of a model card.

    Args:
        text: the card.
        license: an SPDX identifier; None keeps the card's.
        datasets: ids of data sets on the hub; () keeps the card's.

    Returns:
        The card; and the license that it names now: None if it names none, `other` if that is not an SPDX identifier.

    Raises:
        ValueError: the card has no head, or its head is damaged.
    """
    from huggingface_hub import ModelCard

    if not text.startswith("---\n"):
        raise ValueError("it does not begin with a head between two lines of ---")
    try:
        card = ModelCard(text)
    except yaml.YAMLError as error:
        raise ValueError(f"its head is not YAML: {one_line(error)}") from error
    if license:
        on_hub = license.lower() in HUB_LICENSES
        card.data["license"] = license.lower() if on_hub else "other"
        card.data["license_name"] = None if on_hub else license
    if datasets:
        card.data["datasets"] = list(datasets)
    license = license or card.data.get("license_name") or card.data.get("license")
    if license in (None, "unknown"):
        return str(card), None
    if not isinstance(license, str) or not SPDX.fullmatch(license):
        return str(card), "other"
    return str(card), HUB_LICENSES.get(license.lower(), license)


def _document(export: Path) -> dict[str, Any]:
    document = files.read_json(export / FIGURES, f"EXPORT: give the folder of an export, or {EXPORT_AGAIN}")
    required = ("student", "network", "data", "artifacts")
    missing = [name for name in required if not isinstance(document, dict) or not isinstance(document.get(name), dict)]
    if missing:
        raise InputError(
            f"{export / FIGURES} lacks {', '.join(missing)}, as those of earlier versions do: {EXPORT_AGAIN}"
        )
    return document


def _describe_files(export: Path, names: Sequence[str]) -> list[stac.File]:
    described = []
    for name in names:
        try:
            with (export / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            described.append(stac.File(name, (export / name).stat().st_size, digest))
        except OSError as error:
            raise InputError(f"{export / name} cannot be read ({one_line(error)}): {EXPORT_AGAIN}") from error
    return described


def main(argv: Sequence[str]) -> None:
    """Writes the item and the head of the card as `argv` requests.

    Raises:
        InputError: the user can correct `argv` or the folder. Nothing is written in that case.
    """
    parser = Parser(prog="python -m kdjax.deploy.catalog", description="Describes an exported student for catalogs.")
    parser.add_argument("export", metavar="EXPORT", type=Path, help="folder of the export, WORKDIR/export")
    parser.add_argument("--license", type=_license, help="license of the model, an SPDX identifier such as CC-BY-4.0")
    parser.add_argument(
        "--bbox", type=_bbox, help="where it works, WEST,SOUTH,EAST,NORTH in degrees; default: where the tiles lie"
    )
    parser.add_argument("--time", type=_time, help="FIRST/LAST day its images were taken, as 2016-04-01/2016-09-30")
    parser.add_argument(
        "--dataset", type=_dataset, action="append", default=[], help="a data set on the hub that it was trained on"
    )
    options = parser.parse_args(argv)
    export: Path = options.export
    document = _document(export)
    classifier = Classifier(export / MODEL)
    optional = [name for name in OPTIONAL_FILES if (export / name).is_file()]
    exported = _describe_files(export, [*document["artifacts"], LABELS, FIGURES, *optional])
    for file in exported:
        figures = document["artifacts"].get(file.name)
        if isinstance(figures, dict) and (
            figures.get("bytes", file.size) != file.size or figures.get("sha256", file.sha256) != file.sha256
        ):
            raise InputError(
                f"{export / file.name} is not the file measured in {FIGURES}: put that back, or {EXPORT_AGAIN}"
            )
    try:
        card, license = card_with((export / CARD).read_text(encoding="utf-8"), options.license, options.dataset)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{export / CARD} is not the model card of an export ({one_line(error)}): {EXPORT_AGAIN}"
        ) from error
    written = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    bounds, bounds_source = options.bbox or (), "what the model was said to be for"
    if not bounds and document["data"].get("bounds"):
        bounds, bounds_source = tuple(document["data"]["bounds"]), "that of the middles of its tiles"
    exported.append(stac.File(CARD, len(card.encode()), hashlib.sha256(card.encode()).hexdigest()))
    context = stac.Context(written, options.time or (), bounds, bounds_source, license)
    try:
        item = stac.item(document, classifier, exported, context)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{export}: {FIGURES} and {MODEL} lack what is needed ({one_line(error)}): {EXPORT_AGAIN}"
        ) from error
    files.write_text(export / CARD, card)
    files.write_json(export / ITEM, item)
    say(f"{export / ITEM}: {item['properties']['description']}")
    say(f"{export / CARD}: license {license or 'unknown; give it by --license'}")


if __name__ == "__main__":
    run_command(main)
