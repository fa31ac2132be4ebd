"""An ONNX file as teacher: it sees the students' views, and what is not what it seems is refused."""

import json

import numpy as np
import pytest
from helpers.views import IMAGES, SIZE, pixels

from kdjax.errors import InputError
from kdjax.networks.layers import IMAGENET_MEAN, IMAGENET_STD
from kdjax.teacher import onnx as teacher_onnx
from kdjax.teacher.fitted_head import NAME, Head, read_head, write_head
from kdjax.teacher.onnx import OnnxDeclaration, from_encoder, from_onnx, open_onnx
from kdjax.teacher.onnx_file import digest
from kdjax.teacher.teacher import ViewSettings

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CLASSES = ("field", "forest", "water")
RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
ORDER = ("water", "other", "field", "forest")  # of the file's logits
PLACES = [2, 3, 0]
CHOSEN = np.array([7, 2, 9])
"""Examples of which views are asked for."""
MEAN, STD = (0.43, 0.41, 0.3), (0.21, 0.16, 0.14)


@pytest.fixture
def onnx_file(tmp_path):
    """Mean color to four logits; written with layout, element type, metadata and last operation as asked."""

    def write(layout="NHWC", kind=TensorProto.FLOAT, classes=ORDER, side=SIZE, batch="batch", last="Identity", also=()):
        shape = [batch, side, side, 3] if layout == "NHWC" else [batch, 3, side, side]
        axes = [1, 2] if layout == "NHWC" else [2, 3]
        nodes = [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["color"], keepdims=0),
            helper.make_node("Gemm", ["color", "kernel", "bias"], ["scores"]),
            helper.make_node(last, ["scores"], ["logits"]),
        ]
        constants = [
            numpy_helper.from_array(np.array(axes), "axes"),
            numpy_helper.from_array(KERNEL, "kernel"),
            numpy_helper.from_array(BIAS, "bias"),
        ]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size]) for name, size in also]
        graph = helper.make_graph(
            nodes, "teacher", [helper.make_tensor_value_info("images", kind, shape)], outputs, constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        if classes:
            helper.set_model_props(model, {"classes": json.dumps(classes)})
        onnx.save(model, tmp_path / "teacher.onnx")
        return str(tmp_path / "teacher.onnx")

    return write


def given(path, size=SIZE, **declared):
    said = OnnxDeclaration(**declared)
    return from_onnx(open_onnx(path, said, size), said, CLASSES, ViewSettings(size, data_seed=5))


def test_a_file_is_shown_its_own_bands(onnx_file):
    """Of images of five bands, in the order that it takes them, and the choice is part of what its logits depend on."""
    images = np.random.default_rng(1).random((3, SIZE, SIZE, 5), np.float32)
    file = open_onnx(onnx_file(), OnnxDeclaration(input="unit", bands=(4, 1, 2)), SIZE)
    expected = images[..., [4, 1, 2]].mean((1, 2)) @ KERNEL + BIAS
    np.testing.assert_allclose(file.values(images), expected, atol=1e-5)
    assert file.parts["bands"] == [4, 1, 2]
    with pytest.raises(InputError, match="takes images .* gives .*2"):
        open_onnx(onnx_file(), OnnxDeclaration(input="unit", bands=(4, 1)), SIZE)


def scores(view, kind="imagenet"):
    """What the file's three classes should be given, by NumPy."""
    seen = pixels(view).astype(np.float64)
    if kind == "uint8":
        seen = np.round(seen * 255)
    elif kind == "imagenet":
        seen = (seen - IMAGENET_MEAN) / np.array(IMAGENET_STD)
    elif kind == "normalized":
        seen = (seen - MEAN) / np.array(STD)
    return seen.mean((1, 2)) @ KERNEL + BIAS


@pytest.mark.slow
@pytest.mark.parametrize("layout", teacher_onnx.LAYOUTS)
@pytest.mark.parametrize("kind", teacher_onnx.INPUTS)
def test_a_file_sees_the_views_of_the_students(onnx_file, layout, kind):
    path = onnx_file(layout, TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT)
    teacher = given(path, layout=layout, input=kind, **({"mean": MEAN, "std": STD} if kind == "normalized" else {}))
    # A value that lies half-way between two bytes may be rounded either way.
    tolerance = {"rtol": 1e-4, "atol": 0.02 if kind == "uint8" else 1e-4}
    seen = teacher.views(IMAGES, CHOSEN, 3).logits
    np.testing.assert_allclose(seen, scores(3, kind)[CHOSEN][:, PLACES], **tolerance)
    np.testing.assert_allclose(teacher.clean(IMAGES), scores(None, kind)[:, PLACES], **tolerance)


def test_what_does_not_fit_is_refused_by_name(onnx_file, tmp_path):
    def refused(path, said, **options):
        with pytest.raises(InputError, match=said):
            given(path, **options)

    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    refused(str(tmp_path / "bad.onnx"), "bad.onnx cannot be read")
    refused(onnx_file(classes=None), "which logit is which class: give teacher.classes")
    path = onnx_file(classes=None)
    refused(path, "teacher.classes lacks water; it has", classes=("field", "forest", "sea", "other"))
    refused(path, "teacher.classes names water twice", classes=("field", "forest", "water", "water"))
    path = onnx_file()
    refused(path, "itself says that its classes are water, other", classes=ORDER[::-1])
    assert given(path, classes=ORDER).parts == given(path).parts
    refused(path, "onnx_input='uint8'", input="uint8")
    refused(path, "teacher.onnx_layout='NCHW'", layout="NCHW")
    refused(path, "teacher.image_size", size=48)
    refused(path, "has no output 'features'; it has logits", output="features")
    assert given(path).parts != given(path, input="unit").parts


@pytest.mark.parametrize("classes", [CLASSES, ("a", "field", "forest", "b", "water")])
def test_a_file_has_as_many_class_names_as_outputs(onnx_file, classes):
    """A background column that nobody names would shift every other."""
    with pytest.raises(InputError, match=f"has 4 outputs and {len(classes)} class names"):
        given(onnx_file(classes=None), classes=classes)


def test_of_several_outputs_one_is_named(onnx_file):
    path = onnx_file(also=(("color", 3), ("scores", 4)))
    with pytest.raises(InputError, match=r"several outputs \(logits .*, color .*: name the logits"):
        given(path)
    np.testing.assert_allclose(
        given(path, output="scores").clean(IMAGES), scores(None)[:, PLACES], rtol=1e-4, atol=1e-4
    )
    with pytest.raises(InputError, match="3 outputs and 4 class names"):
        given(path, output="color")


@pytest.mark.parametrize(("last", "gives"), [("Softmax", "probabilities"), ("Sigmoid", "sigmoid")])
def test_probabilities_are_refused_or_made_logits(onnx_file, last, gives):
    path = onnx_file(last=last)
    with pytest.raises(InputError, match=f"set teacher.onnx_gives={gives}"):
        given(path)
    found, expected = given(path, gives=gives).clean(IMAGES), scores(None)
    if gives == "probabilities":  # a softmax leaves the offset common to all classes open: their mean is 0
        expected = expected - expected.mean(1, keepdims=True)
    np.testing.assert_allclose(found, expected[:, PLACES], rtol=1e-3, atol=1e-4)
    parts = given(path, gives=gives).parts
    assert parts["output"] == ["logits", gives]
    assert parts.get("mean") == (0 if gives == "probabilities" else None)  # other logits than earlier versions stored
    with pytest.raises(InputError, match="look like logits"):
        given(onnx_file(), gives=gives)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_honored(onnx_file, batch):
    teacher = given(onnx_file(batch=batch))
    np.testing.assert_allclose(teacher.clean(IMAGES), scores(None)[:, PLACES], rtol=1e-4, atol=1e-4)


def test_tensors_in_a_file_of_their_own_are_part_of_the_teacher(onnx_file, tmp_path):
    model = onnx.load(onnx_file())
    path = tmp_path / "beside.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="beside.data", size_threshold=0)
    first, tensors = digest(str(path)), bytearray((tmp_path / "beside.data").read_bytes())
    assert digest(str(path)) == first
    tensors[-1] ^= 1
    (tmp_path / "beside.data").write_bytes(tensors)
    assert digest(str(path)) != first
    (tmp_path / "beside.data").unlink()
    with pytest.raises(InputError, match="beside.data, which cannot be read"):
        digest(str(path))


def test_an_encoder_gives_its_embeddings_and_the_logits_of_a_head(onnx_file, tmp_path):
    path, said = onnx_file(classes=None), OnnxDeclaration(gives="embeddings", input="normalized", mean=MEAN, std=STD)
    file, rng = open_onnx(path, said, SIZE), np.random.default_rng(2)
    assert file.length == 4
    measured = {"strength": 1e-3, "linear_top1": 0.75, "neighbors_top1": 0.5}
    head = Head(rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32), file.parts, measured)
    write_head(tmp_path / "teacher", head)
    teacher = from_encoder(file, read_head(tmp_path / "teacher", file.parts), ViewSettings(SIZE, data_seed=5))
    assert teacher.measured == measured
    expected = scores(3, "normalized")[CHOSEN]
    seen = teacher.views(IMAGES, CHOSEN, 3)
    np.testing.assert_allclose(seen.features, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen.logits, expected @ head.kernel + head.bias, rtol=1e-4, atol=1e-4)
    plain = scores(None, "normalized")
    np.testing.assert_allclose(file.plain(IMAGES), plain, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(teacher.clean(IMAGES), plain @ head.kernel + head.bias, rtol=1e-4, atol=1e-4)
    # Another head, file or normalization is another teacher, and a head of others is not taken.
    other = Head(head.kernel, head.bias + 1, file.parts)
    assert from_encoder(file, other, ViewSettings(SIZE, data_seed=5)).parts != teacher.parts
    unlike = open_onnx(path, OnnxDeclaration(gives="embeddings", input="normalized", mean=STD, std=STD), SIZE)
    assert unlike.parts != file.parts and read_head(tmp_path / "teacher", unlike.parts) is None


def test_a_damaged_head_is_named(onnx_file, tmp_path):
    file = open_onnx(onnx_file(), OnnxDeclaration(gives="embeddings"), SIZE)
    assert read_head(tmp_path, file.parts) is None
    (tmp_path / NAME).write_bytes(b"PK")
    with pytest.raises(InputError, match=f"{NAME} is damaged: remove it"):
        read_head(tmp_path, file.parts)


def test_a_file_that_takes_more_than_images_is_refused(onnx_file):
    path = onnx_file()
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("place", TensorProto.FLOAT, ["batch", 2]))
    onnx.save(model, path)
    with pytest.raises(InputError, match="takes images, place: give a file that takes only images"):
        given(path)


