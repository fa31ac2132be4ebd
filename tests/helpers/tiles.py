"""Small data sets of class folders, and what `load` made of them."""

import zipfile

import numpy as np
from PIL import Image

from kdjax.data.dataset import Pool

SIDE = 32
OPTIONS = dict(source="folder", image_size=SIDE, storage_size=SIDE, data_seed=0, cache_dir=None, log=lambda line: None)


def picture(seed, height, width, channels=3):
    """Smooth colors, so that JPEG keeps them nearly."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, channels), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_classes(root, classes=("field", "lake", "town"), count=20):
    """Folders of odd sizes; class k's pictures differ from all others."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture([k, i], 17 + i, 31 - i)).save(root / name / f"{name}{i:02d}.png")
    return root


def pool_of(names, labels, digests, sides, classes):
    """A Pool of which only the images are missing."""
    return Pool(
        "pool",
        tuple(classes),
        np.empty(0),
        np.array(labels),
        tuple(names),
        tuple(digests),
        sides,
    )


def pack(root, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(root).as_posix())
    return path


def names_of(data):
    return set(data.train.names) | set(data.validation.names) | set(data.test.names)


def image_of(data, name):
    for split in (data.train, data.validation, data.test):
        if name in split.names:
            return split.images[split.names.index(name)]
    raise KeyError(name)


def sides(data):
    """The split of each image, by its name."""
    return {name: side for side in ("train", "validation", "test") for name in getattr(data, side).names}
