"""ImageNet weights by torchvision's and timm's names, and files that do not fit."""

import functools
import hashlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.variables import drawn, randomized
from safetensors.numpy import load_file, save_file

from kdjax import networks
from kdjax.errors import InputError
from kdjax.networks.pretrained import check, load_imagenet, named_tensors

BOTH = ("vgg16", "vgg16_bn", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
NAMINGS = [(name, naming) for name in BOTH for naming in ("torchvision", "timm")] + [
    ("efficientnet_lite0", "timm"),
    ("efficientnet_lite2", "timm"),
    ("resnet18", "torchvision"),
    ("resnet34", "torchvision"),
    ("resnet50", "torchvision"),
]


@pytest.mark.parametrize(("name", "naming"), NAMINGS)
def test_features_round_trip_and_the_head_stays(tmp_path, name, naming):
    source, target = drawn(name, 0), drawn(name, 1)
    save_file(named_tensors(name, source, naming), tmp_path / "weights.safetensors")
    taken = load_imagenet(tmp_path / "weights.safetensors", name, target)
    loaded, report = taken.variables, taken.report
    assert naming in report and "head" in report
    spec = networks.MODELS[name]
    renamed = naming in (next(iter(spec.names)), *spec.aliases)
    assert ("another eps" in report) is not renamed
    equal = functools.partial(np.testing.assert_allclose, rtol=0 if renamed else 3e-7)
    for collection, tree in loaded.items():
        for layer, leaves in tree.items():
            jax.tree.map(equal, leaves, (target if layer == "head" else source)[collection][layer])


@pytest.mark.parametrize("name", ["mobilenet_v3_small", pytest.param("mobilenet_v3_large", marks=pytest.mark.slow)])
def test_weights_for_another_eps_give_the_network_that_they_were_trained_in(tmp_path, name):
    """timm builds MobileNetV3 with eps 1e-5. Every second channel has a variance near 1e-3, which is the eps here."""
    torch = pytest.importorskip("torch")
    import torch_reference

    def shrunk(path, leaf):
        power = {"var": -3, "scale": -1.5}.get(path[-1].key, 0)
        return leaf * np.float32(10**power) ** (np.arange(leaf.size) % 2).astype(leaf.dtype) if power else leaf

    model = networks.create(name, num_classes=5, width=0.25)
    variables = jax.tree_util.tree_map_with_path(shrunk, randomized(model, 32))
    tensors, turned = (named_tensors(name, variables, naming) for naming in ("torchvision", "timm"))
    theirs = torch_reference.MobileNetV3(5, name.rsplit("_", 1)[-1], 0.25, eps=1e-5).double().eval()
    # As if they had been trained there. The reference has torchvision's names; both list the same tensors in order.
    theirs.load_state_dict(theirs.state_dict() | {key: torch.tensor(value) for key, value in tensors.items()})
    timm = {key: value.reshape(like.shape) for (key, like), value in zip(turned.items(), tensors.values(), strict=True)}
    save_file(timm, tmp_path / "weights.safetensors")
    images = np.random.default_rng(1).random((4, 33, 33, 3))
    with torch.no_grad():
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    loaded = load_imagenet(tmp_path / "weights.safetensors", name, variables, "fitting").variables
    apply = jax.jit(lambda variables: model.apply(variables, jnp.float32(images)).logits)
    error = lambda variables: np.abs(np.asarray(apply(variables)) - expected).max() / np.abs(expected).max()
    assert error(loaded) < 1e-4 and error(variables) > 1e-2
    back = named_tensors(name, loaded, "timm")
    for key, value in timm.items():
        np.testing.assert_allclose(back[key].ravel(), value.ravel(), rtol=3e-7)


@pytest.mark.parametrize("naming", ["torchvision", "timm"])
def test_the_hidden_layers_of_vgg16_come_along_and_the_logits_stay(tmp_path, naming):
    source, target = (drawn("vgg16", seed, classes, head="fc", width=0.05) for seed, classes in ((0, 9), (1, 5)))
    save_file(named_tensors("vgg16", source, naming), tmp_path / "weights.safetensors")
    loaded = load_imagenet(tmp_path / "weights.safetensors", "vgg16", target, "fitting").variables
    for layer, expected in (("fc_1", source), ("fc_2", source), ("logits", target)):
        jax.tree.map(np.testing.assert_array_equal, loaded["params"]["head"][layer], expected["params"]["head"][layer])


@pytest.mark.parametrize(("name", "naming"), NAMINGS)
def test_names_are_those_of_the_packages(name, naming):
    """Every name and shape of torchvision's and timm's networks of 1000 classes, as those packages list them."""
    lines = (Path(__file__).parent / "names" / f"{naming}_{name}.txt").read_text().splitlines()
    expected = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}
    model = networks.create(name, num_classes=1000, head=networks.MODELS[name].heads[-1])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.int8(0), leaf.shape), dict(shapes))  # no memory
    assert {key: value.shape for key, value in named_tensors(name, zeros, naming).items()} == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_that_are_not_finite_are_refused_when_read(tmp_path, dtype):
    """Also those that only float32 cannot hold, and in a layer of the head that would be taken."""
    target = drawn("mobilenet_v2", 1)
    tensors = named_tensors("mobilenet_v2", drawn("mobilenet_v2", 0))
    cast = {key: np.asarray(value, jnp.dtype(dtype)) for key, value in tensors.items()}
    path = tmp_path / "weights.safetensors"
    save_file(cast, path)
    check(path, "mobilenet_v2", target)
    for key in ("features.3.conv.1.1.running_var", "classifier.1.bias"):
        for value in (np.nan, 1e300 if dtype == "float64" else np.inf):
            bad = {**cast, key: cast[key].copy()}
            bad[key][1] = value
            save_file(bad, path)
            for read in (check, load_imagenet):
                with pytest.raises(InputError, match=rf"{key} \(1 of") as error:
                    read(path, "mobilenet_v2", target)
                assert "\n" not in str(error.value)


