"""The command that classifies images with an exported student, without JAX; and what bad input ends in."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import refused

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from helpers.color_model import write_model  # noqa: E402
from scipy.special import softmax  # noqa: E402

from kdjax.deploy import predict  # noqa: E402
from kdjax.deploy.trust import Trust  # noqa: E402

ROOT = Path(__file__).parents[2]
SIDE = 36
CLASSES = ("desert", "forest", "lake")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("export") / "student.onnx", SIDE, CLASSES)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Seven images of odd sizes in two folders, among them a gray one and one with alpha."""
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    for number in range(7):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (*rng.integers(20, 60, 2), 3), dtype=np.uint8))
        image.convert({0: "L", 1: "RGBA"}.get(number, "RGB")).save(path)
    return folder


def expected(artifact, paths):
    """By hand: Pillow, onnxruntime, SciPy."""
    images = [Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for path in paths]
    session = onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])
    return softmax(session.run(None, {"images": np.stack([np.asarray(image) for image in images])})[0], axis=1)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_folder_as_json(artifact, tiles, capsys, batch):
    predict.main([str(artifact), str(tiles), "--format=json", "--top=99", f"--batch={batch}"])
    document = json.loads(capsys.readouterr().out)
    paths = sorted(tiles.rglob("*.png"))
    assert [one["image"] for one in document] == [str(path) for path in paths]
    for one, row in zip(document, expected(artifact, paths), strict=True):
        assert [best["class"] for best in one["classes"]] == [CLASSES[k] for k in np.argsort(-row)]
        assert [best["probability"] for best in one["classes"]] == pytest.approx(sorted(row)[::-1], abs=2e-6)


TRUST = Trust(0.1, {0.9: 0.45, 0.95: 0.8}, 0.5, -3.0)
"""Temperature, sets, and what is unknown; the made-up logits of noise are near 4."""


@pytest.fixture
def trusted(tmp_path):
    return write_model(tmp_path / "trusted.onnx", SIDE, CLASSES, **TRUST.metadata())


