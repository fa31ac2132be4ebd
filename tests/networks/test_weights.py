"""ImageNet weights by torchvision's and timm's names, and files that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax import networks
from kdjax.errors import InputError
from kdjax.networks.pretrained import load_imagenet, named_tensors


def variables(name, seed, classes=5, **options):
    model = networks.create(name, num_classes=classes, **{"width": 0.25, **options})
    return jax.tree.map(np.asarray, dict(jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)))))


@pytest.mark.parametrize("naming", ["torchvision", "timm"])
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "mobilenet_v2"])
def test_features_round_trip_and_the_head_stays(tmp_path, name, naming):
    source, target = variables(name, 0), variables(name, 1)
    save_file(named_tensors(name, source, naming), tmp_path / "weights.safetensors")
    loaded, report = load_imagenet(tmp_path / "weights.safetensors", name, target)
    assert naming in report and "head" in report
    for collection, tree in loaded.items():
        for layer, leaves in tree.items():
            expected = (target if layer == "head" else source)[collection][layer]
            jax.tree.map(np.testing.assert_array_equal, leaves, expected)


@pytest.mark.parametrize("naming", ["torchvision", "timm"])
def test_the_hidden_layers_of_vgg16_come_along_and_the_logits_stay(tmp_path, naming):
    source, target = (variables("vgg16", seed, classes, head="fc", width=0.05) for seed, classes in ((0, 9), (1, 5)))
    save_file(named_tensors("vgg16", source, naming), tmp_path / "weights.safetensors")
    loaded, _ = load_imagenet(tmp_path / "weights.safetensors", "vgg16", target, head=True)
    for layer, expected in (("fc_1", source), ("fc_2", source), ("logits", target)):
        jax.tree.map(np.testing.assert_array_equal, loaded["params"]["head"][layer], expected["params"]["head"][layer])


@pytest.mark.parametrize(
    ("naming", "names"),
    [
        ("torchvision", ["features.0.0.weight", "features.1.conv.0.0.weight", "features.18.1.running_var"]),
        ("timm", ["conv_stem.weight", "blocks.0.0.conv_dw.weight", "bn2.running_var"]),
    ],
)
def test_names_are_those_of_the_packages(naming, names):
    assert set(names) <= set(named_tensors("mobilenet_v2", variables("mobilenet_v2", 0), naming))


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    tensors = named_tensors("vgg16", variables("vgg16", 0))
    tensors["features.2.weight"] = tensors["features.2.weight"][:1]
    tensors["features.99.weight"] = tensors.pop("features.5.weight")
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as error:
        load_imagenet(tmp_path / "weights.safetensors", "vgg16", variables("vgg16", 1))
    for name in ("features.2.weight", "features.99.weight", "features.5.weight"):
        assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"pickle me")
    with pytest.raises(InputError, match="weights.safetensors"):
        load_imagenet(tmp_path / "weights.safetensors", "vgg16", variables("vgg16", 0))


def test_a_hub_id_is_fetched_by_its_file(tmp_path, monkeypatch):
    import huggingface_hub

    path = tmp_path / "model.safetensors"
    save_file(named_tensors("vgg16", variables("vgg16", 0), "timm"), path)
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *args, **kwargs: asked.append((args, kwargs)) or str(path)
    )
    load_imagenet("timm/vgg16.tv_in1k", "vgg16", variables("vgg16", 1))
    assert "timm/vgg16.tv_in1k" in str(asked) and "model.safetensors" in str(asked)
