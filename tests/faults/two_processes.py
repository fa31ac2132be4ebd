"""One of several processes of a run over loopback: trains two steps, saves, restores, trains three more.

    python tests/faults/two_processes.py ADDRESS PROCESSES PROCESS DEVICES_PER_PROCESS DIRECTORY

Prints each step's loss, the squared norm of the parameters and logits as JSON. With PROCESSES = 1 the same without
`jax.distributed`.
"""

import functools
import json
import os
import sys
from pathlib import Path

from helpers import compiler

address, processes, process, devices, directory = sys.argv[1:]
os.environ["XLA_FLAGS"] = compiler.flags(int(devices))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"  # rounding is then far below what a lost or doubled share would change

import jax
import numpy as np

if int(processes) > 1:
    jax.distributed.initialize(address, int(processes), int(process))

from kdjax import networks
from kdjax.inputs.batch import Examples
from kdjax.inputs.feed import resident_feed
from kdjax.inputs.plan import Plan
from kdjax.networks import mobilenet_v2
from kdjax.objective import terms
from kdjax.objective.arms import Hyperparameters
from kdjax.objective.outputs import Outputs
from kdjax.runtime.devices import DeviceMapping
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.predictor import predictor
from kdjax.training.step import Recipe, empty_averages, planned_steps

mobilenet_v2.STAGES = ((1, 16, 1, 1), (6, 24, 2, 2))
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
examples = Examples(images, rng.integers(0, 3, 24).astype(np.int32), Outputs(rng.normal(size=(2, 24, 3))))
model = networks.create("mobilenet_v2", 3, width=0.1, dropout=0.2, form="examples_last")
optimize = functools.partial(optimizer.adamw, clip=1.0, head_factor=1.0)
# A low learning rate: Adam makes the rounding of a gradient near zero a step of up to that size.
hyper = Hyperparameters(
    weights={name: np.ones(2) for name in ("ce", "kl", "cosine")}, temperature=np.full(2, 2.0),
    learning_rate=np.full(2, 1e-4), weight_decay=np.zeros(2),
)  # fmt: skip
mapping = DeviceMapping()
program = functools.partial(planned_steps, recipe=Recipe(model, 32, optimize, optimizer.schedule(10, 1)))
mapped = mapping.map(program, ("rows", "rows", *["whole"] * 4, "plan", "whole"), (0, 1), donate=(0,))
constants = mapping.place((examples, None, hyper, np.array([0], np.int32)))
empty = mapping.place(empty_averages((1, 2), terms.CORE))
feed = resident_feed(Plan((0,), 24, 8, 2), mapping, 1)
step = lambda state, number: mapped(state, empty, *constants, feed(number, 1), np.int32(1))
state = mapping.place(states.create(states.initializer(model, 32), optimize, seeds=(0,), arms=2))
like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
losses = []
for number in range(2):
    state, averages = step(state, number)
    losses.append(np.asarray(averages["loss"].compute()).tolist())
checkpoints = Checkpoints(Path(directory), mapping)
checkpoints.save(state, empty)
saved = jax.tree.map(np.asarray, state)
state, _ = checkpoints.restore(like, empty)
jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.asarray(b)), saved, state)
for number in range(2, 5):
    state, averages = step(state, number)
    losses.append(np.asarray(averages["loss"].compute()).tolist())
logits = predictor(model, size=32, mapping=mapping)(state.variables, images[:21])
checkpoints.close()
total = sum(float(np.sum(np.asarray(leaf) ** 2)) for leaf in jax.tree.leaves(state.params))
print(json.dumps({"losses": losses, "params": total, "logits": logits.astype(float).tolist()}))
