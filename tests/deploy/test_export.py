"""The exported forms of any student against PyTorch, against the trained form, and against each other."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.exported import CLASSES, assert_close, folded, pixels, run_onnx, student
from safetensors.numpy import load_file

from kdjax.data.meaning import Meaning
from kdjax.inputs import augment
from kdjax.networks.graph import Resample
from kdjax.training import step

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from kdjax.deploy.export import onnx_graph, stablehlo, tensors  # noqa: E402  (need the two above)
from kdjax.deploy.export.fold import resize_matrix  # noqa: E402

CASES = {  # network, width, head; sides of the stored image and of the network's: shrunk, kept, enlarged
    "mobilenet_v2 shrinks": ("mobilenet_v2", 0.25, "average", (36, 32)),
    "mobilenet_v2 keeps": ("mobilenet_v2", 0.25, "average", (32, 32)),
    "mobilenet_v2 enlarges": ("mobilenet_v2", 0.25, "average", (32, 44)),
    "mobilenet_v3_small": ("mobilenet_v3_small", 0.25, "average", (36, 33)),
    "mobilenet_v3_large": ("mobilenet_v3_large", 0.25, "average", (36, 32)),
    "vgg16": ("vgg16", 0.1, "average", (36, 32)),
    "vgg16_bn": ("vgg16_bn", 0.1, "average", (50, 75)),
    "vgg16 fc on 1 x 1 cells": ("vgg16", 0.05, "fc", (36, 32)),
    "vgg16_bn fc on 3 x 3 cells": ("vgg16_bn", 0.05, "fc", (72, 101)),
    "vgg16 fc on 9 x 9 cells": ("vgg16", 0.05, "fc", (72, 290)),
    "efficientnet_lite0": ("efficientnet_lite0", 0.25, "average", (36, 44)),  # 44, 22, 11, 6, 3 px: even and odd
    "resnet18": ("resnet18", 0.125, "average", (50, 75)),
    "resnet50": ("resnet50", 0.125, "average", (36, 32)),
}
REFERENCES = {
    "mobilenet_v2": ("MobileNetV2", {}),
    "mobilenet_v3_small": ("MobileNetV3", {"size": "small"}),
    "mobilenet_v3_large": ("MobileNetV3", {"size": "large"}),
    "vgg16": ("VGG16", {"batch_norm": False}),
    "vgg16_bn": ("VGG16", {"batch_norm": True}),
    "efficientnet_lite0": ("EfficientNetLite", {}),
    "resnet18": ("ResNet", {}),
    "resnet50": ("ResNet", {"block": "Bottleneck", "repeats": (3, 4, 6, 3)}),
}


SLOW = ("mobilenet_v2 enlarges", "mobilenet_v3_small", "mobilenet_v3_large", "resnet50")


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, marks=[pytest.mark.slow] * (name in SLOW), id=name) for name, case in CASES.items()],
)
def case(request):
    """Name, width, head, folded network."""
    name, width, head, sizes = request.param
    return name, width, head, folded(name, width, *sizes, head)


@pytest.mark.slow
def test_safetensors_load_strictly_into_pytorch_and_all_forms_agree(case, tmp_path):
    torch = pytest.importorskip("torch")
    import torch_reference

    name, width, head, network = case
    _, variables = student(name, width, head)
    tensors.write(tmp_path, name, variables, {"classes": json.dumps(("a", "b", "c"))})
    kind, options = REFERENCES[name]
    options = {**options, "head": head} if name.startswith("vgg") else options
    reference = getattr(torch_reference, kind)(len(CLASSES), width=width, **options)
    loaded = load_file(tmp_path / "student.safetensors")
    reference.load_state_dict({name: torch.tensor(value) for name, value in loaded.items()}, strict=True)
    images = pixels(3, network.storage_size)
    with torch.no_grad():
        # PyTorch's antialiased bilinear filter is the triangle that evaluation in training uses.
        resized = torch.nn.functional.interpolate(
            torch.tensor(images).permute(0, 3, 1, 2) / 255.0, network.image_size, mode="bilinear", antialias=True
        )
        expected = reference.eval()(resized).numpy()
    assert np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max()  # the images make a difference
    assert_close(run_onnx(onnx_graph.build(network, {}), images), expected)
    program = jax.export.deserialize(bytearray(stablehlo.serialize(network)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert_close(program.call(images), expected)
    np.testing.assert_allclose(program.call(images[:1]), program.call(images)[:1], rtol=1e-4, atol=1e-5)


def test_onnx_agrees_with_the_evaluation_of_the_trained_form(case):
    name, width, head, network = case
    model, variables = student(name, width, head)
    evaluated = jax.jit(lambda x: step.eval_step(population, x, network=model, size=network.image_size)[0, 0])
    population = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], variables)
    images = pixels(5, network.storage_size)
    graph = onnx_graph.build(network, {})
    assert_close(run_onnx(graph, images), evaluated(images))
    np.testing.assert_allclose(run_onnx(graph, images[:1]), run_onnx(graph, images)[:1], rtol=1e-4, atol=1e-5)
    assert not {"BatchNormalization", "Div", "Resize"} & {node.op_type for node in graph.graph.node}
    unresized = dataclasses.replace(network, storage_size=network.image_size, resize=None)
    images = pixels(5, network.image_size)
    assert_close(run_onnx(onnx_graph.build(unresized, {}), images), evaluated(images))


def test_openvino_agrees_with_onnxruntime(case, tmp_path):
    """In float32: by default it computes in bfloat16 where the CPU can."""
    openvino = pytest.importorskip("openvino")
    network, path = case[-1], tmp_path / "student.onnx"
    graph, images = onnx_graph.build(network, {}), pixels(5, network.storage_size)
    onnx.save(graph, path)
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    said = [model({"images": batch})["logits"] for batch in (images[:1], images[1:])]
    assert_close(np.concatenate(said), run_onnx(graph, images))


def test_the_mean_goes_before_the_last_product_of_the_resize(case):
    """OpenVINO 2026.4 would not read it after: see `onnx_graph`."""
    graph = onnx_graph.build(case[-1], {}).graph
    nodes = graph.node
    last = [node.output[0] for node in nodes if node.op_type == "MatMul"][-1:]
    taken = [node for node in nodes if node.op_type == "Sub"]
    assert len(taken) == 1 and taken[0].input[0] not in last
    # A constant as short as the channels takes onnxruntime 20 times as long.
    (mean,) = (one for one in graph.initializer if one.name == taken[0].input[1])
    assert not last or mean.dims[0] == case[-1].storage_size * len(case[-1].mean)


def test_an_average_over_few_cells_joins_the_layer_that_reads_it():
    """1 x 1 cells repeated to 7 x 7 and read by 49 times as many weights are the sum of these weights."""
    for side, cells in ((32, 1), (101, 3)):
        network = folded("vgg16", 0.05, side, side, "fc")
        first = next(node for node in network.nodes if node.name == "classifier.0")
        assert first.kernel.shape[2:] == (cells, cells) and first.inputs == ("features.28.relu.max",)
    kinds = [type(node) for node in folded("vgg16", 0.05, 72, 290, "fc").nodes]
    assert kinds.count(Resample) == 1


@pytest.mark.parametrize(("source", "target"), [(72, 64), (36, 32), (50, 21), (24, 34)])
def test_bands_are_the_whole_resize_in_less_arithmetic(source, target):
    matrix, image = resize_matrix(source, target), pixels(1, source)[0].reshape(source, -1).astype(np.float32)
    read, weights = onnx_graph.row_bands(matrix)
    assert len(read) == np.gcd(target, 4) and (read >= 0).all() and (read < source).all()
    assert weights.size == matrix.size if len(read) == 1 else weights.size < 0.6 * matrix.size
    np.testing.assert_allclose((weights @ image[read]).reshape(target, -1), matrix @ image, rtol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(72, 64), (36, 36), (50, 21), (20, 33)])
def test_the_resize_is_that_of_evaluation(source, target):
    image = pixels(1, source)[0]
    matrix = resize_matrix(source, target)
    ours = np.einsum("hr,rcx,wc->hwx", matrix, image / 255, matrix)
    np.testing.assert_allclose(ours, augment.eval_view(jnp.asarray(image), target), atol=1e-6)


@pytest.mark.slow
def test_the_model_says_what_it_needs():
    network = folded("mobilenet_v2", 0.1, 36, 32)
    meaning = Meaning((0.0, 4095.0), ("16-bit", "8-bit"), tile_px=256.0)
    model = onnx_graph.build(network, onnx_graph.metadata(network, CLASSES, meaning))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert Meaning.from_metadata(facts) == meaning
    assert json.loads(facts["classes"]) == list(CLASSES) and json.loads(facts["value_range"]) == [0, 4095]
    assert (facts["image_size"], facts["storage_size"]) == ("32", "36")
    assert "Lanczos" in facts["resize"] and "36 x 36" in facts["resize"] and facts["kdjax_version"]
    (given,) = model.graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 36, 36, 3]


@pytest.mark.slow
def test_stablehlo_reloads_without_kdjax(tmp_path):
    network, images = folded("mobilenet_v2", 0.1, 36, 32), pixels(2, 36)
    (tmp_path / "student.stablehlo").write_bytes(stablehlo.serialize(network))
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['kdjax'] = None; import numpy as np, jax.export\n"
        "program = jax.export.deserialize(bytearray(open('student.stablehlo', 'rb').read()))\n"
        "np.save('logits.npy', program.call(np.load('images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    assert_close(np.load(tmp_path / "logits.npy"), run_onnx(onnx_graph.build(network, {}), images))
