"""The ground size of a tile's pixel by its keys alone is that of GDAL and its database, or it is not said."""

import contextlib
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
rasterio = pytest.importorskip("rasterio")

from helpers.maps import write  # noqa: E402
from rasterio.warp import transform  # noqa: E402

from kdjax.data import decode  # noqa: E402
from kdjax.deploy.landuse_map.areas import hectares  # noqa: E402
from kdjax.deploy.landuse_map.layers import Grid  # noqa: E402

DATABASE = Path(rasterio.__file__).parent / "proj_data" / "proj.db"


def sizes(folder, crs, longitude, latitude, side=1.0):
    """Of a pixel of `side` there, m: as the tile's keys say, and as a map has it."""
    (x,), (y,) = transform("EPSG:4326", crs, [longitude], [latitude])
    place = rasterio.Affine(side, 0, x, 0, -side, y)
    path = write(folder / "tile.tif", np.full((4, 4, 3), 9, np.uint8), crs, place)
    found = decode.decode(path.read_bytes()).pixel_size_m
    path.unlink()
    path.with_name("tile.tif.aux.xml").unlink(missing_ok=True)
    return found, math.sqrt(1e4 * hectares(Grid(1, 1, crs, place), 0)[0])


KNOWN = {
    "EPSG:32631": (3, 45), "EPSG:32756": (153, -30), "EPSG:25832": (9, 50), "EPSG:26915": (-93, 40),
    "EPSG:27700": (-2, 53), "EPSG:2154": (3, 47), "EPSG:2056": (8, 47), "EPSG:3035": (25, 60), "EPSG:6933": (10, 60),
    "EPSG:5070": (-100, 40), "EPSG:3857": (10, 60), "EPSG:2263": (-74, 40.7), "EPSG:2222": (-110, 33),
    "EPSG:2314": (-61, 10.5), "EPSG:27291": (174, -37), "EPSG:3167": (101, 3), "EPSG:32631+5773": (3, 45),
    "EPSG:25832+7837": (9, 50), "EPSG:27700+5701": (-2, 53), "ESRI:102001": (-100, 60), "ESRI:102017": (10, 80),
    "+proj=utm +zone=31 +datum=WGS84 +units=km": (3, 45), "+proj=utm +zone=31 +datum=WGS84 +units=us-ft": (3, 45),
    "+proj=tmerc +lat_0=0 +lon_0=9 +k=1 +x_0=3500000 +ellps=bessel +units=m": (9, 50),
}  # fmt: skip
NOT_SAID = {
    "EPSG:3395": (10, 60), "ESRI:54004": (10, 60), "EPSG:3832": (170, -40), "EPSG:4087": (10, 60),
    "EPSG:32662": (10, 60), "ESRI:54001": (10, 60), "EPSG:2263+6360": (-74, 40.7), "EPSG:3413": (0, 60),
    "EPSG:3031": (0, -60), "EPSG:3978": (-90, 75), "ESRI:102100": (10, 60),
    "+proj=lcc +lat_1=10 +lat_2=20 +lon_0=0 +datum=WGS84": (10, 60),
    "+proj=tmerc +lat_0=0 +lon_0=9 +k=1 +ellps=bessel +units=m": (25, 50),
    "+proj=tmerc +lat_0=0 +lon_0=9 +k=0.9 +ellps=bessel +units=m": (9, 50),
    "+proj=utm +zone=31 +datum=WGS84 +units=km +towgs84=0,0,0": (30, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", [*KNOWN, *NOT_SAID])
def test_a_projected_tile_has_the_pixel_of_its_map_or_none(tmp_path, name):
    found, ground = sizes(tmp_path, rasterio.CRS.from_user_input(name), *(KNOWN | NOT_SAID)[name])
    assert (found is not None) == (name in KNOWN)
    assert found is None or found == pytest.approx(ground, rel=0.02)


@pytest.mark.parametrize(
    "name, known", [("EPSG:4326", True), ("EPSG:4979", True), ("EPSG:4269", True), ("EPSG:4807", False)]
)
def test_a_tile_in_degrees_has_the_pixel_of_its_map(tmp_path, name, known):
    found, ground = sizes(tmp_path, rasterio.CRS.from_user_input(name), 3, 45, side=1e-5)
    assert found == pytest.approx(ground, rel=0.02) if known else found is None


def every_system():
    """EPSG codes of projected systems with their area of use: south, north, west, east."""
    listed = """
        select p.code, e.south_lat, e.north_lat, e.west_lon, e.east_lon from projected_crs p
        join usage u on u.object_table_name = 'projected_crs' and u.object_auth_name = p.auth_name
            and u.object_code = p.code
        join extent e on e.auth_name = u.extent_auth_name and e.code = u.extent_code
        where p.auth_name = 'EPSG' and e.south_lat is not null group by p.code order by p.code"""
    with contextlib.closing(sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)) as database:
        return [(int(code), *area) for code, *area in database.execute(listed)]


@pytest.mark.skipif(not DATABASE.is_file(), reason="this rasterio has PROJ's database elsewhere")
@pytest.mark.parametrize("which", [slice(0, None, 97), pytest.param(slice(5, None, 12), marks=pytest.mark.slow)])
def test_no_system_of_the_database_is_taken_for_another(tmp_path, which):
    """In the corners and in the middle of its area of use. A whole slice takes three minutes."""
    from rasterio._err import CPLE_BaseError

    said = asked = 0
    for code, south, north, west, east in every_system()[which]:
        crs, east = rasterio.CRS.from_epsg(code), east + 360 * (east < west)
        for part_x, part_y in ((0.5, 0.5), (0.02, 0.02), (0.98, 0.98)):
            longitude = (west + part_x * (east - west) + 180) % 360 - 180
            try:
                found, ground = sizes(tmp_path, crs, longitude, south + part_y * (north - south))
            except CPLE_BaseError:  # it does not lead to longitude and latitude
                continue
            asked += 1
            said += found is not None
            assert found is None or found == pytest.approx(ground, rel=0.02), (code, part_x)
    assert said > 0.9 * asked
