"""TensorFlow Datasets sources, prepared and read without TensorFlow."""

import importlib.util
import io
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.tiffs import tiff
from helpers.tiles import SIDE, image_of, names_of, picture
from PIL import Image

from kdjax.data import load
from kdjax.data.sources import tfds as source
from kdjax.errors import InputError

OPTIONS = dict(source="tfds", image_size=SIDE, storage_size=SIDE, data_seed=0, cache_dir=None, log=lambda line: None)


def png(seed, side=20):
    out = io.BytesIO()
    Image.fromarray(picture(seed, side, side)).save(out, "PNG")
    out.seek(0)
    return out


class TinyTiles(tfds.core.GeneratorBasedBuilder):
    """Two classes in PNG; file names are unique over the two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            supervised_keys=("image", "label"),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["dune", "swamp"]),
                    "filename": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train", 30), "test": self._generate_examples("test", 8)}

    def _generate_examples(self, split, count):
        for i in range(count):
            yield i, {"image": png([len(split), i]), "label": i % 2, "filename": f"{split}{i}.png"}


class OneSplit(TinyTiles):
    """No official test split, no file names, as `resisc45` and `uc_merced`."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["dune", "swamp"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train", 30)}

    def _generate_examples(self, split, count):
        for i in range(count):
            yield i, {"image": png([len(split), i]), "label": i % 2}


def reflectance(index):
    """Sentinel-2 L1C times 10 000 (SIDE, SIDE, 13), B8A last; B10 is darkest."""
    values = np.random.default_rng([13, index]).integers(300, 9000, (SIDE, SIDE, 13)).astype(np.float32)
    values[..., 9] = 5 + index
    return values


class AllBands(tfds.core.GeneratorBasedBuilder):
    """Thirteen bands in a tensor of floats, as `eurosat/all`."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            supervised_keys=("sentinel2", "label"),
            features=tfds.features.FeaturesDict(
                {
                    "sentinel2": tfds.features.Tensor(shape=(SIDE, SIDE, 13), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=["dune", "swamp"]),
                    "filename": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(30):
            yield i, {"sentinel2": reflectance(i), "label": i % 2, "filename": f"{i}.tif"}


class NotImages(tfds.core.GeneratorBasedBuilder):
    """Numbers without a place instead of an image."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "spectrum": tfds.features.Tensor(shape=(13,), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=["dune", "swamp"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(4):
            yield i, {"spectrum": np.zeros(13, np.float32), "label": i % 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    tfds.disable_progress_bar()
    place = tmp_path_factory.mktemp("tfds")
    for builder in (TinyTiles, OneSplit, AllBands, NotImages):
        builder(data_dir=place, file_format="array_record").download_and_prepare()
    return place


def test_official_splits_and_pixels(prepared):
    data = load(builder="tiny_tiles", path=str(prepared), **OPTIONS)
    assert data.classes == ("dune", "swamp") and data.name == "tiny_tiles"
    assert set(data.test.names) == {f"test{i}.png" for i in range(8)}
    assert len(data.train) == 26 and len(data.validation) == 4  # validation carved from train
    assert names_of(data) == {f"train{i}.png" for i in range(30)} | set(data.test.names)
    for i in (0, 7):
        expected = Image.fromarray(picture([4, i], 20, 20)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image_of(data, f"test{i}.png"), np.asarray(expected))
    for split in (data.train, data.validation, data.test):
        assert [int(name.strip("aeinrst.pg")) % 2 for name in split.names] == split.labels.tolist()


def test_one_split_is_divided_and_named_by_place(prepared, tmp_path):
    options = OPTIONS | {"cache_dir": tmp_path}
    data = load(builder="one_split", path=str(prepared), **options)
    assert names_of(data) == {f"train/{i:06d}" for i in range(30)}
    assert (len(data.train), len(data.validation), len(data.test)) == (22, 2, 6)
    assert load(builder="one_split:1.0.0", path=str(prepared), **options).fingerprint == data.fingerprint


def test_split_strings(prepared):
    options = OPTIONS | {"builder": "tiny_tiles", "path": str(prepared)}
    data = load(**options, tfds_splits=("train[:20]", "train[20:26]", "train[26:]+test"))
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 6, 12)
    for bad, pattern in (
        (("train", "train[50%:]", "test"), r"'train\[50%:\]' \(validation\) overlaps with train"),
        (("train", "valid", "test"), "'valid' is not a split of tiny_tiles, which has train, test"),
        (("train[:20]", "train[20:", "test"), "'train.20:' is not a split"),
        (("train", "test", "test[3:3]"), r"'test\[3:3\]' \(test\) has no examples"),
    ):
        with pytest.raises(InputError, match=pattern):
            load(**options, tfds_splits=bad)


