"""What the configuration says of an ONNX teacher's pixels."""

from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.config import base
from kdjax.data.bands import Bands
from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError
from kdjax.run.onnx_teacher import declared_facts
from kdjax.teacher.onnx import open_onnx

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

SIDE = 8
DATASET = SimpleNamespace(
    meaning=Meaning((0.0, 1.0), bands=Bands(("B02", "B03", "B04", "B08"))),
    statistics=Statistics((0.4,) * 4, (0.2,) * 4),
    value_range=(0.0, 1.0),
)
MEAN = {"B02": 0.406, "B03": 0.456, "B04": 0.485}
"""Of ImageNet's blue, green and red, as torchvision has them."""


@pytest.fixture
def file(tmp_path):
    """It says the mean of each channel that it is shown."""
    shown = helper.make_tensor_value_info("shown", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])
    means = helper.make_tensor_value_info("means", TensorProto.FLOAT, ["batch", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    node = helper.make_node("ReduceMean", ["shown", "axes"], ["means"], keepdims=0)
    graph = helper.make_graph([node], "means", [shown], [means], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "means.onnx")
    return str(tmp_path / "means.onnx")


def section(*bands):
    config = base().teacher
    config.update(onnx_input="imagenet", onnx_gives="embeddings", bands=bands)
    return config


@pytest.mark.parametrize("bands", [("B04", "B03", "B02"), ("B02", "B03", "B04"), ("B03", "B02", "B04")])
def test_each_channel_has_the_statistics_of_its_color(file, bands):
    """A file that takes blue first was trained on blue less blue's mean."""
    mean_color = np.zeros((1, SIDE, SIDE, 4), np.float32) + np.array([*MEAN.values(), 0.3], np.float32)
    opened_file = open_onnx(file, declared_facts(section(*bands), DATASET), SIDE)
    np.testing.assert_allclose(opened_file.values(mean_color), 0, atol=1e-6)


@pytest.mark.parametrize("bands", [("B08", "B04", "B03"), ("B04", "B03"), ()])
def test_only_red_green_and_blue_have_any(bands):
    with pytest.raises(InputError, match="shown the bands B0.* set it to 'unit' or 'normalized'"):
        declared_facts(section(*bands), DATASET)
