"""A student of other bands than red, green and blue, exported: its file, what it is shown, and maps by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

import onnx  # noqa: E402
from helpers.exported import CLASSES, run_onnx  # noqa: E402
from helpers.maps import UTM, areas  # noqa: E402
from helpers.variables import randomized  # noqa: E402
from rasterio.io import MemoryFile  # noqa: E402

from kdjax import networks  # noqa: E402
from kdjax.data import decode  # noqa: E402
from kdjax.data.bands import SENSORS, Bands  # noqa: E402
from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.data.pixels import DecodeError  # noqa: E402
from kdjax.deploy import predict  # noqa: E402
from kdjax.deploy.classifier import Classifier  # noqa: E402
from kdjax.deploy.export import onnx_graph, stablehlo  # noqa: E402
from kdjax.deploy.export.fold import fold  # noqa: E402
from kdjax.deploy.input_warnings import InputCheck  # noqa: E402
from kdjax.deploy.landuse_map import __main__ as landuse_map  # noqa: E402
from kdjax.deploy.landuse_map.raster import Raster  # noqa: E402
from kdjax.errors import InputError  # noqa: E402
from kdjax.inputs.augment import eval_view  # noqa: E402
from kdjax.networks.layers import InputBands  # noqa: E402

NAMES, STORED, SIZE = ("B04", "B08", "B11", "B02"), 36, 32
MEANING = Meaning((0.0, 10_000.0), ("16-bit",), bands=Bands(NAMES, (NAMES,)))
TAKEN = InputBands((0.1, 0.2, 0.3, 0.15), (0.05, 0.1, 0.2, 0.1))


@pytest.fixture(scope="module")
def exported():
    """A student, its variables and its graph."""
    network = networks.create("mobilenet_v2", len(CLASSES), width=0.1).clone(bands=TAKEN)
    variables = randomized(network, SIZE)
    graph = fold("mobilenet_v2", variables, storage_size=STORED, image_size=SIZE, bands=TAKEN, dtype=MEANING.dtype)
    return network, variables, graph


@pytest.fixture(scope="module")
def file(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("bands") / "student.onnx"
    graph = exported[2]
    onnx.save(onnx_graph.build(graph, onnx_graph.metadata(graph, CLASSES, MEANING)), path)
    return path


def reflectance(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 4000, (height, width, len(NAMES))).astype(np.uint16)


def geotiff(values, names=None, path=None):
    """Bytes of a raster whose bands are described, or its file."""
    profile = {"driver": "GTiff", "crs": UTM, "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4.6e6)}
    shape = {"height": values.shape[0], "width": values.shape[1], "count": values.shape[2], "dtype": values.dtype}
    with MemoryFile() as memory:
        with memory.open(**profile, **shape) as raster:
            raster.write(np.moveaxis(values, -1, 0))
            if names:
                raster.descriptions = names
        content = memory.read()
    if path:
        path.write_bytes(content)
    return content


@pytest.mark.slow
def test_the_files_compute_what_the_network_does(exported, file):
    network, variables, graph = exported
    images = np.random.default_rng(1).integers(0, 65536, (3, STORED, STORED, len(NAMES)), dtype=np.uint16)
    seen = jax.vmap(lambda image: eval_view(image, SIZE))(jnp.asarray(images))
    expected = network.apply(variables, seen).logits
    np.testing.assert_allclose(run_onnx(onnx.load(file), images), expected, atol=2e-4)
    np.testing.assert_allclose(stablehlo.logits(graph, jnp.asarray(images)), expected, atol=2e-4)
    said = dict((one.key, one.value) for one in onnx.load(file).metadata_props)["input"]
    assert said.startswith(
        "uint16, (batch, 36, 36, 4), the bands B04 B08 B11 B02, 0 to 65535 for the values 0 to 10000"
    )


def test_predict_finds_the_bands(file):
    classifier, values = Classifier(file), reflectance(STORED, STORED)
    expected = np.rint(values * 6.5535)
    np.testing.assert_array_equal(classifier.prepare(geotiff(values)), expected)
    turned = [2, 0, 3, 1]
    with_more = np.concatenate([values[..., turned], values[..., :1] + 1], axis=-1)
    names = (*(NAMES[k] for k in turned), "B09")
    np.testing.assert_array_equal(classifier.prepare(geotiff(with_more, names)), expected)
    for wrong in (geotiff(values[..., :3]), geotiff(values.astype(np.uint8))):
        with pytest.raises(DecodeError):
            classifier.prepare(wrong)


def test_a_map_sees_what_predict_sees(file, tmp_path):
    values, turned = reflectance(40, 50), [3, 1, 0, 2]
    geotiff(values[..., turned], tuple(NAMES[k] for k in turned), tmp_path / "turned.tif")
    geotiff(values, None, tmp_path / "plain.tif")
    for name, bands, numbers in (
        ("turned", None, (3, 2, 4, 1)),
        ("plain", None, (1, 2, 3, 4)),
        ("plain", (4, 3, 2, 1), None),
    ):
        raster = Raster(tmp_path / f"{name}.tif", bands, None, MEANING)
        assert raster.bands == (numbers or bands)
        pixels, valid = raster.read(2, 3, 36, 36)
        raster.close()
        expected = Classifier(file).prepare(geotiff(values[2:38, 3:39]))
        np.testing.assert_array_equal(pixels, expected if bands is None else expected[..., ::-1])
        assert pixels.dtype == np.uint16 and valid.all()


def test_a_raster_of_other_bands_is_refused(tmp_path):
    geotiff(reflectance(40, 50)[..., :2], ("B04", "B08"), tmp_path / "two.tif")
    with pytest.raises(InputError, match="no band B11, B02 among B04, B08; describe its bands, or give the numbers"):
        Raster(tmp_path / "two.tif", None, None, MEANING)
    with pytest.raises(InputError, match="--bands: 3 given, but the model takes B04 B08 B11 B02"):
        Raster(tmp_path / "two.tif", (1, 2, 1), None, MEANING)


def of_sentinel(sensor):
    """What training tiles of a sensor's files were."""
    known = SENSORS[sensor]
    return Meaning(known.value_range, ("16-bit",), bands=Bands(NAMES, known.orders))