def test_an_output_of_maps_or_tokens_is_refused(onnx_file):
    model = onnx.load(onnx_file())
    model.graph.node[-1].CopyFrom(helper.make_node("Unsqueeze", ["scores", "last"], ["logits"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "last"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 1]))
    path = onnx_file()
    onnx.save(model, path)
    for gives in ("embeddings", "logits"):
        with pytest.raises(InputError, match=r"has the shape \(6, 4, 1\) for 6 images: name an output with one row"):
            open_onnx(path, OnnxDeclaration(gives=gives), SIZE)


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [([0, -1], 64 * 64 * 3), ([1, -1], SIZE * SIZE * 3)],  # a layer for sides of 64; one that was traced with one image
)
def test_a_file_that_fails_as_it_runs_is_one_line(tmp_path, shape, kernel):
    """Its input says that it takes any side, or any batch."""
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(shape), "shape"),
        numpy_helper.from_array(np.ones((kernel, 4), np.float32), "kernel"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", "height", "width", 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "teacher", [images], [logits], constants)
    path = str(tmp_path / "teacher.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    said = r"teacher.onnx: .*teacher.onnx fails for images \(6, 32, 32, 3\): .*set teacher.image_size"
    with pytest.raises(InputError, match=said) as error:
        open_onnx(path, OnnxDeclaration(classes=ORDER), SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("told", [True, False])
def test_classes_may_be_numbers(onnx_file, told):
    """They are the names of folders, and a list of numbers in the metadata or the configuration names the same."""
    path, numbers = onnx_file(classes=(7, 8, 9, 10) if told else None), (7, 8, 9, 10)
    said = OnnxDeclaration(input="unit", classes=() if told else numbers)
    teacher = from_onnx(open_onnx(path, said, SIZE), said, ("10", "7"), ViewSettings(SIZE, data_seed=5))
    expected = pixels().mean((1, 2)) @ KERNEL + BIAS
    np.testing.assert_allclose(teacher.clean(IMAGES), expected[:, [3, 0]], atol=1e-5)
    with pytest.raises(InputError, match="lacks 1; it has 7, 8, 9, 10"):
        from_onnx(open_onnx(path, said, SIZE), said, ("1", "7"), ViewSettings(SIZE, data_seed=5))


@pytest.mark.parametrize("said", ["abcd", {"water": 0}, 4])
def test_metadata_that_are_no_list_name_no_classes(onnx_file, said):
    with pytest.raises(InputError, match="does not say which logit is which class"):
        given(onnx_file(classes=said))
