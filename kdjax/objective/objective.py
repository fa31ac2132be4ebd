"""The distillation objective, every term visible.

    L = w_ce·CE(y, s) + w_kl·T²·KL(softmax(t/T) ‖ softmax(s/T)) + w_cosine·(1 − cos(t, s)) + …

with student logits s, teacher logits t, labels y and temperature T. The objective of arXiv 2606.14886 is hard
cross-entropy plus Kullback-Leibler divergence plus cosine similarity; the factor T² is that of Hinton et al., arXiv
1503.02531, section 2. The former's abstract does not say whether its cosine is taken of logits or of softened
probabilities, so both are terms. The module `terms` holds all terms.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from clu.metrics import Average

from kdjax.objective.outputs import Outputs
from kdjax.objective.terms import TERMS


@jax.default_matmul_precision("highest")  # by default TPUs round factors to bfloat16, GPUs to ten bits
def objective(
    student: Outputs,
    teacher: Outputs | None,
    labels: jax.Array,
    weights: Mapping[str, jax.Array],
    temperature: jax.Array,
    *,
    projection: jax.Array | None = None,
    mixed: tuple[jax.Array, jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, Average]]:
    """The weighted objective of one student on this device's share of the batch.

    Terms that need a label are averaged over the labeled examples of the global batch. Terms over the batch are
    averaged over their values, all others over all examples. Counts are reduced over `axis_name`, but sums are not: the
    loss is this device's *contribution*, and the sum of the contributions (and of their gradients) over the devices is
    the objective of the global batch.

    If a hard term has a weight for each class, every example has the weight of its label, whichever other examples are
    in the batch: the weighted sum is divided by the number of labeled examples, not by the sum of their weights. For
    cross-entropy that is PyTorch's `CrossEntropyLoss(weight=w, reduction="sum")` divided by that number. It equals
    `reduction="mean"` if the weights of the batch have mean 1, as they have over an epoch.

    A term of weight 0 is still measured, but has no gradient, so that it cannot turn another term's gradient into NaN.

    Args:
        student: outputs of the student for (batch,) examples.
        teacher: outputs of the teacher, into which no gradient flows; with None, only terms that need no teacher are
            measured.
        labels: (batch,) int, −1 for unlabeled.
        weights: by name in `TERMS`, a scalar for each measured term, or (classes,) for a `hard` term.
        temperature: positive scalar.
        projection: (F, G) map from the student's features to the teacher's, for the terms that are `projected`.
        mixed: if images are mixtures (mixup, arXiv 1710.09412), the labels of the second images, (batch,) int, and the
            shares of the first, (batch,) in [0, 1]. Terms that need a label are then mixtures of both labels' terms.
        axis_name: mapped device axis, or None on one device.

    Returns:
        The contribution to the loss (scalar), and for each term its sum and count over the global batch, unweighted.
    """
    loss = jnp.zeros((), student.logits.dtype)
    averages = {}
    gather = lambda x: x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)
    reduce = lambda x: x if axis_name is None else jax.lax.psum(x, axis_name)
    teacher = jax.lax.stop_gradient(teacher)
    for name, term in TERMS.items():
        if name not in weights or (term.needs_teacher and teacher is None):
            continue
        weight = weights[name]
        off = jnp.all(weight == 0)
        outputs = _projected(student, projection) if term.projected else student
        outputs = jax.tree.map(lambda x: jnp.where(off, jax.lax.stop_gradient(x), x), outputs)  # noqa: B023
        if term.over_batch:
            # Every device computes the values of the whole batch, and contributes its share of their sum.
            batch_outputs, batch_teacher, batch_labels = jax.tree.map(gather, (outputs, teacher, labels))
            values = term.function(batch_outputs, batch_teacher, batch_labels, temperature)
            total, count = jnp.sum(values) / reduce(1), jnp.full((), values.size, values.dtype)
            weighted_total = weight * total
        else:
            values = term.function(outputs, teacher, labels, temperature)
            weighted = _example_weights(weight, labels) * values
            counted = labels >= 0 if term.needs_labels else jnp.ones_like(labels, bool)
            if mixed is not None and term.needs_labels:
                second_labels, share = mixed
                second = term.function(outputs, teacher, second_labels, temperature)
                values = share * values + (1 - share) * second
                weighted = share * weighted + (1 - share) * _example_weights(weight, second_labels) * second
                counted = jnp.where(counted, share, 0) + jnp.where(second_labels >= 0, 1 - share, 0)
            total, count = jnp.sum(values), reduce(jnp.sum(counted, dtype=values.dtype))
            weighted_total = weight * total if jnp.ndim(weight) == 0 else jnp.sum(weighted)
        loss += jnp.where(off, 0, weighted_total / jnp.maximum(count, 1))
        averages[name] = Average(total=reduce(jax.lax.stop_gradient(total)), count=count)
    return loss, averages


def _projected(student: Outputs, projection: jax.Array | None) -> Outputs:
    """The student's outputs with features of the teacher's length."""
    assert student.features is not None and projection is not None
    return dataclasses.replace(student, features=student.features @ projection)


def _example_weights(weight: jax.Array, labels: jax.Array) -> jax.Array:
    """A scalar weight unchanged, or of weights (classes,) the weight of each example's label, (batch,)."""
    return weight if jnp.ndim(weight) == 0 else weight[jnp.maximum(labels, 0)]
