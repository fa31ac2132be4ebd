"""Rendered land-use scenes: a data set that needs no download.

Each scene is drawn from above, three times larger than stored, and averaged down. Orientation, scale, season, light,
haze, blur, sensor noise and clutter vary. Infrared bands are available as well, see `rendering.palette`. These are
drawings, not data: they show that a run works and what distillation does to it, not how well a network does on real
images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.data.bands import Bands, canonical
from kdjax.data.dataset import Context, Pool
from kdjax.data.decode import digest
from kdjax.data.meaning import BYTES, Meaning
from kdjax.data.rendering.canvas import Canvas
from kdjax.data.rendering.palette import BANDS, VISIBLE
from kdjax.data.rendering.scenes import SCENES
from kdjax.errors import InputError
from kdjax.fields import check_whole


def render(data_seed: int, class_name: str, index: int, size: int, infrared: bool = False) -> np.ndarray:
    """Draws one scene.

    Args:
        data_seed: seed of the data set.
        class_name: a key of SCENES.
        index: number of the scene in its class.
        size: side in pixels.
        infrared: whether infrared bands follow the colors, which are the same either way.

    Returns:
        uint8 (size, size, 3), or with infrared one channel for each of `palette.BANDS`; a pure function of the
        arguments.
    """
    rng = np.random.default_rng([data_seed, list(SCENES).index(class_name), index])
    canvas = Canvas(rng, size, infrared)
    SCENES[class_name](canvas)
    return canvas.photograph()


def _channels(bands: Bands | None) -> list[int]:
    """The indices of the bands among the rendered ones."""
    if bands is None:
        return list(range(VISIBLE))
    for name in bands.names:
        if canonical(name) not in BANDS:
            raise InputError(f"dataset.bands: the demo has no band {name!r}; it renders {', '.join(BANDS)}")
    return [BANDS.index(canonical(name)) for name in bands.names]


def load(section: Mapping[str, Any], context: Context) -> Pool:
    """Renders the demo: the first `demo_classes` classes of `SCENES`, with the images divided evenly among them.

    Args:
        section: reads `demo_classes`, `demo_train`, `demo_validation`, `demo_test`, `bands` and `storage_size`.
        context: its seed determines the scenes.

    Raises:
        InputError: there are fewer than two classes or more than exist, a split has fewer images than classes, or a
            band is not rendered.
    """
    classes, size = section["demo_classes"], section["storage_size"]
    check_whole("dataset.demo_classes", classes, 2, len(SCENES))
    counts = {side: section[f"demo_{side}"] for side in ("train", "validation", "test")}
    for side, count in counts.items():
        if count < classes:
            raise InputError(f"dataset.demo_{side}: {count} is too few, each of the {classes} classes needs one image")
    bands = Bands(tuple(section["bands"])) if section["bands"] else None
    channels = _channels(bands)
    names = list(SCENES)[:classes]
    # Class k's scenes are numbered through the three splits, so no scene is in two of them.
    next_index = [0] * classes
    scenes: list[tuple[str, int, int]] = []
    for side, count in counts.items():
        for j in range(count):
            scenes.append((side, j % classes, next_index[j % classes]))
            next_index[j % classes] += 1
    # No threads: drawing consists of many small calls that hold Python's global lock.
    infrared = max(channels) >= VISIBLE
    images = np.stack([render(context.data_seed, names[k], i, size, infrared)[..., channels] for _, k, i in scenes])
    return Pool(
        "demo",
        tuple(names),
        images,
        np.array([k for _, k, _ in scenes], np.int32),
        tuple(f"{names[k]}/{names[k]}_{i:05d}" for _, k, i in scenes),
        tuple(digest(image) for image in images),
        tuple(side for side, _, _ in scenes),
        ("scenes are rendered, not photographed",),
        Meaning(numbers=(BYTES,), tile_px=size, bands=bands),
        redrawn=True,
    )
