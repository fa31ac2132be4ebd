"""Files of a folder or archive that are read once more, by the names of their examples."""

import pytest
from helpers.tiles import OPTIONS, pack, write_classes

from kdjax.data import load
from kdjax.data.sources.folder import read_named
from kdjax.errors import InputError


@pytest.mark.parametrize("kind", ["directory", "wrapped zip"])
def test_examples_are_found_again_by_name(tmp_path, kind):
    plain = write_classes(tmp_path / "plain")
    path = plain if kind == "directory" else pack(plain, tmp_path / "tiles.zip", "deep/er/")
    data = load(path=str(path), **OPTIONS)
    assert list(read_named(str(path), data.test.names)) == [(plain / name).read_bytes() for name in data.test.names]
    with pytest.raises(InputError, match="field/gone.png"):
        list(read_named(str(path), ["field/gone.png"]))


def test_a_file_that_goes_while_others_are_read_is_named(tmp_path):
    root = write_classes(tmp_path / "tiles", count=2)
    files = read_named(str(root), ["field/field00.png", "lake/lake01.png"])
    next(files)
    (root / "lake" / "lake01.png").unlink()
    with pytest.raises(
        InputError, match=r"dataset.path: .*lake/lake01.png can no longer be read \(No such.*put it back"
    ):
        next(files)
