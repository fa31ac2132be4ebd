"""Class weights in the objective against PyTorch, over devices, and as arrays of the arms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import base
from kdjax.objective.arms import hyperparameters, resolve
from kdjax.objective.objective import objective
from kdjax.objective.outputs import Outputs
from kdjax.objective.terms import TERMS

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(16, 3)) * 3, RNG.normal(size=(16, 3)) * 3
LABELS = np.where(np.arange(16) % 5 == 1, -1, RNG.integers(0, 3, 16))
BY_CLASS = np.array([0.25, 1.5, 4.0])
T = 2.5


def value(student, teacher, labels, weights=None, axis_name=None, mixed=None):
    weights = {"ce": 0.5 * BY_CLASS, "kl": 2.0} if weights is None else weights
    arrays = {name: jnp.asarray(one, jnp.float64) for name, one in weights.items()}
    return objective(Outputs(student), Outputs(teacher), labels, arrays, T, axis_name=axis_name, mixed=mixed)


def test_it_is_pytorchs_sum_over_the_number_of_labeled_examples():
    torch = pytest.importorskip("torch")
    logits, labels = torch.tensor(STUDENT, requires_grad=True), torch.tensor(LABELS)
    of = lambda reduction, weight: torch.nn.CrossEntropyLoss(
        weight=torch.tensor(weight), reduction=reduction, ignore_index=-1
    )(logits, labels)
    count = (LABELS >= 0).sum()
    expected = of("sum", BY_CLASS) / count
    assert of("none", BY_CLASS).sum().item() / count == pytest.approx(expected.item(), rel=1e-12)
    expected.backward()
    with jax.enable_x64(True):
        arguments = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)
        found = jax.value_and_grad(value, has_aux=True)(*arguments, {"ce": BY_CLASS})
        (loss, averages), gradient = found
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
        np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-10, atol=1e-14)
        # What is logged has no weights, so that arms can be compared.
        plain = torch.nn.CrossEntropyLoss(ignore_index=-1)(logits, labels).item()
        np.testing.assert_allclose(averages["ce"].compute(), plain, rtol=1e-12)
        # With weights of mean 1 over the examples it is PyTorch's mean as well.
        even = BY_CLASS / BY_CLASS[LABELS[LABELS >= 0]].mean()
        np.testing.assert_allclose(
            value(*arguments, {"ce": even})[0], of("mean", BY_CLASS).item(), rtol=1e-12
        )  # whose scale of weights does not count


@pytest.mark.parametrize("devices", [2, 8])
def test_shares_of_the_batch_add_up(devices):
    """Value and gradient over several devices are those of one, for classes and labels that are spread unevenly."""
    with jax.enable_x64(True):
        arrays = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)
        (loss, averages), gradient = jax.value_and_grad(value, has_aux=True)(*arrays)
        shared = [array.reshape(devices, -1, *array.shape[1:]) for array in arrays]
        mapped = jax.pmap(
            lambda *share: jax.value_and_grad(value, has_aux=True)(*share, axis_name="devices"),
            axis_name="devices",
            devices=jax.devices()[:devices],
        )
        (of_shares, averages_of_shares), gradients = mapped(*shared)
        np.testing.assert_allclose(np.asarray(of_shares).sum(), loss, rtol=1e-12)
        np.testing.assert_allclose(np.reshape(gradients, STUDENT.shape), gradient, rtol=1e-9, atol=1e-12)
        for name, one in averages.items():
            np.testing.assert_allclose(averages_of_shares[name].compute(), one.compute(), rtol=1e-12)


def test_soft_terms_have_no_weights_of_classes():
    assert [name for name, term in TERMS.items() if term.hard] == ["ce"]
    with jax.enable_x64(True):
        arguments = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)
        both, ce = value(*arguments)[0], value(*arguments, {"ce": 0.5 * BY_CLASS})[0]
        _, averages = value(*arguments)
        np.testing.assert_allclose(both - ce, 2 * averages["kl"].compute(), rtol=1e-12)


def test_equal_weights_and_no_labels_are_as_without():
    with jax.enable_x64(True):
        arguments = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)
        equal, scalar = (value(*arguments, {"ce": one})[0] for one in (0.7 * np.ones(3), 0.7))
        np.testing.assert_allclose(equal, scalar, rtol=1e-12)
        gradient = jax.grad(lambda s: value(s, jnp.array(TEACHER), jnp.full(16, -1), {"ce": BY_CLASS})[0])
        assert not gradient(jnp.array(STUDENT)).any()
        gradient = jax.grad(lambda s: value(s, jnp.array(TEACHER), jnp.array(LABELS), {"ce": 0 * BY_CLASS})[0])
        assert not gradient(jnp.array(STUDENT)).any()


def test_each_label_of_a_mixture_has_its_own_weight():
    other, share = np.roll(LABELS, 3), RNG.random(16)
    with jax.enable_x64(True):
        arguments = jnp.array(STUDENT), jnp.array(TEACHER), jnp.array(LABELS)
        loss, averages = value(*arguments, {"ce": BY_CLASS}, mixed=(jnp.array(other), jnp.array(share)))
    log_p = STUDENT - np.log(np.exp(STUDENT).sum(1, keepdims=True))
    total = sum(
        part * BY_CLASS[label] * -row[label]
        for row, *labels, first in zip(log_p, LABELS, other, share, strict=True)
        for label, part in zip(labels, (first, 1 - first), strict=True)
        if label >= 0
    )
    count = share[LABELS >= 0].sum() + (1 - share)[other >= 0].sum()
    np.testing.assert_allclose(loss, total / count, rtol=1e-12)
    np.testing.assert_allclose(averages["ce"].count, count, rtol=1e-12)


def test_arms_are_as_exact_as_the_arrays_beside_them():
    arms = resolve(("kl",), base().arms, temperature=3.3, learning_rate=1e-3, weight_decay=0.01)
    assert hyperparameters(arms).learning_rate.dtype == np.float32
    with jax.enable_x64(True):
        assert hyperparameters(arms).learning_rate.tolist() == [1e-3]
        assert hyperparameters((dataclasses.replace(arms[0], class_weights=(0.1, 1.9)),)).weights["ce"][0, 0] == 0.1


def test_arms_may_have_weights_of_their_own():
    arms = resolve(
        ("student_alone", "kl", "decoupled"), base().arms, temperature=1.0, learning_rate=1.0, weight_decay=0.0
    )
    assert all(one.ndim == 1 for one in hyperparameters(arms).weights.values())
    weighed = dataclasses.replace(arms[1], weights={"ce": 2.0, "kl": 1.0}, class_weights=(0.5, 0.5, 2.0))
    found = hyperparameters((arms[0], weighed, arms[2])).weights
    np.testing.assert_array_equal(found["ce"], [[1, 1, 1], [1, 1, 4], [1, 1, 1]])
    assert all(one.shape == (3,) for name, one in found.items() if name != "ce")
