"""Images that are nearly the same on two sides of a split: they make a test easier than the world is.

    python tests/tools/near_duplicates.py --config=configs/uc_merced.py --config.dataset.path=data/uc_merced.zip \
        --json=near_duplicates.json

Each held-out image is compared with every training image in its eight rotations and reflections: the correlation of
their colors at 16 x 16 px. Pairs above `--least` are listed, the closest first; whether they are one place is for a
person to see. Pixel-identical images are no part of it: a split keeps them on one side.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from kdjax.data import load  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().", lock_config=True)
_LEAST = flags.DEFINE_float("least", 0.95, "Correlation from which on a pair is listed.")
_JSON = flags.DEFINE_string("json", None, "Where to write the pairs.")
_CACHE = flags.DEFINE_string("cache", str(Path.home() / ".cache" / "kdjax"), "For decoded images.")
SIDE = 16


def thumbnails(images: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE, 3) float32, each channel of mean 0, each image of norm 1, from (n, S, S, 3) uint8."""
    small = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    small = np.stack(small).astype(np.float32)
    small -= small.mean((1, 2), keepdims=True)  # else plain surfaces of like colour would be near-duplicates
    return small / np.maximum(np.sqrt(np.square(small).sum((1, 2, 3), keepdims=True)), 1e-6)


def closest(held: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each held-out thumbnail its largest correlation with a training image in any symmetry, and that image."""
    train = train.reshape(len(train), -1)
    best, place = np.full(len(held), -1.0, np.float32), np.zeros(len(held), int)
    for reflected in (held, held[:, :, ::-1]):
        for turns in range(4):
            correlation = np.rot90(reflected, turns, (1, 2)).reshape(len(held), -1) @ train.T
            better = correlation.max(1) > best
            best[better], place[better] = correlation.max(1)[better], correlation.argmax(1)[better]
    return best, place


def main(argv: list[str]) -> None:
    config = _CONFIG.value
    data = load(config.dataset, data_seed=config.data_seed, cache_dir=Path(_CACHE.value))
    train = thumbnails(data.train.images)
    pairs = []
    for side in ("validation", "test"):
        split = getattr(data, side)
        for row, (correlation, match) in enumerate(zip(*closest(thumbnails(split.images), train), strict=True)):
            if correlation >= _LEAST.value:
                pairs.append(
                    {
                        "correlation": round(float(correlation), 4),
                        side: split.names[row],
                        "train": data.train.names[match],
                        "same_class": bool(split.labels[row] == data.train.labels[match]),
                    }
                )
    pairs.sort(key=lambda pair: -pair["correlation"])
    for pair in pairs:
        print(*pair.values(), sep="  ")
    count = {side: sum(side in pair for pair in pairs) for side in ("validation", "test")}
    print(f"{data.name}: {count} of {len(data.validation)} and {len(data.test)} images; notes: {'; '.join(data.notes)}")
    if _JSON.value:
        document = {"data": data.name, "least": _LEAST.value, "images": count, "pairs": pairs}
        Path(_JSON.value).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
