"""The map of a raster: blending against a sum over pixels, georeferencing, nodata, and what bad input ends in."""

import os
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

from kdjax.data import decode  # noqa: E402
from kdjax.data.image_files import read_file  # noqa: E402
from kdjax.data.meaning import Meaning  # noqa: E402
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
    """(height, width, 3) uint8: patches of three colors, with noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 3, (-(-height // 16), -(-width // 16))).repeat(16, 0).repeat(16, 1)[:height, :width]
    return (rng.integers(0, 100, (height, width, 3)) + 150 * np.eye(3, dtype=int)[patches]).astype(np.uint8)


def write(path, pixels, crs=UTM, transform=NORTH_UP, **options):
    pixels = np.moveaxis(pixels, -1, 0)
    options = {"driver": "GTiff"} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # such files are made on purpose
        with rasterio.open(
            path, "w", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels), dtype=pixels.dtype,
            crs=crs, transform=transform, **options,
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
    "range of a few values": "--value-range",
    "out is a folder": "is there and is no file",
    "confidence is a pipe": "is there and is no file",
    "raster is a pipe": "no file",
    "range without values": "--value-range",
    "another kind": "floats 0.",
    "values clip": "of its values",
    "8 bits for a deep model": "8-bit pixels",
    "bands of two types": "different types (uint16, uint8)",
    "signed white is zero": "white is 0",
    "no data at all": "no cell of the map would hold data",
    "raster is not utf-8": "is not UTF-8: rename it",
    "out is not utf-8": "OUT: the name of",
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
    elif kind in ("another kind", "values clip", "8 bits for a deep model"):
        artefact = write_model(tmp_path / "deep.onnx", SIDE, CLASSES, value_range="[0, 10000]", numbers='["16-bit"]')
        if kind == "another kind":
            pixels = (pixels / np.float32(255)).astype(np.float32)
        elif kind == "values clip":
            pixels = pixels.astype(np.uint16) + 20000
    elif kind == "no data at all":
        pixels[:], options = 7, {"nodata": 7}
    elif kind == "signed white is zero":
        pixels, options = pixels[..., :1].astype(np.int16), {"photometric": "MINISWHITE"}
        flags = ["--value-range=0,255"]
    write(raster, pixels, **options)
    if kind == "raster is not utf-8":
        raster = raster.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif"))
    elif kind == "out is not utf-8":
        out = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")
    elif kind == "out is a folder":
        out.mkdir()
    elif kind == "confidence is a pipe":
        os.mkfifo(tmp_path / "map_confidence.tif")
    elif kind == "raster is a pipe":
        raster = tmp_path / "pipe.tif"
        os.mkfifo(raster)
    elif kind == "bands of two types":
        write(tmp_path / "deep.tif", pixels[..., :1].astype(np.uint16))
        raster = mixed_vrt(tmp_path / "scene.vrt", raster, tmp_path / "deep.tif")
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
        "range without values": ["--value-range"],
        "range of a few values": ["--value-range=0,10"],
    }.get(kind, flags)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert BAD[kind] in refused(capfd, command.main, artefact, raster, out, *flags)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def mixed_vrt(path, *sources):
    """A virtual raster with the first band of each source."""
    bands = ""
    for number, source in enumerate(sources, 1):
        with rasterio.open(source) as file:
            height, width = file.shape
            kind, transform = {"uint8": "Byte", "uint16": "UInt16"}[file.dtypes[0]], file.transform.to_gdal()
        bands += (
            f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename>{source}</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    bands += bands.split("</VRTRasterBand>")[0].replace('band="1"', 'band="3"') + "</VRTRasterBand>"
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>{', '.join(map(str, transform))}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def test_the_window_of_rasterio_is_that_of_the_reader(artefact, tmp_path):
    """`Raster.read` takes row and column in that order."""
    from kdjax.deploy.landuse_map.raster import Raster

    pixels = scene(30, 50)
    raster = Raster(write(tmp_path / "scene.tif", pixels), None, None, Meaning())
    seen, valid = raster.read(5, 20, 10, 12)
    raster.close()
    np.testing.assert_array_equal(seen, pixels[5:15, 20:32])
    assert valid.all() and valid.shape == (10, 12)
    with rasterio.open(tmp_path / "scene.tif") as file:
        np.testing.assert_array_equal(seen[..., 0], file.read(1, window=Window(20, 5, 12, 10)))


C = rasterio.enums.ColorInterp
KINDS = {
    "bgr": {"colorinterp": (C.blue, C.green, C.red)},
    "bgr and near infrared": {"count": 4, "colorinterp": (C.blue, C.green, C.red, C.undefined)},
    "16-bit bgr": {"dtype": "uint16", "colorinterp": (C.blue, C.green, C.red)},
    "alpha": {"count": 4, "colorinterp": (C.red, C.green, C.blue, C.alpha)},
    "nodata": {"nodata": 7},
    "16-bit nodata": {"dtype": "uint16", "nodata": 65535},
    "signed nodata": {"dtype": "int16", "nodata": -9999},
    "float nodata": {"dtype": "float32", "nodata": -3.4028235e38},
    "float nan": {"dtype": "float32", "nodata": float("nan")},
    "mask": {"mask": True},
    "16-bit mask": {"dtype": "uint16", "mask": True},
    "white is zero": {"count": 1, "photometric": "MINISWHITE"},
    "16-bit white is zero": {"count": 1, "dtype": "uint16", "photometric": "MINISWHITE"},
    "white is zero and nodata": {"count": 1, "photometric": "MINISWHITE", "nodata": 0},
    "overviews": {"overviews": True, "tiled": True, "blockxsize": 16, "blockysize": 16},
    "mask and overviews": {"overviews": True, "mask": True},
    "separate bands": {"interleave": "band", "dtype": "uint16"},
    "mask sidecar": {"mask": True},
    "16-bit mask sidecar": {"dtype": "uint16", "mask": True},
    "nodata sidecar": {"nodata": 7, "driver": "PNG"},
    "16-bit nodata sidecar": {"dtype": "uint16", "nodata": 9, "driver": "PNG"},
    "4 bits": {"count": 1, "nbits": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_map_see_the_same(tmp_path, kind):
    """The same file as a tile for training and as a raster; and what it must be, where a hole is cut into it."""
    from kdjax.deploy.landuse_map.raster import Raster

    options = dict(KINDS[kind])
    count, dtype, interp = options.pop("count", 3), options.pop("dtype", "uint8"), options.pop("colorinterp", None)
    masked, overviews = options.pop("mask", False), options.pop("overviews", False)
    top = 10000 if dtype != "uint8" else 255
    shown = (np.random.default_rng(3).random((48, 64, count)) * (top - 20) + 10).astype(dtype)
    hole = np.zeros((48, 64), bool)
    hole[:20, 30:] = True
    stored = shown.copy()
    if "nbits" in options:
        stored //= 2 ** (8 - options["nbits"])
        shown = stored * (255 // (2 ** options["nbits"] - 1))
    if "nodata" in options:
        stored[hole] = options["nodata"]
    elif kind == "alpha":
        stored[..., 3] = np.where(hole, 0, 255)
    elif not masked:
        hole[:] = False
    path = write(tmp_path / ("scene.png" if "driver" in options else "scene.tif"), stored, **options)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="sidecar" not in kind), rasterio.open(path, "r+") as file:
        if interp:
            file.colorinterp = interp
        if masked:
            file.write_mask(~hole)
        if overviews:
            file.build_overviews([2, 4])
    assert path.with_name(path.name + ".msk").exists() == ("mask sidecar" in kind)
    assert path.with_name(path.name + ".aux.xml").exists() or "nodata sidecar" not in kind
    if kind == "4 bits":
        expected = np.repeat(shown, 3, -1)
    elif count == 1:
        highest = np.iinfo(dtype).max
        expected = np.repeat(highest - shown.astype(np.int64), 3, -1)
        value_range = (highest - 10000, highest)
    else:
        expected = shown[..., 2::-1] if kind.endswith("bgr") or kind.startswith("bgr") else shown[..., :3]
        value_range = (0, 10000)
    if dtype != "uint8":
        low, high = value_range
        expected = np.rint((expected.astype(np.float64) - low) / (high - low) * 255)
    expected = np.where(hole[..., None], 0, expected)
    meaning = Meaning(value_range if dtype != "uint8" else (), ("8-bit",) if dtype == "uint8" else ("16-bit", "float"))
    decoded = decode.decode(read_file(path))
    np.testing.assert_array_equal(meaning.bytes_of(decoded), expected)
    raster = Raster(path, None, None, meaning)
    seen, valid = raster.read(0, 0, 48, 64)
    raster.close()
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(valid, ~hole)


def test_near_infrared_that_is_called_alpha_makes_no_holes(artefact, tmp_path, capsys):
    pixels = np.concatenate([scene(32, 40), scene(32, 40, 1)[..., :1]], -1)
    pixels[:16, :16, 3] = 0  # water
    raster = write(tmp_path / "scene.tif", pixels)
    with rasterio.open(raster) as file:
        assert file.colorinterp[3] == C.alpha
    run(artefact, raster, tmp_path / "map.tif", "--bands=1,2,3")
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(1), by_pixels(pixels[..., :3], SIDE, 4).argmax(-1))
    write(tmp_path / "other.tif", pixels[..., [2, 1, 0, 3]])
    with rasterio.open(tmp_path / "other.tif", "r+") as file:
        file.colorinterp = (C.blue, C.green, C.red, C.undefined)
    capsys.readouterr()
    run(artefact, tmp_path / "other.tif", tmp_path / "other_map.tif")
    assert "bands: 3, 2, 1" in capsys.readouterr().err
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "other_map.tif").read_bytes()


def test_what_a_killed_command_left_is_swept(artefact, tmp_path):
    """Of this map; another map's folder is not looked at."""
    raster = write(tmp_path / "scene.tif", scene(32, 40))
    for name in (".map.tif-abc", ".other.tif-abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "map.tif").touch()
        (tmp_path / f"{name}.lock").touch()
    run(artefact, raster, tmp_path / "map.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.tif-abc", ".other.tif-abc.lock", "map.tif", "map.tif.aux.xml", "map_confidence.tif", "map_legend.png",
        "scene.tif",
    ]  # fmt: skip


def test_sidecar_files_of_an_older_map_are_gone(artefact, tmp_path):
    raster = write(tmp_path / "scene.tif", scene(32, 40))
    stale = [
        f"{name}{suffix}"
        for name in ("map.tif", "map_confidence.tif", "map_legend.png")
        for suffix in (".ovr", ".msk", ".msk.ovr", ".aux.xml")
    ]
    for name in stale:
        (tmp_path / name).write_text("of an older map")
    run(artefact, raster, tmp_path / "map.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.tif", "map.tif.aux.xml", "map_confidence.tif", "map_legend.png", "scene.tif",
    ]  # fmt: skip
    assert "of an older map" not in (tmp_path / "map.tif.aux.xml").read_text()


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
    artefact = write_model(tmp_path / "student.onnx", SIDE, CLASSES, **facts)
    run(artefact, write(tmp_path / "scene.tif", pixels), tmp_path / "map.tif")
    said = capsys.readouterr().err
    run(artefact, tmp_path / "scene.tif", tmp_path / "same.tif", f"--tile={tile}")
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "same.tif").read_bytes()
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["tile"] == str(tile)
    assert (f"window: {tile} px" in said) == bool(facts)


