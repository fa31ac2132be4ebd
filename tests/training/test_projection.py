"""The linear map from the student's features to the teacher's: trained with the student, and left behind by it."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.small_run import MAPPINGS, arms, learner, training_data

from kdjax.objective.outputs import Outputs
from kdjax.training.population import population
from kdjax.training.state import PROJECTION

STEPS = 30


def trained(directory, colors, mapping, *, featured):
    """Averages of each step and the last state; the second arm learns four features of the teacher, or does not."""
    plain, other = arms(rate=0.3)
    if featured:
        other = dataclasses.replace(other, weights={"features_mse": 1.0})
    who = learner(directory, MAPPINGS[mapping](), until=STEPS)
    who = dataclasses.replace(who, projection=(3, 4) if featured else None)
    data = training_data(colors)
    if featured:
        means = colors[0].mean((1, 2)) / 255
        features = np.concatenate([means, means.sum(1, keepdims=True)], 1).astype(np.float16)
        data = dataclasses.replace(data, stored=Outputs(data.stored.logits, np.stack([features] * 2)))
    made = population(who, (plain, other), data)
    state, empty = made.initial()
    step, feed, seen = made.step(), made.feed(0), []
    for number in range(STEPS):
        state, averages = step(state, jax.tree.map(np.array, empty), feed(number, 1), np.int32(1))
        seen.append(jax.tree.map(np.asarray, averages))
    return seen, jax.tree.map(np.asarray, state)


@pytest.mark.slow
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_projection_learns_and_disturbs_no_other_arm(tmp_path, colors, mapping):
    seen, state = trained(tmp_path, colors, mapping, featured=True)
    _, before = trained(tmp_path, colors, mapping, featured=False)
    error = [one["features_mse"].compute() for one in seen]
    assert (error[-1][:, 1] < 0.3 * error[0][:, 1]).all(), "the features are linear in the student's"
    kernel = state.params[PROJECTION]["kernel"]
    assert kernel.shape == (2, 2, 3, 4)
    # The arm without a weight on features: its projection only decays, which is 0 here, and its head is as it was.
    np.testing.assert_allclose(error[-1][:, 0], error[0][:, 0], rtol=0.5)
    for leaf, alone in zip(jax.tree.leaves(state.params["head"]), jax.tree.leaves(before.params["head"]), strict=True):
        np.testing.assert_allclose(leaf[:, 0], alone[:, 0], rtol=1e-5, atol=1e-6)


def test_seeds_begin_with_other_projections_and_arms_with_the_same(tmp_path, colors):
    who = dataclasses.replace(learner(tmp_path, MAPPINGS["one"]()), projection=(3, 4))
    kernel = np.asarray(who.scratch().params[PROJECTION]["kernel"])
    np.testing.assert_array_equal(kernel[:, 0], kernel[:, 1])
    assert (kernel[0] != kernel[1]).all()
