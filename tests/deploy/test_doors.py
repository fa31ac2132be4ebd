"""What a file says does not depend on who asks: `predict`, a map of the same tiles, and the page's own code."""

import dataclasses
import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.exported import CLASSES, folded, pixels, run_onnx
from helpers.maps import run as run_map
from helpers.maps import write as write_raster
from PIL import Image
from scipy.special import logsumexp, softmax

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("ai_edge_quantizer")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")

import onnxruntime  # noqa: E402  (needs the packages above)

from kdjax.data.dataset import Split  # noqa: E402
from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.deploy import predict  # noqa: E402
from kdjax.deploy import trust as trusting  # noqa: E402
from kdjax.deploy.browser import page  # noqa: E402
from kdjax.deploy.classifier import Classifier  # noqa: E402
from kdjax.deploy.export import litert_quantize, quantize, stage  # noqa: E402
from kdjax.deploy.landuse_map.legend import UNKNOWN  # noqa: E402

pytestmark = pytest.mark.slow
FILES = ("student.onnx", "student.int8.onnx", "student.tflite", "student_int8.tflite")
TILE, STORED, SEEN, COUNT = 50, 36, 32, 60
NEAR = 1e-3
"""Of a limit: there the last bit of a runtime may decide, which depends on how many images go through it together."""


