"""A frozen encoder as a classifier: a linear head fitted to its features, and a vote of nearest neighbors.

Encoders are usually compared by multinomial regression with an L2 penalty ("linear probe", arXiv 2103.00020, appendix
A.3). The strength of the penalty is chosen on validation. The fit takes seconds, because every image goes through the
encoder once.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

STRENGTHS = tuple(10.0**power for power in np.arange(-5, 1.01, 0.5))
"""Penalties that are tried: factors of half the sum of squared weights of standardized features, which is added to the
mean cross-entropy."""

ITERATIONS, TOLERANCE = 300, 1e-5
"""L-BFGS ends after so many iterations, or once the norm of the gradient is below the tolerance."""

NEIGHBORS = 10

SIMILARITIES = 2**24
"""Number of similarities in memory at a time. With their indices they take a fifth of a gigabyte, however many tiles
there are."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted head: logits = features @ kernel + bias.

    Attributes:
        kernel: (F, classes) float32.
        bias: (classes,) float32.
        strength: the penalty that was best on validation.
        linear_top1: accuracy of the head on validation, a fraction.
        neighbors_top1: accuracy of the nearest neighbors on validation.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    linear_top1: float
    neighbors_top1: float

    @property
    def figures(self) -> dict[str, float]:
        """The strength and the two accuracies, by name."""
        return {name: getattr(self, name) for name in ("strength", "linear_top1", "neighbors_top1")}

    @property
    def words(self) -> str:
        """The accuracies on validation as a phrase for the log."""
        return (
            f"on validation a linear head is right on {100 * self.linear_top1:.2f} % (L2 {self.strength:.2g}), the "
            f"{NEIGHBORS} nearest neighbors on {100 * self.neighbors_top1:.2f} %"
        )


@functools.partial(jax.jit, static_argnames=("classes",))
@jax.default_matmul_precision("highest")  # at lower precision the gradient would not get below TOLERANCE
def regression(
    features: jax.Array,
    labels: jax.Array,
    strength: jax.Array | float,
    *,
    classes: int,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Minimizes mean cross-entropy + strength / 2 · ‖kernel‖² by optax's L-BFGS, starting from zero.

    Args:
        features: (n, F) float.
        labels: (n,) int in [0, classes).
        strength: strength of the penalty; the bias has none.
        classes: number of classes.
        weights: (classes,) float, the weight of an example of each class in the mean, whose divisor stays n; None
            weighs all examples 1.

    Returns:
        kernel (F, classes) and bias (classes,).
    """
    dtype = features.dtype

    def loss(params: tuple[jax.Array, jax.Array]) -> jax.Array:
        kernel, bias = params
        entropy = optax.softmax_cross_entropy_with_integer_labels(features @ kernel + bias[None], labels)
        if weights is not None:
            entropy *= weights[labels]
        return entropy.mean() + 0.5 * strength * jnp.sum(kernel**2)

    solver, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(loss)

    def step(carry: Any) -> Any:
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, updates), state

    def unfinished(carry: Any) -> jax.Array:
        count, grad = (optax.tree.get(carry[1], name) for name in ("count", "grad"))
        return (count == 0) | ((count < ITERATIONS) & (optax.tree.norm(grad) > TOLERANCE))

    start = jnp.zeros((features.shape[1], classes), dtype), jnp.zeros((classes,), dtype)
    return jax.lax.while_loop(unfinished, step, (start, solver.init(start)))[0]


def nearest(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, count: int = NEIGHBORS) -> np.ndarray:
    """Labels by majority vote of the `count` examples of highest cosine similarity. Ties go to the more similar ones.

    Args:
        features: (n, F) float, the features of the labeled examples.
        labels: (n,) int.
        queries: (m, F) float, the features to label.
        count: number of neighbors; all examples if there are fewer.

    Returns:
        (m,) int, the labels of the queries.
    """
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    directions, query_directions = unit(features), unit(queries)
    chunk, count = max(1, SIMILARITIES // len(features)), min(count, len(features))

    def most_similar(block: np.ndarray) -> np.ndarray:
        similarities = block @ directions.T
        indices = np.argpartition(similarities, len(features) - count, axis=1)[:, len(features) - count :]
        order = np.argsort(-np.take_along_axis(similarities, indices, 1), axis=1)
        return np.take_along_axis(indices, order, 1)

    starts = range(0, len(queries), chunk)
    neighbors = np.concatenate([most_similar(query_directions[start : start + chunk]) for start in starts])
    votes, rows = np.zeros((len(queries), labels.max() + 1)), np.arange(len(queries))
    for rank in range(neighbors.shape[1]):
        # More similar neighbors get a larger bonus, which breaks ties; all bonuses together never outweigh a vote.
        votes[rows, labels[neighbors[:, rank]]] += 1 + 1e-3 / (1 + rank) / count
    return votes.argmax(1)


def probe(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    *,
    classes: int,
    weights: Sequence[float] = (),
    selected_by: str = "top1",
) -> Probe:
    """Fits a head for each of `STRENGTHS`, and returns the best on validation: by `selected_by`, then by cross-entropy.

    For the fit, features are standardized by the training examples; the resulting head takes them unstandardized.

    Args:
        train: features (n, F) and labels (n,) of the labeled training examples.
        validation: features and labels of the examples that choose the strength.
        classes: number of classes.
        weights: class weights of the fit, see `regression`; () = all 1. Validation is measured without weights.
        selected_by: the figure by which validation chooses the strength, "top1" or "macro_recall".
    """
    features, labels = train
    # In float64: a float32 mean of thousands is off by more than a feature's rounding, so constants would seem to vary.
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * np.abs(features).max(0), deviation, np.inf)  # constant features become 0
    standardized = jnp.asarray(((features - mean) / deviation).astype(features.dtype))
    targets = jnp.asarray(labels)
    queries, truth = validation
    class_weights = jnp.asarray(weights, standardized.dtype) if len(weights) else None
    best: tuple[tuple[float, float], Probe] | None = None
    neighbors_top1 = float((nearest(features, labels, queries) == truth).mean())
    for strength in STRENGTHS:
        fitted = regression(standardized, targets, strength, classes=classes, weights=class_weights)
        kernel, bias = map(np.asarray, fitted)
        kernel = kernel / deviation[:, None]
        bias = (bias - mean @ kernel).astype(np.float32)
        kernel = kernel.astype(np.float32)
        logits = queries @ kernel + bias
        correct = logits.argmax(1) == truth
        recalls = [correct[truth == label].mean() for label in np.unique(truth)]
        top1 = float(correct.mean())
        score = top1 if selected_by == "top1" else float(np.mean(recalls))
        nll = float(optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean())
        if best is None or (score, -nll) > best[0]:
            best = (score, -nll), Probe(kernel, bias, strength, top1, neighbors_top1)
    assert best is not None
    return best[1]
