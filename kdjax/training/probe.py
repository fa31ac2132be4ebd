"""A frozen encoder as classifier: a linear head fitted to its features, and what its nearest neighbors say.

Multinomial regression with an L2 penalty is how encoders are compared ("linear probe", arXiv 2103.00020, appendix A.3);
its strength is chosen on validation. It takes seconds, because every image goes through the encoder once.
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
"""Penalties that are tried, per squared weight of standardized features and mean cross-entropy."""

ITERATIONS, TOLERANCE = 300, 1e-5
"""L-BFGS ends after so many iterations, or where the gradient's norm is below."""

NEIGHBORS = 10

SIMILARITIES = 2**24
"""So many are held at a time: with their places a fifth of a gigabyte, however many tiles there are."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted head: logits = features @ kernel + bias.

    Attributes:
        kernel: (F, classes) float32.
        bias: (classes,) float32.
        strength: the penalty that was best on validation.
        linear_top1: accuracy of the head on validation, a fraction.
        neighbors_top1: accuracy of the nearest neighbors there.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    linear_top1: float
    neighbors_top1: float

    @property
    def figures(self) -> dict[str, float]:
        """Its numbers, to be kept beside it."""
        return {name: getattr(self, name) for name in ("strength", "linear_top1", "neighbors_top1")}

    @property
    def words(self) -> str:
        """How it does on validation."""
        return (
            f"on validation a linear head is right on {100 * self.linear_top1:.2f} % (L2 {self.strength:.2g}), the "
            f"{NEIGHBORS} nearest neighbors on {100 * self.neighbors_top1:.2f} %"
        )


@functools.partial(jax.jit, static_argnames=("classes",))
@jax.default_matmul_precision("highest")  # rounded by TPUs or GPUs, no gradient would come below TOLERANCE
def regression(
    features: jax.Array,
    labels: jax.Array,
    strength: jax.Array | float,
    *,
    classes: int,
    weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The minimum of mean cross-entropy + strength / 2 · ‖kernel‖², by optax's L-BFGS from zero.

    Args:
        features: (n, F) float.
        labels: (n,) int in [0, classes).
        strength: of the penalty; the bias has none.
        classes: number of classes.
        weights: (classes,) float, what an example of each counts for in the mean, whose divisor stays n; None = all 1.

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
    """What the `count` examples of the most similar direction say, by majority; of equally many, the more similar.

    Args:
        features: (n, F) float, of labeled examples.
        labels: (n,) int.
        queries: (m, F) float.
        count: of neighbors; all where there are fewer.

    Returns:
        (m,) int, labels.
    """
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    directions, asked = unit(features), unit(queries)
    each, count = max(1, SIMILARITIES // len(features)), min(count, len(features))

    def most_similar(some: np.ndarray) -> np.ndarray:
        similarities = some @ directions.T
        places = np.argpartition(similarities, len(features) - count, axis=1)[:, len(features) - count :]
        order = np.argsort(-np.take_along_axis(similarities, places, 1), axis=1)
        return np.take_along_axis(places, order, 1)

    chosen = np.concatenate([most_similar(asked[first : first + each]) for first in range(0, len(queries), each)])
    votes, rows = np.zeros((len(queries), labels.max() + 1)), np.arange(len(queries))
    for place in range(chosen.shape[1]):
        # Similarities are at most 1: together they never outweigh a vote.
        picked = chosen[:, place]
        votes[rows, labels[picked]] += 1 + 1e-3 / (1 + place) / count
    return votes.argmax(1)


def probe(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    *,
    classes: int,
    weights: Sequence[float] = (),
    selected_by: str = "top1",
) -> Probe:
    """The head that is best on validation: by `selected_by`, then by cross-entropy.

    Features are standardized by the training examples for the fit; the head takes them as they are.

    Args:
        train: features (n, F) and labels (n,) of the labeled training examples.
        validation: those that choose the strength.
        classes: number of classes.
        weights: of the classes in the fit, see `regression`; () = all 1. What is measured on validation has none.
        selected_by: what validation chooses the strength by, "top1" or "macro_recall".
    """
    features, labels = train
    # In float64: a float32 mean of thousands is off by more than a feature's rounding, and a constant seems to vary.
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * np.abs(features).max(0), deviation, np.inf)  # a constant says nothing
    standardized = jnp.asarray(((features - mean) / deviation).astype(features.dtype))
    given = jnp.asarray(labels)
    shown, truth = validation
    by_class = jnp.asarray(weights, standardized.dtype) if len(weights) else None
    best: tuple[tuple[float, float], Probe] | None = None
    neighbors = float((nearest(features, labels, shown) == truth).mean())
    for strength in STRENGTHS:
        kernel, bias = map(np.asarray, regression(standardized, given, strength, classes=classes, weights=by_class))
        kernel = kernel / deviation[:, None]
        bias = (bias - mean @ kernel).astype(np.float32)
        kernel = kernel.astype(np.float32)
        logits = shown @ kernel + bias
        right = logits.argmax(1) == truth
        recalls = [right[truth == label].mean() for label in np.unique(truth)]
        top1 = float(right.mean())
        score = top1 if selected_by == "top1" else float(np.mean(recalls))
        nll = float(optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean())
        if best is None or (score, -nll) > best[0]:
            fitted = Probe(kernel, bias, strength, top1, neighbors)
            best = (score, -nll), fitted
    assert best is not None
    return best[1]
