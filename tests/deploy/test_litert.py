"""LiteRT files: against onnxruntime and against their own bytes; what is said of them, and what bad ones end in."""

import io
import json
import zipfile

import numpy as np
import pytest
from helpers.exported import CLASSES, assert_close, folded, pixels, run_onnx
from PIL import Image
from refusal import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_quantizer")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")

from kdjax.data.meaning import Meaning  # noqa: E402  (need the packages above)
from kdjax.deploy import litert, predict  # noqa: E402
from kdjax.deploy.classifier import Classifier  # noqa: E402
from kdjax.deploy.export import litert_graph, litert_quantize, onnx_graph  # noqa: E402
from kdjax.networks import graph as g  # noqa: E402
from kdjax.runtime import host  # noqa: E402

CASES = {  # network, width, head; sides of the stored image and of the network's
    "shrinks": ("mobilenet_v2", 0.25, "average", (36, 32)),
    "keeps": ("mobilenet_v2", 0.25, "average", (32, 32)),
    "enlarges, hard activations, gates": ("mobilenet_v3_small", 0.25, "average", (33, 36)),
    "resamples, flattens": ("vgg16", 0.05, "fc", (72, 290)),
    "pads as TensorFlow": ("efficientnet_lite0", 0.25, "average", (36, 44)),
    "pads a maximum": ("resnet18", 0.125, "average", (50, 75)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_file_is_the_onnx_file(case):
    name, width, head, sizes = CASES[case]
    network, images = folded(name, width, *sizes, head), pixels(5, sizes[0])
    model = litert.Model(litert_graph.build(network))
    expected = run_onnx(onnx_graph.build(network, {}), images)
    assert_close(model(images), expected)
    assert_close(model(images[:2]), expected[:2])  # another batch


@pytest.mark.slow
@pytest.mark.parametrize("case", ["shrinks", "enlarges, hard activations, gates", "pads a maximum"])
def test_integers_alone(case):
    name, width, head, sizes = CASES[case]
    network, images = folded(name, width, *sizes, head), pixels(24, sizes[0])
    content = litert_quantize.quantize(network, images, litert_quantize.Settings())
    opened = interpreter.Interpreter(model_content=content)
    (given,), (result,) = opened.get_input_details(), opened.get_output_details()
    assert given["dtype"] == np.uint8 and given["quantization"] == (1.0, 0) and result["dtype"] == np.int8
    tensors = {one["name"]: one for one in opened.get_tensor_details()}
    assert {one["dtype"] for one in tensors.values()} <= {np.uint8, np.int8, np.int32}
    assert given["shape_signature"].tolist() == [-1, sizes[0], sizes[0], 3]
    for layer in [one for one in network.nodes if isinstance(one, g.Convolution)]:
        scales = tensors[f"{layer.name}.weight"]["quantization_parameters"]["scales"]
        np.testing.assert_allclose(scales, np.abs(layer.kernel).max((1, 2, 3)) / 127, rtol=1e-5)
    expected = run_onnx(onnx_graph.build(network, {}), images)
    # A random network is far more sensitive than a trained one: this only says that it is the same network.
    assert np.corrcoef(expected.ravel(), litert.Model(content)(images).ravel())[0, 1] > 0.95


def test_ranges_are_those_of_all_calibration_images():
    """The logits' own: their 256 steps end where they do, or a step later, as 0 has to be one of them."""
    network, images = folded("mobilenet_v2", 0.25, 32, 32), pixels(17, 32)
    logits = run_onnx(onnx_graph.build(network, {}), images)
    found = litert_quantize._ranges(litert_graph.build(network, np.float32), images, 0.0)["logits"]
    np.testing.assert_allclose(found, (logits.min(), logits.max()), rtol=1e-4)
    found = litert_quantize._ranges(litert_graph.build(network, np.float32), images, 0.1)
    batches = [np.sort(logits[start : start + litert_quantize.BATCH].ravel()) for start in (0, 8, 16)]
    kept = [batch[len(batch) // 10 : len(batch) - len(batch) // 10] for batch in batches]
    expected = min(batch[0] for batch in kept), max(batch[-1] for batch in kept)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4)
    assert logits.min() < expected[0] and expected[1] < logits.max()
    assert found["images"] == (0, 255)


@pytest.mark.parametrize("reader", [g.HardSwish, g.HardSigmoid])
def test_ranges_end_where_hard_activations_are_constant(reader):
    nodes = (g.Rectify("x", (g.IMAGE,), 6.0), g.Rectify("y", (g.IMAGE,), 6.0), reader("a", ("x",)), reader("b", ("y",)))
    network = g.Graph("made up", 8, 8, None, np.zeros(3, np.float32), (*nodes, g.Add("sum", ("a", "y"))))
    found = litert_quantize._clip_ranges(network, {"x": (-9.0, 8.0), "y": (-9.0, 8.0), "a": (-9.0, 8.0)})
    assert found["x"] == (-3.0, 8.0 if reader is g.HardSwish else 3.0)
    assert found["y"] == found["a"] == (-9.0, 8.0)  # others read them, too


@pytest.mark.slow
def test_equalized_and_then_quantized():
    network, images = folded("mobilenet_v2", 0.25, 36, 32), pixels(24, 36)
    plain, equal = (
        litert.Model(litert_quantize.quantize(network, images, litert_quantize.Settings(equalized)))(images)
        for equalized in (False, True)
    )
    assert (plain != equal).any() and np.corrcoef(plain.ravel(), equal.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (g.MaxPool("pool", (g.IMAGE,), 3, 2, 1), "below the zeros"),
        (g.Rectify("cut", (g.IMAGE,), 5.0), "ceiling of 5"),
        (g.Convolution("c", (g.IMAGE,), np.ones((4, 2, 1, 1)), np.ones(4), 1, ((0, 0), (0, 0)), 2), "several channels"),
    ],
)
def test_what_the_format_lacks_is_no_silent_wrong_answer(node, said):
    network = g.Graph("made up", 8, 8, None, np.zeros(3, np.float32), (node,))
    with pytest.raises(ValueError, match=said):
        litert_graph.build(network)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file as an export writes it."""
    network = folded("mobilenet_v2", 0.25, 36, 32)
    path = tmp_path_factory.mktemp("export") / "student.tflite"
    path.write_bytes(
        litert.with_metadata(litert_graph.build(network), onnx_graph.metadata(network, CLASSES, Meaning()))
    )
    return path


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiles") / "tile.png"
    Image.fromarray(pixels(1, 50)[0]).save(path)
    return path


def test_predict_takes_them_by_their_content(exported, tile, tmp_path, capsys):
    path = tmp_path / "renamed.bin"
    path.write_bytes(exported.read_bytes())
    predict.main([str(path), str(tile), "--format=json", "--top=9"])
    (found,) = json.loads(capsys.readouterr().out)
    image = np.asarray(Image.open(tile).resize((36, 36), Image.Resampling.LANCZOS))
    logits = run_onnx(onnx_graph.build(folded("mobilenet_v2", 0.25, 36, 32), {}), image[None])[0].astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert {one["class"]: one["probability"] for one in found["classes"]} == pytest.approx(
        dict(zip(CLASSES, expected, strict=True)), abs=1e-4
    )


def test_the_threads_are_those_that_are_asked_for(exported, monkeypatch):
    """Or as many as this process has cores, which may be fewer than the machine's."""
    asked, real = [], interpreter.Interpreter

    def noted(**named):
        asked.append(named["num_threads"])
        return real(**named)

    monkeypatch.setattr(interpreter, "Interpreter", noted)
    monkeypatch.setattr(host, "cores", lambda: 3)
    for threads in (1, 2, None):
        Classifier(exported, threads)
    assert asked == [1, 2, 3]


def test_the_facts_are_in_a_zip_that_any_reader_finds(exported):
    with zipfile.ZipFile(io.BytesIO(exported.read_bytes())) as held:
        facts = json.loads(held.read("kdjax.json"))
    assert json.loads(facts["classes"]) == list(CLASSES) and "normalization are inside" in facts["input"]
    assert exported.read_bytes() == litert.with_metadata(
        litert_graph.build(folded("mobilenet_v2", 0.25, 36, 32)), facts
    )  # the same student gives the same bytes


@pytest.mark.parametrize("kind", ["no facts", "half", "foreign", "labels", "size", "not a model", "no package"])
def test_bad_files_end_in_one_line(exported, tile, tmp_path, capfd, monkeypatch, kind):
    whole, facts = exported.read_bytes(), litert.read_metadata(exported)
    model = whole[: whole.index(b"PK\3\4")]
    changed = {"labels": {"classes": '["one"]'}, "size": {"storage_size": "99"}}.get(kind, {})
    content = {
        "no facts": model,
        "half": whole[: len(whole) // 2],
        "foreign": litert.with_metadata(model, {"title": "another's"}),
        "not a model": litert.with_metadata(model[:8] + b"\0" * 400, facts),
    }.get(kind, litert.with_metadata(model, facts | changed))
    path = tmp_path / "student.tflite"
    path.write_bytes(content)
    if kind == "no package":
        monkeypatch.setattr(litert, "installed", lambda: False)
    line = refused(capfd, predict.main, path, tile)
    said = {"labels": "1 classes", "size": "images [99, 99, 3]", "not a model": "LiteRT", "no package": "kdjax[litert]"}
    assert str(path) in line and said.get(kind, "not exported by kdjax") in line
