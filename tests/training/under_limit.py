"""Two steps of a population under a limit on the memory of this process, planned by `memory_plan` or as told.

    python tests/training/under_limit.py SIZE MEGABYTES [ARMS]

SIZE is the side of the images in px, MEGABYTES what may be taken beyond what the process holds when it begins, and ARMS
how many arms are computed side by side whatever the plan says. Prints as JSON that number, the bytes that were left at
the beginning and the most that were taken.
"""

import dataclasses
import json
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
from helpers.small_run import learner, training_data
from helpers.tiny_residual import TinyResidual

from kdjax.inputs.feed import resident_feed
from kdjax.objective.arms import Arm
from kdjax.runtime import memory
from kdjax.runtime.devices import DeviceMapping
from kdjax.training.memory_plan import arms_at_once
from kdjax.training.population import population

ARMS = 4


def taken() -> int:
    """Bytes of the most data this process had so far."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return 1024 * int(fields["VmData"].split()[0])


def main() -> None:
    size, megabytes = int(sys.argv[1]), int(sys.argv[2])
    weights = {"ce": 1.0, "kl": 1.0, "cosine": 1.0}
    arms = tuple(
        Arm(f"arm{number}", weights, temperature=2.0, learning_rate=1e-3, weight_decay=0.0, family="a")
        for number in range(ARMS)
    )
    who = dataclasses.replace(
        learner(Path("unused"), DeviceMapping(jax.devices()[:1])), size=size, seeds=(0,),
        arm_names=tuple(arm.name for arm in arms),
        network=TinyResidual(3, width=8.0, form="examples_last"), log=lambda line: None,
    )  # fmt: skip
    labels = np.arange(64, dtype=np.int32) % 3
    colors = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), dtype=np.uint8)
    trained = population(who, arms, training_data((colors, labels)))
    # The threads and pools of backend and compiler, which take 400 MB: how much of it before a step varies.
    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    trained.with_arms_at_once(1).lowered().compile()
    limit = taken() + megabytes * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    left = memory.free_bytes(jax.devices()[:1], 1.0)
    number = int(sys.argv[3]) if len(sys.argv) > 3 else arms_at_once(trained, lambda line: None)
    trained = trained.with_arms_at_once(number)
    state, averages = trained.initial()
    step, feed = trained.step(), resident_feed(trained.plan, who.mapping, 1)
    most = 0
    for done in range(2):
        # As the loop does on a CPU, where each call takes working memory of its own when it is sent.
        state, averages = jax.block_until_ready(step(state, averages, feed(done, 1), np.int32(1)))
        most = max(most, taken())
    assert not np.any(np.asarray(state.failed) >= 0)
    print(json.dumps({"arms_at_once": number or ARMS, "left": left, "most": max(most, taken()), "limit": limit}))


if __name__ == "__main__":
    main()
