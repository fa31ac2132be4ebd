"""The map of a raster: blending against a sum over pixels, georeferencing, nodata, and what bad input ends in."""

import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import color_logits, write_model  # noqa: E402
from rasterio.windows import Window  # noqa: E402

from kdjax.deploy.landuse_map import __main__ as command  # noqa: E402
from kdjax.deploy.landuse_map import legend, windows  # noqa: E402

CLASSES = ("field", "forest <&>", "water")
ROOT = Path(__file__).parents[2]
SIDE = 8
UTM = rasterio.CRS.from_epsg(32631)
NORTH_UP = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000)


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("export") / "student.onnx", SIDE, CLASSES)


def scene(height, width, seed=0):
    """(height, width, 3) uint8: patches of three colours, with noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 3, (-(-height // 16), -(-width // 16))).repeat(16, 0).repeat(16, 1)[:height, :width]
    return (rng.integers(0, 100, (height, width, 3)) + 150 * np.eye(3, dtype=int)[patches]).astype(np.uint8)


def write(path, pixels, crs=UTM, transform=NORTH_UP, **options):
    pixels = np.moveaxis(pixels, -1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # such files are made on purpose
        with rasterio.open(
            path, "w", driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels),
            dtype=pixels.dtype, crs=crs, transform=transform, **options,
        ) as file:  # fmt: skip
            file.write(pixels)
    return path


def run(*arguments):
    command.main([str(argument) for argument in arguments])


def by_pixels(pixels, tile, stride, valid=None):
    """Probabilities of each cell: every window adds its own to each of its pixels, cell by cell the mean of those."""
    height, width = pixels.shape[:2]
    valid = np.ones((height, width), bool) if valid is None else valid
    sums, counts = np.zeros((height, width, 3)), np.zeros((height, width))
    covered, data = np.zeros((2, height, width))
    for top in sorted({*range(0, height - tile + 1, stride), height - tile}):
        for left in sorted({*range(0, width - tile + 1, stride), width - tile}):
            place = np.s_[top : top + tile, left : left + tile]
            covered[place] += 1
            data[place] += valid[place]
            if valid[place].mean() >= 0.5:
                seen = np.where(valid[place][..., None], pixels[place], 0)
                sums[place] += softmax(color_logits(seen[None]))[0]
                counts[place] += 1
    rows, columns = -(-height // stride), -(-width // stride)
    result = np.full((rows, columns, 3), np.nan)
    for row, column in np.ndindex(rows, columns):
        cell = np.s_[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
        if counts[cell].sum() and 2 * data[cell].sum() >= covered[cell].sum():
            result[row, column] = sums[cell].sum((0, 1)) / counts[cell].sum()
    return result


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
    np.testing.assert_allclose(np.stack(list(found)), expected, atol=1e-12)
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


def test_the_map_of_a_raster(artefact, tmp_path, capsys):
    pixels = scene(61, 83)
    raster = write(tmp_path / "scene.tif", pixels)
    run(artefact, raster, tmp_path / "map.tif")
    expected = by_pixels(pixels, SIDE, SIDE // 2)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.crs == UTM and file.count == 1 and file.dtypes == ("uint8",) and file.nodata == 255
        assert file.transform == rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)
        np.testing.assert_array_equal(file.read(1), expected.argmax(-1))
        assert {k: file.colormap(1)[k][:3] for k in range(3)} == dict(enumerate(legend.colors(3)))
        assert [file.tags(1)[f"class_{k}"] for k in range(3)] == list(CLASSES)
        assert file.descriptions == ("land-use class",)
        assert (file.tags()["tile"], file.tags()["stride"]) == ("8", "4")
        indices = file.read(1)
    with rasterio.open(tmp_path / "map_confidence.tif") as file:
        assert file.crs == UTM and file.transform == rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)
        np.testing.assert_allclose(file.read(1), expected.max(-1), atol=1e-5)
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").find("PAMRasterBand")
    assert [one.text for one in table.find("CategoryNames")] == list(CLASSES)
    rows = [[cell.text for cell in row] for row in table.iter("Row")]
    counts = np.bincount(indices.ravel(), minlength=3)
    assert [(int(row[0]), int(row[1]), row[2]) for row in rows] == list(zip(range(3), counts, CLASSES, strict=True))
    shown = set(Image.open(tmp_path / "map_legend.png").convert("RGB").get_flattened_data())
    assert set(legend.colors(3)) <= shown
    said = capsys.readouterr()
    assert not said.err and f"{100 * counts.max() / counts.sum():.1f} %  {CLASSES[counts.argmax()]}" in said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.tif", "map.tif.aux.xml", "map_confidence.tif", "map_legend.png", "scene.tif",
    ]  # fmt: skip


def test_no_jax_is_needed():
    code = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorflow', 'onnx'): sys.modules[name] = None\n"
        "from kdjax.deploy.landuse_map import __main__, writer"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_a_turned_raster_keeps_its_place(artefact, tmp_path):
    turned = rasterio.Affine(0.25, 0.125, 10, 0.0625, -0.5, 50)
    place = lambda transform, column, row: np.reshape(transform[:6], (2, 3)) @ (column, row, 1)
    raster = write(tmp_path / "scene.tif", scene(24, 40), "EPSG:4326", turned)
    run(artefact, raster, tmp_path / "map.tif", "--stride=8")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.height, file.width) == (3, 5)
        for column, row in ((0, 0), (5, 0), (0, 3), (2, 1)):
            np.testing.assert_array_equal(place(file.transform, column, row), place(turned, 8 * column, 8 * row))


@pytest.mark.parametrize("kind", ["nodata", "float nan", "mask"])
def test_nodata_stays(artefact, tmp_path, kind):
    pixels = scene(48, 64)
    pixels[pixels == 7] = 8
    hole = np.zeros((48, 64), bool)
    hole[:20, 30:] = True
    options, values = {}, pixels.copy()
    if kind == "nodata":
        values[hole] = 7
        values[30, 30, 0] = 7  # one band alone: data
        pixels[30, 30, 0] = 7
        options = {"nodata": 7}
    elif kind == "float nan":
        values = np.where(hole[..., None], np.nan, values).astype(np.float32)
    raster = write(tmp_path / "scene.tif", values, **options)
    if kind == "mask":
        with rasterio.open(raster, "r+") as file:
            file.write_mask(~hole)
    run(artefact, raster, tmp_path / "map.tif", *(["--value-range=0,255"] if kind == "float nan" else []))
    expected = by_pixels(pixels, SIDE, 4, ~hole)
    gone = np.isnan(expected[..., 0])
    assert gone[:4, 9:].all() and not gone[6:].any()
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.where(gone, 255, expected.argmax(-1)))
    with rasterio.open(tmp_path / "map_confidence.tif") as file:
        assert file.nodata == -1
        np.testing.assert_allclose(file.read(1), np.where(gone, -1, expected.max(-1)), atol=1e-5)


def test_bands_and_value_range(artefact, tmp_path):
    pixels = scene(32, 40)
    deep = np.concatenate([pixels[..., ::-1], pixels[..., :1]], -1).astype(np.uint16) * 10 + 1000
    raster = write(tmp_path / "deep.tif", deep)
    run(artefact, raster, tmp_path / "deep_map.tif", "--bands=3,2,1", "--value-range=1000,3550")
    with rasterio.open(tmp_path / "deep_map.tif") as file:
        np.testing.assert_array_equal(file.read(1), by_pixels(pixels, SIDE, 4).argmax(-1))
    grey = write(tmp_path / "grey.tif", pixels[..., :1])
    run(artefact, grey, tmp_path / "grey_map.tif")
    with rasterio.open(tmp_path / "grey_map_confidence.tif") as file:
        np.testing.assert_allclose(file.read(1), 1 / 3, atol=1e-6)


def test_the_window_is_resized_to_the_model(artefact, tmp_path):
    flat = np.full((64, 64, 3), 20, np.uint8)
    flat[:, 32:, 1] = 220
    run(artefact, write(tmp_path / "scene.tif", flat), tmp_path / "map.tif", "--tile=32", "--stride=32")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), [[0, 1], [0, 1]])


BAD = {
    "corrupt artefact": "ONNX",
    "missing raster": "no file",
    "text as raster": "GDAL cannot read",
    "no crs": "coordinate reference system",
    "no transform": "geotransform",
    "four bands": "--bands=1,2,3",
    "band too many": "no band 4",
    "16 bits": "--value-range",
    "colour table": "colour table",
    "too small": "--tile",
    "truncated": "cannot be read",
    "out is the raster": "is the raster itself",
    "confidence is the raster": "is the raster itself",
    "no folder": "there is no folder",
    "no tif": ".tif",
    "gaps": "--stride",
    "bad bands": "--bands",
    "bad range": "--value-range",
    "bad tile": "--tile",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_ends_in_one_line_and_writes_nothing(artefact, tmp_path, capfd, kind):
    out, flags, pixels, options = tmp_path / "map.tif", [], scene(40, 40), {}
    raster = tmp_path / ("map_confidence.tif" if kind == "confidence is the raster" else "scene.tif")
    if kind == "four bands":
        pixels = np.concatenate([pixels, pixels[..., :1]], -1)
    elif kind == "16 bits":
        pixels = pixels.astype(np.uint16)
    elif kind == "colour table":
        pixels, options = pixels[..., :1], {"photometric": "palette"}
    elif kind == "too small":
        pixels = pixels[:7]
    elif kind == "no crs":
        options = {"crs": None}
    elif kind == "no transform":
        options = {"transform": rasterio.Affine.identity()}
    write(raster, pixels, **options)
    if kind == "colour table":
        with rasterio.open(raster, "r+") as file:
            file.write_colormap(1, {k: (k, 0, 0) for k in range(256)})
    elif kind == "corrupt artefact":
        artefact = tmp_path / "student.onnx"
        artefact.write_bytes(b"no model" * 100)
    elif kind == "missing raster":
        raster = tmp_path / "nothing.tif"
    elif kind == "text as raster":
        raster.write_text("not a raster")
    elif kind == "truncated":
        raster.write_bytes(raster.read_bytes()[:2000])
        out.write_bytes(b"an older map")
    elif kind == "out is the raster":
        out = raster
    elif kind == "no folder":
        out = tmp_path / "nowhere" / "map.tif"
    elif kind == "no tif":
        out = tmp_path / "map.png"
    flags = {
        "band too many": ["--bands=1,2,4"],
        "gaps": ["--stride=9"],
        "bad bands": ["--bands=1,2"],
        "bad range": ["--value-range=5,5"],
        "bad tile": ["--tile=0"],
    }.get(kind, [])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert BAD[kind] in refused(capfd, command.main, artefact, raster, out, *flags)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_window_of_rasterio_is_that_of_the_reader(artefact, tmp_path):
    """`Raster.read` takes row and column in that order."""
    from kdjax.data.meaning import Meaning
    from kdjax.deploy.landuse_map.raster import Raster

    pixels = scene(30, 50)
    raster = Raster(write(tmp_path / "scene.tif", pixels), None, None, Meaning())
    seen, valid = raster.read(5, 20, 10, 12)
    raster.close()
    np.testing.assert_array_equal(seen, pixels[5:15, 20:32])
    assert valid.all() and valid.shape == (10, 12)
    with rasterio.open(tmp_path / "scene.tif") as file:
        np.testing.assert_array_equal(seen[..., 0], file.read(1, window=Window(20, 5, 12, 10)))
