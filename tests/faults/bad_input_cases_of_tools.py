"""The inputs of tests/faults/bad_inputs.py for the commands of deployment."""

import dataclasses
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults.bad_input_cases import CLASSES, write_raster
from faults.bad_inputs import Case
from helpers import color_model, export_folder
from helpers.export_folder import TRUST

from kdjax.deploy.browser.__main__ import RUNTIME_FILES

Prepare = Callable[[Path, Path], None]


def cases() -> list[Case]:
    return [*of_predict(), *of_map(), *of_catalog(), *of_triton(), *of_browser()]


def model_with(**facts: Any):
    return lambda d, w: color_model.write_model(w / "m.onnx", 8, list(CLASSES), **facts)


NO_MEMBERS = b"PK\x05\x06" + bytes(18)


def cut(name: str, count: int) -> Prepare:
    """The first bytes of a model."""
    return lambda d, w: (w / name).write_bytes((d / "model.onnx").read_bytes()[:count])


def tflite(facts: bytes) -> Prepare:
    """A LiteRT file without a model, with these bytes behind."""
    return lambda d, w: (w / "cut.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(50) + facts)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("kdjax.json", content)
    return file.getvalue()


def of_predict() -> list[Case]:
    image = "{d}/tiles/field/0.png"
    rows = [
        ((), "ARTIFACT", None),
        (("{d}/model.onnx",), "IMAGES", None),
        (("/nowhere.onnx", image), "/nowhere.onnx", None),
        (("{d}/text.txt", image), "text.txt", None),
        (("{d}/empty", image), "empty", None),
        (("{d}/tiles", image), "tiles", None),
        (("{d}/model.onnx", "/nowhere.png"), "/nowhere.png", None),
        (("{d}/model.onnx", "{d}/empty_folder"), "empty_folder", None),
        (("{d}/model.onnx", image, "--top=0"), "--top", None),
        (("{d}/model.onnx", image, "--top=x"), "--top", None),
        (("{d}/model.onnx", image, "--batch=-3"), "--batch", None),
        (("{d}/model.onnx", image, "--format=xml"), "--format", None),
        (("{d}/model.onnx", image, "--frmat=csv"), "frmat", None),
        (("{w}/m.onnx", image), "m.onnx", model_with(classes="[1, 2, 3]")),
        (("{w}/m.onnx", image), "m.onnx", model_with(classes="junk")),
        (("{w}/m.onnx", image), "m.onnx", model_with(classes='["a", "b"]')),
        (("{w}/m.onnx", image), "m.onnx", model_with(storage_size="large")),
        (("{w}/m.onnx", image), "m.onnx", model_with(storage_size="0")),
        (("{w}/m.onnx", image), "m.onnx", model_with(value_range="{}")),
        (("{w}/m.onnx", image), "m.onnx", model_with(scale=np.nan)),
        (("{w}/m.onnx", image), "m.onnx", model_with(trust="[]")),
        (("{w}/m.onnx", image), "m.onnx", model_with(trust='{"temperature": -1}')),
        (("{w}/m.onnx", image), "m.onnx", model_with(**dataclasses.replace(TRUST, temperature=0.0).metadata())),
        (("{w}/m.onnx", image), "m.onnx", model_with(**dataclasses.replace(TRUST, limits={0.9: 2.0}).metadata())),
        (("{w}/m.onnx", image), "m.onnx", model_with(**dataclasses.replace(TRUST, least_confidence=7.0).metadata())),
        (("{w}/m.onnx", image, "--set=0.95"), "--set", model_with(**dataclasses.replace(TRUST, limits={}).metadata())),
        (("{w}/m.onnx", image), "m.onnx", model_with(storage_size="99999999999")),
        (("{w}/m.onnx", image), "m.onnx", model_with(bands="[1]")),
        (("", image), "artifact", None),
        (("{w}/no\nmodel.onnx", image), "model.onnx", None),
        (("{w}/export", image), "student.onnx", whole),
        (("{w}/export/student.safetensors", image), "student.safetensors", whole),
        (("{w}/export/try.html", image), "try.html", whole),
        (("{w}/loop.onnx", image), "loop.onnx", lambda d, w: (w / "loop.onnx").symlink_to(w / "loop.onnx")),
        (("{w}/cut.onnx", image), "cut.onnx", cut("cut.onnx", 200)),
        (("{w}/cut.tflite", image), "cut.tflite", tflite(b"")),
        (("{w}/cut.tflite", image), "cut.tflite", tflite(zipped(b"{"))),
        (("{w}/cut.tflite", image), "cut.tflite", tflite(zipped(b"[]"))),
        (("{d}/model.onnx", ""), "images", None),
        (("{d}/model.onnx", "{w}/loop"), "loop", lambda d, w: (w / "loop").symlink_to(w / "loop")),
        (("{d}/model.onnx", "{w}/bad.zip"), "bad.zip", lambda d, w: (w / "bad.zip").write_bytes(b"PK\x03\x04junk")),
        (("{d}/model.onnx", "{w}/none.zip"), "none.zip", lambda d, w: (w / "none.zip").write_bytes(NO_MEMBERS)),
        (("{d}/model.onnx", image, "--set=0.9"), "--set", None),
        (("{d}/model.onnx", image, "--set=0.8"), "--set", None),
        (("{d}/model.onnx", image, "--set=nan"), "--set", None),
        (("{w}/export/student.onnx", image, "--set=0.9", "--top=2"), "--top", whole),
        (("{d}/model.onnx", image, "--top=1.5"), "--top", None),
        (("{d}/model.onnx", image, "--batch=" + "9" * 5000), "--batch", None),
    ]
    found = [Case("predict", "deploy", arguments, word, prepare) for arguments, word, prepare in rows]
    for name in ("cut.png", "text.txt", "empty"):
        found.append(Case("predict", "deploy", ("{d}/model.onnx", f"{{d}}/{name}"), name, status=1))
    fifo = lambda d, w: os.mkfifo(w / "pipe.png")
    return [*found, Case("predict", "deploy", ("{d}/model.onnx", "{w}/pipe.png"), "pipe.png", fifo, status=1)]


def of_map() -> list[Case]:
    good = ("{d}/model.onnx", "{d}/raster.tif", "{w}/out.tif")
    bands = lambda count, **options: lambda d, w: write_raster(w / "r.tif", count, **options)
    own = ("{d}/model.onnx", "{w}/r.tif", "{w}/out.tif")
    rows = [
        ((), "ARTIFACT", None),
        (good[:2], "OUT", None),
        (("/nowhere.onnx", *good[1:]), "/nowhere.onnx", None),
        (("{d}/text.txt", *good[1:]), "text.txt", None),
        ((good[0], "/nowhere.tif", good[2]), "/nowhere.tif", None),
        ((good[0], "{d}/text.txt", good[2]), "text.txt", None),
        ((good[0], "{d}/empty", good[2]), "empty", None),
        ((good[0], "{d}/tiles", good[2]), "tiles", None),
        ((*good[:2], "{d}/raster.tif"), "raster", None),
        ((*good[:2], "{w}/out.png"), "out.png", None),
        ((*good[:2], "{w}/no/out.tif"), "no", None),
        ((*good[:2], "{w}/out.tif"), "out.tif", lambda d, w: (w / "out.tif").mkdir()),
        ((*good[:2], "/proc/out.tif"), "/proc/out.tif", None),
        ((*good, "--tile=0"), "--tile", None),
        ((*good, "--tile=41"), "--tile", None),
        ((*good, "--tile=x"), "--tile", None),
        ((*good, "--tile=8", "--stride=9"), "--stride", None),
        ((*good, "--stride=-1"), "--stride", None),
        ((*good, "--bands=1,2"), "--bands", None),
        ((*good, "--bands=0,1,2"), "--bands", None),
        ((*good, "--bands=1,2,9"), "bands", None),
        ((*good, "--value-range=5,1"), "--value-range", None),
        ((*good, "--value-range=nan,1"), "--value-range", None),
        ((*good, "--value-range=0,100"), "--value-range", None),
        ((*good, "--batch=0"), "--batch", None),
        (own, "r.tif", bands(2)),
        (own, "r.tif", bands(3, dtype="uint16")),
        (own, "r.tif", bands(3, dtype="float32")),
        (own, "r.tif", bands(3, dtype="complex64")),
        (own, "r.tif", bands(3, place=False)),
        (own, "--bands=3,2,1", bands(3, names=("B2", "B3", "B4"))),
        (own, "r.tif", lambda d, w: (w / "r.tif").write_bytes((d / "raster.tif").read_bytes()[:900])),
        (own, "r.tif", lambda d, w: os.mkfifo(w / "r.tif")),
        (("{w}/m.onnx", *good[1:]), "m.onnx", model_with(classes="{}")),
    ]
    return [Case("map", "landuse", arguments, word, prepare) for arguments, word, prepare in rows]


def whole(d: Path, w: Path) -> None:
    export_folder.write_export(w / "export")


def spoiled(name: str, content: bytes | None) -> Prepare:
    """An export of which one file is another, or none."""

    def write(d: Path, w: Path) -> None:
        whole(d, w)
        (w / "export" / name).unlink()
        if content is not None:
            (w / "export" / name).write_bytes(content)

    return write


def of_catalog() -> list[Case]:
    rows = [
        ((), "EXPORT", None),
        (("/nowhere",), "/nowhere", None),
        (("{d}/tiles",), "tiles", None),
        (("{d}/text.txt",), "text.txt", None),
        (("{w}/export", "--bbox=1,2"), "--bbox", whole),
        (("{w}/export", "--bbox=9,48,8,47"), "--bbox", whole),
        (("{w}/export", "--time=now"), "--time", whole),
        (("{w}/export", "--license=my own"), "--license", whole),
        (("{w}/export", "--dataset=https://x.y/z"), "--dataset", whole),
        (("{w}/export",), "parity.json", spoiled("parity.json", b"\xff")),
        (("{w}/export",), "network", spoiled("parity.json", b'{"student": {}}')),
        (("{w}/export",), "student.onnx", spoiled("student.onnx", b"")),
        (("{w}/export",), "student.int8.onnx", spoiled("student.int8.onnx", None)),
        (("{w}/export",), "README.md", spoiled("README.md", b"\xff")),
        (("{w}/export",), "README.md", spoiled("README.md", b"---\nmodel-index: 3\n---\n")),
    ]
    return [Case("catalog", "deploy", arguments, word, prepare) for arguments, word, prepare in rows]


def of_triton() -> list[Case]:
    taken = lambda d, w: (w / "models" / "student").mkdir(parents=True)
    rows = [
        ((), "ARTIFACT", None),
        (("{d}/model.onnx",), "REPOSITORY", None),
        (("/nowhere.onnx", "{w}/models"), "/nowhere.onnx", None),
        (("{d}/text.txt", "{w}/models"), "text.txt", None),
        (("{d}/model.onnx", "{d}/text.txt"), "text.txt", None),
        (("{d}/model.onnx", "{w}/no/models"), "models", None),
        (("{d}/model.onnx", "{w}/models"), "student", taken),
        (("{d}/model.onnx", "{w}/models", "--name=a/b"), "--name", None),
        (("{d}/model.onnx", "{w}/models", "--max-batch=none"), "--max-batch", None),
        (("{d}/model.onnx", "/proc/models"), "/proc/models", None),
    ]
    return [Case("triton", "deploy", arguments, word, prepare) for arguments, word, prepare in rows]


def of_browser() -> list[Case]:
    def runtime(export: Prepare = whole, **changed: bytes | None) -> Prepare:
        """Files of the runtime in `dist`, some by their ending changed; None leaves them out."""

        def prepare(d: Path, w: Path) -> None:
            export(d, w)
            (w / "dist").mkdir()
            for name in RUNTIME_FILES:
                content = changed.get(name.rpartition(".")[2], b"code")
                if content is not None:
                    (w / "dist" / name).write_bytes(content)

        return prepare

    def of_another(d: Path, w: Path) -> None:
        whole(d, w)
        color_model.write_model(w / "export" / "student.onnx", 8, list(CLASSES))

    page = lambda content: runtime(spoiled("try.html", content))
    own = ("{w}/export", "--runtime={w}/dist")
    rows = [
        ((), "EXPORT", None),
        (("",), "EXPORT", None),
        (("/nowhere",), "/nowhere", None),
        (("{d}/tiles",), "tiles", None),
        (("{d}/text.txt",), "text.txt", None),
        (("{w}/no\nexport",), "export", None),
        (("{w}/export", "{d}/tiles"), "tiles", runtime()),
        ((*own, "--prot=1"), "--prot", runtime()),
        ((*own, "--port="), "--port", runtime()),
        ((*own, "--port=80.5"), "--port", runtime()),
        ((*own, "--port=nan"), "--port", runtime()),
        ((*own, "--port=-1"), "--port", runtime()),
        ((*own, "--port=65536"), "--port", runtime()),
        ((*own, "--port=" + "9" * 40), "--port", runtime()),
        (("{w}/export", "--runtime="), "--runtime", whole),
        (("{w}/export", "--runtime=/nowhere"), "--runtime", whole),
        (("{w}/export", "--runtime={d}/text.txt"), "--runtime", whole),
        (own, "--runtime", runtime(wasm=None)),
        (own, "--runtime", runtime(wasm=b"")),
        (own, "--runtime", runtime(mjs=None)),
        (own, "try.html", page(None)),
        (own, "try.html", page(b"")),
        (own, "try.html", page(b"\xff")),
        (own, "try.html", page(b"<!doctype html>")),
        (own, "try.html", page(b'<script id="facts" type="application/json">{</script>')),
        (own, "try.html", page(b'<script id="facts" type="application/json">[]</script>')),
        (own, "student.onnx", runtime(spoiled("student.onnx", None))),
        (own, "student.onnx", runtime(spoiled("student.onnx", b""))),
        (own, "student.onnx", runtime(of_another)),
    ]
    return [Case("browser", "deploy", arguments, word, prepare) for arguments, word, prepare in rows]
