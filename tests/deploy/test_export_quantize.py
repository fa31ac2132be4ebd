"""Equalization and 8 bits, of any network."""

import dataclasses

import numpy as np
import pytest
from helpers.exported import CLASSES, assert_close, folded, pixels, run_onnx

from kdjax.data.meaning import Meaning

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from kdjax.deploy.export import (  # noqa: E402  (need the two above)
    activations,
    bias_correction,
    equalize,
    onnx_graph,
    quantize,
)
from kdjax.networks.graph import Convolution  # noqa: E402


def node(network, name):
    return next(one for one in network.nodes if one.name == name)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.1, 0.25])  # at 0.1 the first block adds to the stem's rectified output
def test_equalization_changes_the_channels_and_not_the_function(width):
    network, images = folded("mobilenet_v2", width, 32, 32), pixels(9, 32)
    equal = equalize.equalize(network, images)
    expected = run_onnx(onnx_graph.build(network, {}), images)
    assert_close(run_onnx(onnx_graph.build(equal, {}), images), expected)
    # The last bottleneck's channels are of one size with what reads them: sqrt(activation * weight) both.
    tensor, last = "features.17.conv.2", "features.18.0"
    written = activations.largest(equal, images, [tensor])[tensor]
    read = np.abs(node(equal, last).kernel).max((0, 2, 3))
    np.testing.assert_allclose(written, read, rtol=1e-4)
    assert np.abs(np.log(node(equal, last).kernel / node(network, last).kernel)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("width", "first"), [(0.5, 0), (0.25, 1)])
def test_the_bottlenecks_of_mobilenet_are_found_in_its_graph(width, first):
    """Table 2 of arXiv 1801.04381: one for each row, written by the projections of its blocks.

    At width 0.25 the first block adds to the stem's output, which has a ceiling.
    """
    found = list(equalize.tied_groups(folded("mobilenet_v2", width, 32, 32)))
    rows = [[1], [2, 3], [4, 5, 6], [7, 8, 9, 10], [11, 12, 13], [14, 15, 16], [17]][first:]
    for group, blocks in zip(found, rows, strict=True):
        places = {block: f"features.{block}.conv" for block in [*blocks, blocks[-1] + 1]}
        assert set(group.writers) == {f"{places[block]}.{1 if block == 1 else 2}" for block in blocks}
        readers = {f"{places[block]}.0.0" for block in list(places)[1:]} if 17 not in blocks else {"features.18.0"}
        assert set(group.readers) == readers
        assert set(group.tensors) == set(group.writers) | {f"features.{block}" for block in blocks[1:]}


@pytest.mark.slow
def test_equalization_goes_around_gates_and_not_through_hard_swish():
    network, images = folded("mobilenet_v3_small", 0.25, 36, 33), pixels(9, 36)
    found = {group.writers[0]: group for group in equalize.tied_groups(network)}
    gated = found["features.1.block.0.0"]  # a filter with ReLU
    assert gated.writers == ("features.1.block.0.0",)
    assert set(gated.readers) == {"features.1.block.1.fc1", "features.1.block.2.0"}
    assert {f"features.1.block.0.0.relu{part}" for part in ("", ".mean", ".scaled")} == set(gated.tensors)
    assert found["features.1.block.1.fc1"].readers == ("features.1.block.1.fc2",)
    # The bottlenecks of table 2, and the gates' hidden layers: nothing else where the activation is a hard swish.
    hard = [group for writer, group in found.items() if int(writer.split(".")[1]) >= 4]
    assert all(writer.endswith((".fc1", "block.3.0")) for group in hard for writer in group.writers)
    # At this width 40 and 48 channels are both 16, and block 7 adds to what blocks 4 to 6 wrote.
    bottlenecks = [set(group.writers) for group in hard if group.writers[0].endswith("block.3.0")]
    assert bottlenecks == [{f"features.{block}.block.3.0" for block in row} for row in (range(4, 9), range(9, 12))]
    equal = equalize.equalize(network, images)
    assert_close(run_onnx(onnx_graph.build(equal, {}), images), run_onnx(onnx_graph.build(network, {}), images))
    change = np.log(node(equal, "features.1.block.0.0").kernel / node(network, "features.1.block.0.0").kernel)
    assert np.abs(change).max() > 0.1


@pytest.mark.parametrize("calibration", ["minmax", "percentile"])
def test_hard_activations_waste_no_integers(calibration):
    """What feeds them has its range cut to where they are not constant; and a gate is multiplied as integers."""
    network, images = folded("mobilenet_v3_small", 0.25, 36, 33), pixels(24, 36)
    floats = onnx_graph.build(network, {})
    expected = run_onnx(floats, images)
    assert_close(run_onnx(quantize._clip_inputs(floats), images), expected)
    model = quantize.quantize(network, images, quantize.Settings(calibration=calibration), {})
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    made = {output: one for one in model.graph.node for output in one.output}
    ranges = {}
    for one in model.graph.node:
        if one.op_type in ("HardSwish", "HardSigmoid"):
            source = made[one.input[0]]
            assert source.op_type == "DequantizeLinear"
            scale, zero = (constants[name].astype(float) for name in source.input[1:3])
            steps = zero - 3 / scale, 255 - zero - 3 / scale  # of the integers below -3 and above 3
            ranges.setdefault(one.op_type, []).append(steps)
        if one.op_type == "Mul":
            assert [made[name].op_type for name in one.input] == ["DequantizeLinear"] * 2
    assert "Clip" not in {one.op_type for one in model.graph.node}
    assert len(ranges["HardSwish"]) == 19 and len(ranges["HardSigmoid"]) == 9
    # Zero is one of the integers, which moves the range by half a step at the most.
    assert all(below < 0.51 for every in ranges.values() for below, _ in every)
    assert all(above < 0.51 for _, above in ranges["HardSigmoid"])


