"""The cache of decoded images: what it knows a source by, what it must not remember, what it leaves behind."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from helpers.tiles import OPTIONS, names_of, write_classes
from PIL import Image

from kdjax.data import cache, decode, decode_all, load
from kdjax.errors import InputError


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
    lambda index: index | {"content": index["content"] | {"names": index["content"]["names"][::-1]}},
    lambda index: index | {"content": index["content"] | {"meaning": 5}},
    lambda index: index | {"arrays": 7},
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


def test_what_writers_left_is_swept_after_a_week_and_a_living_one_keeps_its_own(tmp_path):
    place = tmp_path / "cache" / "decoded"
    code = (
        "import concurrent.futures, pathlib, sys, time\n"
        "from kdjax.data import cache\n"
        f"folder = pathlib.Path({str(place)!r}) / sys.argv[1]\n"
        "with cache.writer_lock(folder, print), concurrent.futures.ThreadPoolExecutor() as pool:\n"
        "    writer = cache.Writer(folder, (4, 32, 32, 3), 'uint8', pool)\n"
        "    print('made', flush=True)\n"
        "    time.sleep(60)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True) for name in ("aa", "bb")
    ]
    assert [process.stdout.readline().strip() for process in started] == ["made", "made"]
    started[0].send_signal(signal.SIGKILL)
    started[0].wait()
    left = {".aa.partial", ".aa.writing", ".bb.partial", ".bb.writing"}
    assert set(entries(tmp_path)) == left
    old, lock = place / ".cc-of-an-older-version", place / ".cc-of-an-older-version.lock"
    old.mkdir()
    (old / "images.npy").write_bytes(b"x")
    lock.touch()
    root = write_classes(tmp_path / "tiles", count=8)
    (tmp_path / "tiles" / "lake" / "lake09.png").write_bytes((tmp_path / "tiles" / "lake" / "lake01.png").read_bytes())
    hidden = lambda: {name for name in entries(tmp_path) if name.startswith(".")}
    try:
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})
        assert hidden() == left | {old.name, lock.name}  # to be resumed
        for path in (*place.glob(".*/*"), *place.glob(".*")):
            os.utime(path, (time.time() - 8 * 86_400,) * 2)
        (tmp_path / "tiles" / "lake" / "lake09.png").unlink()
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})
        assert hidden() == {".bb.partial", ".bb.writing"}
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_writer_that_is_refused_leaves_nothing(tmp_path):
    place = tmp_path / "decoded" / "aa"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with (
            pytest.raises(InputError),
            cache.writer_lock(place, print),
            cache.Writer(place, (4, 32, 32, 3), np.uint8, pool),
        ):
            raise InputError("no")
        assert list(place.parent.iterdir()) == []
        with cache.writer_lock(place, print) as waited, cache.Writer(place, (4, 8, 8, 3), np.uint8, pool) as one:
            for row in (0, 1, 3):
                one.add(row, np.full((8, 8, 3), 7, np.uint8), None)
            made = one.finish({"names": ("é",)}, {"labels": np.arange(3)})
        assert not waited and [path.name for path in place.parent.iterdir()] == ["aa"]
        for stored in (made, cache.read(place, pool, print)):
            assert (stored.images[[0, 1, 3]] == 7).all() and not stored.images[2].any()
            assert stored.content == {"names": ["é"]} and stored.arrays["labels"].tolist() == [0, 1, 2]
            expected = [hashlib.sha256(image.tobytes()).digest() for image in stored.images]
            assert [one.tobytes() for one in stored.hashes] == expected


@pytest.mark.parametrize("deep", [False, True], ids=["bytes", "16-bit"])
def test_decoding_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, deep):
    """After a kill: a row whose pixels did not reach the disk and a torn line of the journal are found."""
    root = write_classes(tmp_path / "tiles", count=8)
    if deep:  # their range is found in a pass of its own, which is not repeated either
        for number, path in enumerate(sorted(root.rglob("*.png"))):
            pixels = np.random.default_rng(number).integers(0, 9000, (20, 20, 3), np.uint16)
            path.unlink()
            tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="rgb")
    lines, decoded, real = [], [], decode.open_image
    options = OPTIONS | {"path": str(root), "log": lines.append}
    expected = load(**options)

    def counted(data, bands):
        decoded.append(data)
        if len(decoded) > stop:
            raise KeyboardInterrupt
        return real(data, bands)

    monkeypatch.setattr(decode, "open_image", counted)
    options["cache_dir"], stop = tmp_path / "cache", 24 * deep + 15
    with pytest.raises(KeyboardInterrupt):
        load(**options)
    (partial,) = (tmp_path / "cache" / "decoded").iterdir()
    journal = (partial / "journal").read_text().splitlines()
    rows = [json.loads(line)[0] for line in journal if line and not line.startswith('["')]
    assert 8 < len(rows) <= 15
    images = np.load(partial / "images.npy", mmap_mode="r+")
    images[rows[0]] += 1
    del images
    (partial / "journal").write_text("\n".join(journal)[:-5])
    decoded.clear()
    stop = 1000
    lines.clear()
    found = load(**options)
    assert len(decoded) == 24 - (len(rows) - 2)
    assert f"{len(rows) - 2} of 24 images were decoded before" in lines[0]
    assert found.fingerprint == expected.fingerprint and found.notes == expected.notes
    for side in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(found, side).images, getattr(expected, side).images)
    decoded.clear()
    assert load(**options).fingerprint == expected.fingerprint and not decoded
    assert len(entries(tmp_path)) == 1


def test_processes_that_start_together_decode_once(tmp_path, monkeypatch):
    root, lines, decoded, real = write_classes(tmp_path / "tiles", count=8), [], [], decode.open_image
    monkeypatch.setattr(cache, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(decode, "open_image", lambda data, bands: (decoded.append(data), real(data, bands))[1])
    options = OPTIONS | {"path": str(root), "cache_dir": tmp_path / "cache", "log": lines.append}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # the lock tells threads apart as it does processes
        found = list(pool.map(lambda _: load(**options).fingerprint, range(3)))
    assert len(set(found)) == 1 and len(decoded) == 24
    assert all("another process decodes these images" in line for line in lines)
    assert len(entries(tmp_path)) == 1


def test_progress_says_what_is_left(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(decode_all, "_PROGRESS_SECONDS", 0.0)
    load(path=str(write_classes(tmp_path / "tiles", count=8)), **OPTIONS | {"log": lines.append})
    assert len(lines) == 24 and re.fullmatch(r"decoding dataset.path: 24/24 images  \d+ images/s  0:00 left", lines[-1])


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
    real = decode.open_image

    def vanishing(data, bands):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        return real(data, bands)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match="the cache folder .* cannot be written"),
    ):
        patch.setattr(decode, "open_image", vanishing)
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "tiles", count=8)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="the cache folder .* cannot be written: No space left on device"):
        load(path=str(root), **OPTIONS | {"cache_dir": tmp_path / "cache"})
    assert entries(tmp_path) == []


def test_another_format_has_another_folder(monkeypatch):
    """Images of an earlier version, which may have been decoded otherwise, are left alone."""
    first = cache.key_of({"image": "a"})
    assert cache.key_of({"image": "a"}) == first != cache.key_of({"image": "b"})
    monkeypatch.setattr(cache, "FORMAT", 10**6)
    assert cache.key_of({"image": "a"}) != first
