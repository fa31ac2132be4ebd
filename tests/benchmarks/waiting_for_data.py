"""How much of a run's time its steps wait for data.

    python tests/benchmarks/waiting_for_data.py --config=configs/uc_merced.py --config.dataset.path=uc_merced.zip

Trains a student alone on the real data in two ways that take turns: as a run does, each step with its own share of the
plan, brought by the feed; and again and again on one share that was placed on the devices before. Waiting is 1 − (time
of the second ÷ time of the first), by medians over turns. `--config.run.images=host` measures streaming.
"""

import functools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

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

    from kdjax.data.plan import Plan
    from kdjax.inputs.feed import resident, streamed
    from kdjax.run.run import open_run
    from kdjax.training import optimizer
    from kdjax.training import state as states
    from kdjax.training import step as steps

    config = _CONFIG.value
    with tempfile.TemporaryDirectory() as workdir:
        run = open_run(config, Path(workdir), Path(_CACHE.value), print)
    images, labels, mapping, size = run.dataset.train.images, run.dataset.train.labels, run.mapping, run.student_size
    optimiser = functools.partial(optimizer.adamw, clip=1.0, head_factor=1.0)
    program = functools.partial(
        steps.planned_steps, student_size=size, teacher=None, teacher_size=size, model=run.network("student"),
        optimiser=optimiser, schedule=lambda step: 1.0, cosine_on="logits",
    )  # fmt: skip
    kinds = ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole")
    mapped = mapping.map(program, kinds, (0, 1), donate=(0,))
    one = np.ones(1, np.float32)
    hyper = states.Hyperparameters(weights={"ce": one}, temperature=one, learning_rate=1e-4 * one, weight_decay=0 * one)
    on_device = run.on_device(images)
    constants = mapping.place((steps.Examples(images if on_device else None, labels), None, hyper, np.int32([0])))
    plan = Plan((0,), len(labels), config.student.batch_size, 0)
    total = (2 * _TURNS.value + 4) * _STEPS.value
    feed = resident(plan, mapping, 1) if on_device else streamed(plan, mapping, images, 0, total)
    empty = mapping.place(steps.empty_averages((1, 1), ("ce",)))
    state = mapping.place(states.create(run.network("student"), optimiser, seeds=(0,), arms=1, image_size=size))
    position = 0

    def turn(share: steps.PlanStep | None) -> float:
        nonlocal state, position
        start = time.perf_counter()
        for _ in range(_STEPS.value):
            if share is None:
                state, averages = mapped(state, empty, *constants, feed(position, 1), np.int32(1))
                position += 1
            else:
                state, averages = mapped(state, empty, *constants, share, np.int32(1))
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
