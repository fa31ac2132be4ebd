"""The train step against NumPy: losses, AdamW, schedule, clipping, decay, BatchNorm's statistics, moving averages."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.numpy_update import Student, flat

from kdjax.inputs.batch import Batch
from kdjax.networks import layers
from kdjax.objective.arms import Hyperparameters
from kdjax.objective.outputs import Outputs
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.step import Recipe, train_step

SEEDS, BATCH, CLASSES, STEPS = (3, 7), 6, 3, 4
CLIP, HEAD_FACTOR, EMA, TOTAL, WARMUP = 2.0, 10.0, 0.15, 6, 2
ARMS = (
    {"ce": 1.0, "kl": 0.0, "cosine": 0.0, "temperature": 4.0, "learning_rate": 0.02, "weight_decay": 0.1},
    {"ce": 0.5, "kl": 2.0, "cosine": 0.0, "temperature": 2.0, "learning_rate": 0.01, "weight_decay": 0.0},
    {"ce": 0.0, "kl": 1.0, "cosine": 3.0, "temperature": 1.5, "learning_rate": 0.03, "weight_decay": 0.5},
)


class Small(nn.Module):
    """What `numpy_update.forward` computes."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False, example_keys=None):
        x = nn.Dense(4, use_bias=False, name="body")(images.mean((1, 2)))  # BatchNorm takes a bias away
        norm = layers.BatchNorm("examples_first", axis_name=self.axis_name, name="norm")
        features = jnp.tanh(norm(x[:, None, None, :], train)[:, 0, 0, :])
        return Outputs(nn.Dense(CLASSES, name="head")(features), features)


def factors():
    """On the learning rate: linear to 1 over the warm-up, then half a cosine to 0."""
    for step in range(STEPS):
        rest = (step - WARMUP) / (TOTAL - WARMUP)
        yield step / WARMUP if step < WARMUP else (1 + math.cos(math.pi * rest)) / 2


def batches():
    """Images, teacher logits and labels of each step, (seed, batch, …); a third of the labels is missing."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        labels = rng.integers(0, CLASSES, (len(SEEDS), BATCH))
        labels[:, ::3] = -1
        yield rng.random((len(SEEDS), BATCH, 8, 8, 3)), rng.normal(0, 3, (len(SEEDS), BATCH, CLASSES)), labels


@pytest.fixture(scope="module")
def walked():
    """The state after each step, and each step's averages."""
    with jax.enable_x64(True):
        adamw = functools.partial(optimizer.adamw, clip=CLIP, head_factor=HEAD_FACTOR)
        state = states.create(states.initializer(Small(), 8), adamw, seeds=SEEDS, arms=len(ARMS), ema=True)
        wide = lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf
        state = jax.tree.map(wide, state)
        columns = {name: jnp.array([arm[name] for arm in ARMS]) for name in ARMS[0]}
        hyper = Hyperparameters(weights={name: columns.pop(name) for name in ("ce", "kl", "cosine")}, **columns)
        recipe = Recipe(Small(), 8, adamw, optimizer.schedule(TOTAL, WARMUP), ema=EMA)
        step = jax.jit(functools.partial(train_step, recipe=recipe))
        seen = [(state, None)]
        for images, teacher, labels in batches():
            keys = jax.random.split(jax.random.key(0), labels.shape)
            batch = Batch(jnp.array(images), jnp.array(labels), Outputs(jnp.array(teacher)), keys)
            seen.append(step(seen[-1][0], batch, hyper))
        return jax.tree.map(np.asarray, seen)


@pytest.mark.parametrize("row", range(len(SEEDS)))
@pytest.mark.parametrize("column", range(len(ARMS)))
def test_each_student_takes_the_steps_of_numpy(walked, row, column):
    start = walked[0][0]
    one = lambda tree: jax.tree.map(lambda leaf: leaf[row, column], tree)
    student = Student(one(start.params), one(start.batch_stats), clip=CLIP, head_factor=HEAD_FACTOR, ema=EMA)
    arm = ARMS[column]
    for step, (batch, factor) in enumerate(zip(batches(), factors(), strict=True)):
        loss, norm, terms = student.update(step, tuple(part[row] for part in batch), arm, factor)
        state, averages = walked[step + 1]
        found = {name: average.total / np.maximum(average.count, 1) for name, average in averages.items()}
        expected = {"loss": loss, "grad_norm": norm, **terms}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][row, column], value, rtol=1e-6, err_msg=f"{name} of step {step}")
        for name, tree, mine in (
            ("params", state.params, student.params),
            ("statistics", state.batch_stats, student.stats),
            ("averaged params", state.ema["params"], student.mean[0]),
            ("averaged statistics", state.ema["batch_stats"], student.mean[1]),
        ):
            for leaf, value in flat(one(tree)).items():
                np.testing.assert_allclose(
                    value, mine[leaf], rtol=1e-5, atol=1e-8, err_msg=f"{name} {leaf}, step {step}"
                )
        assert state.step == step + 1 and state.failed[row, column] == -1


def test_gradients_are_seen_that_are_clipped_and_that_are_not(walked):
    norms = np.array([averages["grad_norm"].total for _, averages in walked[1:]])
    assert norms.min() < CLIP < norms.max()


def test_the_first_step_of_a_warm_up_moves_nothing_and_the_second_does(walked):
    kernels = [state.params["head"]["kernel"] for state, _ in walked]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.all(kernels[1] != kernels[2])


class Root(nn.Module):
    """A finite loss with an infinite gradient."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False, example_keys=None):
        logits = jnp.sqrt(self.param("kernel", nn.initializers.zeros, (CLASSES,)))
        return Outputs(jnp.broadcast_to(logits, (images.shape[0], CLASSES)) + 0 * images.mean())


def test_an_infinite_gradient_with_a_finite_loss_fails_the_student():
    adamw = functools.partial(optimizer.adamw, clip=CLIP, head_factor=1.0)
    state = states.create(states.initializer(Root(), 8), adamw, seeds=(0,), arms=1)
    one = jnp.ones(1)
    hyper = Hyperparameters({"ce": one}, temperature=one, learning_rate=one, weight_decay=0 * one)
    labels = jnp.zeros((1, BATCH), jnp.int32)
    batch = Batch(jnp.zeros((1, BATCH, 8, 8, 3)), labels, None, jax.random.split(jax.random.key(0), labels.shape))
    recipe = Recipe(Root(), 8, adamw, lambda step: 1.0)
    after, averages = jax.jit(functools.partial(train_step, recipe=recipe))(state, batch, hyper)
    assert np.isfinite(averages["loss"].total).all() and not np.isfinite(averages["grad_norm"].total).any()
    assert after.failed.tolist() == [[0]]
    np.testing.assert_array_equal(after.params["kernel"], state.params["kernel"])