def test_probabilities_are_calibrated_and_sets_and_unknown_are_told(trusted, artifact, tiles, tmp_path, capsys):
    paths = sorted(tiles.rglob("*.png"))
    logits = np.log(expected(artifact, paths))
    calibrated = softmax(logits / 0.1, axis=1)
    predict.main([str(trusted), str(tiles), "--format=json", "--top=3"])
    document = json.loads(capsys.readouterr().out)
    for one, row in zip(document, calibrated, strict=True):
        assert [best["probability"] for best in one["classes"]] == pytest.approx(sorted(row)[::-1], abs=2e-6)
        assert one["unknown"] is bool(row.max() < 0.5)
    assert {one["unknown"] for one in document} == {True, False}
    for level, limit in TRUST.limits.items():
        predict.main([str(trusted), str(tiles), "--format=json", f"--set={level}"])
        for one, row in zip(json.loads(capsys.readouterr().out), calibrated, strict=True):
            order = np.argsort(-row)
            count = 1 + int((np.cumsum(row[order])[:-1] <= limit).sum())
            assert [best["class"] for best in one["classes"]] == [CLASSES[k] for k in order[:count]]
    predict.main([str(trusted), str(tiles), "--format=csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["unknown"] for row in rows] == ["yes" if row.max() < 0.5 else "no" for row in calibrated]
    predict.main([str(trusted), str(tiles)])
    lines = capsys.readouterr().out.splitlines()
    assert ["unknown: " in line for line in lines] == [row["unknown"] == "yes" for row in rows]
    assert len({line.index(" %") for line in lines}) == 1  # the columns stand below each other
    predict.main([str(trusted), str(tiles), "--answer-all"])
    said = capsys.readouterr()
    assert "unknown" not in said.out and not said.err
    few = write_model(tmp_path / "few.onnx", SIDE, CLASSES, **dataclasses.replace(TRUST, images=12).metadata())
    predict.main([str(few), str(tiles)])
    assert capsys.readouterr().err.startswith(f"warning: {few}: with 12 validation images, ")


def test_json_and_csv_of_nothing_are_still_json_and_csv(artifact, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    for form, expected in (("json", "[]"), ("csv", "image,rank,class,probability,unknown")):
        with pytest.raises(SystemExit) as stop:
            predict.main([str(artifact), str(tmp_path / "broken.png"), f"--format={form}"])
        said = capsys.readouterr()
        assert stop.value.code == 1 and said.out.strip() == expected and "1 unreadable image" in said.err


def test_dark_images_are_unlike_the_others(trusted, tmp_path, capsys):
    Image.new("RGB", (SIDE, SIDE), (60, 0, 0)).save(tmp_path / "dark.png")  # confident, but its energy is −2.2
    predict.main([str(trusted), str(tmp_path / "dark.png")])
    assert "unknown: desert" in capsys.readouterr().out


def test_files_without_trust_have_no_sets_and_damaged_ones_are_refused(artifact, tiles, tmp_path, capfd):
    assert "exported by an earlier version" in refused(capfd, predict.main, artifact, tiles, "--set=0.9")
    assert "--set: invalid choice" in refused(capfd, predict.main, artifact, tiles, "--set=0.8")
    assert "--top: not allowed with argument --set" in refused(
        capfd, predict.main, artifact, tiles, "--set=0.9", "--top=2"
    )
    other = write_model(tmp_path / "one.onnx", SIDE, CLASSES, **Trust(1.0, {0.9: 0.5}, 0.5, 0.0).metadata())
    assert "exported by an earlier version" in refused(capfd, predict.main, other, tiles, "--set=0.95")
    path = write_model(tmp_path / "damaged.onnx", SIDE, CLASSES, trust="{}")
    said = refused(capfd, predict.main, path, tiles)
    assert "not exported by kdjax" in said and "trust" in said


def test_logits_that_are_not_finite_are_no_answer(tiles, tmp_path, capfd):
    path = write_model(tmp_path / "nan.onnx", SIDE, CLASSES, scale=np.nan, **TRUST.metadata())
    assert "nan.onnx: its logits are not finite" in refused(capfd, predict.main, path, tiles)


def test_a_zip_and_files_as_csv_and_table(artifact, tiles, tmp_path, capsys):
    paths = sorted(tiles.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(tiles))
    predict.main([str(artifact), str(tmp_path / "tiles.zip"), str(paths[2]), "--format=csv", "--top=2"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 8
    assert rows[0]["image"] == f"{tmp_path}/tiles.zip/a/0.png" and rows[-1]["image"] == str(paths[2])
    winners = expected(artifact, [*paths, paths[2]]).argmax(1)
    assert [row["class"] for row in rows[::2]] == [CLASSES[k] for k in winners]
    predict.main([str(artifact), *map(str, paths)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [str(path), CLASSES[k]] for path, k in zip(paths, winners[:-1], strict=True)
    ]


def test_no_jax_is_needed(artifact, tiles):
    code = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorflow', 'onnx'): sys.modules[name] = None\n"
        "from kdjax.deploy import predict; from kdjax.runtime.command import run_command; run_command(predict.main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, artifact, tiles], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == 7


def without(model, key):
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != key}
    onnx.helper.set_model_props(model, kept)


def test_files_that_are_not_read_are_told(artifact, tiles, tmp_path, capsys):
    for name in ("a.png", "b.webp", "scene.jp2"):
        (tmp_path / name).write_bytes(next(tiles.rglob("*.png")).read_bytes())
    predict.main([str(artifact), str(tmp_path), "--format=csv", "--top=1"])
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert len(out.splitlines()) == 2 and line.startswith(f"{tmp_path}: 2 files left out") and "1 .webp" in line


@pytest.mark.parametrize("kind", ["missing", "corrupt", "empty", "half", "foreign", "labels", "size", "floats"])
def test_bad_artifacts_end_in_one_line(artifact, tiles, tmp_path, capfd, kind):
    path = tmp_path / "student.onnx"
    whole = artifact.read_bytes()
    model = onnx.load(artifact)
    if kind == "foreign":
        onnx.helper.set_model_props(model, {})
    elif kind in ("labels", "size"):
        facts = {entry.key: entry.value for entry in model.metadata_props}
        facts |= {"classes": '["one"]'} if kind == "labels" else {"storage_size": "99"}
        onnx.helper.set_model_props(model, facts)
    elif kind == "floats":  # as TensorRT asks for
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        cast = [node for node in model.graph.node if model.graph.input[0].name in node.input]
        assert cast[0].op_type == "Cast"
    if kind != "missing":
        content = {"corrupt": b"no model" * 100, "empty": b"", "half": whole[: len(whole) // 2]}
        path.write_bytes(content.get(kind, model.SerializeToString()))
    said = {
        "missing": f"no file {path}: give student.onnx, or another file of an export",
        "foreign": "not exported by kdjax",
        "labels": "1 classes",
        "size": "images [99, 99, 3]",
        "floats": "images are tensor(float), those of its run uint8",
    }
    line = refused(capfd, predict.main, path, tiles)
    assert str(path) in line and said.get(kind, "ONNX") in line
    if path.exists():
        assert refused(capfd, predict.main, tmp_path, tiles).endswith(f"no file {tmp_path}: give {path}")


@pytest.mark.parametrize(
    "kind", ["missing", "no images", "broken zip", "a pipe as zip", "name too long", "no name", "nothing"]
)
def test_what_is_no_place_of_images_ends_in_one_line(artifact, tiles, tmp_path, capfd, kind):
    path = tmp_path / ("tiles.zip" if "zip" in kind else "x" * 300 if kind == "name too long" else "tiles")
    if kind == "no images":
        path.mkdir()
        (path / "readme.txt").touch()
    elif kind == "broken zip":
        path.write_text("not an archive")
    elif kind == "a pipe as zip":
        os.mkfifo(path)
    named = {"nothing": [], "no name": [tiles, ""]}.get(kind, [tiles, path])
    line = refused(capfd, predict.main, artifact, *named)
    assert str(path) in line or kind in ("nothing", "no name")


BAD_IMAGES = {
    "text": "not a JPEG",
    "truncated": ".",
    "deep": "uint16 pixels, and training had only 8-bit images",
    "pipe": "not a regular file",
    "empty": "the file is empty",
    "nodata": "no pixel holds data",
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_reported_after_the_others(artifact, tiles, tmp_path, capfd, kind):
    path = tmp_path / "tile.png"
    if kind == "text":
        path.write_text("not an image")
    elif kind == "truncated":
        path.write_bytes(sorted(tiles.rglob("*.png"))[3].read_bytes()[:300])
    elif kind == "deep":
        Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "nodata":
        Image.new("RGBA", (20, 20)).save(path)
    with pytest.raises(SystemExit) as stop:
        predict.main([str(artifact), str(path), str(tiles), "--format=csv"])
    said = capfd.readouterr()
    assert stop.value.code == 1 and len(list(csv.reader(io.StringIO(said.out)))) == 1 + 7
    (line,) = said.err.splitlines()
    assert line.startswith(f"error: 1 unreadable image: {path} (") and BAD_IMAGES[kind] in line


def test_names_are_harmless_where_they_are_printed(tmp_path, tiles, capsys, monkeypatch):
    """File names that are not UTF-8, that a spreadsheet would run, or a terminal; classes likewise."""
    artifact = write_model(tmp_path / "student.onnx", SIDE, ("=desert", "for\x1b[31mest", "la\u202eke"))
    folder = tmp_path / "tiles"
    folder.mkdir()
    image = sorted(tiles.rglob("*.png"))[2].read_bytes()
    for name in (b"=1+1.png", b"caf\xe9.png", b"red\x1b[31m.png"):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(image)
    monkeypatch.chdir(folder)
    for form in ("table", "csv", "json"):
        predict.main([str(artifact), *sorted(os.listdir(folder)), f"--format={form}", "--top=3"])
        text = capsys.readouterr().out
        text.encode("utf-8")
        assert all(one.isprintable() or one == "\n" for one in text)
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(text)))
            assert {row["image"] for row in rows} == {"'=1+1.png", "caf\\udce9.png", "red\\x1b[31m.png"}
            assert {row["class"] for row in rows} == {"'=desert", "for\\x1b[31mest", "la\\u202eke"}
        elif form == "json":
            assert {one["class"] for image in json.loads(text) for one in image["classes"]} == {
                "=desert", "for\x1b[31mest", "la\u202eke"
            }  # fmt: skip


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_terminal_without_unicode(tmp_path, tiles, form):
    artifact = write_model(tmp_path / "student.onnx", SIDE, ("Forêt", "河流", "Straße"))
    done = subprocess.run(
        [sys.executable, "-m", "kdjax.deploy.predict", artifact, tiles, f"--format={form}", "--top=3"],
        cwd=ROOT, capture_output=True, timeout=120, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    text = done.stdout.decode("ascii")
    if form == "json":
        assert {one["class"] for one in json.loads(text)[0]["classes"]} == {"Forêt", "河流", "Straße"}
    else:
        assert "\\u6cb3\\u6d41" in text


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": '"abc"'}, {"classes": "[1, 2, 3]"}, {"classes": "[]"}, {"classes": "{}"}, {"classes": "[" * 5000},
        {"storage_size": "36.5"}, {"storage_size": "[36]"}, {"value_range": "[1]"}, {"value_range": '["a", "b"]'},
        {"value_range": "[5, 5]"}, {"value_range": "7"}, {"value_range": "[NaN, 1]"}, {"numbers": "5"},
        {"ground_size_m": "wide"}, {"tile_px": "-3"}, {"pixel_size_m": "nan"},
    ],
)  # fmt: skip
def test_metadata_of_wrong_types_end_in_one_line(tmp_path, tiles, capfd, facts):
    artifact = write_model(tmp_path / "student.onnx", SIDE, CLASSES, **facts)
    assert "not exported by kdjax" in refused(capfd, predict.main, artifact, tiles)


@pytest.mark.parametrize("flag", ["--top=0", "--batch=x", "--format=xml", "--color=red"])
def test_bad_flags_end_in_one_line(artifact, tiles, capfd, flag):
    assert flag.split("=")[0] in refused(capfd, predict.main, artifact, tiles, flag)