def test_quantized_weights_are_refused_by_their_dtype(tmp_path):
    """NumPy cannot even hold the 8-bit floating-point numbers that other packages save."""
    tensors = named_tensors("mobilenet_v2", drawn("mobilenet_v2", 0))
    name, path = "features.3.conv.1.1.running_var", tmp_path / "weights.safetensors"
    tensors[name] = tensors[name].astype(np.uint8)
    save_file(tensors, path)
    with pytest.raises(InputError, match=f"{name} holds uint8, not floating-point"):
        check(path, "mobilenet_v2", drawn("mobilenet_v2", 1))
    content = path.read_bytes().replace(b'"dtype":"U8"', b'"dtype":"F8_E4M3"')
    length = int.from_bytes(content[:8], "little") + len("F8_E4M3") - len("U8")
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(InputError, match=f"{name} holds F8_E4M3: give the file in float32"):
        check(path, "mobilenet_v2", drawn("mobilenet_v2", 1))


def test_a_first_layer_for_pixels_of_0_to_255_is_pointed_out(tmp_path):
    target = drawn("vgg16", 1)
    tensors = named_tensors("vgg16", drawn("vgg16", 0))
    path = tmp_path / "weights.safetensors"
    for factor, warned in ((1.0, False), (1 / 58, True)):
        save_file({**tensors, "features.0.weight": tensors["features.0.weight"] * np.float32(factor)}, path)
        report = load_imagenet(path, "vgg16", target).report
        assert ("WARNING: the filters of features.0.weight" in report) is warned and "\n" not in report


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2"])
def test_weights_in_caffe_form_see_the_same_pixels(tmp_path, name):
    """On BGR pixels of 0 to 255 less their mean, the layer of the file; on ours, the layer that was made of it."""
    rng = np.random.default_rng(0)
    tensors = named_tensors(name, drawn(name, 0))
    first = {"vgg16": "features.0.weight", "mobilenet_v2": "features.0.0.weight"}[name]
    kernel = tensors[first] / 58
    save_file({**tensors, first: kernel}, tmp_path / "weights.safetensors")
    taken = load_imagenet(tmp_path / "weights.safetensors", name, drawn(name, 1), pixels="caffe")
    assert "WARNING" not in taken.report and taken.record["pixels"] == "caffe"
    ours = taken.variables["params"][{"vgg16": "conv_1", "mobilenet_v2": "stem"}[name]]["kernel"]
    patch = rng.random((3, 3, 3))  # RGB
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    caffe = 255 * (patch - mean)[..., ::-1]
    expected = np.einsum("hwi,oihw->o", caffe, kernel.astype(np.float64))
    np.testing.assert_allclose(np.einsum("hwi,hwio->o", (patch - mean) / std, ours), expected, rtol=1e-5, atol=1e-5)
    save_file(tensors, tmp_path / "weights.safetensors")
    report = load_imagenet(tmp_path / "weights.safetensors", name, drawn(name, 1), pixels="caffe").report
    assert "set weights_pixels to 'network'" in report


