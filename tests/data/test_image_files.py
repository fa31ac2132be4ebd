"""Directories and archives: what is in them, what is passed over, and what cannot be read."""

import os
import socket
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from helpers.tiles import OPTIONS, image_of, names_of, pack, write_classes
from PIL import Image

from kdjax.data import decode, load
from kdjax.data.image_files import open_files, read_file
from kdjax.errors import InputError


@pytest.mark.parametrize("other", ["a/0.png", "./a/0.png", "a//0.png", "a\\0.png", "a/./0.png"])
def test_members_of_one_name_are_refused(tmp_path, other):
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        archive.writestr("a/0.png", b"one")
        if other == "a/0.png":
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(other, b"two")
        else:
            archive.writestr(other, b"two")
    with pytest.raises(InputError, match="dataset.path: .*tiles.zip holds a/0.png twice"):
        load(path=str(tmp_path / "tiles.zip"), **OPTIONS)


@pytest.mark.parametrize("method, name", [(9, "Deflate64"), (93, "Zstandard"), (97, "number 97")])
def test_methods_that_python_cannot_unpack_are_named(tmp_path, method, name):
    path = pack(write_classes(tmp_path / "tiles", count=3), tmp_path / "tiles.zip")
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = data.find(signature)
        while at >= 0:
            struct.pack_into("<H", data, at + place, method)
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*unpack it and give the folder"):
        load(path=str(path), **OPTIONS)


