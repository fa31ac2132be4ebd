"""Keys, written out, and the dropout that they decide."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.inputs.batch import Examples, PlanStep, dropout_keys, render, view_keys
from kdjax.networks import layers
from kdjax.objective.arms import Hyperparameters
from kdjax.objective.outputs import Outputs
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.step import Recipe, planned_step

bits = lambda keys: np.asarray(jax.random.key_data(keys))


def dropout_key(seed, step, place):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), place)


def test_dropout_keys_are_of_seed_step_and_place():
    found = bits(dropout_keys(jnp.array([3, 8]), jnp.int32(5), jnp.array([[0, 1, 7], [2, 3, 0]])))
    for row, (seed, places) in enumerate(((3, (0, 1, 7)), (8, (2, 3, 0)))):
        for column, place in enumerate(places):
            np.testing.assert_array_equal(found[row, column], bits(dropout_key(seed, 5, place)))
    grouped = bits(dropout_keys(jnp.array([3]), jnp.int32(5), jnp.array([[[0, 1], [0, 1]]])))
    np.testing.assert_array_equal(grouped[0, 0], grouped[0, 1])
    later = bits(dropout_keys(jnp.array([3, 8]), jnp.int32(6), jnp.array([[0, 1, 7], [2, 3, 0]])))
    assert np.all((later != found).any(-1))


def test_view_keys_are_of_data_seed_example_and_view():
    found = bits(view_keys(5, jnp.array([[4, 0]]), jnp.array([[1, 2]])))
    for column, (example, view) in enumerate(((4, 1), (0, 2))):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), example), view)
        np.testing.assert_array_equal(found[0, column], bits(key))


@pytest.mark.slow
def test_keys_and_what_they_draw_do_not_depend_on_the_generator_that_the_process_prefers():
    """Its views are those of the folder of teacher outputs, whose name does not say which generator drew them."""
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    places, steps = jnp.array([[0, 1]]), jnp.int32(5)

    def drawn():
        keys = view_keys(7, jnp.array([4, 0]), jnp.array([1, 2]))
        return np.asarray(render(images, keys, 12)), bits(dropout_keys(jnp.array([3]), steps, places))

    usual = drawn()
    with jax.default_prng_impl("rbg"):
        for one, other in zip(usual, drawn(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_dropout_keeps_four_fifths_and_makes_up_for_the_rest():
    keys = jax.random.split(jax.random.key(0), 50)
    out = np.asarray(layers.dropout(jnp.ones((50, 400)), 0.2, keys, 1))
    np.testing.assert_allclose(np.unique(out), [0, 1.25])
    assert abs((out > 0).mean() - 0.8) < 4 * np.sqrt(0.16 / out.size)
    kept = out > 0
    assert abs((kept[0] & kept[1]).mean() - 0.64) < 0.1  # examples have masks of their own


def test_layers_of_one_network_have_masks_of_their_own():
    keys = jax.random.split(jax.random.key(0), 20)
    masks = [np.asarray(layers.dropout(jnp.ones((20, 300)), 0.5, keys, layer)) > 0 for layer in (1, 2, 1)]
    np.testing.assert_array_equal(masks[0], masks[2])
    assert abs((masks[0] == masks[1]).mean() - 0.5) < 0.05


class Dropped(nn.Module):
    """Mean color, dropout, a linear layer."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False, example_keys=None):
        x = jnp.tile(images.mean((1, 2)), (1, 10))
        x = layers.dropout(x, 0.5, example_keys, 1) if example_keys is not None else x
        return Outputs(nn.Dense(3, name="head")(x))


@pytest.mark.slow
def test_a_step_drops_by_its_own_keys():
    """The loss of the seventh step is that of dropout with keys of seed, step 7 and place."""
    adamw = functools.partial(optimizer.adamw, clip=0.0, head_factor=1.0)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    state = states.create(states.initializer(Dropped(), 8), adamw, seeds=(3, 8), arms=1).replace(step=jnp.int32(7))
    one = jnp.ones(1)
    hyper = Hyperparameters({"ce": one}, temperature=one, learning_rate=one, weight_decay=one)
    shown, views, places = np.array([[0, 3, 5], [2, 1, 4]]), np.array([[1, 0, 2], [0, 1, 1]]), np.array([[0, 1, 2]] * 2)
    step = functools.partial(planned_step, recipe=Recipe(Dropped(), 8, adamw, lambda step: 1.0))
    data = Examples(images, labels, data_seed=5)
    _, averages = jax.jit(step)(state, data, None, hyper, jnp.array([3, 8]), PlanStep(shown, views, places))
    from kdjax.inputs.augment import augment

    for row, seed in enumerate((3, 8)):
        params = jax.tree.map(lambda leaf: leaf[row, 0], state.params)  # noqa: B023
        losses = []
        for place in range(3):
            example, view = int(shown[row, place]), int(views[row, place])
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), example), view)
            pixels = augment(jnp.asarray(images[example]), key, 8)[None]
            logits = Dropped().apply({"params": params}, pixels, True, dropout_key(seed, 7, place)[None]).logits
            losses.append(-jax.nn.log_softmax(logits)[0, labels[example]])
        np.testing.assert_allclose(averages["ce"].compute()[row, 0], np.mean(losses), rtol=1e-5)
