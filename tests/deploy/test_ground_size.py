"""How much ground a pixel and a window show."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, SIDE, run, scene, write  # noqa: E402

from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.deploy.landuse_map.raster import Raster  # noqa: E402
from kdjax.errors import InputError  # noqa: E402


@pytest.mark.parametrize(
    "facts, tile",
    [
        ({"ground_size_m": "16", "pixel_size_m": "2", "tile_px": "8"}, 32),
        ({"tile_px": "20"}, 20),
        ({}, SIDE),
    ],
)
def test_the_window_shows_as_much_as_a_training_tile(tmp_path, capsys, facts, tile):
    """The raster has pixels of 0.5 m."""
    pixels = scene(64, 80)
    artifact = write_model(tmp_path / "student.onnx", SIDE, CLASSES, **facts)
    run(artifact, write(tmp_path / "scene.tif", pixels), tmp_path / "map.tif")
    said = capsys.readouterr().err
    run(artifact, tmp_path / "scene.tif", tmp_path / "same.tif", f"--tile={tile}")
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "same.tif").read_bytes()
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["tile"] == str(tile)
    assert (f"window: {tile} px" in said) == bool(facts)


@pytest.mark.parametrize(
    "ground, facts, tile",
    [
        ("7.5", {"tile_px": "64"}, None),  # the model sees 8 px of 64, and a window would have 1.9
        ("14", {"tile_px": "64"}, None),
        ("16", {"tile_px": "64"}, 4),
        ("6", {"tile_px": "3"}, 2),  # there was no more in training
        ("14", {}, None),
        ("16", {}, 4),
    ],
)
def test_a_raster_much_coarser_than_the_training_tiles_is_refused(tmp_path, ground, facts, tile):
    """The raster has pixels of 4 m."""
    artifact = write_model(tmp_path / "student.onnx", SIDE, CLASSES, ground_size_m=ground, **facts)
    raster = write(tmp_path / "scene.tif", scene(32, 32), transform=rasterio.Affine(4, 0, 500_000, 0, -4, 4_600_000))
    if tile is None:
        with pytest.raises(InputError, match=rf"scene.tif: .*{ground} m.*--tile"):
            run(artifact, raster, tmp_path / "map.tif")
        assert not (tmp_path / "map.tif").exists()
        run(artifact, raster, tmp_path / "map.tif", "--tile=2")
    else:
        run(artifact, raster, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["tile"] == str(tile or 2)


@pytest.mark.parametrize(
    "crs, transform, meters",
    [
        ("EPSG:32631", rasterio.Affine(0.5, 0, 0, 0, -0.5, 100), 0.5),
        ("EPSG:2263", rasterio.Affine(2, 0, 0, 0, -2, 100), 2 * 1200 / 3937),
        ("EPSG:4326", rasterio.Affine(1e-5, 0, 20, 0, -1e-5, 60), 1e-5 * 111_195 * np.sqrt(0.5)),
        ("EPSG:4807", rasterio.Affine(1e-5, 0, 20, 0, -1e-5, 60 / 0.9), 0.9e-5 * 111_195 * np.sqrt(0.5)),  # grads
    ],
)
def test_the_ground_size_of_a_rasters_pixel(tmp_path, crs, transform, meters):
    raster = Raster(write(tmp_path / "scene.tif", scene(16, 16), crs, transform), None, None, Meaning())
    raster.close()
    assert raster.pixel_size_m == pytest.approx(meters, rel=3e-3)
