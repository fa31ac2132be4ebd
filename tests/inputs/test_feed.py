"""What reaches a step is what lies in the files, whatever lies between: stores, splits, hidden labels, plans."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.tiles import OPTIONS, SIDE
from PIL import Image

from kdjax.data import load
from kdjax.inputs.feed import resident_feed, streamed_feed
from kdjax.inputs.plan import Groups, Plan
from kdjax.objective.outputs import Outputs
from kdjax.runtime.devices import DeviceMapping

VIEWS = 3


def write(folder, names, seed):
    """Tiles of the size at which they are stored, so that no pixel changes; returns them by path."""
    tiles = {}
    for number, name in enumerate(names):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        tiles[path] = np.random.default_rng((seed, number)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(tiles[path]).save(path)
    return tiles


def test_a_step_sees_the_pixels_of_its_files(tmp_path):
    """Of two stores, with rows left out in each: one unreadable, one that validation has as well."""
    labeled = write(tmp_path / "tiles", [f"{name}/{k:02d}" for name in ("lake", "town") for k in range(12)], 0)
    (tmp_path / "tiles" / "lake" / "05.png").write_bytes(b"words")
    more = write(tmp_path / "more", [f"{k:02d}" for k in range(7)], 1)
    options = OPTIONS | {
        "path": str(tmp_path / "tiles"), "unlabeled_dir": str(tmp_path / "more"), "cache_dir": tmp_path / "cache",
        "label_fraction": 0.5, "on_error": "skip",
    }  # fmt: skip
    held = load(**options).validation.names[0]
    (tmp_path / "more" / "03.png").write_bytes((tmp_path / "tiles" / held).read_bytes())
    data = load(**options)
    assert len(data.train) == 17 + 6 and any("1 unlabeled tiles dropped" in note for note in data.notes)
    files = {path.relative_to(tmp_path / "tiles").as_posix(): tile for path, tile in labeled.items()}
    files |= {f"unlabeled:{path.name}": tile for path, tile in more.items()}
    names = np.array(data.train.names)
    assert len(set(names)) == len(names) and {"lake/05.png", held, "unlabeled:03.png"}.isdisjoint(names)
    teacher = np.random.default_rng(2).normal(size=(VIEWS, len(names), 2)).astype(np.float32)
    everyone, rows = Plan((0, 1), len(names), 8, VIEWS), np.flatnonzero(data.train.labels >= 0)
    plan = Groups((everyone, dataclasses.replace(everyone, views=0, rows=tuple(rows.tolist()))))
    mapping = DeviceMapping(jax.devices()[:4])
    feed = streamed_feed(plan, mapping, data.train.images, 0, 9, Outputs(teacher))
    for number in range(9):
        examples, views, *_ = plan(number)
        share = feed(number, 1)
        assert share.images.shape == (4, 1, 2, 2, 2, SIDE, SIDE, 3)  # device, step, seed, group, batch
        together = np.concatenate(share.images[:, 0], axis=2)
        for place in np.ndindex(examples.shape):
            np.testing.assert_array_equal(together[place], files[names[examples[place]]])
        said = np.concatenate(share.teacher.logits[:, 0], axis=2)
        assert views[:, 0].max() < VIEWS < views[:, 1].max()  # fresh ones, of which the teacher was not asked
        np.testing.assert_array_equal(said[:, 0], teacher[views[:, 0], examples[:, 0]])
        plain = resident_feed(plan, mapping, 1)(number, 1)
        jax.tree.map(np.testing.assert_array_equal, share.replace(images=None, teacher=None), plain)


@pytest.mark.parametrize("asked", [(4, 1), (3, 2), (2, 1)])
def test_streamed_steps_come_in_their_order_one_at_a_time(asked):
    images = np.zeros((8, SIDE, SIDE, 3), np.uint8)
    feed = streamed_feed(Plan((0,), 8, 4, VIEWS), DeviceMapping(jax.devices()[:1]), images, 2, 9)
    feed(2, 1)
    with pytest.raises(ValueError, match=f"^{asked[1]} steps from {asked[0]} on: .* one step at a time, now 3$"):
        feed(*asked)
