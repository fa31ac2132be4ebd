"""The terms of the objective, one function each, and their registry.

A term of single examples has values (batch,), which no function here averages. Terms over the batch take the outputs of
the whole batch: those that compare each class over the batch have values (classes,), those that compare pairs of
examples (batch, batch).

Softmax ignores an offset common to all logits of an example, but the cosine of raw logits does not: the term "cosine"
also asks the student to copy the teacher's offset, "cosine_probabilities" does not.

To add a term: write its function, add it to `TERMS`, compare it with NumPy in tests/objective/test_terms.py.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.objective.outputs import Outputs


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Hard cross-entropy −log softmax(logits)[label], in nats.

    Args:
        logits: (..., classes) float.
        labels: (...) int; −1 marks an unlabeled example.

    Returns:
        (...) float, one value an example, 0 where unlabeled.
    """
    labeled = labels >= 0
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.where(labeled, labels, 0)[..., None], axis=-1)
    return jnp.where(labeled, -log_probability[..., 0], 0)


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

    A vector of norm below 1e-12 has no direction, so it is divided by 1 instead of its norm: its distance is then 1 and
    its gradient finite. (`optax.cosine_distance` with its default epsilon has a NaN gradient at zero.)

    Args:
        teacher: (..., n) float, such as logits, probabilities or features.
        student: (..., n) float.

    Returns:
        (...) float in [0, 2].
    """

    def unit(x: jax.Array) -> jax.Array:
        square = jnp.sum(x * x, axis=-1, keepdims=True)
        return x / jnp.sqrt(jnp.where(square > 1e-24, square, 1))

    return 1 - jnp.sum(unit(teacher) * unit(student), axis=-1)


ROUNDING = 64
"""Units in the last place up to which values count as equal: rounding errors of sums, and of logits of a hundred."""


def _rounding(square: jax.Array) -> jax.Array:
    """The largest sum of squared differences that rounding alone causes in values with these sums of squares."""
    return (ROUNDING * jnp.finfo(square.dtype).eps) ** 2 * square


def deviations(x: jax.Array) -> jax.Array:
    """Deviations of `x` from its mean, divided by their norm, along the last axis.

    Deviations due to rounding alone have no direction, so they are divided by 1 instead: gradients through them stay
    finite, and point to where the values come to differ.
    """
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    centered = centered - jnp.mean(centered, axis=-1, keepdims=True)  # again, because the first mean is rounded
    square = jnp.sum(centered**2, axis=-1, keepdims=True)
    tolerance = jnp.maximum(1e-24, _rounding(jnp.sum(x**2, axis=-1, keepdims=True)))
    return centered / jnp.sqrt(jnp.where(square > tolerance, square, 1))


def standardized(logits: jax.Array) -> jax.Array:
    """Logits minus their mean, divided by their standard deviation (n − 1), along the last axis.

    The Z-score of "Logit Standardization in Knowledge Distillation", arXiv 2403.01427, equation 11, without its
    temperature: the student's logits need not be as large as the teacher's.
    """
    return math.sqrt(logits.shape[-1] - 1) * deviations(logits)


def _log_target_and_others(
    logits: jax.Array, labels: jax.Array, temperature: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log probabilities of the labeled class and of all others together, (batch,), and of each class among the others.

    The last are (batch, classes), with a huge negative number at the labeled class.
    """
    scaled = logits / temperature
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jnp.where(target, jnp.finfo(logits.dtype).min / 4, scaled)
    log_sum = jax.nn.logsumexp(scaled, axis=-1)
    log_target = jnp.sum(jnp.where(target, scaled, 0), axis=-1) - log_sum
    return log_target, jax.nn.logsumexp(others, axis=-1) - log_sum, jax.nn.log_softmax(others)


def target_class(
    teacher_logits: jax.Array, student_logits: jax.Array, labels: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """KL divergence of (p, 1 − p), where p is the softened probability of the labeled class, without the factor T².

    The target-class term of "Decoupled Knowledge Distillation", arXiv 2203.08679, equation 6.

    Args:
        teacher_logits: (batch, classes) float.
        student_logits: (batch, classes) float.
        labels: (batch,) int; −1 marks an unlabeled example.
        temperature: positive scalar.

    Returns:
        (batch,) float ≥ 0, in nats, 0 where unlabeled.
    """
    teacher = jnp.stack(_log_target_and_others(teacher_logits, jnp.maximum(labels, 0), temperature)[:2], axis=-1)
    student = jnp.stack(_log_target_and_others(student_logits, jnp.maximum(labels, 0), temperature)[:2], axis=-1)
    return jnp.where(labels >= 0, jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1), 0)


