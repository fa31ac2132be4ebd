"""A random split of tiles that lie together flatters, and by how much: a set in which nothing but the place tells."""

import numpy as np
from PIL import Image

from kdjax import data

PLACES, TILES, CLASSES = 40, 4, ("field", "forest")


def write(folder):
    """Tiles of a place have one color; its class is drawn apart from the color. Returns the table of places."""
    rng, lines = np.random.default_rng(0), ["name,group"]
    for place in range(PLACES):
        name, color = CLASSES[place % 2], rng.integers(30, 220, 3)
        (folder / name).mkdir(exist_ok=True)
        for tile in range(TILES):
            pixels = np.clip(color + rng.normal(0, 4, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{place}_{tile}.png")
            lines.append(f"{name}/{place}_{tile}.png,{place}")
    return "\n".join(lines)


def nearest_neighbor(found):
    """Test top-1 of the class of the training tile with the nearest mean color."""
    train, test = (np.mean(side.images, (1, 2)) for side in (found.train, found.test))
    nearest = np.linalg.norm(test[:, None] - train[None], axis=-1).argmin(1)
    return (found.train.labels[nearest] == found.test.labels).mean()


def test_where_only_the_place_tells_a_random_split_is_right_and_a_split_by_place_is_chance(tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "places.csv").write_text(write(tmp_path / "tiles"))
    options = {"path": str(tmp_path / "tiles"), "image_size": 32, "storage_size": 32, "test_fraction": 0.3}
    by_place = {"split_by": "place", "places": str(tmp_path / "places.csv")}
    accuracy = {
        kind: np.mean(
            [
                nearest_neighbor(
                    data.load(None, data_seed=seed, cache_dir=None, log=lambda _: None, **options, **fields)
                )
                for seed in range(4)
            ]
        )
        for kind, fields in (("random", {}), ("place", by_place))
    }
    # Of four tiles of a place one is nearly always in training; of another place's color the class is a coin.
    assert accuracy["random"] > 0.9
    assert abs(accuracy["place"] - 0.5) < 0.2  # a coin for each of about 40 places in four draws: deviation 0.08