@pytest.mark.parametrize(
    ("names", "sides", "noted"),
    [
        (("training", "testing"), ["train", "test"], []),
        (("Train", "val", "extra"), ["train", "validation"], ["splits left out: extra"]),
        (("seg_train", "seg_test"), ["", ""], ["splits pooled, and drawn anew: seg_train, seg_test"]),
        (("train",), [""], []),
    ],
)
def test_splits_are_called_as_folders_are(names, sides, noted):
    chosen, notes = source._choose({name: types.SimpleNamespace(num_examples=1) for name in names}, (), "builder x")
    assert [side for _, _, side in chosen] == sides
    assert [note.split(" (name them")[0] for note in notes] == noted


def test_bands_of_a_tensor_are_those_of_the_same_files(prepared, tmp_path):
    for i in range(30):
        path = tmp_path / ("dune", "swamp")[i % 2] / f"{i}.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tiff(reflectance(i).astype(np.uint16), photometric="minisblack", planarconfig="contig"))
    wanted = {"sensor": "sentinel2_l1c", "bands": ("B12", "B8A", "B10")}
    data = load(builder="all_bands", path=str(prepared), **OPTIONS, **wanted)
    files = load(**OPTIONS | {"source": "folder"}, path=str(tmp_path), **wanted)
    assert data.meaning.names == wanted["bands"] and data.train.images.dtype == np.uint16
    for i in (0, 29):  # written by hand, and as files of integers are read
        found = image_of(data, f"{i}.tif")
        expected = reflectance(i)[..., [11, 12, 9]] / 10_000 * 65_535
        np.testing.assert_allclose(found, expected, atol=0.51)
        np.testing.assert_array_equal(found, image_of(files, f"{('dune', 'swamp')[i % 2]}/{i}.tif"))
    names = tuple(f"band {k}" for k in range(13))
    again = load(builder="all_bands", path=str(prepared), **OPTIONS, file_bands=names, value_range=(0.0, 10_000.0))
    np.testing.assert_array_equal(image_of(again, "3.tif")[..., [11, 12, 9]], image_of(data, "3.tif"))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({}, "all_bands: its images, 'sentinel2', have 13 bands: say which in dataset.sensor or dataset.file_bands"),
        ({"sensor": "sentinel2_l2a"}, "have 13 bands, and dataset.sensor or file_bands name 12: give all of them"),
        ({"bands": ("B04",)}, "have 13 bands, and nothing names them"),
    ],
)
def test_bands_that_nothing_names_are_refused(prepared, fields, said):
    with pytest.raises(InputError, match=said):
        load(builder="all_bands", path=str(prepared), **OPTIONS, **fields)


def test_what_is_not_prepared_says_how_to(prepared, tmp_path):
    with pytest.raises(
        InputError,
        match=r"eurosat/rgb: not prepared under .*pip install 'kdjax\[tensorflow\]' && "
        r"python -c .*tfds.builder\('eurosat/rgb', .*file_format='array_record'",
    ):
        load(builder="eurosat/rgb", path=str(tmp_path), **OPTIONS)
    with pytest.raises(InputError, match="knows no such builder; did you mean eurosat"):
        load(builder="eurosatt", path=str(tmp_path), **OPTIONS)
    with pytest.raises(InputError, match="dataset.builder"):
        load(path=str(tmp_path), **OPTIONS)
    with pytest.raises(InputError, match="not_images: one image and one class label expected, but it has 0 images"):
        load(builder="not_images", path=str(prepared), **OPTIONS)


def test_another_file_format_is_refused(prepared, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(prepared / "tiny_tiles", place / "tiny_tiles")
    info = place / "tiny_tiles" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for file in list(info.parent.glob("*.array_record*")):
        file.rename(file.with_name(file.name.replace("array_record", "tfrecord")))
    with pytest.raises(InputError, match="not prepared as array_record"):
        load(builder="tiny_tiles", path=str(place), **OPTIONS)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed here")
def test_a_fresh_process_reads_without_tensorflow(prepared):
    code = f"""
from kdjax.data import load
data = load(source='tfds', builder='tiny_tiles', path={str(prepared)!r}, image_size=32, storage_size=32,
            data_seed=0, cache_dir=None)
print(len(data.train), data.fingerprint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = load(builder="tiny_tiles", path=str(prepared), **OPTIONS)
    assert done.stdout.split() == ["26", expected.fingerprint]
