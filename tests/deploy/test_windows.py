"""Blending of overlapping windows, against a sum over pixels."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import color_logits  # noqa: E402
from helpers.maps import by_pixels, scene, softmax  # noqa: E402

from kdjax.deploy.landuse_map import windows  # noqa: E402


@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize(
    ("height", "width", "tile", "stride"),
    [(32, 48, 8, 4), (32, 48, 8, 8), (35, 50, 8, 3), (8, 9, 8, 8), (37, 29, 7, 1), (61, 40, 16, 12), (9, 9, 9, 2)],
)
@pytest.mark.parametrize("holes", [False, True])
def test_blending_is_the_mean_over_windows_and_reads_are_bounded(height, width, tile, stride, batch, holes):
    pixels, largest = scene(height, width), tile + (batch - 1) * stride
    valid = np.ones((height, width), bool)
    if holes:
        valid[: height // 2, : width // 2] = False
        valid ^= np.random.default_rng(1).random((height, width)) < 0.3

    def read(row, column, rows, columns):
        assert rows == tile and columns <= largest
        assert 0 <= row <= height - rows and 0 <= column <= width - columns
        place = np.s_[row : row + rows, column : column + columns]
        return np.where(valid[place][..., None], pixels[place], 0), valid[place]

    found = windows.probabilities(
        read,
        lambda images: softmax(color_logits(images)),
        (height, width),
        classes=3,
        tile=tile,
        stride=stride,
        batch=batch,
    )
    expected = by_pixels(pixels, tile, stride, valid)
    np.testing.assert_allclose(np.stack([row for row, _ in found]), expected, atol=1e-12)
    assert not holes or height < 20 or np.isnan(expected).any()


def test_rows_come_as_soon_as_no_window_reaches_them():
    """Memory: of a tall raster only the rows of cells under the window are held."""
    read_to = []

    def read(row, column, rows, columns):
        read_to.append(row + rows)
        return np.zeros((rows, columns, 3), np.uint8), np.ones((rows, columns), bool)

    rows = windows.probabilities(
        read, lambda images: np.full((len(images), 3), 1 / 3), (1000, 16), classes=3, tile=8, stride=4, batch=4
    )
    for number, _ in enumerate(rows):
        assert read_to[-1] <= min(4 * (number + 1) + 8, 1000)
