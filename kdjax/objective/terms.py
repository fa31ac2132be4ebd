"""The terms of the objective: what a student can be asked for, one function each.

Terms of one example have values (batch,) that no function here averages. Terms that compare a class over the batch have
values (classes,); their names end in "_batch", and their logits are those of the whole batch.

Softmax ignores an offset common to all logits of an example. The cosine of raw logits does not: with
`cosine_on="logits"` the student is also asked to copy the teacher's offset.
"""

import jax
import jax.numpy as jnp

CORE = ("ce", "kl", "cosine")
"""The terms of arXiv 2606.14886. They are measured in every run."""

FURTHER = ("kl_standardised", "target_class", "other_classes", "dist_inter", "dist_intra_batch", "cosine_batch")
"""Terms that are measured where an arm gives them a weight."""

TERMS = (*CORE, *FURTHER)
"""Names of all terms, in the order in which they are logged. All but "ce" need teacher logits."""

BATCH_TERMS = ("dist_intra_batch", "cosine_batch")
LABELLED_TERMS = ("ce", "target_class", "other_classes")
"""Terms that need an example's label, and leave out unlabelled ones."""

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


def standardised(logits: jax.Array) -> jax.Array:
    """Logits less their mean, over their standard deviation (n − 1), along the last axis; zeros where all are equal.

    The Z-score of "Logit Standardization in Knowledge Distillation", arXiv 2403.01427, equation 11, without its
    temperature: a student need not have logits as large as the teacher's.
    """
    centred = logits - jnp.mean(logits, axis=-1, keepdims=True)
    variance = jnp.sum(centred**2, axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return centred / jnp.sqrt(jnp.where(variance > 1e-14, variance, 1))


def _log_target_and_others(
    logits: jax.Array, labels: jax.Array, temperature: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log probability of the labelled class and of all others together, (batch,), and of each among the others.

    The last is far below any logit at the labelled class.
    """
    scaled = logits / temperature
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jnp.where(target, jnp.finfo(logits.dtype).min / 4, scaled)
    total = jax.nn.logsumexp(scaled, axis=-1)
    log_target = jnp.sum(jnp.where(target, scaled, 0), axis=-1) - total
    return log_target, jax.nn.logsumexp(others, axis=-1) - total, jax.nn.log_softmax(others)


def target_class(
    teacher_logits: jax.Array, student_logits: jax.Array, labels: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """KL divergence of (p, 1 − p), p being the softened probability of the labelled class, without the factor T².

    The target-class term of "Decoupled Knowledge Distillation", arXiv 2203.08679, equation 6.

    Args:
        teacher_logits: (batch, classes) float.
        student_logits: (batch, classes) float.
        labels: (batch,) int; −1 marks an unlabelled example.
        temperature: positive scalar.

    Returns:
        (batch,) float ≥ 0, in nats, 0 where unlabelled.
    """
    teacher = jnp.stack(_log_target_and_others(teacher_logits, jnp.maximum(labels, 0), temperature)[:2], axis=-1)
    student = jnp.stack(_log_target_and_others(student_logits, jnp.maximum(labels, 0), temperature)[:2], axis=-1)
    return jnp.where(labels >= 0, jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1), 0)


def other_classes(
    teacher_logits: jax.Array, student_logits: jax.Array, labels: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """KL divergence among the classes that are not the label, without the factor T².

    The non-target-class term of arXiv 2203.08679, equation 6, with a weight of its own: in Hinton's KL it has the
    teacher's 1 − p. Arguments and result as for `target_class`.
    """
    teacher = _log_target_and_others(teacher_logits, jnp.maximum(labels, 0), temperature)[2]
    student = _log_target_and_others(student_logits, jnp.maximum(labels, 0), temperature)[2]
    divergence = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
    return jnp.where(labels >= 0, divergence, 0)


def correlation_distance(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """1 − Pearson's correlation along the last axis, as `cosine_distance` of what differs from the mean.

    Of softened probabilities over the classes of an example it is DIST's inter-class term, of those of a class over the
    batch its intra-class term: "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536, equations 8 and 9.
    """
    centred = lambda x: x - jnp.mean(x, axis=-1, keepdims=True)
    return cosine_distance(centred(teacher), centred(student))


def of_examples(
    name: str,
    teacher_logits: jax.Array | None,
    student_logits: jax.Array,
    labels: jax.Array,
    temperature: jax.Array,
    *,
    cosine_on: str,
) -> jax.Array:
    """A term of one example by its name, with its factor T² where it has one.

    Args:
        name: one of `TERMS` that is not in `BATCH_TERMS`.
        teacher_logits: (batch, classes) float; may be None for "ce".
        student_logits: (batch, classes) float.
        labels: (batch,) int, −1 for unlabelled.
        temperature: positive scalar.
        cosine_on: what "cosine" is taken on, one of `COSINE_ON`.

    Returns:
        (batch,) float.
    """
    softened = lambda logits: jax.nn.softmax(logits / temperature)
    square = temperature**2
    if name == "ce":
        return cross_entropy(student_logits, labels)
    if name == "kl":
        return square * kl_divergence(teacher_logits, student_logits, temperature)
    if name == "cosine" and cosine_on == "logits":
        return cosine_distance(teacher_logits, student_logits)
    if name == "cosine" and cosine_on == "probabilities":
        return cosine_distance(softened(teacher_logits), softened(student_logits))
    if name == "kl_standardised":
        return square * kl_divergence(standardised(teacher_logits), standardised(student_logits), temperature)
    if name == "target_class":
        return square * target_class(teacher_logits, student_logits, labels, temperature)
    if name == "other_classes":
        return square * other_classes(teacher_logits, student_logits, labels, temperature)
    if name == "dist_inter":
        return square * correlation_distance(softened(teacher_logits), softened(student_logits))
    raise ValueError(f"unknown term {name!r} or cosine_on {cosine_on!r}")


def of_batch(name: str, teacher_logits: jax.Array, student_logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """A term that compares each class over the whole batch by its name, with its factor T² where it has one.

    "dist_intra_batch" is described at `correlation_distance`. "cosine_batch" is the cosine distance of a class's
    softened probabilities over the batch, from "Cosine Similarity Knowledge Distillation for Individual Class
    Information Transfer", arXiv 2311.14307, at one temperature (its temperature by similarity is left out).

    Args:
        name: one of `BATCH_TERMS`.
        teacher_logits: (whole batch, classes) float.
        student_logits: (whole batch, classes) float.
        temperature: positive scalar.

    Returns:
        (classes,) float.
    """
    teacher, student = (jax.nn.softmax(logits / temperature).T for logits in (teacher_logits, student_logits))
    if name == "dist_intra_batch":
        return temperature**2 * correlation_distance(teacher, student)
    if name == "cosine_batch":
        return cosine_distance(teacher, student)
    raise ValueError(f"unknown term {name!r}")