def other_classes(
    teacher_logits: jax.Array, student_logits: jax.Array, labels: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """KL divergence among the classes that are not the label, without the factor T².

    The non-target-class term of arXiv 2203.08679, equation 6, without the weight that it has in Hinton's KL, the
    teacher's 1 − p. Arguments and result are those of `target_class`.
    """
    teacher = _log_target_and_others(teacher_logits, jnp.maximum(labels, 0), temperature)[2]
    student = _log_target_and_others(student_logits, jnp.maximum(labels, 0), temperature)[2]
    return jnp.where(labels >= 0, jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1), 0)


def correlation_distance(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """1 − Pearson's correlation along the last axis, the cosine distance of the `deviations`.

    On softened probabilities of an example over the classes it is DIST's inter-class term, on those of a class over the
    batch its intra-class term: "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536, equations 8 and 9.
    """
    return 1 - jnp.sum(deviations(teacher) * deviations(student), axis=-1)


def relative_distances(features: jax.Array) -> jax.Array:
    """Euclidean distances of all pairs, divided by the mean of the distances that are not zero.

    Args:
        features: (batch, F) float.

    Returns:
        (batch, batch) float ≥ 0; zero, with zero gradient, for two examples that are equal up to rounding.
    """
    square = jnp.sum((features[:, None] - features[None, :]) ** 2, axis=-1)
    square_norms = jnp.sum(features**2, axis=-1)
    differ = square > jnp.maximum(1e-12, _rounding(square_norms[:, None] + square_norms[None, :]))
    distances = jnp.where(differ, jnp.sqrt(jnp.where(differ, square, 1)), 0)
    mean = jnp.sum(distances) / jnp.maximum(jnp.sum(differ), 1)
    return distances / jnp.where(mean > 0, mean, 1)


def relational_distance(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Huber loss (δ = 1) between the relative distances of all pairs of examples.

    The distance-wise term of "Relational Knowledge Distillation", arXiv 1904.05068, equations 4 to 6. Only distances
    are compared, so the features of teacher and student need not be equally long.

    Args:
        teacher: (batch, F) float.
        student: (batch, G) float.

    Returns:
        (batch, batch) float ≥ 0.
    """
    difference = jnp.abs(relative_distances(student) - relative_distances(teacher))
    return jnp.where(difference < 1, 0.5 * difference**2, difference - 0.5)


def similarity_difference(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Squared differences between the similarities of all pairs of examples.

    Their mean is the loss of "Similarity-Preserving Knowledge Distillation", arXiv 1907.09682, equations 2 to 4. The
    similarities are inner products of features, with each row divided by its norm.

    Args:
        teacher: (batch, F) float.
        student: (batch, G) float.

    Returns:
        (batch, batch) float ≥ 0.
    """

    def similarities(features: jax.Array) -> jax.Array:
        products = features @ features.T
        square = jnp.sum(products**2, axis=-1, keepdims=True)
        return products / jnp.sqrt(jnp.where(square > 1e-24, square, 1))

    return (similarities(student) - similarities(teacher)) ** 2


# In the functions below, `teacher` is `Outputs`, or None for a term that needs no teacher.


def _softened(outputs: Outputs, temperature: jax.Array) -> jax.Array:
    return jax.nn.softmax(outputs.logits / temperature)


def _ce(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return cross_entropy(student.logits, labels)


def _kl(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return temperature**2 * kl_divergence(teacher.logits, student.logits, temperature)


def _cosine(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return cosine_distance(teacher.logits, student.logits)


def _cosine_probabilities(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return cosine_distance(_softened(teacher, temperature), _softened(student, temperature))


def _kl_standardized(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return temperature**2 * kl_divergence(standardized(teacher.logits), standardized(student.logits), temperature)


def _target_class(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return temperature**2 * target_class(teacher.logits, student.logits, labels, temperature)


def _other_classes(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return temperature**2 * other_classes(teacher.logits, student.logits, labels, temperature)


def _dist_inter(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return temperature**2 * correlation_distance(_softened(teacher, temperature), _softened(student, temperature))


def _dist_intra_batch(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return temperature**2 * correlation_distance(_softened(teacher, temperature).T, _softened(student, temperature).T)


def _cosine_batch(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    """The cosine distance of each class's softened probabilities over the batch.

    From "Cosine Similarity Knowledge Distillation for Individual Class Information Transfer", arXiv 2311.14307, at one
    temperature (its temperature by similarity is left out).
    """
    return cosine_distance(_softened(teacher, temperature).T, _softened(student, temperature).T)


def _features_cosine(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    """Compares only the direction of features, as arXiv 2305.17007 does (there, with the teacher's class means)."""
    return cosine_distance(teacher.features, student.features)


def _features_mse(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    """As in "Knowledge Distillation with the Reused Teacher Classifier", arXiv 2203.14001, equation 2."""
    return jnp.mean((teacher.features - student.features) ** 2, axis=-1)


def _relational_distance(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return relational_distance(teacher.features, student.features)


def _similarity(student: Outputs, teacher: Any, labels: jax.Array, temperature: jax.Array) -> jax.Array:
    return similarity_difference(teacher.features, student.features)


@dataclasses.dataclass(frozen=True)
class Term:
    """A term of the objective.

    Attributes:
        function: (student outputs, teacher outputs, labels (batch,), temperature) -> values, with the factor T² if the
            term has one. The teacher's outputs are None if there is no teacher.
        title: the term's name for people, with its unit.
        needs_teacher: whether it compares with the teacher.
        needs_labels: whether it needs an example's label. It is then averaged over the labeled examples only.
        needs_features: whether it reads the pooled features of student and teacher.
        projected: whether it reads the student's features through a trained linear map to the teacher's.
        over_batch: whether its values are over the whole batch, (classes,) or (batch, batch), not (batch,).
        needs_three_classes: whether its gradient is 0 if there are only two classes.
        softened: whether it depends on the temperature.
    """

    function: Callable[[Outputs, Any, jax.Array, jax.Array], jax.Array]
    title: str
    needs_teacher: bool = True
    needs_labels: bool = False
    needs_features: bool = False
    projected: bool = False
    over_batch: bool = False
    needs_three_classes: bool = False
    softened: bool = False

    @property
    def hard(self) -> bool:
        """Whether its target is the label. Only then do class weights apply: the teacher was trained with them."""
        return self.needs_labels and not self.needs_teacher


Softened = functools.partial(Term, softened=True)

CORE = ("ce", "kl", "cosine")
"""The terms of arXiv 2606.14886. They are measured in every run; the others are if an arm gives them a weight."""

TERMS: dict[str, Term] = {
    "ce": Term(_ce, "Cross-entropy on the labels, nats", needs_teacher=False, needs_labels=True),
    "kl": Softened(_kl, "KL to the teacher, × T²"),
    "cosine": Term(_cosine, "Cosine distance to the teacher"),
    "cosine_probabilities": Softened(_cosine_probabilities, "Cosine distance of softened probabilities"),
    "kl_standardized": Softened(_kl_standardized, "KL of standardized logits, × T²", needs_three_classes=True),
    "target_class": Softened(_target_class, "KL of the labeled class, × T²", needs_labels=True),
    "other_classes": Softened(
        _other_classes, "KL among the other classes, × T²", needs_labels=True, needs_three_classes=True
    ),
    "dist_inter": Softened(_dist_inter, "Correlation distance over classes, × T²", needs_three_classes=True),
    "dist_intra_batch": Softened(_dist_intra_batch, "Correlation distance over the batch, × T²", over_batch=True),
    "cosine_batch": Softened(_cosine_batch, "Cosine distance over the batch", over_batch=True),
    "features_cosine": Term(_features_cosine, "Cosine distance of features", needs_features=True, projected=True),
    "features_mse": Term(_features_mse, "Squared error of features", needs_features=True, projected=True),
    "relational_distance": Term(
        _relational_distance, "Relational distance of features", needs_features=True, over_batch=True
    ),
    "similarity": Term(_similarity, "Difference of similarities of features", needs_features=True, over_batch=True),
}
"""All terms by name, in the order in which they are logged."""