def test_where_weights_came_from_is_recorded(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    path = tmp_path / "models--org--name" / "snapshots" / commit / "sub" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(named_tensors("vgg16", drawn("vgg16", 0)), path)
    record = load_imagenet(path, "vgg16", drawn("vgg16", 1)).record
    assert record == {
        "source": str(path), "file": "model.safetensors", "commit": commit, "naming": "torchvision",
        "pixels": "network", "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip
    moved = path.rename(tmp_path / "model.safetensors")
    assert load_imagenet(moved, "vgg16", drawn("vgg16", 1)).record["commit"] is None


@pytest.mark.parametrize(
    ("name", "naming", "first", "theirs"),
    [
        ("vgg16", "torchvision", "conv_1", "features.0.weight"),
        ("mobilenet_v2", "torchvision", "stem", "features.0.0.weight"),
        ("efficientnet_lite0", "timm", "stem", "conv_stem.weight"),
        ("efficientnet_lite2", "timm", "stem", "conv_stem.weight"),
    ],
)
def test_the_published_weights_are_read(name, naming, first, theirs):
    path = Path(__file__).resolve().parents[2] / "../shared/data" / f"{name}_imagenet_features.safetensors"
    if not path.is_file():
        pytest.skip("no ../shared/data with ImageNet weights here")
    target = drawn(name, 0, width=1.0)
    taken = load_imagenet(path, name, target)
    loaded, report = taken.variables, taken.report
    kernel = load_file(path)[theirs].transpose(2, 3, 1, 0).astype(np.float32)
    np.testing.assert_array_equal(loaded["params"][first]["kernel"], kernel)
    assert "WARNING" not in report and f"{naming} names" in report and report.endswith("kept as initialized: head")


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    tensors = named_tensors("vgg16", drawn("vgg16", 0))
    tensors["features.2.weight"] = tensors["features.2.weight"][:1]
    tensors["features.99.weight"] = tensors.pop("features.5.weight")
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as error:
        load_imagenet(tmp_path / "weights.safetensors", "vgg16", drawn("vgg16", 1))
    for name in ("features.2.weight", "features.99.weight", "features.5.weight"):
        assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"pickle me")
    with pytest.raises(InputError, match="weights.safetensors"):
        load_imagenet(tmp_path / "weights.safetensors", "vgg16", drawn("vgg16", 0))


LITE, LARGE = "timm/tf_efficientnet_lite0.in1k", "timm/mobilenetv3_large_100.ra_in1k"


@pytest.mark.parametrize(
    ("name", "source", "instead"),
    [
        ("efficientnet_lite0", "timm/efficientnet_lite0.ra_in1k", LITE),
        ("efficientnet_lite0", "timm/efficientnet_lite0", LITE),
        ("efficientnet_lite0", "weights/efficientnet_lite0.ra_in1k.safetensors", LITE),
        ("efficientnet_lite0", "efficientnet_lite0_ra-37913777.safetensors", LITE),
        ("mobilenet_v3_large", "timm/mobilenetv3_large_100.miil_in21k", LARGE),
        ("mobilenet_v3_large", "timm/mobilenetv3_large_100.ra4_e3600_r224_in1k", LARGE),
        ("mobilenet_v3_large", "timm/tf_mobilenetv3_large_100.in1k", LARGE),
        ("resnet34", "timm/resnet34.ra4_e3600_r224_in1k", "timm/resnet34.a1_in1k"),
        ("resnet50", "timm/resnetaa50.a1h_in1k", "timm/resnet50.a1_in1k"),
        ("resnet50", "weights/resnetblur50_bt.safetensors", "timm/resnet50.a1_in1k"),
    ],
)
def test_files_of_another_network_under_the_same_names_are_refused_by_theirs(name, source, instead):
    """Padding, pooling, eps or pixel statistics differ, which no tensor shows. Nothing is fetched."""
    with pytest.raises(InputError, match=f"weights {re.escape(source)}: .* give {re.escape(instead)}"):
        load_imagenet(source, name, {})


def test_files_of_the_same_network_are_not_refused_by_their_names():
    for name, source in (
        *((f"efficientnet_lite{size}", f"timm/tf_efficientnet_lite{size}.in1k") for size in range(5)),
        *((f"resnet{depth}", f"timm/resnet{depth}.{recipe}_in1k") for depth in (18, 34, 50) for recipe in ("a1", "tv")),
        *((f"mobilenet_v3_{size}", f"timm/mobilenetv3_{size}_100.ra_in1k") for size in ("small", "large")),
        *((name, f"runs/{name}/export/student.safetensors") for name in networks.MODELS),
    ):
        assert not any(re.search(pattern, source) for pattern in networks.MODELS[name].unlike)
