"""What the tests of maps share."""

import pytest


@pytest.fixture
def scenes(tmp_path):
    """A folder of three rasters."""
    from helpers.maps import scene, write

    folder = tmp_path / "scenes"
    folder.mkdir()
    for number, name in enumerate("abc"):
        write(folder / f"{name}.tif", scene(40 + 8 * number, 56, seed=number))
    return folder
