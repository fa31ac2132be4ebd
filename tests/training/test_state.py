"""Where a population begins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_residual
from helpers.small_run import OPTIMIZER

from kdjax import networks
from kdjax.networks import mobilenet_v2
from kdjax.training import state


@pytest.mark.slow
def test_students_begin_as_the_network_says_and_arms_of_a_seed_alike(monkeypatch):
    """To the last digits: the program that makes them is compiled without optimization."""
    monkeypatch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 1, 2)))
    network = networks.create("mobilenet_v2", 3, width=0.1)
    seeds = (4, 9)
    created = state.create(state.initializer(network, 32), OPTIMIZER, seeds=seeds, arms=2)
    for row, seed in enumerate(seeds):
        expected = network.init(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)))
        for column in (0, 1):
            close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
            jax.tree.map(lambda leaf, one: close(leaf[row, column], one), created.params, expected["params"])  # noqa: B023
            jax.tree.map(lambda leaf, one: close(leaf[row, column], one), created.best.params, expected["params"])  # noqa: B023
    head = created.params["head"]["kernel"]
    assert np.abs(head[0] - head[1]).max() > 1e-3  # seeds differ
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(created.opt_state))
    shapes = jax.eval_shape(
        functools.partial(state.create, state.initializer(network, 32), OPTIMIZER, seeds=seeds, arms=2)
    )
    assert jax.tree.map(lambda leaf: leaf.shape, created) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_a_population_begins_alike_whatever_generator_the_process_prefers():
    network, made = tiny_residual.TinyResidual(3), []
    for generator in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(generator):
            made.append(state.create(state.initializer(network, 8), OPTIMIZER, seeds=(4,), arms=1, projection=(2, 3)))
    jax.tree.map(np.testing.assert_array_equal, made[0].params, made[1].params)


def test_what_pretrained_weights_lack_is_initialized(monkeypatch):
    """Told as shapes. Here they lack the head."""
    monkeypatch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 1, 2)))
    network = networks.create("mobilenet_v2", 3, width=0.1)
    expected = network.init(jax.random.key(4), jnp.zeros((1, 32, 32, 3)))

    def pretrained(shapes):
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), dict(expected)
        )
        halves = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes)
        return {**halves, "params": {**halves["params"], "head": shapes["params"]["head"]}}

    created = state.create(state.initializer(network, 32), OPTIMIZER, seeds=(4,), arms=1, pretrained=pretrained)
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], {**created.params, "stats": created.batch_stats})
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, own.pop("head"), expected["params"]["head"])
    assert all(np.all(leaf == 0.5) for leaf in jax.tree.leaves(own))