@pytest.mark.parametrize(("name", "head"), [("vgg16", "average"), ("vgg16_bn", "fc")])
def test_equalization_goes_through_relu_and_maxima(name, head):
    network, images = folded(name, 0.05, 36, 64, head), pixels(9, 36)
    found = list(equalize.tied_groups(network))
    # Between each two of thirteen convolutions and one or three dense layers.
    assert len(found) == (13 if head == "average" else 15)
    assert all(len(group.writers) == len(group.readers) == 1 for group in found)
    equal = equalize.equalize(network, images)
    assert_close(run_onnx(onnx_graph.build(equal, {}), images), run_onnx(onnx_graph.build(network, {}), images))
    assert np.abs(node(equal, "features.0").bias - node(network, "features.0").bias).max() > 0


@pytest.mark.parametrize("kind", ["pointwise", "depthwise", "stem", "dense"])
def test_corrected_biases_keep_the_mean_of_a_layer_whose_weights_are_rounded(kind):
    """The other layers as they are: a rounded layer's mean output is then the float network's, channel by channel."""
    network, images = folded("mobilenet_v2", 0.25, 36, 32), pixels(17, 36)
    place = {"pointwise": "features.9.conv.2", "depthwise": "features.9.conv.1.0", "stem": "features.0.0"}
    name = place.get(kind, "classifier.1")
    layer, corrected = node(network, name), node(bias_correction.correct(network, images), name)

    def mean(kernel, bias):
        new = dataclasses.replace(layer, kernel=kernel, bias=bias)
        changed = dataclasses.replace(network, nodes=tuple(new if one is layer else one for one in network.nodes))
        model = onnx_graph.build(changed, {})
        if kind == "dense":
            return run_onnx(model, images).mean(0)
        model.graph.output.extend([onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)])
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run([name], {"images": images})[0].mean((0, 2, 3))

    integers = bias_correction.rounded(layer.kernel)
    expected = mean(layer.kernel, layer.bias)
    before, after = (mean(integers, bias) for bias in (layer.bias, corrected.bias))
    assert np.abs(after - expected).max() < 1e-3 * np.abs(before - expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "settings"),
    [("mobilenet_v2", "average", settings) for settings in quantize.CANDIDATES]
    + [("vgg16", "average", quantize.CANDIDATES[0]), ("vgg16", "fc", quantize.CANDIDATES[3])]
    + [("vgg16_bn", "average", quantize.CANDIDATES[1]), ("vgg16_bn", "fc", quantize.CANDIDATES[5])]
    + [("mobilenet_v3_small", "average", settings) for settings in (quantize.CANDIDATES[1], quantize.CANDIDATES[5])],
    ids=str,
)
def test_quantized_graphs_keep_to_their_settings(name, head, settings):
    width, side = {"mobilenet_v2": (0.1, 32), "mobilenet_v3_small": (0.25, 33)}.get(name, (0.05, 32))
    network, images = folded(name, width, 36, side, head), pixels(24, 36)
    model = quantize.quantize(network, images, settings, onnx_graph.metadata(network, CLASSES, Meaning()))
    assert {entry.key for entry in model.metadata_props} >= {"classes", "storage_size", "resize"}
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    before = equalize.equalize(network, images) if settings.equalized else network
    for layer in [one for one in before.nodes if isinstance(one, Convolution)]:
        weights, scale = (constants[f"{layer.name}.weight_{part}"] for part in ("quantized", "scale"))
        assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= (64 if settings.reduce_range else 127)
        assert scale.shape == ((len(weights),) if settings.per_channel else ())
        error = weights * scale.reshape(-1, 1, 1, 1) - layer.kernel
        assert (np.abs(error) <= 0.501 * scale.reshape(-1, 1, 1, 1)).all()
        if settings.per_channel:  # what the biases were corrected for
            steps = quantize.STEPS_OF_7_BITS if settings.reduce_range else bias_correction.STEPS
            assumed = bias_correction.rounded(layer.kernel, steps)
            # A weight between two integers may be rounded either way, by the last bit of the scale.
            assert (np.abs(weights * scale.reshape(-1, 1, 1, 1) - assumed) > 1e-5 * scale.max()).mean() < 1e-3
    expected = run_onnx(onnx_graph.build(network, {}), images)
    # A random network is far more sensitive than a trained one: this only says that the graph is the same network.
    assert np.corrcoef(expected.ravel(), run_onnx(model, images).ravel())[0, 1] > 0.9
