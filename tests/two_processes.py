"""One of several processes of a run over loopback: trains two steps, saves, restores, trains one more.

    python tests/two_processes.py ADDRESS PROCESSES PROCESS DEVICES_PER_PROCESS DIRECTORY

Prints the sum of the parameters and the loss as JSON. With PROCESSES = 1 the same without `jax.distributed`.
"""

import functools
import json
import os
import sys
from pathlib import Path

address, processes, process, devices, directory = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"

import jax
import numpy as np

if int(processes) > 1:
    jax.distributed.initialize(address, int(processes), int(process))

from kdjax import models, optim, parallel, steps, terms
from kdjax import state as states
from kdjax.checkpoint import Checkpoints
from kdjax.data.plan import Plan
from kdjax.evaluate import predictor
from kdjax.feed import resident
from kdjax.models import mobilenet_v2

mobilenet_v2.STAGES = ((1, 16, 1, 1), (6, 24, 2, 2))
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
examples = steps.Examples(images, rng.integers(0, 3, 24).astype(np.int32), rng.normal(size=(2, 24, 3)))
model = models.create("mobilenet_v2", num_classes=3, width=0.1)
optimiser = functools.partial(optim.adamw, clip=1.0, head_factor=1.0)
hyper = states.Hyperparameters(
    weights={name: np.ones(2) for name in ("ce", "kl", "cosine")}, temperature=np.full(2, 2.0),
    learning_rate=np.full(2, 1e-3), weight_decay=np.zeros(2),
)  # fmt: skip
mapping = parallel.Mapping()
program = functools.partial(
    steps.planned_steps, student_size=32, teacher=None, teacher_size=32, model=model,
    optimiser=optimiser, schedule=optim.schedule(10, 1), cosine_on="logits",
)  # fmt: skip
mapped = mapping.map(program, ("rows", "rows", *["whole"] * 4, "plan", "whole"), (0, 1), donate=(0,))
constants = mapping.place((examples, None, hyper, np.array([0], np.int32)))
empty = mapping.place(steps.empty_averages((1, 2), terms.CORE))
feed = resident(Plan((0,), 24, 8, 2), mapping, 1)
step = lambda state, number: mapped(state, empty, *constants, feed(number, 1), np.int32(1))
state = mapping.place(states.create(model, optimiser, seeds=(0,), arms=2, image_size=32))
like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
for number in range(2):
    state, _ = step(state, number)
checkpoints = Checkpoints(Path(directory), mapping)
checkpoints.save(state, empty)
saved = jax.tree.map(np.asarray, state)
restored, _ = checkpoints.restore(like, empty)
jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.asarray(b)), saved, restored)
state, averages = step(restored, 2)
logits = predictor(model, size=32, mapping=mapping)(state.variables, images[:21])
checkpoints.close()
loss = np.asarray(averages["loss"].compute())
total = sum(float(np.sum(np.asarray(leaf) ** 2)) for leaf in jax.tree.leaves(state.params))
print(json.dumps({"loss": loss.tolist(), "params": total, "logits": logits.astype(float).tolist()}))
