"""The cache of decoded images: what it knows a source by, what it must not remember, what it leaves behind."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.tiles import OPTIONS, names_of, write_classes
from PIL import Image

from kdjax.data import cache, decode, load
from kdjax.errors import InputError
from kdjax.runtime import temporary


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "decoded").iterdir())


def mean_of(data, name):
    return data.train.images[data.train.labels == data.classes.index(name)].mean()


def test_folders_that_change_places_are_decoded_again(tmp_path):
    """Tiles of one size and date, as a reproducible archive has them."""
    root, options = tmp_path / "tiles", OPTIONS | {"cache_dir": tmp_path / "cache"}
    for name, value in (("dark", 20), ("light", 200)):
        (root / name).mkdir(parents=True)
        for i in range(8):
            tile = np.full((40, 40, 3), value, np.uint8)
            tile[i, i] = 255
            Image.fromarray(tile).save(root / name / f"{i}.bmp")
            os.utime(root / name / f"{i}.bmp", (1577836800,) * 2)
    first = load(path=str(root), **options)
    for old, new in (("dark", "x"), ("light", "dark"), ("x", "light")):
        (root / old).rename(root / new)
    second = load(path=str(root), **options)
    assert mean_of(first, "dark") < 30 < 190 < mean_of(second, "dark")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_file_that_was_not_read_is_not_remembered(tmp_path, monkeypatch, error):
    root = write_classes(tmp_path / "tiles", count=8)
    (root / "lake" / "broken.png").write_bytes(b"words")
    options = OPTIONS | {"cache_dir": tmp_path / "cache", "on_error": "skip", "path": str(root)}
    with monkeypatch.context() as patch:
        real = pathlib.Path.read_bytes

        def failing(path):
            if path.name == "lake03.png":
                raise error
            return real(path)

        patch.setattr(pathlib.Path, "read_bytes", failing)
        data = load(**options)
        assert len(names_of(data)) == 23 and any("2 unreadable images skipped" in note for note in data.notes)
    assert entries(tmp_path) == []
    data = load(**options)
    assert len(names_of(data)) == 24 and any(
        "1 unreadable image skipped: lake/broken.png" in note for note in data.notes
    )
    assert len(entries(tmp_path)) == 1  # what is in the file is remembered


INDEX = [
    lambda index: [],
    lambda index: None,
    lambda index: index | {"content": {}},
    lambda index: index | {"content": index["content"] | {"labels": index["content"]["labels"][::-1]}},
    lambda index: index | {"content": index["content"] | {"meaning": 5}},
    lambda index: index | {"hashes": 7},
    lambda index: index | {"shape": "wide"},
    lambda index: {key: value for key, value in index.items() if key != "seal"},
]


@pytest.mark.parametrize("number", range(len(INDEX) + 3))
def test_garbage_in_the_index_is_decoded_again(tmp_path, number):
    lines = []
    root = write_classes(tmp_path / "tiles", count=8)
    options = OPTIONS | {"cache_dir": tmp_path / "cache", "path": str(root), "log": lines.append}
    first = load(**options)
    (name,) = entries(tmp_path)
    index = tmp_path / "cache" / "decoded" / name / "index.json"
    good = index.read_text(encoding="utf-8")
    if number < len(INDEX):
        index.write_text(json.dumps(INDEX[number](json.loads(good))))
    else:
        index.write_bytes((b"[" * 100_000, b"\xff\xfe", b"")[number - len(INDEX)])
    assert load(**options).fingerprint == first.fingerprint
    assert len(lines) == 1 and "is damaged" in lines[0] and "decoding again" in lines[0] and "\n" not in lines[0]
    assert json.loads(index.read_text(encoding="utf-8")) == json.loads(good)


def test_what_a_killed_writer_left_is_swept_and_a_living_one_keeps_its_own(tmp_path):
    place = tmp_path / "cache" / "decoded"
    code = (
        "import pathlib, sys, time\n"
        "from kdjax.data import cache\n"
        f"writer = cache.Writer(pathlib.Path({str(place)!r}) / sys.argv[1], (4, 32, 32, 3))\n"
        "print(writer._building.name, flush=True)\n"
        "time.sleep(60)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True) for name in ("aa", "bb")
    ]
    dead, living = (process.stdout.readline().strip() for process in started)
    started[0].send_signal(signal.SIGKILL)
    started[0].wait()
    assert set(entries(tmp_path)) == {dead, f"{dead}.lock", living, f"{living}.lock"}
    old, new = place / ".cc-of-an-older-version", place / ".dd-of-an-older-version"
    for folder in (old, new):
        folder.mkdir()
        (folder / "images.npy").write_bytes(b"x")
    for path in (old / "images.npy", old):
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    try:
        root = write_classes(tmp_path / "tiles", count=8)
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})
        assert {name for name in entries(tmp_path) if name.startswith(".")} == {living, f"{living}.lock", new.name}
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    temporary.sweep(place)
    assert {name for name in entries(tmp_path) if name.startswith(".")} == {new.name}


def test_a_writer_leaves_nothing_whatever_happens(tmp_path):
    with pytest.raises(KeyboardInterrupt), cache.Writer(tmp_path / "decoded" / "aa", (4, 32, 32, 3)):
        raise KeyboardInterrupt
    assert list((tmp_path / "decoded").iterdir()) == []
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        cache.Writer(tmp_path / "decoded" / "aa", (4, 8, 8, 3)) as one,
    ):
        one.images[:] = 7
        one.finish({"names": ["é"]}, pool)
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["aa"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images, content = cache.read(tmp_path / "decoded" / "aa", pool, print)
    assert (images == 7).all() and content == {"names": ["é"]}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    root = write_classes(tmp_path / "tiles", count=8)
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(InputError, match="the cache folder .* cannot be written"):
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})


@pytest.mark.parametrize("kind", ["file", "long", "null"])
def test_a_cache_that_is_no_folder_is_named(tmp_path, kind):
    root = write_classes(tmp_path / "tiles", count=8)
    (tmp_path / "file").touch()
    place = tmp_path / {"file": "file", "long": "x" * 300, "null": "a\0b"}[kind]
    with pytest.raises(InputError, match="the cache folder .* cannot be written"):
        load(path=str(root), **OPTIONS | {"cache_dir": place})


def test_a_cache_that_vanishes_is_named(tmp_path):
    """While the images are decoded."""
    root = write_classes(tmp_path / "tiles", count=8)
    real = decode.opened

    def vanishing(data, bands):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        return real(data, bands)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match="the cache folder .* cannot be written"),
    ):
        patch.setattr(decode, "opened", vanishing)
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "tiles", count=8)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="the cache folder .* cannot be written: No space left on device"):
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})
    assert entries(tmp_path) == []
