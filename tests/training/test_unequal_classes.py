"""Students with class weights and balanced draws: the same over devices, and as they would be alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import MAPPINGS, arms, learner, training_data

from kdjax.training.population import population

pytestmark = pytest.mark.slow
STEPS, WEIGHTS = 5, (0.25, 1.0, 4.0)


def walked(colors, folder, mapping, columns=(0, 1), arms_at_once=None):
    """The parameters after a few steps in float64, (seed, arm, …); the second arm has class weights."""
    plain, other = arms()
    members = (plain, dataclasses.replace(other, class_weights=WEIGHTS))
    members = tuple(members[column] for column in columns)
    who = dataclasses.replace(learner(folder, mapping), arm_names=tuple(arm.name for arm in members))
    data = training_data(colors)
    labels = np.where(np.arange(len(data.train.labels)) % 4 == 1, -1, data.train.labels).astype(np.int32)
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels), balanced=True)
    trained = population(who, members, data).with_arms_at_once(arms_at_once)
    with jax.enable_x64(True):
        wide = lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf
        state, averages = mapping.place(jax.tree.map(wide, trained.initial()), "rows")
        step, feed = trained.step(), trained.feed(0)
        for number in range(STEPS):
            state, averages = step(state, averages, feed(number, 1), np.int32(1))
        return jax.tree.map(np.asarray, (state.params, averages))


def close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), found, expected)


@pytest.mark.parametrize("mapping", ["batch", "rows"])
def test_devices_and_parts_of_the_population_change_nothing(colors, tmp_path, mapping):
    on_one = walked(colors, tmp_path, MAPPINGS["one"](), arms_at_once=1 if mapping == "rows" else None)
    close(walked(colors, tmp_path, MAPPINGS[mapping]()), on_one)


def test_an_arm_trains_as_it_would_alone(colors, tmp_path):
    together = walked(colors, tmp_path, MAPPINGS["one"]())[0]
    alone = walked(colors, tmp_path, MAPPINGS["one"](), columns=(1,))[0]
    close(alone, jax.tree.map(lambda leaf: leaf[:, 1:], together))
    assert all(np.abs(leaf[:, 0] - leaf[:, 1]).max() > 1e-3 for leaf in jax.tree.leaves(together))
