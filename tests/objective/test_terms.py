"""The terms of other papers against NumPy, at the edges, and over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.products import precisions
from scipy.spatial.distance import cdist, cosine
from scipy.special import huber, log_softmax, softmax

from kdjax.objective import terms
from kdjax.objective.arms import Arm, measured_terms
from kdjax.objective.objective import objective as evaluated
from kdjax.objective.outputs import Outputs

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(16, 5)) * 3, RNG.normal(size=(16, 5)) * 3
LABELS = np.where(np.arange(16) % 3 == 1, -1, np.arange(16) % 5)
LABELLED = LABELS >= 0
T = 2.5


FURTHER = [name for name in terms.TERMS if name not in terms.CORE]


STUDENT_MAP, TEACHER_MAP, PROJECTION = RNG.normal(size=(5, 6)), RNG.normal(size=(5, 4)), RNG.normal(size=(6, 4))


def objective(student, teacher, *rest, **options):
    """The objective of logits, and of six and four features that are linear in them."""
    classes = student.shape[-1]
    ours, theirs = student @ STUDENT_MAP[:classes], teacher @ TEACHER_MAP[:classes]
    projection = jnp.asarray(PROJECTION, ours.dtype)
    return evaluated(Outputs(student, ours), Outputs(teacher, theirs), *rest, projection=projection, **options)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1)


def without(matrix, labels):
    """Rows of a matrix less the column of their label."""
    return np.stack([np.delete(row, label) for row, label in zip(matrix, labels, strict=True)])


def pair(matrix, labels):
    picked = np.take_along_axis(matrix, labels[:, None], 1)[:, 0]
    return np.stack([picked, 1 - picked], 1)


def by_numpy(name):
    """The term's mean over what it is averaged over, by the formulas of the papers."""
    teacher, student = softmax(TEACHER / T, -1), softmax(STUDENT / T, -1)
    known = LABELS[LABELLED]
    if name == "kl_standardized":
        z = [(x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True, ddof=1) / T for x in (TEACHER, STUDENT)]
        return T**2 * kl(softmax(z[0], -1), softmax(z[1], -1)).mean()
    if name == "target_class":
        return T**2 * kl(pair(teacher[LABELLED], known), pair(student[LABELLED], known)).mean()
    if name == "other_classes":
        rest = [softmax(without(x[LABELLED] / T, known), -1) for x in (TEACHER, STUDENT)]
        return T**2 * kl(*rest).mean()
    if name == "dist_inter":
        return T**2 * np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(teacher, student, strict=True)])
    if name == "dist_intra_batch":
        return T**2 * np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(teacher.T, student.T, strict=True)])
    if name == "cosine_probabilities":
        norms = np.linalg.norm(teacher, axis=1) * np.linalg.norm(student, axis=1)
        return np.mean(1 - (teacher * student).sum(1) / norms)
    if name == "cosine_batch":
        norms = np.linalg.norm(teacher, axis=0) * np.linalg.norm(student, axis=0)
        return np.mean(1 - (teacher * student).sum(0) / norms)
    ours, theirs = STUDENT @ STUDENT_MAP, TEACHER @ TEACHER_MAP
    if name == "features_cosine":
        return np.mean([cosine(a, b) for a, b in zip(ours @ PROJECTION, theirs, strict=True)])
    if name == "features_mse":
        return np.mean((ours @ PROJECTION - theirs) ** 2)
    if name == "relational_distance":
        a, b = (distances / distances[distances > 0].mean() for distances in (cdist(ours, ours), cdist(theirs, theirs)))
        return huber(1.0, a - b).mean()
    if name == "similarity":
        a, b = (gram / np.linalg.norm(gram, axis=1)[:, None] for gram in (ours @ ours.T, theirs @ theirs.T))
        return np.linalg.norm(a - b) ** 2 / 16**2
    raise AssertionError(name)


def weights(name, value=1.0):
    return {"ce": jnp.zeros(()), name: jnp.full((), value)}


def alone(name):
    """The weights of all terms, of which one is not 0: what is compiled with them is compiled once for all names."""
    return {one: jnp.full((), float(one == name)) for one in terms.TERMS}


@pytest.mark.parametrize("name", FURTHER)
def test_a_term_equals_numpy(name):
    with jax.enable_x64(True):
        loss, averages = jax.jit(objective)(
            jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS), weights(name, 3.0), jnp.float64(T)
        )
    np.testing.assert_allclose(loss, 3 * by_numpy(name), rtol=1e-12)
    np.testing.assert_allclose(averages[name].compute(), by_numpy(name), rtol=1e-12)


def test_which_terms_depend_on_the_temperature():
    def values(temperature):
        outputs = jax.tree.map(jnp.array, [Outputs(logits, logits @ STUDENT_MAP) for logits in (STUDENT, TEACHER)])
        return {name: term.function(*outputs, LABELS, temperature).sum() for name, term in terms.TERMS.items()}

    with jax.enable_x64(True):
        cold, hot = (jax.tree.map(float, values(temperature)) for temperature in (1.0, 3.0))
    assert {name for name in terms.TERMS if abs(hot[name] / cold[name] - 1) > 1e-3} == {
        name for name, term in terms.TERMS.items() if term.softened
    }