@pytest.mark.parametrize(
    "crs, transform, meters",
    [
        ("EPSG:32631", rasterio.Affine(0.5, 0, 0, 0, -0.5, 100), 0.5),
        ("EPSG:2263", rasterio.Affine(2, 0, 0, 0, -2, 100), 2 * 1200 / 3937),
        ("EPSG:4326", rasterio.Affine(1e-5, 0, 20, 0, -1e-5, 60), 1e-5 * 111_195 * np.sqrt(0.5)),
    ],
)
def test_the_ground_size_of_a_rasters_pixel(tmp_path, crs, transform, meters):
    from kdjax.deploy.landuse_map.raster import Raster

    raster = Raster(write(tmp_path / "scene.tif", scene(16, 16), crs, transform), None, None, Meaning())
    raster.close()
    assert raster.pixel_size_m == pytest.approx(meters, rel=3e-3)


def test_names_are_harmless_in_the_files(tmp_path, capsys):
    names = ("=field", "for\x1b[31mest", "河流 <&>")
    artefact = write_model(tmp_path / "student.onnx", SIDE, names)
    run(artefact, write(tmp_path / "scene.tif", scene(32, 40)), tmp_path / "map.tif")
    assert "\x1b" not in capsys.readouterr().out
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml").find("PAMRasterBand")
    assert [one.text for one in table.find("CategoryNames")] == ["=field", "for\\x1b[31mest", "河流 <&>"]


def test_a_raster_of_another_kind_below_the_first_look_is_refused(tmp_path, capfd):
    """What the windows of the first look miss is seen while the map is made; nothing is written then."""
    pixels = np.zeros((1200, 1200, 3), np.uint16)
    pixels[150:180, 150:180] = 30000
    raster = write(tmp_path / "scene.tif", pixels, nodata=0)
    artefact = write_model(tmp_path / "deep.onnx", SIDE, CLASSES, value_range="[0, 10000]", numbers='["16-bit"]')
    assert "100 % of its values" in refused(capfd, command.main, artefact, raster, tmp_path / "map.tif", "--tile=64")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep.onnx", "scene.tif"]
