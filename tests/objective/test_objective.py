"""The objective against NumPy and PyTorch-free closed forms, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kdjax.objective import terms
from kdjax.objective.objective import objective as evaluated
from kdjax.objective.outputs import Outputs

COSINES = {"logits": "cosine", "probabilities": "cosine_probabilities"}

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(6, 5)) * 3, RNG.normal(size=(6, 5)) * 3
LABELS = np.array([0, 4, -1, 2, -1, 3])


def objective(student, teacher, *rest, **options):
    """The objective of logits alone."""
    return evaluated(Outputs(student), None if teacher is None else Outputs(teacher), *rest, **options)


def weights(ce=1.0, kl=1.0, cosine=1.0):
    return {"ce": jnp.float32(ce), "kl": jnp.float32(kl), "cosine": jnp.float32(cosine)}


def numpy_objective(student, teacher, labels, w, temperature, on):
    labeled = labels >= 0
    ce = -log_softmax(student, -1)[np.arange(len(labels)), labels][labeled].mean()
    p = softmax(teacher / temperature, -1)
    kl = temperature**2 * (p * (np.log(p) - log_softmax(student / temperature, -1))).sum(-1).mean()
    a, b = (teacher, student) if on == "logits" else (p, softmax(student / temperature, -1))
    cosine = (1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean()
    return w[0] * ce + w[1] * kl + w[2] * cosine, (ce, kl, cosine)


@pytest.mark.parametrize("on", COSINES)
@pytest.mark.parametrize("w", [(1, 0, 0), (1, 1, 0), (1, 0, 1), (0.5, 2, 3), (0, 1, 1)])
def test_objective_equals_numpy(on, w):
    with jax.enable_x64(True):
        names = ("ce", "kl", COSINES[on])
        arrays = {name: jnp.float64(one) for name, one in zip(names, w, strict=True)}
        loss, averages = jax.jit(objective)(
            jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS), arrays, jnp.float64(2.5)
        )
    expected, each = numpy_objective(STUDENT, TEACHER, LABELS, w, 2.5, on)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose([averages[name].compute() for name in names], each, rtol=1e-12)


@pytest.mark.slow
def test_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        arrays = {name: jnp.float64(one) for name, one in zip(terms.CORE, (1.0, 0.5, 2.0), strict=True)}
        gradient = jax.grad(lambda s: objective(s, jnp.array(TEACHER), LABELS, arrays, jnp.float64(4.0))[0])(
            jnp.array(STUDENT)
        )
    direction = RNG.normal(size=STUDENT.shape)
    up, down = (
        numpy_objective(STUDENT + e * direction, TEACHER, LABELS, (1, 0.5, 2), 4.0, "logits")[0] for e in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * direction), (up - down) / 2e-5, rtol=1e-7)


def test_no_gradient_reaches_the_teacher():
    gradient = jax.grad(lambda t: objective(jnp.array(STUDENT), t, LABELS, weights(), 4.0)[0])(jnp.array(TEACHER))
    assert not np.any(gradient)


@pytest.mark.parametrize("on", COSINES)
@pytest.mark.parametrize("student", ["zero", "equal", "huge"])
@pytest.mark.parametrize("teacher", ["zero", "equal", "huge"])
def test_finite_at_the_edges(on, student, teacher):
    kinds = {"zero": np.zeros((2, 3)), "equal": np.ones((2, 3)), "huge": np.array([[1e4, -1e4, 0], [-1e4, -1e4, 1e4]])}
    given = {"ce": jnp.float32(1), "kl": jnp.float32(1), COSINES[on]: jnp.float32(1)}
    value, gradient = jax.value_and_grad(
        lambda s: objective(s, jnp.float32(kinds[teacher]), jnp.array([0, -1]), given, jnp.float32(1.0))[0]
    )(jnp.float32(kinds[student]))
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_a_term_of_weight_zero_cannot_spoil_another():
    broken_teacher = jnp.full(TEACHER.shape, jnp.nan)
    value, gradient = jax.value_and_grad(
        lambda s: objective(s, broken_teacher, LABELS, weights(kl=0.0, cosine=0.0), jnp.float32(4.0))[0]
    )(jnp.float32(STUDENT))
    expected = jax.grad(lambda s: objective(s, None, LABELS, weights(), jnp.float32(4.0))[0])(jnp.float32(STUDENT))
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, expected)


def test_all_unlabeled_leaves_the_soft_terms():
    loss, averages = objective(jnp.array(STUDENT), jnp.array(TEACHER), jnp.full(6, -1), weights(), jnp.float32(4.0))
    assert averages["ce"].count == 0
    np.testing.assert_allclose(loss, averages["kl"].compute() + averages["cosine"].compute(), rtol=1e-6)


def test_softmax_ignores_a_common_offset_and_the_raw_cosine_does_not():
    kl = terms.kl_divergence(TEACHER, STUDENT + 7, 4.0)
    np.testing.assert_allclose(kl, terms.kl_divergence(TEACHER, STUDENT, 4.0), atol=1e-5)
    assert np.all(np.abs(terms.cosine_distance(TEACHER, STUDENT + 7) - terms.cosine_distance(TEACHER, STUDENT)) > 1e-3)


def test_one_program_trains_arms_that_differ_in_weights_and_temperature():
    arms = {
        name: jnp.array(column) for name, column in zip(terms.CORE, [[1.0, 1.0], [0.0, 1.0], [0.0, 2.0]], strict=True)
    }
    both = jax.vmap(lambda w, t: objective(jnp.array(STUDENT), jnp.array(TEACHER), LABELS, w, t)[0])(
        arms, jnp.array([4.0, 2.0])
    )
    expected = [
        numpy_objective(STUDENT, TEACHER, LABELS, w, t, "logits")[0] for w, t in (((1, 0, 0), 4), ((1, 1, 2), 2))
    ]
    np.testing.assert_allclose(both, expected, rtol=1e-5)
