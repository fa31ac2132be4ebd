"""Moving averages of weights: the recursion, what is evaluated, and what a checkpoint holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import MAPPINGS, OPTIMIZER, Linear, train

from kdjax.inputs.batch import Batch
from kdjax.objective.arms import Hyperparameters
from kdjax.training import state as states
from kdjax.training.step import Recipe, train_step


def hyper(ce):
    one = jnp.ones(2)
    return Hyperparameters(weights={"ce": jnp.array(ce)}, temperature=one, learning_rate=one, weight_decay=0 * one)


def walk(ema, count, ce=(1.0, 1.0)):
    """The states after each of `count` steps on random pixels."""
    rng = np.random.default_rng(0)
    state = states.create(states.initializer(Linear(), 8), OPTIMIZER, seeds=(0,), arms=2, ema=True)
    recipe = Recipe(Linear(), 8, OPTIMIZER, lambda step: 0.1, ema=ema)
    program = functools.partial(train_step, recipe=recipe)
    seen = [state]
    for _ in range(count):
        images = jnp.array(rng.random((1, 6, 8, 8, 3)), jnp.float32)
        batch = Batch(images, jnp.array([[0, 1, 2, 0, 1, 2]]), None, jax.random.split(jax.random.key(0), (1, 6)))
        state, _ = jax.jit(program)(state, batch, hyper(ce))
        seen.append(state)
    return seen


@pytest.mark.parametrize("ema", [0.2, 0.9])
def test_the_averages_follow_the_recursion(ema):
    seen = [jax.tree.map(np.asarray, one) for one in walk(ema, 5)]
    expected = seen[0].params["head"]["kernel"].astype(np.float64)
    for number, one in enumerate(seen[1:]):
        decay = min(ema, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * one.params["head"]["kernel"]
        np.testing.assert_allclose(one.ema["params"]["head"]["kernel"], expected, rtol=1e-5, atol=1e-7)
    assert np.abs(seen[-1].ema["params"]["head"]["kernel"] - seen[-1].params["head"]["kernel"]).max() > 1e-4


def test_the_averages_are_what_is_evaluated_and_selected():
    state = walk(0.9, 3)[-1]
    assert state.variables is state.ema
    score = jnp.full((1, 2), 0.5)
    best = states.update_best(state, score, score).best
    jax.tree.map(np.testing.assert_array_equal, best.params, state.ema["params"])


def test_a_student_that_failed_keeps_its_averages():
    seen = walk(0.9, 3, ce=(1.0, np.inf))
    assert seen[-1].failed.tolist() == [[-1, 0]]
    kernel = lambda one: np.asarray(one.ema["params"]["head"]["kernel"])
    np.testing.assert_array_equal(kernel(seen[-1])[:, 1], kernel(seen[0])[:, 1])
    assert np.all(kernel(seen[-1])[:, 0] != kernel(seen[0])[:, 0])


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bits(tmp_path, colors):
    how = {"mapping": MAPPINGS["batch"](), "ema": 0.9}
    whole, records, _ = train(tmp_path / "whole", colors, **how, until=12)
    train(tmp_path / "parts", colors, **how, until=6)
    resumed, again, _ = train(tmp_path / "parts", colors, **how, until=12)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert again == records and resumed.ema
