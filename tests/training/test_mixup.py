"""Mixup: mixed pixels, mixed labels, and the teacher sees the mixture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import Linear

from kdjax.inputs.batch import Examples, PlanStep, dropout_keys, mixing_shares, render, view_keys
from kdjax.inputs.feed import streamed_feed
from kdjax.inputs.plan import Plan
from kdjax.objective import terms
from kdjax.objective.arms import Hyperparameters
from kdjax.objective.objective import objective
from kdjax.objective.outputs import Outputs
from kdjax.runtime.devices import DeviceMapping
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.step import Recipe, planned_step

NETWORK = Linear(classes=4)
OPTIMIZER = functools.partial(optimizer.adamw, clip=0.0, head_factor=1.0)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 10, 10, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, -1, 0, 1, -1], np.int32)
SEEDS = np.int32([0, 1])


def step(plan, mixup, images=IMAGES):
    state = states.create(states.initializer(NETWORK, 8), OPTIMIZER, seeds=(0, 1), arms=1)
    teacher = NETWORK.init(jax.random.key(9), jnp.zeros((1, 8, 8, 3)))
    one = jnp.ones(1)
    hyper = Hyperparameters(
        weights=dict.fromkeys(terms.CORE, one), temperature=one, learning_rate=one, weight_decay=0 * one
    )
    recipe = Recipe(NETWORK, 8, OPTIMIZER, lambda step: 1.0, mixup=mixup, teacher=NETWORK, teacher_size=8)
    program = functools.partial(planned_step, recipe=recipe)
    examples = Examples(images, LABELS)
    state, averages = jax.jit(program)(state, examples, teacher, hyper, SEEDS, plan)
    return jax.tree.map(np.asarray, (state.params, averages))


def test_the_hard_term_is_that_of_both_labels():
    logits, other = RNG.normal(size=(12, 4)), np.roll(LABELS, 1)
    share = RNG.random(12)
    with jax.enable_x64(True):
        found = objective(
            Outputs(jnp.array(logits)),
            None,
            LABELS,
            {"ce": jnp.float64(1)},
            jnp.float64(1),
            mixed=(other, jnp.array(share)),
        )[1]["ce"]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    total = count = 0.0
    for row in range(12):
        for label, weight in ((LABELS[row], share[row]), (other[row], 1 - share[row])):
            if label >= 0:
                total, count = total - weight * log_p[row, label], count + weight
    np.testing.assert_allclose([found.total, found.count], [total, count], rtol=1e-12)


@pytest.mark.slow
def test_a_mixture_with_itself_is_the_image():
    examples, views, places = Plan((0, 1), 12, 4, 0)(0)
    alone = step(PlanStep(examples, views, places), 0.0)
    mixed = step(PlanStep(examples, views, places, examples, views), 0.4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), mixed, alone)


@pytest.mark.slow
def test_pixels_and_labels_are_mixed_by_the_same_share_for_student_and_teacher():
    plan = PlanStep(*Plan((0, 1), 12, 4, 0, partners=True)(0))
    _, averages = step(plan, 0.4)
    shares = np.asarray(mixing_shares(dropout_keys(SEEDS, jnp.int32(0), plan.places), 0.4))
    first, second = (
        np.asarray(render(IMAGES[index], view_keys(0, index, view), 8))
        for index, view in ((plan.examples, plan.views), (plan.partners, plan.partner_views))
    )
    pixels = shares[..., None, None, None] * first + (1 - shares[..., None, None, None]) * second
    state = states.create(states.initializer(NETWORK, 8), OPTIMIZER, seeds=(0, 1), arms=1)
    teacher = NETWORK.init(jax.random.key(9), jnp.zeros((1, 8, 8, 3)))
    for row in range(2):
        variables = jax.tree.map(lambda x: x[row, 0], {"params": state.params})  # noqa: B023
        cosine = terms.cosine_distance(
            NETWORK.apply(teacher, pixels[row]).logits, NETWORK.apply(variables, pixels[row]).logits
        )
        np.testing.assert_allclose(averages["cosine"].compute()[row, 0], cosine.mean(), rtol=1e-3, atol=1e-5)
        logits = np.asarray(NETWORK.apply(variables, pixels[row]).logits, np.float64)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        total = count = 0.0
        for place, share in enumerate(shares[row]):
            for label, weight in (
                (LABELS[plan.examples[row, place]], share),
                (LABELS[plan.partners[row, place]], 1 - share),
            ):
                if label >= 0:
                    total, count = total - weight * log_p[place, label], count + weight
        np.testing.assert_allclose(averages["ce"].compute()[row, 0], total / count, rtol=1e-3, atol=1e-5)


def test_partners_from_the_host_are_the_same_images():
    plan = Plan((0, 1), 12, 4, 0, partners=True)
    share = streamed_feed(plan, DeviceMapping(jax.devices()[:1]), IMAGES, 3, 4)(3, 1)
    np.testing.assert_array_equal(share.partner_images, IMAGES[share.partners])
    np.testing.assert_array_equal(share.partners[0], plan(3)[3])


def test_shares_follow_the_beta_distribution():
    shares = np.asarray(mixing_shares(jax.random.split(jax.random.key(0), 4000), 0.4))
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


def test_each_example_is_partner_as_often_as_another():
    plan = Plan((0,), examples=10, batch_size=5, views=0, partners=True)
    assert sorted(np.concatenate([plan(step)[3][0] for step in range(4)])) == sorted(2 * list(range(10)))
