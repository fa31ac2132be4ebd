"""A new network is one file and one line in the registry: all that is done with a network is done with it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_residual
from helpers.variables import randomized, with_statistics_of
from safetensors.numpy import load_file

from kdjax import networks
from kdjax.errors import InputError
from kdjax.networks.pretrained import load_imagenet, named_tensors

NAME = "tiny_residual"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The one line."""
    for name, model in tiny_residual.MODELS.items():
        monkeypatch.setitem(networks.MODELS, name, model)


def images(count, side):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def trained(form="examples_first"):
    network = networks.create(NAME, 4, form=form)
    return network, with_statistics_of(network, randomized(network, 32), images(8, 32) / np.float32(255))


def test_it_is_made_and_costed():
    with pytest.raises(InputError, match="head of tiny_residual"):
        networks.create(NAME, 4, head="fc")
    network, variables = trained()
    shown = images(3, 32) / np.float32(255)
    first, last = (networks.create(NAME, 4, form=form).apply(variables, shown) for form in networks.layers.FORMS)
    np.testing.assert_allclose(first.logits, last.logits, rtol=1e-4, atol=1e-5)
    assert first.features.shape == (3, 16)
    cost = networks.cost(network, 32)
    assert cost["macs"] == 16 * 16 * (27 * 16 + 9 * 16 + 16 * 16) + 16 * 4
    assert cost["params"] == 27 * 16 + 9 * 16 + 16 * 16 + 3 * 2 * 16 + 16 * 4 + 4


def test_its_weights_have_names(tmp_path):
    from safetensors.numpy import save_file

    _, variables = trained()
    tensors = named_tensors(NAME, variables)
    assert tensors["block.deep.weight"].shape == (16, 1, 3, 3) and tensors["fc.weight"].shape == (4, 16)
    save_file(tensors, tmp_path / "weights.safetensors")
    taken = load_imagenet(tmp_path / "weights.safetensors", NAME, jax.tree.map(np.zeros_like, variables))
    loaded, report = taken.variables, taken.report
    assert "own names" in report
    jax.tree.map(np.testing.assert_array_equal, loaded["params"]["wide"], variables["params"]["wide"])


def test_it_is_exported_in_every_format(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from helpers.exported import assert_close, run_onnx

    from kdjax.deploy.export import onnx_graph, quantize, stablehlo, tensors
    from kdjax.deploy.export.fold import fold

    network, variables = trained()
    shown = images(16, 32)
    expected = np.asarray(network.apply(variables, jnp.asarray(shown / np.float32(255))).logits)
    graph = fold(NAME, variables, storage_size=32, image_size=32)
    assert_close(run_onnx(onnx_graph.build(graph, {}), shown), expected)
    assert_close(jax.export.deserialize(bytearray(stablehlo.serialize(graph))).call(shown), expected)
    for settings in quantize.CANDIDATES:
        quantized = run_onnx(quantize.quantize(graph, shown, settings, {}), shown)
        assert np.corrcoef(expected.ravel(), quantized.ravel())[0, 1] > 0.9
    tensors.write(tmp_path, NAME, variables, {"classes": json.dumps(("a", "b", "c"))})
    assert "block.wide_norm.num_batches_tracked" in load_file(tmp_path / "student.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]