@pytest.mark.parametrize(
    ("sensor", "added", "said"),
    [
        ("sentinel2_l2a", 0, None),
        ("sentinel2_l2a_offset", 1000, None),
        ("sentinel2_l1c", 1000, "no value is below 1000 in B04, B02, .*give --value-range=1000,11000, or, .*=0,10000$"),
        (
            "sentinel2_l1c_offset",
            0,
            "% of the values are at most 1000, .*give --value-range=0,10000, or, .*=1000,11000$",
        ),
    ],
)
def test_a_raster_with_the_offset_that_training_had_not_is_refused(tmp_path, sensor, added, said):
    meaning, values = of_sentinel(sensor), reflectance(40, 50) + np.uint16(1 + added)
    geotiff(np.where(np.arange(50)[:, None] < 5, 0, values).astype(np.uint16), NAMES, tmp_path / "r.tif")  # no data
    if said is None:
        Raster(tmp_path / "r.tif", None, None, meaning).close()
        return
    with pytest.raises(InputError, match=said):
        Raster(tmp_path / "r.tif", None, None, meaning)
    raster = Raster(tmp_path / "r.tif", None, (added, 10_000 + added), meaning)
    expected = np.rint((values.astype(float) - added) * 6.5535)
    np.testing.assert_array_equal(raster.read(0, 5, 40, 45)[0], expected[:, 5:])
    raster.close()
    other = Raster(tmp_path / "r.tif", None, meaning.value_range, meaning)  # the user knows more
    other.close()


def test_one_dark_place_of_a_raster_shows_that_nothing_was_added(tmp_path):
    """The rest are clouds."""
    values = reflectance(200, 1500) + np.uint16(2000)
    values[:20, :20] = 150
    geotiff(values, NAMES, tmp_path / "cloudy.tif")
    Raster(tmp_path / "cloudy.tif", None, None, of_sentinel("sentinel2_l2a")).close()
    values[:20, :20] = 1150
    geotiff(values, NAMES, tmp_path / "added.tif")
    with pytest.raises(InputError, match="no value is below 1000"):
        Raster(tmp_path / "added.tif", None, None, of_sentinel("sentinel2_l2a"))


def test_the_edge_of_a_swath_is_no_data_without_a_tag(exported, tmp_path, capsys):
    """0 in all bands, in a tile and in a scene of a sensor; of other 16-bit bands, a warning says how to mark it."""
    graph, values = exported[2], reflectance(64, 96) + np.uint16(1)
    values[:, :48] = 0
    scene, empty = tmp_path / "scene.tif", tmp_path / "empty.tif"
    geotiff(values, NAMES, scene)
    geotiff(values[:36, :36], NAMES, empty)
    for name, meaning in (("sensor", of_sentinel("sentinel2_l2a")), ("other", MEANING)):
        student = str(tmp_path / f"{name}.onnx")
        onnx.save(onnx_graph.build(graph, onnx_graph.metadata(graph, CLASSES, meaning)), student)
        landuse_map.main([student, str(scene), str(tmp_path / f"{name}.tif"), "--tile=16", "--stride=16"])
        said, is_sensor = capsys.readouterr().err, name == "sensor"
        warning = "warning: about 50 % of the pixels are 0 in all bands and count as data: "
        assert (warning in said) != is_sensor and ("gdal_edit.py -a_nodata 0" in said) != is_sensor
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            np.testing.assert_array_equal(file.read(1) == 255, is_sensor & (np.arange(6) < 3) & np.ones((4, 1), bool))
        area = sum(float(row["area_ha"]) for row in areas(tmp_path / f"{name}_areas.csv").values())
        assert area == pytest.approx(64 * (48 if is_sensor else 96) * 100 / 1e4)
        if is_sensor:
            with pytest.raises(SystemExit):
                predict.main([student, str(empty)])
            assert "empty.tif (no pixel holds data)" in capsys.readouterr().err
        else:
            predict.main([student, str(empty)])
    geotiff(values.astype(np.uint8), NAMES, scene)
    raster = Raster(scene, None, None, Meaning(numbers=("8-bit",), bands=MEANING.bands))
    assert raster.zero_share == 0 and raster.read(0, 0, 64, 96)[1].all()  # a color
    raster.close()


