"""How much of a run's time its steps wait for data.

    python tests/benchmarks/waiting_for_data.py --config=configs/uc_merced.py --config.dataset.path=uc_merced.zip

Trains a student alone on the real data in two ways that take turns: as a run does, each step with its own share of the
plan, brought by the feed; and again and again on one share that was placed on the devices before. Waiting is 1 − (time
of the second ÷ time of the first), by medians over turns. `--config.run.images=host` measures streaming.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from kdjax.runtime import host  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().", lock_config=True)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps a turn.")
_TURNS = flags.DEFINE_integer("turns", 11, "Turns of each way.")
_CACHE = flags.DEFINE_string("cache", str(Path.home() / ".cache" / "kdjax"), "For decoded images.")


def main(argv: list[str]) -> None:
    host.prepare()
    import jax

    from kdjax.objective.arms import Arm
    from kdjax.run.run import open_run
    from kdjax.runtime.devices import DeviceMapping
    from kdjax.training.population import TrainingData, population

    config = _CONFIG.value
    with tempfile.TemporaryDirectory() as workdir:
        run = open_run(config, Path(workdir), Path(_CACHE.value), print)
    alone = Arm("alone", {"ce": 1.0}, temperature=1.0, learning_rate=1e-4, weight_decay=0.0, family="alone")
    total = (2 * _TURNS.value + 4) * _STEPS.value
    learner = dataclasses.replace(
        run.student, seeds=(0,), arm_names=(alone.name,), mapping=DeviceMapping(), total_steps=total
    )
    on_device = run.on_device(run.dataset.train.images)
    data = TrainingData(
        run.dataset.train,
        run.dataset.validation,
        data_seed=config.data_seed,
        augmentation=run.augmentation,
        selected_by=run.selected_by,
        on_device=on_device,
    )
    trained = dataclasses.replace(population(learner, (alone,), data), longest=1)
    state, empty = trained.initial()
    mapped, feed = trained.step(), trained.feed(0)
    position = 0

    def turn(share: Any) -> float:
        nonlocal state, position
        start = time.perf_counter()
        for _ in range(_STEPS.value):
            if share is None:
                state, averages = mapped(state, empty, feed(position, 1), np.int32(1))
                position += 1
            else:
                state, averages = mapped(state, empty, share, np.int32(1))
        jax.block_until_ready((state, averages))
        return time.perf_counter() - start

    placed = jax.device_put(feed(position, 1))
    position += 1
    turn(None), turn(placed)  # compiling and warm-up
    seconds = {"run": [], "placed": []}
    for _ in range(_TURNS.value):
        seconds["run"].append(turn(None))
        seconds["placed"].append(turn(placed))
    run_time, placed_time = (statistics.median(values) for values in seconds.values())
    rate = _STEPS.value * config.student.batch_size / run_time
    result = {"config": config.name, "images": "device" if on_device else "host", "images_per_second": rate,
              "waiting": 1 - placed_time / run_time}  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
