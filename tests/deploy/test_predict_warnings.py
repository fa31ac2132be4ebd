"""What `predict` says of images whose size or numbers are not those of the training tiles."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, SIDE, write  # noqa: E402

from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.deploy import predict  # noqa: E402


def said_of(capsys, artifact, *paths):
    predict.main([str(artifact), *map(str, paths)])
    said = capsys.readouterr()
    assert said.out.count("\n") == len(paths)  # all are answered
    return said.err


@pytest.mark.parametrize(("side", "warned"), [(16, False), (64, False), (65, True), (400, True), (4, False), (3, True)])
def test_a_scene_is_no_tile(tmp_path, capsys, side, warned):
    artifact = write_model(tmp_path / "model.onnx", SIDE, CLASSES, **Meaning(tile_px=16).metadata())
    for name, of in (("tile", 16), ("other", side)):
        Image.new("RGB", (of, of), (200, 0, 0)).save(tmp_path / f"{name}.png")
    said = said_of(capsys, artifact, tmp_path / "tile.png", tmp_path / "other.png")
    assert said.count("\n") == warned
    if warned:
        assert said.startswith("warning: 1 of 2 images show far more or less than a training tile: ")
        assert f"other.png has {side} px for 16;" in said


@pytest.mark.parametrize(("meters", "warned"), [(1, False), (4, False), (4.1, True), (0.24, True)])
def test_the_ground_counts_where_both_know_it(tmp_path, capsys, meters, warned):
    """Tiles of 16 px, 16 m wide: as many pixels of another size are no such tile, and more pixels may be one."""
    known = Meaning(tile_px=16, pixel_size_m=1.0, ground_size_m=16.0)
    artifact = write_model(tmp_path / "model.onnx", SIDE, CLASSES, **known.metadata())
    place = rasterio.Affine(meters, 0, 500_000, 0, -meters, 4_600_000)
    write(tmp_path / "tile.tif", np.full((16, 16, 3), 90, np.uint8), transform=place)
    said = said_of(capsys, artifact, tmp_path / "tile.tif")
    assert (f"tile.tif has {16 * meters:.4g} m for 16;" in said) is warned and said.count("\n") == warned
    fine = rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 4_600_000)
    write(tmp_path / "fine.tif", np.full((160, 160, 3), 90, np.uint8), transform=fine)
    assert said_of(capsys, artifact, tmp_path / "fine.tif") == ""


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_bytes_in_a_wider_type_are_told(tmp_path, capsys, dtype):
    """One dark tile among others is as in training."""
    known = Meaning((0.0, 10_000.0), ("16-bit", "float"))
    artifact = write_model(tmp_path / "model.onnx", SIDE, CLASSES, **known.metadata())
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3))
    values[0, 0] = 255
    for name, factor in (("bytes", 1), ("deep", 39)):
        tifffile.imwrite(tmp_path / f"{name}.tif", (values * factor).astype(dtype), photometric="rgb")
    said = said_of(capsys, artifact, tmp_path / "bytes.tif")
    assert said.startswith("warning: no value of the 16-bit and float images is above 255, ") and "0..10000" in said
    assert said.count("\n") == 1
    assert said_of(capsys, artifact, tmp_path / "bytes.tif", tmp_path / "deep.tif") == ""


def test_deep_images_take_the_range_of_training(tmp_path, capsys):
    facts = {"value_range": "[0.0, 2550.0]", "numbers": '["16-bit", "8-bit"]'}
    artifact = write_model(tmp_path / "deep.onnx", SIDE, CLASSES, **facts)
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))
    Image.fromarray((values * 10).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "plain.png")
    images = [str(tmp_path / f"{name}.png") for name in ("deep", "plain")]
    predict.main([str(artifact), *images, "--format=json"])
    deep, plain = json.loads(capsys.readouterr().out)
    assert deep["classes"] == plain["classes"]


@pytest.mark.parametrize("numbers", ['["16-bit"]', None])
def test_another_kind_of_numbers_is_refused(tmp_path, capsys, numbers):
    facts = {"value_range": "[0, 10000]"} | ({"numbers": numbers} if numbers else {})
    artifact = write_model(tmp_path / "deep.onnx", SIDE, CLASSES, **facts)
    unit = np.random.default_rng(0).random((20, 20, 3)) * 0.8 + 0.1
    kinds = {
        "good": (unit * 10000).astype(np.uint16),
        "reflectance": unit.astype(np.float32),
        "bytes": (unit * 255).astype(np.uint8),
        "bright": (unit * 10000 + 20000).astype(np.uint16),
    }
    for name, pixels in kinds.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb")
    with pytest.raises(SystemExit) as stop:
        predict.main([str(artifact), *(str(tmp_path / f"{name}.tif") for name in kinds)])
    said = capsys.readouterr()
    assert stop.value.code == 1 and said.out.count("\n") == 1 and "good.tif" in said.out
    assert "reflectance.tif (floats 0.1" in said.err and "bytes.tif (8-bit pixels, where values 0..10000" in said.err
    assert "bright.tif (100 % of its values" in said.err
