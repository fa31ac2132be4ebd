"""A population small enough for exact comparisons: two seeds and two arms of a linear network on mean colors."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np

from kdjax.data.dataset import Split
from kdjax.inputs import augment
from kdjax.objective.arms import Arm
from kdjax.objective.outputs import Outputs
from kdjax.runtime import devices
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.training import optimizer
from kdjax.training.learner import Learner
from kdjax.training.loop import fit
from kdjax.training.population import TrainingData, population
from kdjax.training.progress import Progress

OPTIMIZER = functools.partial(optimizer.adamw, clip=1.0, head_factor=1.0)

MAPPINGS = {
    "one": lambda: devices.DeviceMapping(jax.devices()[:1]),
    "batch": devices.DeviceMapping,
    "rows": lambda: devices.RowMapping((2, 2), jax.devices()[:4]),
}


class Linear(nn.Module):
    """Mean color to `classes` classes."""

    classes: int = 3
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False, example_keys=None):
        features = images.mean((1, 2))
        return Outputs(nn.Dense(self.classes, name="head")(features), features)


def arms(rate=1.0):
    """Two arms of all three losses that differ in temperature, learning rate and weight decay."""
    weights = {"ce": 1.0, "kl": 1.0, "cosine": 1.0}
    return (
        Arm("a", weights, temperature=1.0, learning_rate=rate, weight_decay=0.0, family="a"),
        Arm("b", weights, temperature=2.0, learning_rate=0.5 * rate, weight_decay=0.1, family="b"),
    )


def learner(directory, mapping, *, until=12, ema=0.0, select="best"):
    """The learner of a population of two seeds and `arms()`, to train to step `until`."""
    section = SimpleNamespace(
        weights=None, batch_size=8, warmup_epochs=0.4, clip=1.0, head_factor=1.0, ema=ema, select=select
    )
    return Learner(
        name="student", folder=directory, section=section, network=Linear(), size=8,
        total_steps=until, seeds=(0, 1), arm_names=("a", "b"), mapping=mapping,
    )  # fmt: skip


def training_data(colors, *, host=False):
    """The colors as training and validation split, with a teacher that knows every label, in two views."""
    images, labels = colors
    split = Split(images, labels, tuple(f"{index}.png" for index in range(len(labels))))
    logits = np.tile(5 * np.eye(3, dtype=np.float32)[labels], (2, 1, 1))
    return TrainingData(
        split, split, data_seed=0, augmentation=augment.DEFAULT, selected_by="top1", on_device=not host, views=2,
        stored=Outputs(logits),
    )  # fmt: skip


TOTAL = 12
"""Steps of the schedule, wherever a training ends."""


def train(directory, colors, *, mapping, until, longest=3, host=False, log=None, rate=1.0, **options):
    """Trains to step `until` of the schedule; goes on from a checkpoint where there is one.

    Args:
        directory: where checkpoints and metrics go.
        colors: images and labels.
        mapping: the devices.
        until: the last step.
        longest: the most steps that go to the devices at once.
        host: whether images are read from the host.
        log: takes lines.
        rate: of `arms`.
        **options: of `learner`.

    Returns:
        The last state on the host, the records of metrics.jsonl, and the lines that were logged.
    """
    who = learner(directory, mapping, until=until, **options)
    trained = population(who, arms(rate), training_data(colors, host=host))
    trained = dataclasses.replace(
        trained,
        evaluate_every=3,
        longest=1 if host else longest,
        recipe=dataclasses.replace(trained.recipe, schedule=optimizer.schedule(TOTAL, 2)),
    )
    lines = []
    checkpoints = who.checkpoints()
    restored = checkpoints.restore(who.layout, trained.empty_averages())
    state, averages = restored or trained.initial()
    writer = MetricsWriter(directory, int(state.step), tensorboard=False)
    try:
        state = fit(
            trained, state, averages, checkpoints=checkpoints, writer=writer,
            progress=Progress(0.0, log or lines.append),
        )  # fmt: skip
    finally:
        writer.close()
        checkpoints.close()
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return jax.tree.map(np.asarray, state), records, lines