def test_predict_warns_of_images_with_the_offset_that_training_had_not(exported, tmp_path, capsys):
    graph, values = exported[2], reflectance(STORED, STORED)
    meaning = of_sentinel("sentinel2_l2a")
    onnx.save(onnx_graph.build(graph, onnx_graph.metadata(graph, CLASSES, meaning)), tmp_path / "student.onnx")
    for name, added in (("without", 0), ("with", 1000)):
        geotiff(values + np.uint16(added), NAMES, tmp_path / f"{name}.tif")
    predict.main([str(tmp_path / "student.onnx"), str(tmp_path / "with.tif"), str(tmp_path / "without.tif")])
    assert capsys.readouterr().err == ""
    predict.main([str(tmp_path / "student.onnx"), str(tmp_path / "with.tif")])
    said = capsys.readouterr()
    assert said.err.startswith("warning: no value is below 1000 in B04, B02,") and "0..10000" in said.err
    assert said.err.count("\n") == 1 and "with.tif" in said.out


COLORS = ("red", "green", "blue", "nir")


def written(path, values, roles=(), names=()):
    """An 8-bit raster with GDAL's color interpretation."""
    profile = {"driver": "GTiff", "crs": UTM, "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4.6e6)}
    shape = {"height": values.shape[0], "width": values.shape[1], "count": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", **profile, **shape, **({"photometric": "rgb"} if roles else {})) as raster:
        if roles:  # before the values, or GDAL keeps the first
            raster.colorinterp = [rasterio.enums.ColorInterp[role] for role in roles]
        raster.write(np.moveaxis(values, -1, 0))
        if names:
            raster.descriptions = names
    return path


def test_a_mask_is_no_band_of_a_map_either(tmp_path):
    meaning = Meaning(numbers=("8-bit",), bands=Bands(COLORS, (COLORS,)))
    values = np.random.default_rng(0).integers(20, 200, (40, 50, 4)).astype(np.uint8)
    Raster(written(tmp_path / "nir.tif", values, (*COLORS[:3], "alpha")), None, None, meaning).close()
    values[..., 3] = np.where(np.arange(50) < 12, 0, 255)
    photo = written(tmp_path / "photo.tif", values, (*COLORS[:3], "alpha"))
    with pytest.raises(InputError, match="photo.tif: its band 4 is a mask by its values, but nir is expected there"):
        Raster(photo, None, None, meaning)
    more = np.concatenate([values[..., :3], values[..., :1], values[..., 3:]], -1)
    behind = written(tmp_path / "behind.tif", more, (*COLORS[:3], "undefined", "alpha"), (*COLORS, ""))
    raster = Raster(behind, None, None, meaning)
    assert raster.bands == (1, 2, 3, 4)
    np.testing.assert_array_equal(raster.read(0, 0, 40, 50)[1], values[..., 3] > 0)
    raster.close()


def test_false_color_is_told(tmp_path, exported, capsys):
    values = np.random.default_rng(0).integers(20, 200, (40, 50, 3)).astype(np.uint8)
    false = written(tmp_path / "false.tif", values, names=("B8", "B4", "B3"))
    raster = Raster(false, None, None, Meaning(numbers=("8-bit",)))
    assert raster.other_names == "B8, B4, B3"
    raster.close()
    partly = written(tmp_path / "partly.tif", values, names=("blue", "green", ""))
    with pytest.raises(InputError, match="partly.tif: .* it has blue where red is taken from, .* or give --bands"):
        Raster(partly, None, None, Meaning(numbers=("8-bit",)))
    Raster(partly, (3, 2, 1), None, Meaning(numbers=("8-bit",))).close()
    check = InputCheck.for_model(Meaning(numbers=("8-bit",)))
    check.inspect("false.tif", decode.decode(false.read_bytes()))
    (said,) = check.warnings()
    assert said.startswith(
        "1 of 1 images describe the bands taken as red, green and blue as other bands: false.tif calls"
    )
