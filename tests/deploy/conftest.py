"""What the tests of maps share."""

import pytest


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """An exported file that names the color of a window."""
    pytest.importorskip("onnx")
    pytest.importorskip("rasterio")
    from helpers.color_model import write_model
    from helpers.maps import CLASSES, SIDE

    return write_model(tmp_path_factory.mktemp("export") / "student.onnx", SIDE, CLASSES)
