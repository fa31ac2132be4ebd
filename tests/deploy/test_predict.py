"""The command that classifies images with an exported student, without JAX; and what bad input ends in."""

import csv
import io
import json
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

from scipy.special import softmax  # noqa: E402
from test_export import CLASSES, folded, student  # noqa: E402

from kdjax.deploy import predict  # noqa: E402
from kdjax.deploy.export import onnx_graph  # noqa: E402

ROOT = Path(__file__).parents[2]
SIDE = 36


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    _, variables = student(0.1)
    network = folded(variables, SIDE, 32)
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    onnx.save(onnx_graph.build(network, onnx_graph.metadata(network, CLASSES, ())), path)
    return path


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Seven images of odd sizes in two folders, among them a grey one and one with alpha."""
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    for number in range(7):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (*rng.integers(20, 60, 2), 3), dtype=np.uint8))
        image.convert({0: "L", 1: "RGBA"}.get(number, "RGB")).save(path)
    return folder


def expected(artefact, paths):
    """By hand: Pillow, onnxruntime, SciPy."""
    images = [Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for path in paths]
    session = onnxruntime.InferenceSession(artefact, providers=["CPUExecutionProvider"])
    return softmax(session.run(None, {"images": np.stack([np.asarray(image) for image in images])})[0], axis=1)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_folder_as_json(artefact, tiles, capsys, batch):
    predict.main([str(artefact), str(tiles), "--format=json", "--top=99", f"--batch={batch}"])
    document = json.loads(capsys.readouterr().out)
    paths = sorted(tiles.rglob("*.png"))
    assert [one["image"] for one in document] == [str(path) for path in paths]
    for one, row in zip(document, expected(artefact, paths), strict=True):
        assert [best["class"] for best in one["classes"]] == [CLASSES[k] for k in np.argsort(-row)]
        assert [best["probability"] for best in one["classes"]] == pytest.approx(sorted(row)[::-1], abs=2e-6)


def test_a_zip_and_files_as_csv_and_table(artefact, tiles, tmp_path, capsys):
    paths = sorted(tiles.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(tiles))
    predict.main([str(artefact), str(tmp_path / "tiles.zip"), str(paths[2]), "--format=csv", "--top=2"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 8
    assert rows[0]["image"] == f"{tmp_path}/tiles.zip/a/0.png" and rows[-1]["image"] == str(paths[2])
    winners = expected(artefact, [*paths, paths[2]]).argmax(1)
    assert [row["class"] for row in rows[::2]] == [CLASSES[k] for k in winners]
    predict.main([str(artefact), *map(str, paths)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [str(path), CLASSES[k]] for path, k in zip(paths, winners[:-1], strict=True)
    ]


def test_no_jax_is_needed(artefact, tiles):
    code = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorflow', 'onnx'): sys.modules[name] = None\n"
        "from kdjax import errors, predict; errors.in_one_line(predict.main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, artefact, tiles], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == 7


def without(model, key):
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != key}
    onnx.helper.set_model_props(model, kept)


@pytest.mark.parametrize("kind", ["missing", "corrupt", "empty", "half", "foreign", "labels", "size"])
def test_bad_artefacts_end_in_one_line(artefact, tiles, tmp_path, capfd, kind):
    path = tmp_path / "student.onnx"
    whole = artefact.read_bytes()
    model = onnx.load(artefact)
    if kind == "foreign":
        onnx.helper.set_model_props(model, {})
    elif kind in ("labels", "size"):
        facts = {entry.key: entry.value for entry in model.metadata_props}
        facts |= {"classes": '["one"]'} if kind == "labels" else {"storage_size": "99"}
        onnx.helper.set_model_props(model, facts)
    if kind != "missing":
        content = {"corrupt": b"no model" * 100, "empty": b"", "half": whole[: len(whole) // 2]}
        path.write_bytes(content.get(kind, model.SerializeToString()))
    said = {"missing": "no file", "foreign": "not exported by kdjax", "labels": "1 classes", "size": "99 px"}
    line = refused(capfd, predict.main, path, tiles)
    assert str(path) in line and said.get(kind, "ONNX") in line


@pytest.mark.parametrize("kind", ["missing", "no images", "text", "truncated", "deep", "broken zip", "nothing"])
def test_bad_images_end_in_one_line(artefact, tiles, tmp_path, capfd, kind):
    path = tmp_path / ("tiles.zip" if kind == "broken zip" else "tile.png")
    if kind == "no images":
        path.mkdir()
        (path / "readme.txt").touch()
    elif kind in ("text", "broken zip"):
        path.write_text("not an image")
    elif kind == "truncated":
        path.write_bytes(sorted(tiles.rglob("*.png"))[3].read_bytes()[:300])
    elif kind == "deep":
        Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(path)
    line = refused(capfd, predict.main, artefact, *([] if kind == "nothing" else [tiles, path]))
    assert (str(path) in line) or kind == "nothing"
    if kind == "deep":
        assert "uint16" in line


@pytest.mark.parametrize("flag", ["--top=0", "--batch=x", "--format=xml", "--colour=red"])
def test_bad_flags_end_in_one_line(artefact, tiles, capfd, flag):
    assert flag.split("=")[0] in refused(capfd, predict.main, artefact, tiles, flag)


def test_deep_images_take_the_range_of_training(artefact, tmp_path, capsys):
    model = onnx.load(artefact)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, facts | {"value_range": "[0.0, 2550.0]"})
    onnx.save(model, tmp_path / "deep.onnx")
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))
    Image.fromarray((values * 10).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "plain.png")
    images = [str(tmp_path / f"{name}.png") for name in ("deep", "plain")]
    predict.main([str(tmp_path / "deep.onnx"), *images, "--format=json"])
    deep, plain = json.loads(capsys.readouterr().out)
    assert deep["classes"] == plain["classes"]
