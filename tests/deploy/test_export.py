"""The exported forms of a student against PyTorch, against the trained form, and against each other."""

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_models import randomised

from kdjax import networks
from kdjax.deploy import export
from kdjax.errors import InputError
from kdjax.inputs import augment
from kdjax.networks.pretrained import named_tensors
from kdjax.training import step

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from kdjax.deploy.export import onnx_graph, parity, quantise, stablehlo, stage  # noqa: E402  (need the two above)
from kdjax.deploy.export.fold import fold, resize_matrix  # noqa: E402

CLASSES = ("field", "forest", "sea", "town", "wüste")


@functools.cache
def student(width):
    """A student and variables whose running statistics let images through: else every image has the same logits.

    The variances are a third larger than those of images: a random network as deep as this else magnifies rounding.
    """
    model = networks.create("mobilenet_v2", num_classes=len(CLASSES), width=width, dropout=0.2)
    variables = randomised(model, 32)
    images = pixels(16, 32, seed=0) / np.float32(255)
    mutated = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)[1]
    batch = jax.tree_util.tree_map_with_path(
        lambda path, new, old: np.asarray((new - 0.9 * old) / 0.1 * (1.3 if path[-1].key == "var" else 1)),
        mutated["batch_stats"],
        variables["batch_stats"],
    )
    return model, {"params": variables["params"], "batch_stats": batch}


def folded(variables, storage_size, image_size):
    return fold(named_tensors("mobilenet_v2", variables), storage_size=storage_size, image_size=image_size)


