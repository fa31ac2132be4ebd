"""A teacher from anywhere ends as the same logits: a network of kdjax's, or an ONNX file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import networks
from kdjax.errors import InputError
from kdjax.inputs import augment
from kdjax.networks.layers import IMAGENET_MEAN, IMAGENET_STD
from kdjax.runtime.devices import Mapping
from kdjax.teacher import teachers

CLASSES = ("field", "forest", "water")
SIZE = 32
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 36, 36, 3), dtype=np.uint8)
KERNEL, BIAS = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
ORDER = ("water", "other", "field", "forest")  # of the file's logits
PLACES = [2, 3, 0]


def pixels(view=None):
    """What the students see, one image after the other, by the functions that define it."""
    if view is None:
        return np.stack([augment.eval_view(image, SIZE) for image in jnp.asarray(IMAGES)])
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(5), index), view) for index in range(len(IMAGES))]
    return np.stack([augment.augment(image, key, SIZE) for image, key in zip(jnp.asarray(IMAGES), keys, strict=True)])


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_network_sees_the_views_of_the_students(on_device, devices):
    model = networks.create("vgg16", num_classes=3, width=0.05)
    variables = jax.tree.map(np.asarray, dict(model.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))))
    teacher = teachers.from_network(
        "vgg16", model, variables, size=SIZE, data_seed=5, dtype="float32", on_device=on_device,
        mapping=Mapping(jax.devices()[:devices]),
    )  # fmt: skip
    chosen = np.array([3, 9, 0])
    expected = model.apply(variables, pixels(view=2)[chosen])
    np.testing.assert_allclose(teacher.views(IMAGES, chosen, 2), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(teacher.clean(IMAGES), model.apply(variables, pixels()), rtol=1e-4, atol=1e-5)
    assert teacher.parts["model"] == "vgg16" and len(teacher.parts["teacher"]) == 64


@pytest.fixture
def onnx_file(tmp_path):
    """Mean colour to four logits; written with layout, element type and metadata as asked."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def write(layout="NHWC", kind=TensorProto.FLOAT, classes=None, side=SIZE):
        shape = ["batch", side, side, 3] if layout == "NHWC" else ["batch", 3, side, side]
        axes = [1, 2] if layout == "NHWC" else [2, 3]
        nodes = [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["colour"], keepdims=0),
            helper.make_node("Gemm", ["colour", "kernel", "bias"], ["logits"]),
        ]
        constants = [
            numpy_helper.from_array(np.array(axes), "axes"),
            numpy_helper.from_array(KERNEL, "kernel"),
            numpy_helper.from_array(BIAS, "bias"),
        ]
        graph = helper.make_graph(
            nodes, "teacher", [helper.make_tensor_value_info("images", kind, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])], constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        if classes:
            helper.set_model_props(model, {"classes": json.dumps(classes)})
        onnx.save(model, tmp_path / "teacher.onnx")
        return str(tmp_path / "teacher.onnx")

    return write


OPTIONS = dict(layout="NHWC", pixels="imagenet", order=(), classes=CLASSES, size=SIZE, data_seed=5)


@pytest.mark.parametrize("layout", teachers.ONNX_LAYOUTS)
@pytest.mark.parametrize("kind", teachers.ONNX_INPUTS)
def test_an_onnx_file_sees_the_views_of_the_students(onnx_file, layout, kind):
    from onnx import TensorProto

    path = onnx_file(layout, TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT, ORDER)
    teacher = teachers.from_onnx(path, **OPTIONS | {"layout": layout, "pixels": kind})
    for view, found in ((3, teacher.views(IMAGES, np.arange(11), 3)), (None, teacher.clean(IMAGES))):
        seen = pixels(view).astype(np.float64)
        if kind == "uint8":
            seen = np.round(seen * 255)
        elif kind == "imagenet":
            seen = (seen - IMAGENET_MEAN) / np.array(IMAGENET_STD)
        expected = (seen.mean((1, 2)) @ KERNEL + BIAS)[:, PLACES]
        # A value that lies half-way between two bytes may be rounded either way.
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.02 if kind == "uint8" else 1e-4)


def test_what_does_not_fit_is_refused_by_name(onnx_file, tmp_path):
    def refused(path, said, **options):
        with pytest.raises(InputError, match=said):
            teachers.from_onnx(path, **OPTIONS | options)

    refused(str(tmp_path / "none.onnx"), "no file .*none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    refused(str(tmp_path / "bad.onnx"), "bad.onnx cannot be read")
    refused(onnx_file(), "which logit is which class: give teacher.onnx_classes")
    refused(onnx_file(), "lacks water", order=("field", "forest", "sea", "other"))
    refused(onnx_file(), "names a class twice", order=("field", "forest", "water", "water"))
    path = onnx_file(classes=ORDER)
    refused(path, "onnx_input='uint8'", pixels="uint8")
    refused(path, "teacher.onnx_layout='NCHW'", layout="NCHW")
    refused(path, "teacher.image_size", size=48)
    refused(path, "at least 5", order=("a", "field", "forest", "b", "water"))
    assert teachers.from_onnx(path, **OPTIONS).parts != teachers.from_onnx(path, **OPTIONS | {"pixels": "unit"}).parts
