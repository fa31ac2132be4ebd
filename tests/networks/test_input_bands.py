"""Networks that take other bands than red, green and blue."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from helpers.variables import randomized
from safetensors.numpy import save_file

from kdjax import networks
from kdjax.deploy.export import tensors
from kdjax.errors import InputError
from kdjax.networks import layers, pretrained, weights_metadata
from kdjax.networks.layers import InputBands
from kdjax.networks.widening import widened

FAMILIES = ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "resnet18", "vgg16")


def test_bands_are_chosen_and_normalized():
    images = np.random.default_rng(0).random((2, 4, 4, 5))
    bands = InputBands((0.1, 0.2), (0.5, 0.25), (3, 1))
    expected = (images[..., [3, 1]] - [0.1, 0.2]) / [0.5, 0.25]
    np.testing.assert_allclose(layers.normalize(jnp.asarray(images), bands), expected, atol=1e-6)
    for other in (InputBands((0.0,) * 4, (1.0,) * 4), InputBands((0.0,), (1.0,), (5,))):
        with pytest.raises(ValueError, match="images of 5 bands"):
            layers.normalize(jnp.asarray(images), other)


@pytest.mark.parametrize("colors, bands", [((2, 1, 0), 5), ((1, 2, None), 3), ((None, None, None), 2)])
def test_a_gray_image_is_answered_alike_whatever_the_bands(colors, bands):
    """The sum over the bands is that over the colors; a third more where all three and others are there."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    wide = widened(kernel, bands, colors)
    assert wide.shape == (3, 3, bands, 4)
    factor = 4 / 3 if None not in colors else 1
    missing = [color for color, place in enumerate(colors) if place is None]
    expected = kernel.sum(2) + (
        kernel.mean(2) if not missing else len(missing) * kernel.mean(2) - kernel[:, :, missing].sum(2)
    )
    np.testing.assert_allclose(wide.sum(2), expected, atol=1e-12)
    gray = np.repeat(kernel.mean(2, keepdims=True), 3, axis=2)
    np.testing.assert_allclose(widened(gray, bands, colors).sum(2), factor * gray.sum(2), atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_blank_bands_leave_the_first_layer_of_the_network_for_rgb(name, tmp_path):
    """Blank is 0 once it is normalized: the band's mean."""
    rgb = networks.create(name, 3, width=0.25)
    images = np.random.default_rng(0).random((2, 16, 16, 3))
    variables = {"batch_stats": {}, **randomized(rgb, 32)}
    save_file(pretrained.named_tensors(name, variables), tmp_path / "rgb.safetensors")
    mean, std = ((*getattr(rgb.bands, kind)[::-1], 0.3, 0.6) for kind in ("mean", "std"))
    wide = rgb.clone(bands=InputBands(mean, std, (0, 1, 2, 4, 3)))
    start = {"batch_stats": {}, **randomized(wide, 32)}
    loaded = pretrained.load_imagenet(tmp_path / "rgb.safetensors", name, start, "whole", colors=(2, 1, 0))
    blank = np.concatenate([images[..., ::-1], np.full((2, 16, 16, 1), 0.6), np.full((2, 16, 16, 1), 0.3)], -1)

    def first(network, variables, images):
        params = variables["params"]
        kernel = params["conv_1" if "conv_1" in params else "stem"]["kernel"]
        layout = ("NHWC", "HWIO", "NHWC")
        normalized = layers.normalize(jnp.asarray(images), network.bands)
        return jax.lax.conv_general_dilated(normalized, kernel, (1, 1), "VALID", dimension_numbers=layout)

    expected = first(rgb, variables, images)
    np.testing.assert_allclose(first(wide, loaded.variables, blank), expected, atol=1e-5)
    for leaf, value in traverse_util.flatten_dict(loaded.variables).items():  # the other layers are the file's
        if leaf[1] not in pretrained.STEMS:
            np.testing.assert_array_equal(value, traverse_util.flatten_dict(variables)[leaf])


def test_a_file_for_other_bands_is_taken_as_it_is(tmp_path):
    """An exported student's says which bands; without that it would be taken for red, green and blue."""
    name = "mobilenet_v2"
    network = networks.create(name, 3, width=0.25).clone(bands=InputBands((0.0,) * 3, (1.0,) * 3))
    variables = randomized(network, 32)
    named = pretrained.named_tensors(name, variables)
    save_file(named, tmp_path / "nir.safetensors", {"bands": '["nir", "red", "green"]'})
    assert weights_metadata.band_names(tmp_path / "nir.safetensors") == ["nir", "red", "green"]
    taken = pretrained.load_imagenet(tmp_path / "nir.safetensors", name, variables, "whole", colors=(1, 2, None))
    stem = lambda one: np.asarray(one["params"]["stem"]["kernel"])
    np.testing.assert_array_equal(stem(taken.variables), stem(variables))


@pytest.mark.parametrize("text", ["rgb", '{"red": 0}', "[1, 2]"])
def test_metadata_that_name_no_bands_are_those_of_a_file_for_rgb(tmp_path, text):
    """Whoever else writes a field of that name, its file is widened as any other."""
    name = "mobilenet_v2"
    rgb = networks.create(name, 3, width=0.25)
    variables = randomized(rgb, 32)
    save_file(pretrained.named_tensors(name, variables), tmp_path / "rgb.safetensors", {"bands": text})
    wide = randomized(rgb.clone(bands=InputBands((0.0,) * 5, (1.0,) * 5)), 32)
    taken = pretrained.load_imagenet(tmp_path / "rgb.safetensors", name, wide, "whole", colors=(2, 1, 0))
    assert taken.variables["params"]["stem"]["kernel"].shape[2] == 5


def test_a_file_that_does_not_fit_the_bands_is_refused(tmp_path):
    name = "mobilenet_v2"
    network = networks.create(name, 3, width=0.25).clone(bands=InputBands((0.0,) * 5, (1.0,) * 5))
    variables = randomized(network, 32)
    save_file(pretrained.named_tensors(name, variables), tmp_path / "five.safetensors")
    with pytest.raises(InputError, match="features.0.0.weight .* instead of"):
        pretrained.load_imagenet(tmp_path / "five.safetensors", name, variables, colors=(0, 1, 2))


def test_the_least_number_of_bands():
    assert InputBands((0.0,) * 3, (1.0,) * 3).required == 3
    assert dataclasses.replace(InputBands((0.0,), (1.0,)), chosen=(6,)).required == 7
    assert layers.images_for(networks.create("vgg16", 2), 32).shape == (1, 32, 32, 3)


def test_what_was_taken_of_a_file_has_the_statistics_that_it_says(tmp_path):
    name = "mobilenet_v2"
    network = networks.create(name, 3, width=0.1).clone(bands=InputBands((0.3, 0.1), (0.2, 0.1)))
    variables, facts = randomized(network, 32), {"bands": '["nir", "red"]', "mean": "[0.3, 0.1]", "std": "[0.2, 0.1]"}
    tensors.write(tmp_path, name, variables, {**facts, "value_range": "[0, 10000]", "input": "in words"})
    file = tmp_path / "student.safetensors"
    assert weights_metadata.value_range(file) == [0, 10_000] and weights_metadata.statistics(file) == (
        [0.3, 0.1],
        [0.2, 0.1],
    )
    record = pretrained.load_imagenet(file, name, variables, "whole", colors=(1, None, None)).record
    assert {key: record[key] for key in facts} == {key: json.loads(text) for key, text in facts.items()}


@pytest.mark.parametrize("item", [float("nan"), float("-inf"), 10**400, -(10**400), True, "1", None, [1.0]])
def test_metadata_that_are_not_finite_floats_count_as_missing(item):
    assert weights_metadata.as_numbers([0.5, item]) is None
    assert weights_metadata.as_numbers([1, sys.float_info.max]) == [1.0, sys.float_info.max]