def pixels(count, side, seed=1):
    """Images (count, side, side, 3) uint8: a colour for each, a slope and noise."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(0, 60, (count, 1, 1, 3)) * np.linspace(-1, 1, side)[:, None, None]
    values = rng.uniform(40, 215, (count, 1, 1, 3)) + slope + rng.normal(0, 30, (count, side, side, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def run_onnx(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def assert_close(logits, expected):
    """Equal to rounding, measured by what tells one image from another."""
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.ptp(expected, axis=0).max())


@pytest.fixture(scope="module", params=[(36, 32), (32, 32), (32, 44)], ids=str)
def case(request):
    """A student that shrinks, keeps or enlarges its images: model, variables, folded network."""
    model, variables = student(0.25)
    return model, variables, folded(variables, *request.param)


def test_safetensors_load_strictly_into_pytorch_and_all_forms_agree(case, tmp_path):
    torch = pytest.importorskip("torch")
    import torch_reference

    model, variables, network = case
    stage._write_tensors(tmp_path, named_tensors("mobilenet_v2", variables), variables)
    reference = torch_reference.MobileNetV2(len(CLASSES), width=0.25)
    tensors = load_file(tmp_path / "student.safetensors")
    reference.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()}, strict=True)
    images = pixels(3, network.storage_size)
    with torch.no_grad():
        # PyTorch's antialiased bilinear filter is the triangle that evaluation in training uses.
        resized = torch.nn.functional.interpolate(
            torch.tensor(images).permute(0, 3, 1, 2) / 255.0, network.image_size, mode="bilinear", antialias=True
        )
        expected = reference.eval()(resized).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()  # the images make a difference
    assert_close(run_onnx(onnx_graph.build(network, {}), images), expected)
    program = jax.export.deserialize(bytearray(stablehlo.serialise(network)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert_close(program.call(images), expected)
    np.testing.assert_allclose(program.call(images[:1]), program.call(images)[:1], rtol=1e-4, atol=1e-5)


def test_onnx_agrees_with_the_evaluation_of_the_trained_form(case):
    model, variables, network = case
    evaluated = jax.jit(lambda x: step.eval_step(population, x, model=model, size=network.image_size)[0, 0])
    population = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], variables)
    images = pixels(5, network.storage_size)
    graph = onnx_graph.build(network, {})
    assert_close(run_onnx(graph, images), evaluated(images))
    np.testing.assert_allclose(run_onnx(graph, images[:1]), run_onnx(graph, images)[:1], rtol=1e-4, atol=1e-5)
    assert not {"BatchNormalization", "Div", "Resize"} & {node.op_type for node in graph.graph.node}
    unresized = dataclasses.replace(network, storage_size=network.image_size, resize=None)
    images = pixels(5, network.image_size)
    assert_close(run_onnx(onnx_graph.build(unresized, {}), images), evaluated(images))


@pytest.mark.parametrize(("source", "target"), [(72, 64), (36, 32), (50, 21), (24, 34)])
def test_bands_are_the_whole_resize_in_less_arithmetic(source, target):
    matrix, image = resize_matrix(source, target), pixels(1, source)[0].reshape(source, -1).astype(np.float32)
    read, weights = onnx_graph.bands(matrix)
    assert len(read) == np.gcd(target, 4) and (read >= 0).all() and (read < source).all()
    assert weights.size == matrix.size if len(read) == 1 else weights.size < 0.6 * matrix.size
    np.testing.assert_allclose((weights @ image[read]).reshape(target, -1), matrix @ image, rtol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(72, 64), (36, 36), (50, 21), (20, 33)])
def test_the_resize_is_that_of_evaluation(source, target):
    image = pixels(1, source)[0]
    matrix = resize_matrix(source, target)
    ours = np.einsum("hr,rcx,wc->hwx", matrix, image / 255, matrix)
    np.testing.assert_allclose(ours, augment.eval_view(jnp.asarray(image), target), atol=1e-6)


def test_timm_names_are_those_of_the_same_tensors(tmp_path):
    _, variables = student(0.25)
    tensors = named_tensors("mobilenet_v2", variables)
    stage._write_tensors(tmp_path, tensors, variables)
    names = json.loads((tmp_path / "timm_names.json").read_text())
    theirs = named_tensors("mobilenet_v2", variables, "timm")
    for name, value in tensors.items():
        np.testing.assert_array_equal(theirs[names[name]], value)
    assert names.keys() == load_file(tmp_path / "student.safetensors").keys()
    assert names["features.2.conv.1.1.num_batches_tracked"] == "blocks.1.0.bn2.num_batches_tracked"
    assert len(set(names.values())) == len(names)


def test_the_model_says_what_it_needs():
    _, variables = student(0.1)
    network = folded(variables, 36, 32)
    model = onnx_graph.build(network, onnx_graph.metadata(network, CLASSES, (0.0, 4095.0)))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["classes"]) == list(CLASSES) and json.loads(facts["value_range"]) == [0, 4095]
    assert (facts["image_size"], facts["storage_size"]) == ("32", "36")
    assert "Lanczos" in facts["resize"] and "36 x 36" in facts["resize"] and facts["kdjax_version"]
    (given,) = model.graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 36, 36, 3]


@pytest.mark.parametrize("width", [0.1, 0.25])  # at 0.1 the first block adds to the stem's rectified output
def test_equalisation_changes_the_channels_and_not_the_function(width):
    _, variables = student(width)
    network, images = folded(variables, 32, 32), pixels(9, 32)
    equal = quantise.equalise(network, images)
    expected = run_onnx(onnx_graph.build(network, {}), images)
    assert_close(run_onnx(onnx_graph.build(equal, {}), images), expected)
    # The last bottleneck's channels are of one size with what reads them: sqrt(activation * weight) both.
    tensor = network.blocks[-1].convolutions[-1].name
    written, read = (
        quantise._largest(equal, images, [tensor])[tensor],
        np.abs(equal.last.kernel).max((0, 2, 3)),
    )
    np.testing.assert_allclose(written, read, rtol=1e-4)
    assert np.abs(np.log(equal.last.kernel / network.last.kernel)).max() > 0.1


@pytest.mark.parametrize("settings", quantise.CANDIDATES, ids=str)
def test_quantised_graphs_keep_to_their_settings(settings):
    _, variables = student(0.1)
    network, images = folded(variables, 36, 32), pixels(24, 36)
    model = quantise.quantise(network, images, settings, onnx_graph.metadata(network, CLASSES, ()))
    assert {entry.key for entry in model.metadata_props} >= {"classes", "storage_size", "resize"}
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    before = quantise.equalise(network, images) if settings.equalised else network
    for layer in (before.stem, *before.blocks[5].convolutions, before.last):
        weights, scale = (constants[f"{layer.name}.weight_{part}"] for part in ("quantized", "scale"))
        assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= (64 if settings.reduce_range else 127)
        assert scale.shape == ((len(weights),) if settings.per_channel else ())
        error = weights * scale.reshape(-1, 1, 1, 1) - layer.kernel
        assert (np.abs(error) <= 0.501 * scale.reshape(-1, 1, 1, 1)).all()
    expected = run_onnx(onnx_graph.build(network, {}), images)
    # A random network is far more sensitive than a trained one: this only says that the graph is the same network.
    assert np.corrcoef(expected.ravel(), run_onnx(model, images).ravel())[0, 1] > 0.9


@dataclasses.dataclass
class Selected:
    top1: list
    nll: list


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((None, None), ("kl", 5)),  # best mean over usable seeds; there the lower NLL among equals
        (("alone", None), ("alone", 7)),
        ((None, 7), ("alone", 7)),
        (("cosine", 5), ("cosine", 5)),
    ],
)
def test_the_student_is_chosen_on_validation(asked, expected):
    best = Selected([[0.7, 0.9, 0.95], [0.92, 0.9, 1.0]], [[1, 0.1, 1], [1, 0.2, 1]])
    usable = np.array([[True, True, True], [True, True, False]])
    best.top1[0][2] = 0.85  # cosine's better seed has failed
    chosen = stage.choose(best, usable, ("alone", "kl", "cosine"), (5, 7), *asked)
    assert (chosen.arm, chosen.seed) == expected
    assert (("alone", "kl", "cosine")[chosen.column], (5, 7)[chosen.row]) == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [(("nobody", None), "alone, kl"), ((None, 9), "5, 7"), (("kl", 7), "kl/7 failed"), (("alone", None), "alone")],
)
def test_students_that_are_not_there_are_refused(asked, said):
    best = Selected([[0.7, 0.9], [0.9, 0.9]], [[1, 1], [1, 1]])
    with pytest.raises(InputError, match=said):
        stage.choose(best, np.array([[False, True], [False, False]]), ("alone", "kl"), (5, 7), *asked)


def test_missing_packages_and_other_networks_are_refused(monkeypatch):
    from kdjax.config import base

    config = base()
    export.check(config)
    config.student.model = "vgg16"
    with pytest.raises(InputError, match="student.model"):
        export.check(config)
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(InputError, match=r"no_such_package.*kdjax\[export\]"):
        export.check(config)


def test_an_old_export_is_replaced_whole_or_not_at_all(tmp_path):
    for generation in ("first", "second"):
        with stage.replacing(tmp_path / "export") as place:
            (place / generation).touch()
            assert not (tmp_path / "export" / generation).exists()
    with pytest.raises(OSError), stage.replacing(tmp_path / "export") as place:
        (place / "third").touch()
        raise OSError("the disk is full")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "export",
        "export/second",
    ]


def test_compared_with_the_reference():
    reference = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
    logits = reference.copy()
    logits[1] = [1.5, 1.0]
    found = parity.compare(logits, reference, np.array([0, 0, 1, 1]))
    assert found == {"top1": 0.75, "agreement": 0.75, "largest_logit_difference": 1.5}


@pytest.mark.slow
def test_stablehlo_reloads_without_kdjax(tmp_path):
    _, variables = student(0.1)
    network, images = folded(variables, 36, 32), pixels(2, 36)
    (tmp_path / "student.stablehlo").write_bytes(stablehlo.serialise(network))
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['kdjax'] = None; import numpy as np, jax.export\n"
        "program = jax.export.deserialize(bytearray(open('student.stablehlo', 'rb').read()))\n"
        "np.save('logits.npy', program.call(np.load('images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    assert_close(np.load(tmp_path / "logits.npy"), run_onnx(onnx_graph.build(network, {}), images))