def centered(network, images):
    """The network with the mean of these images' logits taken off, or it would name one class always."""
    said = run_onnx(stage.onnx_graph.build(network, {}), images)
    head = network.nodes[-1]
    shifted = dataclasses.replace(head, bias=(head.bias - said.mean(0)).astype(np.float32))
    return dataclasses.replace(network, nodes=(*network.nodes[:-1], shifted))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The four files of one student, each with the trust that its own answers of some images gave."""
    folder, images = tmp_path_factory.mktemp("export"), pixels(80, STORED, seed=3)
    network = centered(folded("mobilenet_v2", 0.25, STORED, SEEN), images)
    metadata = stage.onnx_graph.metadata(network, CLASSES, Meaning())
    model = stage.onnx_graph.build(network, metadata).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    labels = session.run(None, {"images": images})[0].argmax(1).astype(np.int32)
    labels[::5] = np.arange(16) % len(CLASSES)  # it is not always right
    split = Split(images, labels, tuple(map(str, range(80))))
    run = SimpleNamespace(dataset=SimpleNamespace(train=split, validation=split), log=lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trusting, "DOUBTFUL", 0.3)
        patch.setattr(trusting, "UNLIKE", 0.3)
        patch.setattr(quantize, "CANDIDATES", quantize.CANDIDATES[:1])
        patch.setattr(litert_quantize, "CANDIDATES", litert_quantize.CANDIDATES[:1])
        stage._write_onnx(run, folder, network, metadata)
        stage._write_litert(run, folder, network, metadata)
    return folder


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Tiles of another size than the files take, some unlike those that trust was fitted to; and what others read."""
    folder, images = tmp_path_factory.mktemp("tiles"), pixels(COUNT, TILE, seed=4)
    images[::6] = np.random.default_rng(5).choice([0, 255], (COUNT // 6, TILE, TILE, 3))
    (folder / "png").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "png" / f"{number:02d}.png")
    opaque = np.full((*images.shape[:3], 1), 255, np.uint8)
    (folder / "all.rgba").write_bytes(np.concatenate([images, opaque], axis=-1).tobytes())  # as a canvas gives them
    write_raster(folder / "row.tif", np.concatenate(images, axis=1))
    return folder


def resized(tiles):
    images = [
        Image.open(one).resize((STORED, STORED), Image.Resampling.LANCZOS) for one in sorted(tiles.rglob("*.png"))
    ]
    return np.stack([np.asarray(one) for one in images])


def logits(path, images):
    """By the runtime alone, one image after the other."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"images": one[None]})[0] for one in images])
    opened = interpreter.Interpreter(str(path))
    opened.allocate_tensors()
    (given,), (result,), found = opened.get_input_details(), opened.get_output_details(), []
    scale, zero = result["quantization"]
    for image in images:
        opened.set_tensor(given["index"], image[None])
        opened.invoke()
        found.append(opened.get_tensor(result["index"])[0])
    return np.array(found) if not scale else (np.array(found).astype(np.float32) - zero) * np.float32(scale)


@pytest.fixture(params=FILES)
def asked(request, export, tiles):
    """A file; and of each tile its logits, probabilities, whether it is unknown, and which tiles are near no limit."""
    path = export / request.param
    trust = Classifier(path).trust
    said = logits(path, resized(tiles)).astype(np.float64)
    probabilities, energy = softmax(said / trust.temperature, axis=1), -logsumexp(said, axis=1)
    doubtful, unlike = probabilities.max(1) < trust.least_confidence, energy > trust.most_energy
    assert len(set(zip(doubtful, unlike, strict=True))) == 4 and len(set(probabilities.argmax(1))) > 2
    clear = np.abs(probabilities.max(1) - trust.least_confidence) > NEAR
    clear &= np.abs(energy - trust.most_energy) > NEAR
    assert clear.sum() > COUNT // 2
    found = {"logits": said, "probabilities": probabilities, "unknown": doubtful | unlike, "clear": clear}
    return SimpleNamespace(path=path, trust=trust, **found)


def members(one, level):
    """The prediction sets by a loop, and for which tiles rounding does not decide."""
    held, clear = np.zeros(one.probabilities.shape, bool), np.ones(len(one.probabilities), bool)
    for row, (probabilities, known) in enumerate(zip(one.probabilities, held, strict=True)):
        before = 0.0
        for k in np.argsort(-probabilities, kind="stable"):
            known[k] = before <= one.trust.limits[level]
            clear[row] &= abs(before - one.trust.limits[level]) > NEAR or before == 0
            before = min(before + probabilities[k], 1.0)
    return held, clear


def test_predict(asked, tiles, capsys):
    predict.main([str(asked.path), str(tiles / "png"), "--format=json", "--top=9", "--batch=7"])
    for one, row, unknown, clear in zip(
        json.loads(capsys.readouterr().out), asked.probabilities, asked.unknown, asked.clear, strict=True
    ):
        found = {best["class"]: best["probability"] for best in one["classes"]}
        np.testing.assert_allclose([found[name] for name in CLASSES], row, atol=2e-5)
        assert one["unknown"] == unknown or not clear
    for level in asked.trust.limits:
        held, clear = members(asked, level)
        predict.main([str(asked.path), str(tiles / "png"), "--format=json", f"--set={level}"])
        found = json.loads(capsys.readouterr().out)
        assert 2 * clear.sum() > COUNT
        for one, row in zip(np.array(found)[clear], held[clear], strict=True):
            assert {best["class"] for best in one["classes"]} == {CLASSES[k] for k in np.flatnonzero(row)}


def test_a_map(asked, tiles, tmp_path):
    windows = (f"--tile={TILE}", f"--stride={TILE}", "--batch=5", "--probabilities")
    run_map(asked.path, tiles / "row.tif", tmp_path / "map.tif", *windows)
    with rasterio.open(tmp_path / "map.tif") as file:
        (found,) = file.read(1)
    with rasterio.open(tmp_path / "map_probabilities.tif") as file:
        probabilities, step = file.read()[:, 0].T, file.scales[0]
    with rasterio.open(tmp_path / "map_confidence.tif") as file:
        np.testing.assert_allclose(file.read(1)[0], asked.probabilities.max(1), atol=2e-5)
    np.testing.assert_allclose(step * probabilities, asked.probabilities, atol=step / 2 + 2e-5)
    expected = np.where(asked.unknown, UNKNOWN, asked.probabilities.argmax(1))
    np.testing.assert_array_equal(found[asked.clear], expected[asked.clear])


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_page(asked, tiles, tmp_path):
    """Its facts and its code, from pixels as a browser gives them; only the network runs elsewhere."""
    facts = page.facts(page.document("", CLASSES, STORED, Meaning(), asked.trust, ""))
    script = f"""
        import {{ resized, answered }} from "{page.PARTS_DIR / "answer.mjs"}";
        import fs from "node:fs";
        const facts = {json.dumps(facts)}, logits = {json.dumps(asked.logits.tolist())};
        const all = fs.readFileSync("{tiles}/all.rgba"), bytes = {4 * TILE * TILE};
        const of = (k) => all.subarray(k * bytes, (k + 1) * bytes);
        const shown = logits.map((_, k) => Array.from(resized(of(k), {TILE}, {TILE}, facts.size)));
        const said = logits.map((row) => answered(Float32Array.from(row), facts.trust));
        fs.writeFileSync("said.json", JSON.stringify({{ shown, said }}));
    """
    (tmp_path / "script.mjs").write_text(script, encoding="utf-8")
    subprocess.run(["node", "script.mjs"], cwd=tmp_path, check=True, timeout=120)
    document = json.loads((tmp_path / "said.json").read_bytes())
    np.testing.assert_array_equal(np.reshape(document["shown"], (COUNT, STORED, STORED, 3)), resized(tiles))
    said = document["said"]
    np.testing.assert_allclose([one["probabilities"] for one in said], asked.probabilities, atol=1e-6)
    np.testing.assert_array_equal([one["unknown"] for one in said], asked.unknown)
    for level in asked.trust.limits:
        held, clear = members(asked, level)
        found = [set(one["ranked"][: one["sets"][str(level)]]) for one in said]
        for one, row in zip(np.array(found)[clear], held[clear], strict=True):
            assert one == set(np.flatnonzero(row))
