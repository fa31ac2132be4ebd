"""Images that are nearly the same on two sides of a split: they make a test easier than the world is.

    python tests/tools/near_duplicates.py --config=configs/uc_merced.py --config.dataset.path=data/uc_merced.zip \
        --json=near_duplicates.json

Each held-out image is compared with every training image, see `kdjax.data.near_duplicates`. Pairs above `--least` are
listed, the closest first; whether they are one place is for a person to see. Pixel-identical images are no part of it:
a split keeps them on one side.
"""

import json
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from kdjax.data import load  # noqa: E402
from kdjax.data.near_duplicates import LEAST, closest, thumbnails  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().", lock_config=True)
_LEAST = flags.DEFINE_float("least", LEAST, "Correlation from which on a pair is listed.")
_JSON = flags.DEFINE_string("json", None, "Where to write the pairs.")
_CACHE = flags.DEFINE_string("cache", str(Path.home() / ".cache" / "kdjax"), "For decoded images.")


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
