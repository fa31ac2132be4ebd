"""The train state of a population of students: everything a checkpoint holds.

Every leaf but `step` carries leading axes (seed, arm). A single network (the teacher) is a population of shape (1, 1).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from kdjax.networks.layers import images_for
from kdjax.runtime import compiling, keys

PROJECTION = "projection"
"""Name, among the parameters of a network in training, of the linear map from its features to the teacher's. The map
belongs to the objective; `without_projection` returns the parameters of the network alone."""


@struct.dataclass
class Best:
    """Each student's best evaluation so far, and the variables that were evaluated."""

    step: jax.Array
    """(seed, arm) int32: step of that evaluation, −1 before the first."""
    score: jax.Array
    """(seed, arm): the figure that evaluations are ranked by, a fraction, see `TrainingData.selected_by`; −1 before the
    first."""
    nll: jax.Array
    """(seed, arm): negative log-likelihood on validation, nats; infinite before the first."""
    params: Any
    batch_stats: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The evaluated variables, as `network.apply` takes them but with leading (seed, arm) axes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@struct.dataclass
class TrainState:
    """A population in training."""

    step: jax.Array
    """() int32: updates made. The only clock."""
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: dict[str, Any]
    """Exponential moving averages of `params` and `batch_stats` under these names, or {} if none are kept."""
    failed: jax.Array
    """(seed, arm) int32: the step whose loss or gradient was not finite, −1 if there was none. The student stays as it
    was before that step."""
    best: Best

    @property
    def alive(self) -> jax.Array:
        """(seed, arm) bool: which students still train."""
        return self.failed < 0

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that are evaluated and selected: the moving averages, if they are kept.

        Leaves lead with (seed, arm).
        """
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def initializer(network: nn.Module, image_size: int) -> Callable[[jax.Array], dict[str, Any]]:
    """A compiled function from a key to the initial variables of one network, under `params` and `batch_stats`.

    Args:
        network: flax module called as `network(images, train)`.
        image_size: side of the square input, px.
    """
    example = images_for(network, image_size)

    @jax.jit
    def initialized(key: jax.Array) -> dict[str, Any]:
        variables: Any = network.init(key, jnp.zeros(example.shape), train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    return initialized


def create(
    initialized: Callable[[jax.Array], dict[str, Any]],
    optimizer: Callable[..., Any],
    *,
    seeds: Sequence[int],
    arms: int,
    ema: bool = False,
    projection: tuple[int, int] | None = None,
    pretrained: Callable[[dict[str, Any]], dict[str, Any]] = lambda variables: variables,
) -> TrainState:
    """Initial state. Arms of one seed start alike; seeds differ in what `pretrained` leaves to be initialized.

    Args:
        initialized: from `initializer`. JAX traces it once, however many states are created with it.
        optimizer: as `optimizer.adamw` with its settings bound; only the layout of its state matters here.
        seeds: one integer a seed.
        arms: number of arms.
        ema: whether moving averages are kept.
        projection: feature lengths of student and teacher, if the objective maps student features to the teacher's.
        pretrained: takes the shapes and dtypes of the variables of one network, and returns them with arrays in place
            of the pretrained ones. The others are initialized.
    """
    loaded = pretrained(jax.eval_shape(initialized, keys.key(0)))
    missing = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)

    # Only what is missing: compiling a program that draws every weight of a MobileNetV2 takes seconds.
    @functools.partial(jax.jit, compiler_options=compiling.for_once())
    def initialize_missing(key: jax.Array) -> dict[str, Any]:
        return jax.tree.map(lambda leaf, new: new if missing(leaf) else None, loaded, initialized(key))

    def network(seed: int) -> dict[str, Any]:
        key = keys.key(seed)
        variables: dict[str, Any] = jax.tree.map(
            lambda leaf, new: new if missing(leaf) else leaf, loaded, initialize_missing(key)
        )
        if projection is None:
            return variables
        kernel = nn.initializers.lecun_normal()(jax.random.fold_in(key, 1), projection, jnp.zeros(()).dtype)
        return {**variables, "params": {**variables["params"], PROJECTION: {"kernel": kernel}}}

    # One program, because leaf by leaf each shape would be compiled on its own.
    @functools.partial(jax.jit, compiler_options=compiling.for_once())
    def population(networks: list[dict[str, Any]]) -> TrainState:
        def stack(*leaves: jax.Array) -> jax.Array:
            leaf = jnp.stack(leaves)[:, None]
            return jnp.broadcast_to(leaf, (len(seeds), arms, *leaf.shape[2:]))

        variables = jax.tree.map(stack, *networks)
        rows = (len(seeds), arms)
        dtype = jnp.zeros(()).dtype
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            # Copies, because the state is donated and no buffer may be donated twice.
            opt_state=jax.vmap(jax.vmap(optimizer(0.0, 0.0).init))(variables["params"]),
            ema=jax.tree.map(jnp.copy, variables) if ema else {},
            failed=jnp.full(rows, -1, jnp.int32),
            best=Best(
                step=jnp.full(rows, -1, jnp.int32),
                score=jnp.full(rows, -1, dtype),
                nll=jnp.full(rows, jnp.inf, dtype),
                **jax.tree.map(jnp.copy, variables),
            ),
            **variables,
        )

    return population([network(seed) for seed in seeds])


def without_projection(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the network alone."""
    return {name: leaf for name, leaf in params.items() if name != PROJECTION}


def rows_where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Selects, leaf by leaf, `new` where `condition` (seed, arm) holds and `old` elsewhere."""

    def select(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b)

    return jax.tree.map(select, new, old)


def update_best(state: TrainState, score: jax.Array, nll: jax.Array, *, latest: bool = False) -> TrainState:
    """The state with each student's best evaluation: the higher score, then the lower NLL, then the earlier one.

    Students that have failed keep the evaluation they have.

    Args:
        state: the state that was evaluated.
        score: (seed, arm) figure on validation, such as top-1, a fraction.
        nll: (seed, arm) validation negative log-likelihood, nats.
        latest: keeps this evaluation even if an earlier one was better.
    """
    best = state.best
    better = ((score > best.score) | ((score == best.score) & (nll < best.nll)) | latest) & state.alive
    new = Best(step=jnp.broadcast_to(state.step, score.shape), score=score, nll=nll, **state.variables)
    return dataclasses.replace(state, best=rows_where(better, new, best))
