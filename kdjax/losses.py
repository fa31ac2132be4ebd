"""The distillation objective, every term visible.

    L = w_ce·CE(y, s) + w_kl·T²·KL(softmax(t/T) ‖ softmax(s/T)) + w_cosine·(1 − cos(t, s))

with student logits s, teacher logits t, labels y and temperature T. Hard cross-entropy plus Kullback-Leibler plus
cosine similarity is the objective of arXiv 2606.14886; the T² factor is that of Hinton et al., arXiv 1503.02531,
section 2. The paper's abstract does not say whether its cosine is taken on logits or on softened probabilities, so both
are offered.

Softmax ignores an offset common to all logits of an example. The cosine of raw logits does not: with
`cosine_on="logits"` the student is also asked to copy the teacher's offset.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from clu.metrics import Average

TERMS = ("ce", "kl", "cosine")
"""Names of the terms, in the order in which they are logged. All but "ce" need teacher logits."""

COSINE_ON = ("logits", "probabilities")


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Hard cross-entropy −log softmax(logits)[label], in nats.

    Args:
        logits: (..., classes) float.
        labels: (...) int; −1 marks an unlabelled example.

    Returns:
        (...) float, one value an example, 0 where unlabelled.
    """
    labelled = labels >= 0
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.where(labelled, labels, 0)[..., None], axis=-1)
    return jnp.where(labelled, -picked[..., 0], 0)


def kl_divergence(teacher_logits: jax.Array, student_logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """KL(softmax(t/T) ‖ softmax(s/T)) in nats, without the factor T².

    Args:
        teacher_logits: (..., classes) float.
        student_logits: (..., classes) float.
        temperature: positive scalar.

    Returns:
        (...) float ≥ 0, one value an example.
    """
    log_p = jax.nn.log_softmax(teacher_logits / temperature)
    log_q = jax.nn.log_softmax(student_logits / temperature)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def cosine_distance(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """1 − cos(t, s) along the last axis.

    A vector of norm below 1e-12 has no direction: it is given norm 1, so that its distance is 1 and its gradient
    finite. (`optax.cosine_distance` has a NaN gradient at zero with its default epsilon.)

    Args:
        teacher: (..., classes) float, logits or probabilities.
        student: (..., classes) float.

    Returns:
        (...) float in [0, 2], one value an example.
    """

    def norm(x: jax.Array) -> jax.Array:
        square = jnp.sum(x * x, axis=-1)
        return jnp.sqrt(jnp.where(square > 1e-24, square, 1))

    return 1 - jnp.sum(teacher * student, axis=-1) / (norm(teacher) * norm(student))


def soft_term(
    name: str, teacher_logits: jax.Array, student_logits: jax.Array, temperature: jax.Array, *, cosine_on: str
) -> jax.Array:
    """One soft term of the objective by its name, per example, with its factor T² where it has one."""
    if name == "kl":
        return temperature**2 * kl_divergence(teacher_logits, student_logits, temperature)
    if name == "cosine" and cosine_on == "logits":
        return cosine_distance(teacher_logits, student_logits)
    if name == "cosine" and cosine_on == "probabilities":
        return cosine_distance(
            jax.nn.softmax(teacher_logits / temperature), jax.nn.softmax(student_logits / temperature)
        )
    raise ValueError(f"unknown term {name!r} or cosine_on {cosine_on!r}")


def objective(
    student_logits: jax.Array,
    teacher_logits: jax.Array | None,
    labels: jax.Array,
    weights: Mapping[str, jax.Array],
    temperature: jax.Array,
    *,
    cosine_on: str = "logits",
    mixed: tuple[jax.Array, jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, Average]]:
    """The weighted objective of one student on this device's share of the batch.

    The hard term is averaged over the labelled examples of the global batch, the soft terms over all its examples.
    Counts are reduced over `axis_name`, sums are not: the loss is this device's *contribution*, and the sum of the
    contributions (and of their gradients) over the devices is the objective of the global batch.

    A term of weight 0 is still measured, but sends no gradient, so that it cannot turn another term's into NaN.

    Args:
        student_logits: (batch, classes) float.
        teacher_logits: (batch, classes) float, or None: then only "ce" is computed. No gradient flows into it.
        labels: (batch,) int, −1 for unlabelled.
        weights: a scalar for each of `TERMS`.
        temperature: positive scalar.
        cosine_on: "logits" or "probabilities" (softened by the temperature).
        mixed: where images are mixtures (mixup, arXiv 1710.09412), the labels of the second image, (batch,) int, and
            the share of the first, (batch,) in [0, 1]. The hard term is then the mixture of both labels' terms.
        axis_name: mapped device axis, or None on one device.

    Returns:
        The contribution to the loss (scalar), and for each term its sum and count over the global batch.
    """
    loss = jnp.zeros((), student_logits.dtype)
    averages = {}
    for name in TERMS if teacher_logits is not None else ("ce",):
        weight = weights[name]
        logits = jnp.where(weight == 0, jax.lax.stop_gradient(student_logits), student_logits)
        if name == "ce":
            values, counted = cross_entropy(logits, labels), labels >= 0
            if mixed is not None:
                other, share = mixed
                values = share * values + (1 - share) * cross_entropy(logits, other)
                counted = jnp.where(counted, share, 0) + jnp.where(other >= 0, 1 - share, 0)
        else:
            values = soft_term(name, jax.lax.stop_gradient(teacher_logits), logits, temperature, cosine_on=cosine_on)
            counted = jnp.ones_like(labels, bool)
        total, count = jnp.sum(values), jnp.sum(counted, dtype=values.dtype)
        if axis_name is not None:
            count = jax.lax.psum(count, axis_name)
        loss += jnp.where(weight == 0, 0, weight * total / jnp.maximum(count, 1))
        if axis_name is not None:
            total = jax.lax.psum(jax.lax.stop_gradient(total), axis_name)
        averages[name] = Average(total=jax.lax.stop_gradient(total), count=count)
    return loss, averages
