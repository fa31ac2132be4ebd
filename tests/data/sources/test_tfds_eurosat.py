"""The official tfds builder `eurosat/rgb`, prepared offline with TensorFlow, read by kdjax without it.

Preparing needs a Python with the `tensorflow` extra. It may be another one than this:

    python -m venv tfvenv && tfvenv/bin/pip install '.[tensorflow]'
    KDJAX_TENSORFLOW_PYTHON=tfvenv/bin/python python -m pytest -m slow tests/data/sources/test_tfds_eurosat.py
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from kdjax.data import load

EUROSAT = pathlib.Path(__file__).parents[3] / "../shared/data/eurosat_rgb.zip"
TOOL = pathlib.Path(__file__).parents[2] / "tools/prepare_eurosat_tfds.py"
PYTHON = os.environ.get("KDJAX_TENSORFLOW_PYTHON") or (
    sys.executable if importlib.util.find_spec("tensorflow") else None
)


@pytest.mark.slow
@pytest.mark.skipif(not EUROSAT.exists(), reason="../shared/data/eurosat_rgb.zip is not there")
@pytest.mark.skipif(PYTHON is None, reason="no TensorFlow here; name a Python that has it in KDJAX_TENSORFLOW_PYTHON")
def test_the_official_builder_gives_the_images_of_the_archive(tmp_path):
    subprocess.run([PYTHON, str(TOOL), str(EUROSAT), str(tmp_path)], check=True, timeout=600)
    options = dict(image_size=64, storage_size=64, data_seed=0, cache_dir=None, log=lambda line: None)
    prepared = load(source="tfds", builder="eurosat/rgb", path=str(tmp_path), **options)
    folder = load(source="folder", path=str(EUROSAT), **options)

    def by_name(data):
        return {
            name.split("/")[-1]: (data.classes[label], image)
            for split in (data.train, data.validation, data.test)
            for name, label, image in zip(split.names, split.labels, split.images, strict=True)
        }

    one, two = by_name(prepared), by_name(folder)
    assert len(one) == 27000 and prepared.classes == folder.classes
    assert one.keys() == two.keys()
    for name, (label, image) in one.items():
        assert label == two[name][0]
        np.testing.assert_array_equal(image, two[name][1])
    # Both are split by the same rule; only the names in it differ.
    assert [len(split) for split in (prepared.train, prepared.validation, prepared.test)] == [
        len(split) for split in (folder.train, folder.validation, folder.test)
    ]
