"""Directories and archives: what is in them, what is passed over, and what cannot be read."""

import os
import socket
import struct
import zipfile

import pytest
from helpers.tiles import OPTIONS, names_of, pack, write_classes

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


@pytest.mark.parametrize("field", ["path", "splits", "unlabelled_dir"])
@pytest.mark.parametrize("kind", ["pipe", "device", "long name", "null byte"])
def test_what_is_no_place_is_refused_at_once(tmp_path, field, kind):
    place = {"pipe": tmp_path / "pipe", "device": "/dev/zero", "long name": "x" * 300, "null byte": "a\0b"}[kind]
    if kind == "pipe":
        os.mkfifo(place)
    root = write_classes(tmp_path / "tiles", count=8)
    with pytest.raises(InputError, match=f"dataset.{field}: ") as error:
        load(**OPTIONS | {"path": str(root)} | {field: str(place)})
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