def test_which_terms_ask_for_nothing_where_there_are_two_classes():
    of_logits = {name: term for name, term in terms.TERMS.items() if not term.needs_features}
    labels = np.arange(len(STUDENT)) % 2

    def values(student):
        outputs = Outputs(student), Outputs(jnp.array(TEACHER[:, :2]))
        return {name: term.function(*outputs, labels, jnp.float64(T)).sum() for name, term in of_logits.items()}

    with jax.enable_x64(True):
        gradients = jax.jit(jax.jacrev(values))(jnp.array(STUDENT[:, :2]))
    assert {name: bool(np.abs(one).max() < 1e-6) for name, one in gradients.items()} == {
        name: term.needs_three_classes for name, term in of_logits.items()
    }


def value_and_gradient(student, *rest, axis_name=None):
    value = lambda student, teacher, labels, given: objective(
        student, teacher, labels, given, jnp.float64(T), axis_name=axis_name
    )
    return jax.value_and_grad(value, has_aux=True)(student, *rest)


@functools.cache
def over_devices(count):
    return jax.pmap(
        functools.partial(value_and_gradient, axis_name="devices"), axis_name="devices",
        in_axes=(0, 0, 0, None), devices=jax.devices()[:count],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("devices", [2, 8])
def test_shares_of_the_batch_add_up(name, devices):
    """Value and gradient over several devices are those of one, for examples that are labeled unevenly."""
    with jax.enable_x64(True):
        arrays = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)

        (loss, averages), gradient = jax.jit(value_and_gradient)(*arrays, alone(name))
        shared = [array.reshape(devices, -1, *array.shape[1:]) for array in arrays]
        (of_shares, averages_of_shares), gradients = over_devices(devices)(*shared, alone(name))
        np.testing.assert_allclose(np.asarray(of_shares).sum(), loss, rtol=1e-12)
        np.testing.assert_allclose(np.reshape(gradients, STUDENT.shape), gradient, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(averages_of_shares[name].compute(), averages[name].compute(), rtol=1e-12)


def test_no_accelerator_rounds_the_factors_of_a_product():
    """TPUs would to bfloat16, and the similarities of two examples would differ by their rounding."""
    of = lambda logits, matrix: Outputs(*(jnp.asarray(x, jnp.float32) for x in (logits, logits @ matrix)))

    def value(student, projection):
        every = {name: jnp.ones(()) for name in terms.TERMS}
        return evaluated(student, of(TEACHER, TEACHER_MAP), LABELS, every, jnp.float32(T), projection=projection)[0]

    program = jax.make_jaxpr(jax.grad(value, argnums=(0, 1)))(of(STUDENT, STUDENT_MAP), jnp.float32(PROJECTION))
    assert set(precisions(program)) == {2 * (jax.lax.Precision.HIGHEST,)}


def test_decoupled_terms_make_up_the_divergence():
    """KL = target class + (1 − p)·other classes, p being the teacher's probability: arXiv 2203.08679, equation 5."""
    labels = np.arange(16) % 5
    with jax.enable_x64(True):
        target = terms.target_class(TEACHER, STUDENT, labels, T)
        others = terms.other_classes(TEACHER, STUDENT, labels, T)
        p = softmax(TEACHER / T, -1)[np.arange(16), labels]
        np.testing.assert_allclose(target + (1 - p) * others, terms.kl_divergence(TEACHER, STUDENT, T), rtol=1e-12)


def test_standardized_logits_need_not_be_as_large_as_the_teachers():
    with jax.enable_x64(True):
        teacher, student = Outputs(jnp.array(TEACHER)), Outputs(7 * TEACHER + 3)
        values = terms.TERMS["kl_standardized"].function(student, teacher, LABELS, jnp.float64(T))
    np.testing.assert_allclose(values, 0, atol=1e-12)
    assert kl(softmax(TEACHER / T, -1), np.exp(log_softmax((7 * TEACHER + 3) / T, -1))).min() > 0.01


@pytest.mark.parametrize("length", [3e-12, 1e-8, 1e9])
def test_the_cosine_of_short_and_long_vectors_has_its_gradient_in_float32(length):
    a, b = np.array([1, -2, 2]), np.array([2, 2, 0.5])
    teacher, student = (jnp.asarray(length * one, jnp.float32) for one in (a, b))
    value, gradient = jax.value_and_grad(terms.cosine_distance, 1)(teacher, student)
    a_unit, b_unit = a / np.linalg.norm(a), b / np.linalg.norm(b)
    np.testing.assert_allclose(value, 1 - a_unit @ b_unit, rtol=1e-5)
    expected = (a_unit @ b_unit * b_unit - a_unit) / np.linalg.norm(b)
    np.testing.assert_allclose(length * np.asarray(gradient, np.float64), expected, rtol=1e-4)


@jax.jit
@jax.value_and_grad
def at_the_edge(student, teacher, given):
    return objective(student, teacher, jnp.array([0, -1]), given, jnp.float32(1.0))[0]


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("student", ["zero", "equal", "huge"])
@pytest.mark.parametrize("teacher", ["zero", "equal", "huge"])
def test_finite_at_the_edges(name, student, teacher):
    kinds = {"zero": np.zeros((2, 3)), "equal": np.ones((2, 3)), "huge": np.array([[1e4, -1e4, 0], [-1e4, -1e4, 1e4]])}
    value, gradient = at_the_edge(jnp.float32(kinds[student]), jnp.float32(kinds[teacher]), alone(name))
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_without_labels_the_terms_that_need_them_are_nothing():
    for name in ("target_class", "other_classes"):
        loss, averages = objective(
            jnp.array(STUDENT), jnp.array(TEACHER), jnp.full(16, -1), weights(name), jnp.float32(T)
        )
        assert loss == 0 and averages[name].count == 0


def arm(**weights):
    return Arm("arm", weights, temperature=1.0, learning_rate=1.0, weight_decay=0.0, family="arm")


def test_terms_are_measured_where_an_arm_has_them():
    assert measured_terms([arm(ce=1.0)]) == terms.CORE
    assert measured_terms([arm(ce=1.0, cosine_batch=0.5), arm(dist_inter=0.0)]) == (*terms.CORE, "cosine_batch")


def test_an_arm_needs_a_teacher_where_a_weighed_term_does():
    assert not arm(ce=1.0, kl=0.0).needs_teacher and arm(ce=1.0, target_class=0.1).needs_teacher


def test_every_term_says_what_it_is():
    assert len({term.title for term in terms.TERMS.values()}) == len(terms.TERMS)
    assert [name for name, term in terms.TERMS.items() if not term.needs_teacher] == ["ce"]
    assert {name for name, term in terms.TERMS.items() if term.over_batch} == {
        "dist_intra_batch", "cosine_batch", "relational_distance", "similarity",
    }  # fmt: skip


def test_a_projection_is_trained_by_the_terms_that_read_through_it_alone():
    """The weight of one arm sends its gradient; the term of weight 0 is measured and sends none."""

    def value(projection, weight):
        student, teacher = Outputs(STUDENT, STUDENT @ STUDENT_MAP), Outputs(TEACHER, TEACHER @ TEACHER_MAP)
        arrays = jax.tree.map(jnp.array, (student, teacher, LABELS))
        given = {"ce": jnp.ones(()), "relational_distance": jnp.ones(()), "features_mse": jnp.float64(weight)}
        return evaluated(*arrays, given, jnp.float64(T), projection=projection)[0]

    with jax.enable_x64(True):
        error = STUDENT @ STUDENT_MAP @ PROJECTION - TEACHER @ TEACHER_MAP
        expected = 3 * 2 / error.size * (STUDENT @ STUDENT_MAP).T @ error
        np.testing.assert_allclose(jax.grad(value)(jnp.array(PROJECTION), 3.0), expected, rtol=1e-9)
        assert not jax.grad(value)(jnp.array(PROJECTION), 0.0).any()


def test_equal_examples_have_no_distance_and_a_finite_gradient():
    features = jnp.array([[1.0, 2.0], [1.0, 2.0], [4.0, 6.0]])
    np.testing.assert_allclose(terms.relative_distances(features), [[0, 0, 1], [0, 0, 1], [1, 1, 0]], rtol=1e-6)
    gradient = jax.grad(lambda x: terms.relational_distance(features[::-1], x).sum())(features)
    assert np.isfinite(gradient).all()


def gradient_of(name, student, teacher, dtype):
    """Of a term with respect to the student's logits, computed in this dtype."""
    value = lambda student: objective(
        student, jnp.array(teacher, dtype), jnp.array(LABELS), jax.tree.map(dtype, weights(name)), dtype(T)
    )[0]
    with jax.enable_x64(dtype == jnp.float64):
        return np.asarray(jax.grad(value)(jnp.array(student, dtype)), np.float64)


SCALE_FREE = ["kl_standardized", "dist_inter", "dist_intra_batch", "relational_distance"]
"""Terms that divide by how much the values differ."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALE_FREE)
@pytest.mark.parametrize("level", [0.0, 0.1, 5.3, -70.0])
@pytest.mark.parametrize("apart", [0, 1], ids=["equal", "equal to rounding"])
def test_rounding_is_not_taken_for_a_difference(name, level, apart):
    """Where all logits are equal, what float32 leaves of their mean would be scaled up to a direction."""
    last_bits = 1 + apart * np.finfo(np.float32).eps * RNG.integers(-1, 2, STUDENT.shape)
    found = gradient_of(name, level * last_bits, TEACHER, jnp.float32)
    expected = gradient_of(name, np.full(STUDENT.shape, level), TEACHER, jnp.float64)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", SCALE_FREE)
def test_a_small_difference_keeps_its_gradient(name):
    student = 5.3 + 0.01 * STUDENT
    found, expected = (gradient_of(name, student, TEACHER, dtype) for dtype in (jnp.float32, jnp.float64))
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=1e-3 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3
