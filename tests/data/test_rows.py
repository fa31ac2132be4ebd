"""Rows of several arrays give what NumPy gives of one, and read no more than they are asked for."""

import concurrent.futures
import hashlib

import numpy as np
import pytest

from kdjax.data.dataset import Split, fingerprint
from kdjax.data.rows import Rows, row_hashes

STORED = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3), np.uint8)
PARTS = (STORED[:3], STORED[3:3], STORED[3:8], STORED[8:])
INDICES = [
    0, -1, slice(2, 5), slice(None, None, -2), slice(3, 3), np.array([5, 0, 5]), np.array([[[1], [6]]]),
    np.arange(7) % 2 == 0, np.array([], np.int64), [3, 1],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("arrays", [(STORED,), PARTS], ids=["one", "several"])
def test_indexing_is_that_of_an_array(arrays, index):
    places = np.array([10, 2, 3, 7, 8, 2, 0])
    rows, expected = Rows(arrays, places), STORED[places]
    assert rows.shape == expected.shape and rows.nbytes == expected.nbytes and len(rows) == 7
    for found, wanted in ((rows, expected), (rows.viewed(lambda block: block[..., [2, 0]]), expected[..., [2, 0]])):
        assert found.shape == wanted.shape and found[index].dtype == np.uint8
        np.testing.assert_array_equal(found[index], wanted[index], strict=True)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(list(found), wanted)
    np.testing.assert_array_equal(np.asarray(rows, np.float32), expected.astype(np.float32), strict=True)


def test_choices_of_choices_and_what_follows():
    rows = Rows(PARTS).select(np.arange(11) % 2 == 1)
    np.testing.assert_array_equal(rows.select(np.array([4, 0])), STORED[[9, 1]])
    joined = rows.followed_by(Rows((STORED[::-1],), np.array([0, 4])))
    np.testing.assert_array_equal(joined, STORED[[1, 3, 5, 7, 9, 10, 6]])
    twice = rows.viewed(lambda block: block[:, ::-1]).viewed(lambda block: block[:, :2])
    np.testing.assert_array_equal(twice, STORED[1::2, ::-1][:, :2])
    with pytest.raises(ValueError, match="as they are stored"):
        twice.followed_by(rows)
    with pytest.raises(ValueError, match="unlike"):
        Rows((STORED, STORED[..., :2]))
    with pytest.raises(TypeError, match="first axis"):
        rows[:, 0]


def test_what_is_not_asked_for_is_not_read(tmp_path):
    """A file of zeros takes no disk, and more bytes than this machine should have in memory."""
    count = 20_000
    path = tmp_path / "images.npy"
    header = np.lib.format.header_data_from_array_1_0(np.zeros(0, np.uint8)) | {"shape": (count, 1024, 1024, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * 1024 * 1024 * 3)
    rows = Rows((np.load(path, mmap_mode="r"),))
    assert rows.nbytes > 60e9
    split = Split(rows, np.arange(count, dtype=np.int32) % 3 - 1, tuple(map(str, range(count))))
    kept = split.labeled()
    assert len(kept) == np.sum(np.arange(count) % 3 != 0) and kept.names[:2] == ("1", "2")
    assert not kept.images[-2:].any()


def test_hashes_are_those_of_each_row():
    expected = [hashlib.sha256(image.tobytes()).digest() for image in STORED]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for found in (row_hashes(STORED), row_hashes(Rows(PARTS), pool)):
            assert [one.tobytes() for one in found] == expected


def test_the_fingerprint_is_of_the_pixels_whoever_hashed_them():
    labels, names = np.zeros(11, np.int32), tuple("abcdefghijk")
    make = lambda images, hashes=None: fingerprint(("x",), {"train": Split(images, labels, names, hashes)})
    expected = make(STORED)
    assert make(Rows(PARTS)) == expected == make(STORED, row_hashes(STORED))
    turned = STORED.copy()
    turned[10, 3, 3, 2] ^= 1
    assert make(turned) != expected != make(STORED[::-1])
    assert make(STORED.reshape(11, 2, 8, 3)) != expected
