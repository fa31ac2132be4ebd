"""Rendered land-use scenes: a data set that needs no download.

Each scene is drawn from above, three times larger than stored, and averaged down. Orientation, scale, season, light,
haze, blur, sensor noise and clutter vary. These are drawings, not data: they show that a run works and what
distillation does to it, not how well a network does on real images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.data.dataset import Context, Pool
from kdjax.data.decode import digest
from kdjax.data.meaning import BYTES, Meaning
from kdjax.data.rendering.canvas import Canvas
from kdjax.data.rendering.scenes import SCENES
from kdjax.errors import InputError


def render(data_seed: int, class_name: str, index: int, size: int) -> np.ndarray:
    """Draws one scene.

    Args:
        data_seed: seed of the data set.
        class_name: a key of SCENES.
        index: number of the scene in its class.
        size: side in pixels.

    Returns:
        uint8 (size, size, 3), a pure function of the arguments.
    """
    rng = np.random.default_rng([data_seed, list(SCENES).index(class_name), index])
    canvas = Canvas(rng, size)
    SCENES[class_name](canvas)
    return canvas.photograph()


def load(section: Mapping[str, Any], context: Context) -> Pool:
    """Renders the demo: the first `demo_classes` kinds of scenes, the counts shared evenly among them.

    Args:
        section: reads `demo_classes`, `demo_train`, `demo_validation`, `demo_test` and `storage_size`.
        context: its seed draws the scenes.

    Raises:
        InputError: more classes than there are, fewer than two, or a split with fewer images than classes.
    """
    classes, size = section["demo_classes"], section["storage_size"]
    if not 2 <= classes <= len(SCENES):
        raise InputError(f"dataset.demo_classes: {classes} is out of range, it must be 2 to {len(SCENES)}")
    counts = {side: section[f"demo_{side}"] for side in ("train", "validation", "test")}
    for side, count in counts.items():
        if count < classes:
            raise InputError(f"dataset.demo_{side}: {count} is too few, each of the {classes} classes needs one image")
    names = list(SCENES)[:classes]
    # Class k's scenes are numbered through the three splits, so no scene is in two of them.
    made = [0] * classes
    todo: list[tuple[str, int, int]] = []
    for side, count in counts.items():
        for j in range(count):
            todo.append((side, j % classes, made[j % classes]))
            made[j % classes] += 1
    # No threads: the drawing is many small calls that hold Python's lock.
    images = np.stack([render(context.data_seed, names[k], i, size) for _, k, i in todo])
    return Pool(
        "demo",
        tuple(names),
        images,
        np.array([k for _, k, _ in todo], np.int32),
        tuple(f"{names[k]}/{names[k]}_{i:05d}" for _, k, i in todo),
        tuple(digest(image) for image in images),
        tuple(side for side, _, _ in todo),
        ("scenes are rendered, not photographed",),
        Meaning(numbers=(BYTES,), tile_px=size),
        redrawn=True,
    )