@pytest.mark.parametrize("method", ["ZIP_DEFLATED", "ZIP_BZIP2", "ZIP_LZMA"])
def test_a_damaged_member_is_named_whatever_its_method(tmp_path, method):
    root = write_classes(tmp_path / "tiles", count=3)
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w", getattr(zipfile, method)) as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(root).as_posix())
    data = bytearray((tmp_path / "tiles.zip").read_bytes())
    at = archive.getinfo("lake/lake01.png").header_offset + 30 + len("lake/lake01.png") + 40
    data[at : at + 20] = b"\xff" * 20
    (tmp_path / "tiles.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"1 unreadable image: lake/lake01.png \(damaged in the archive"):
        load(path=str(tmp_path / "tiles.zip"), **OPTIONS)


def test_pipes_and_devices_are_passed_over(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "tiles", count=8)
    os.mkfifo(root / "lake" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(root)
        server.bind("town/socket.png")
        data = load(path=str(root), **OPTIONS)
    assert len(names_of(data)) == 24 and any("2 in pipes and devices" in note for note in data.notes)
    with pytest.raises(decode.ReadError, match="not a regular file"):
        read_file(root / "lake" / "pipe.png")


@pytest.mark.parametrize("field", ["path", "splits", "unlabeled_dir", "places"])
@pytest.mark.parametrize("kind", ["pipe", "device", "long name", "null byte"])
def test_what_is_no_place_is_refused_at_once(tmp_path, field, kind):
    place = {"pipe": tmp_path / "pipe", "device": "/dev/zero", "long name": "x" * 300, "null byte": "a\0b"}[kind]
    if kind == "pipe":
        os.mkfifo(place)
    root = write_classes(tmp_path / "tiles", count=8)
    with pytest.raises(InputError, match=f"dataset.{field}: ") as error:
        load(
            **OPTIONS | {"path": str(root), "split_by": "place" if field == "places" else "image"} | {field: str(place)}
        )
    assert "\n" not in str(error.value)


def test_a_broken_link_is_named(tmp_path):
    root = write_classes(tmp_path / "tiles", count=8)
    (root / "lake" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"1 unreadable image: lake/gone.png \(No such file"):
        load(path=str(root), **OPTIONS)


def test_stamps_follow_content_rather_than_name_date_and_size(tmp_path):
    root = tmp_path / "tiles"
    root.mkdir()
    for name, content in (("a.png", b"one"), ("b.png", b"two")):
        (root / name).write_bytes(content)
        os.utime(root / name, (1577836800,) * 2)

    def stamps():
        with open_files(str(root), "field") as files:
            return files.stamps

    before = stamps()
    assert stamps() == before
    (root / "a.png").rename(root / "c.png")
    (root / "b.png").rename(root / "a.png")
    (root / "c.png").rename(root / "b.png")
    assert not set(stamps()) & set(before)
    swapped = stamps()
    (root / "a.png").write_bytes(b"six")  # in place: the inode, the size and the date stay
    os.utime(root / "a.png", (1577836800,) * 2)
    assert stamps()[0] != swapped[0] and stamps()[1] == swapped[1]


@pytest.mark.parametrize("archive", [False, True])
def test_sidecar_files_of_gdal_are_read_with_their_image(tmp_path, archive):
    """A mask file of half of one tile, and a nodata value of another."""
    root = write_classes(tmp_path / "tiles", count=8)
    mask = np.zeros((20, 30), np.uint8)
    mask[10:] = 255
    tile = np.full((20, 30, 3), 90, np.uint8)
    tile[:, 15:] = 120
    for name in ("a", "b"):
        tifffile.imwrite(root / "lake" / f"{name}.tif", tile, photometric="rgb")
        tile = tile[:, ::-1]
    tifffile.imwrite(root / "lake" / "a.tif.msk", mask)
    (root / "lake" / "b.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>1.20000000000000E+02</NoDataValue></PAMRasterBand>"
        "</PAMDataset>"
    )
    path = pack(root, tmp_path / "tiles.zip") if archive else root
    data = load(path=str(path), **OPTIONS)
    assert (image_of(data, "lake/a.tif")[:12] == 0).all() and (image_of(data, "lake/a.tif")[20:] > 80).all()
    assert (image_of(data, "lake/b.tif")[:, :12] == 0).all() and (image_of(data, "lake/b.tif")[:, 20:] > 80).all()
    assert not any("left out" in note for note in data.notes)
    cached = OPTIONS | {"cache_dir": tmp_path / "cache", "path": str(path)}
    assert load(**cached).fingerprint == data.fingerprint
    tifffile.imwrite(root / "lake" / "a.tif.msk", 255 - mask)
    if archive:
        pack(root, path)
    assert load(**cached).fingerprint != data.fingerprint
    tifffile.imwrite(root / "lake" / "a.tif.msk", mask[:, :9])
    if archive:
        pack(root, path)
    with pytest.raises(InputError, match=r"lake/a.tif \(its mask, the sidecar file .msk, is of another size\)"):
        load(**cached)


@pytest.mark.parametrize("suffix", [".msk", ".aux.xml"])
def test_a_broken_link_to_a_sidecar_file_is_named(tmp_path, suffix):
    """Without its mask the image would be data everywhere."""
    root = write_classes(tmp_path / "tiles", count=8)
    Image.new("RGB", (9, 6), "red").save(root / "lake" / "a.png")
    place, target = root / "lake" / f"a.png{suffix}", tmp_path / "target"
    place.symlink_to(target)
    with open_files(str(root), "field") as files:
        before = files.stamps
    with pytest.raises(InputError, match=rf"1 unreadable image: lake/a.png \(its sidecar file {suffix}: No such file"):
        load(path=str(root), **OPTIONS)
    if suffix == ".msk":
        tifffile.imwrite(target, np.ones((6, 9), np.uint8))
    else:
        target.write_text("<PAMDataset/>")
    with open_files(str(root), "field") as files:
        assert set(files.stamps) - set(before)
    load(path=str(root), **OPTIONS)


def test_links_to_a_sibling_are_followed(tmp_path):
    root = write_classes(tmp_path / "tiles", ("field", "lake"), 8)
    write_classes(tmp_path / "elsewhere", ("town",), 9)
    (root / "town").symlink_to(tmp_path / "elsewhere" / "town")
    (root / "twin").symlink_to(root / "lake")
    (root / "lake" / "back").symlink_to(root / "field")
    (root / "field" / "forth").symlink_to(root / "lake")
    with open_files(str(root), "field") as files:
        counts = {name: sum(path.startswith(f"{name}/") for path in files.paths) for name in ("town", "twin", "lake")}
    assert counts == {"town": 9, "twin": 16, "lake": 16}
