"""The distillation objective, every term visible.

    L = w_ce·CE(y, s) + w_kl·T²·KL(softmax(t/T) ‖ softmax(s/T)) + w_cosine·(1 − cos(t, s)) + …

with student logits s, teacher logits t, labels y and temperature T. Hard cross-entropy plus Kullback-Leibler plus
cosine similarity is the objective of arXiv 2606.14886; the T² factor is that of Hinton et al., arXiv 1503.02531,
section 2. The paper's abstract does not say whether its cosine is taken on logits or on softened probabilities, so both
are offered. Further terms are in `terms`.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from clu.metrics import Average

from kdjax.objective import terms


def measured_terms(arms: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """The terms that a run with these arms measures: the paper's, and each other one that an arm gives a weight."""
    arms = list(arms)
    return (*terms.CORE, *(name for name in terms.FURTHER if any(arm.get(name, 0) for arm in arms)))


def needs_teacher(arms: Iterable[Mapping[str, float]]) -> bool:
    """Whether an arm gives weight to a term that compares with teacher logits."""
    return any(arm.get(name, 0) for arm in arms for name in terms.TERMS if name != "ce")


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

    Terms that need a label are averaged over the labelled examples of the global batch, the others over all its
    examples, those of the batch over the classes.
    Counts are reduced over `axis_name`, sums are not: the loss is this device's *contribution*, and the sum of the
    contributions (and of their gradients) over the devices is the objective of the global batch.

    A term of weight 0 is still measured, but sends no gradient, so that it cannot turn another term's into NaN.

    Args:
        student_logits: (batch, classes) float.
        teacher_logits: (batch, classes) float, or None: then only "ce" is measured. No gradient flows into it.
        labels: (batch,) int, −1 for unlabelled.
        weights: a scalar for each term that is measured, by its name in `terms.TERMS`.
        temperature: positive scalar.
        cosine_on: "logits" or "probabilities" (softened by the temperature).
        mixed: where images are mixtures (mixup, arXiv 1710.09412), the labels of the second image, (batch,) int, and
            the share of the first, (batch,) in [0, 1]. Terms that need a label are then mixtures of both labels' terms.
        axis_name: mapped device axis, or None on one device.

    Returns:
        The contribution to the loss (scalar), and for each term its sum and count over the global batch.
    """
    loss = jnp.zeros((), student_logits.dtype)
    averages = {}
    gathered = lambda x: x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)
    summed = lambda x: x if axis_name is None else jax.lax.psum(x, axis_name)
    targets = None if teacher_logits is None else jax.lax.stop_gradient(teacher_logits)
    for name in terms.TERMS if targets is not None else ("ce",):
        if name not in weights:
            continue
        weight = weights[name]
        logits = jnp.where(weight == 0, jax.lax.stop_gradient(student_logits), student_logits)
        if name in terms.BATCH_TERMS:
            # Every device has the whole batch's value, and contributes its share of it.
            values = terms.of_batch(name, gathered(targets), gathered(logits), temperature)
            total, count = jnp.sum(values) / summed(1), jnp.full((), values.size, values.dtype)
        else:
            values = terms.of_examples(name, targets, logits, labels, temperature, cosine_on=cosine_on)
            counted = labels >= 0 if name in terms.LABELLED_TERMS else jnp.ones_like(labels, bool)
            if mixed is not None and name in terms.LABELLED_TERMS:
                other, share = mixed
                second = terms.of_examples(name, targets, logits, other, temperature, cosine_on=cosine_on)
                values = share * values + (1 - share) * second
                counted = jnp.where(counted, share, 0) + jnp.where(other >= 0, 1 - share, 0)
            total, count = jnp.sum(values), summed(jnp.sum(counted, dtype=values.dtype))
        loss += jnp.where(weight == 0, 0, weight * total / jnp.maximum(count, 1))
        averages[name] = Average(total=summed(jax.lax.stop_gradient(total)), count=count)
    return loss, averages
