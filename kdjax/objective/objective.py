"""The distillation objective, every term visible.

    L = w_ce·CE(y, s) + w_kl·T²·KL(softmax(t/T) ‖ softmax(s/T)) + w_cosine·(1 − cos(t, s)) + …

with student logits s, teacher logits t, labels y and temperature T. Hard cross-entropy plus Kullback-Leibler plus
cosine similarity is the objective of arXiv 2606.14886; the T² factor is that of Hinton et al., arXiv 1503.02531,
section 2. The paper's abstract does not say whether its cosine is taken on logits or on softened probabilities, so both
are terms. `terms` has them all.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from clu.metrics import Average

from kdjax.objective.outputs import Outputs
from kdjax.objective.terms import TERMS


@jax.default_matmul_precision("highest")  # by themselves TPUs round factors to bfloat16, GPUs to ten bits
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

    Terms that need a label are averaged over the labeled examples of the global batch, the others over all its
    examples, those over the batch over the classes. Counts are reduced over `axis_name`, sums are not: the loss is this
    device's *contribution*, and the sum of the contributions (and of their gradients) over the devices is the objective
    of the global batch.

    Where a hard term has a weight for each class, an example counts with that of its label, whoever else is in the
    batch: the weighted sum is divided by the number of labeled examples, not by the sum of their weights. For
    cross-entropy that is PyTorch's `CrossEntropyLoss(weight=w, reduction="sum")` over that number. Its
    `reduction="mean"` is the same where the weights of the batch have mean 1, as they have over an epoch.

    A term of weight 0 is still measured, but sends no gradient, so that it cannot turn another term's into NaN.

    Args:
        student: outputs of the student for (batch,) examples.
        teacher: those of the teacher, or None: then only terms without a teacher are measured. No gradient flows into
            it.
        labels: (batch,) int, −1 for unlabeled.
        weights: a scalar for each term that is measured, by its name in `TERMS`; or (classes,) for one that is `hard`.
        temperature: positive scalar.
        projection: (F, G), from the student's features to the teacher's, for the terms that are `projected`.
        mixed: where images are mixtures (mixup, arXiv 1710.09412), the labels of the second image, (batch,) int, and
            the share of the first, (batch,) in [0, 1]. Terms that need a label are then mixtures of both labels' terms.
        axis_name: mapped device axis, or None on one device.

    Returns:
        The contribution to the loss (scalar), and for each term its sum and count over the global batch, without any
        weights.
    """
    loss = jnp.zeros((), student.logits.dtype)
    averages = {}
    gathered = lambda x: x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)
    summed = lambda x: x if axis_name is None else jax.lax.psum(x, axis_name)
    teacher = jax.lax.stop_gradient(teacher)
    of_class = lambda weight, labels: weight if jnp.ndim(weight) == 0 else weight[jnp.maximum(labels, 0)]
    for name, term in TERMS.items():
        if name not in weights or (term.needs_teacher and teacher is None):
            continue
        weight = weights[name]
        off = jnp.all(weight == 0)
        said = student
        if term.projected:
            assert student.features is not None and projection is not None
            said = dataclasses.replace(student, features=student.features @ projection)
        heard = jax.tree.map(lambda x: jnp.where(off, jax.lax.stop_gradient(x), x), said)  # noqa: B023
        if term.over_batch:
            # Every device has the whole batch's value, and contributes its share of it.
            everyone = [jax.tree.map(gathered, one) for one in (heard, teacher, labels)]
            values = term.function(everyone[0], everyone[1], everyone[2], temperature)
            total, count = jnp.sum(values) / summed(1), jnp.full((), values.size, values.dtype)
            weighed = weight * total
        else:
            values = term.function(heard, teacher, labels, temperature)
            loads = of_class(weight, labels) * values
            counted = labels >= 0 if term.needs_labels else jnp.ones_like(labels, bool)
            if mixed is not None and term.needs_labels:
                other, share = mixed
                others = term.function(heard, teacher, other, temperature)
                values = share * values + (1 - share) * others
                loads = share * loads + (1 - share) * of_class(weight, other) * others
                counted = jnp.where(counted, share, 0) + jnp.where(other >= 0, 1 - share, 0)
            total, count = jnp.sum(values), summed(jnp.sum(counted, dtype=values.dtype))
            weighed = weight * total if jnp.ndim(weight) == 0 else jnp.sum(loads)
        loss += jnp.where(off, 0, weighed / jnp.maximum(count, 1))
        averages[name] = Average(total=summed(jax.lax.stop_gradient(total)), count=count)
    return loss, averages
