"""The steps: pure functions of arrays, written for one device of a mapped axis.

`axis_name` names that axis, or is None on one device. `parallel.Mapping.map` supplies it. A step over several devices
computes what it computes on one, up to rounding: sums and counts are reduced apart, BatchNorm takes the moments of the
global batch, and random bits are keyed by the place in the global batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu.metrics import Average
from flax import struct

from kdjax.inputs import augment
from kdjax.objective import objective
from kdjax.training.state import Hyperparameters, TrainState, rows_where


@struct.dataclass
class Examples:
    """A split in device memory, a whole copy on every device."""

    images: jax.Array | None
    """(examples, side, side, 3) uint8, or None where the plan brings the images along."""
    labels: jax.Array
    """(examples,) int32, −1 for unlabelled."""
    teacher_logits: jax.Array | None = None
    """(views, examples, classes) float32, or None."""
    data_seed: jax.Array | int = 0
    """() int32, which keys the views."""


@struct.dataclass
class PlanStep:
    """What a step trains on: this device's share, with leading axes (seed, batch), or (step, seed, batch)."""

    examples: jax.Array
    """int32 index into the training split."""
    views: jax.Array
    """int32 view of that example, which fixes its augmentation."""
    places: jax.Array
    """int32 place in the global batch, which keys the dropout."""
    partners: jax.Array | None = None
    """int32 index of the example that each is mixed with, or None."""
    partner_views: jax.Array | None = None
    """int32 view of the partner, or None."""
    images: jax.Array | None = None
    """(…, side, side, 3) uint8 of these examples where they are not in device memory, else None."""
    partner_images: jax.Array | None = None
    """The same of the partners."""


@struct.dataclass
class Batch:
    """Network inputs and targets with leading axes (seed, batch)."""

    images: jax.Array
    """(seed, batch, size, size, 3) float in [0, 1]."""
    labels: jax.Array
    """(seed, batch) int32."""
    teacher_logits: jax.Array | None
    """(seed, batch, classes) float, or None."""
    keys: jax.Array
    """(seed, batch) PRNG keys for dropout, shared by the arms of a seed."""
    mixed: tuple[jax.Array, jax.Array] | None = None
    """Labels of the second image and share of the first, (seed, batch) each, where images are mixtures."""


def view_keys(data_seed: jax.Array | int, examples: jax.Array, views: jax.Array) -> jax.Array:
    """Augmentation keys of (data seed, example, view); `examples` and `views` are int arrays of one shape."""
    root = jax.random.key(data_seed)
    fold = jnp.vectorize(lambda example, view: jax.random.fold_in(jax.random.fold_in(root, example), view))
    return fold(examples, views)


def dropout_keys(seeds: jax.Array, step: jax.Array, places: jax.Array) -> jax.Array:
    """Dropout keys of (seed, step, place in the global batch): seeds (seed,), places (seed, batch)."""

    def one(seed: jax.Array, row: jax.Array) -> jax.Array:
        root = jax.random.fold_in(jax.random.key(seed), step)
        return jax.vmap(lambda place: jax.random.fold_in(root, place))(row)

    return jax.vmap(one)(seeds, places)


def mixing_shares(keys: jax.Array, alpha: float) -> jax.Array:
    """Shares of the first image in a mixture, from Beta(alpha, alpha): keys (...) to (...) float32 in [0, 1]."""
    draw = lambda key: jax.random.beta(jax.random.fold_in(key, 1 << 16), alpha, alpha, dtype=jnp.float32)
    return jnp.vectorize(draw)(keys)  # 1 << 16: far from the numbers of dropout layers


def render(images: jax.Array, keys: jax.Array, size: int) -> jax.Array:
    """Augmented views: images (..., side, side, 3) uint8 and keys (...) to (..., size, size, 3) float in [0, 1]."""
    transform = lambda image, key: augment.augment(image, key, size, dtype=jnp.result_type(float))
    for _ in range(keys.ndim):
        transform = jax.vmap(transform)
    return transform(images, keys)


def eval_views(images: jax.Array, size: int) -> jax.Array:
    """Plainly resized images: (batch, side, side, 3) uint8 to (batch, size, size, 3) float in [0, 1]."""
    return jax.vmap(lambda image: augment.eval_view(image, size, dtype=jnp.result_type(float)))(images)


def teacher_logits(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Logits of a frozen teacher, without gradient.

    Args:
        model: the teacher.
        variables: its variables, without population axes.
        images: (..., size, size, 3) float in [0, 1].

    Returns:
        (..., classes) float.
    """
    flat = images.reshape((-1, *images.shape[-3:]))
    logits = model.apply(variables, flat, train=False)
    return jax.lax.stop_gradient(logits.reshape((*images.shape[:-3], -1)))


def train_step(
    state: TrainState,
    batch: Batch,
    hyper: Hyperparameters,
    *,
    model: nn.Module,
    optimiser: Callable[[jax.Array, jax.Array], optax.GradientTransformation],
    schedule: optax.Schedule,
    cosine_on: str,
    ema: float = 0.0,
    arms_at_once: int | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Average]]:
    """One update of every student of the population on its seed's batch.

    A student whose loss or gradient is not finite, judged after the reduction over devices, keeps its last good
    variables and is marked as failed at this step.

    Args:
        state: leaves lead with (seed, arm).
        batch: this device's share, leaves lead with (seed, batch).
        hyper: leaves lead with (arm,).
        model: the network.
        optimiser: from learning rate and weight decay to an optax transformation.
        schedule: factor on the learning rate as a function of `state.step`.
        cosine_on: see `losses.objective`.
        ema: decay of the moving averages of parameters and statistics, for a state that keeps them. In step n (from 0)
            it is min(ema, (1 + n) / (10 + n)), so that the first parameters are soon forgotten.
        arms_at_once: None computes all students side by side; a number computes one seed after the other, so many of
            its arms side by side, in the memory of so many students.
        axis_name: mapped device axis.

    Returns:
        The new state, and for "loss", "grad_norm" and each term an `Average` of (seed, arm) leaves over the global
        batch.
    """
    model = model.clone(axis_name=axis_name)

    def update(params, batch_stats, opt_state, images, labels, targets, keys, mixed, hyper):
        def contribution(params):
            logits, mutated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                example_keys=keys,
                mutable=["batch_stats"],
            )
            loss, averages = objective.objective(
                logits,
                targets,
                labels,
                hyper.weights,
                hyper.temperature,
                cosine_on=cosine_on,
                mixed=mixed,
                axis_name=axis_name,
            )
            return loss, (averages, mutated.get("batch_stats", {}))

        (loss, (averages, new_stats)), grads = jax.value_and_grad(contribution, has_aux=True)(params)
        if axis_name is not None:
            loss, grads = jax.lax.psum((loss, grads), axis_name)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        transformation = optimiser(hyper.learning_rate * schedule(state.step), hyper.weight_decay)
        updates, opt_state = transformation.update(grads, opt_state, params)
        one = jnp.ones((), loss.dtype)
        averages |= {"loss": Average(total=loss, count=one), "grad_norm": Average(total=grad_norm, count=one)}
        return optax.apply_updates(params, updates), new_stats, opt_state, finite, averages

    rows = (state.params, state.batch_stats, state.opt_state)
    shared = (batch.images, batch.labels, batch.teacher_logits, batch.keys, batch.mixed)
    if arms_at_once is None:
        over_arms = jax.vmap(update, in_axes=(0, 0, 0, None, None, None, None, None, 0))
        over_seeds = jax.vmap(over_arms, in_axes=(0, 0, 0, 0, 0, 0, 0, 0, None))
        *new_rows, finite, averages = over_seeds(*rows, *shared, hyper)
    else:

        def one_seed(seed):
            rows, shared = seed
            one = lambda student: update(*student[0], *shared, student[1])
            return jax.lax.map(one, (rows, hyper), batch_size=arms_at_once if arms_at_once > 1 else None)

        *new_rows, finite, averages = jax.lax.map(one_seed, (rows, shared))
    failed = jnp.where(state.alive & ~finite, state.step, state.failed)
    params, batch_stats, opt_state = rows_where(failed < 0, tuple(new_rows), rows)
    if state.ema:
        decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
        averaged = jax.tree.map(
            lambda mean, new: (decay * mean + (1 - decay) * new).astype(mean.dtype),
            state.ema,
            {"params": params, "batch_stats": batch_stats},
        )
        state = state.replace(ema=rows_where(failed < 0, averaged, state.ema))
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, failed=failed
    )
    return state, averages


def eval_step(
    variables: Any, images: jax.Array, *, model: nn.Module, size: int, axis_name: str | None = None
) -> jax.Array:
    """Logits of every student on plainly resized images.

    Args:
        variables: leaves lead with (seed, arm).
        images: (batch, side, side, 3) uint8, this device's share.
        model: the network.
        size: side of the network's input, px.
        axis_name: mapped device axis.

    Returns:
        (seed, arm, global batch, classes) float, the same on every device.
    """
    inputs = eval_views(images, size)
    one = lambda row: model.apply(row, inputs, train=False)
    logits = jax.vmap(jax.vmap(one))(variables)
    if axis_name is not None:
        logits = jax.lax.all_gather(logits, axis_name, axis=2, tiled=True)
    return logits


def teacher_view_step(
    variables: Any,
    everything: jax.Array | None,
    examples: jax.Array,
    views: jax.Array,
    images: jax.Array | None,
    data_seed: jax.Array | int,
    *,
    model: nn.Module,
    size: int,
    axis_name: str | None = None,
) -> jax.Array:
    """Teacher logits of augmented views, on the pixels that the students will see.

    Args:
        variables: the teacher's, without population axes.
        everything: (all examples, side, side, 3) uint8, or None where `images` are given.
        examples: (batch,) int32, this device's share.
        views: (batch,) int32.
        images: (batch, side, side, 3) uint8 of these examples where they are not in device memory, else None.
        data_seed: see `view_keys`.
        model: the teacher.
        size: side of the teacher's input, px.
        axis_name: mapped device axis.

    Returns:
        (global batch, classes) float, the same on every device.
    """
    images = everything[examples] if images is None else images
    logits = teacher_logits(model, variables, render(images, view_keys(data_seed, examples, views), size))
    if axis_name is not None:
        logits = jax.lax.all_gather(logits, axis_name, axis=0, tiled=True)
    return logits


def planned_step(
    state: TrainState,
    examples: Examples,
    teacher_variables: Any,
    hyper: Hyperparameters,
    seeds: jax.Array,
    plan: PlanStep,
    *,
    student_size: int,
    teacher: nn.Module | None,
    teacher_size: int,
    mixup: float = 0.0,
    axis_name: str | None = None,
    **train_options: Any,
) -> tuple[TrainState, dict[str, Average]]:
    """Gather, augment, look up or compute the teacher logits once, and update every student.

    Teacher logits are those of `examples`, or those of one forward of `teacher` per seed where it is given, or none.
    Each serves all arms of its seed.

    Args:
        state: see `train_step`.
        examples: the training split.
        teacher_variables: variables of `teacher`, without population axes; None where it is None.
        hyper: see `train_step`.
        seeds: (seed,) int32.
        plan: this device's share of the step.
        student_size: side of the students' input, px.
        teacher: an online teacher, or None.
        teacher_size: side of its input, px: the same crop at its own resolution.
        mixup: parameter of the Beta distribution of the mixing shares (arXiv 1710.09412); 0 mixes nothing. A mixture
            has no stored logits: with `mixup` the teacher is online, or there is none.
        axis_name: mapped device axis.
        **train_options: further arguments of `train_step`.
    """
    keys = dropout_keys(seeds, state.step, plan.places)
    share = mixing_shares(keys, mixup) if mixup else None
    drawn = view_keys(examples.data_seed, plan.examples, plan.views)
    images = examples.images[plan.examples] if plan.images is None else plan.images
    if mixup:
        partner_drawn = view_keys(examples.data_seed, plan.partners, plan.partner_views)
        partners = examples.images[plan.partners] if plan.partner_images is None else plan.partner_images

    def pixels(size: int) -> jax.Array:
        first = render(images, drawn, size)
        if share is None:
            return first
        weight = share[..., None, None, None].astype(first.dtype)
        return weight * first + (1 - weight) * render(partners, partner_drawn, size)

    inputs, logits = pixels(student_size), None
    if teacher is not None:
        same = teacher_size == student_size
        logits = teacher_logits(teacher, teacher_variables, inputs if same else pixels(teacher_size))
    elif examples.teacher_logits is not None:
        logits = examples.teacher_logits[plan.views, plan.examples]
    batch = Batch(
        images=inputs,
        labels=examples.labels[plan.examples],
        teacher_logits=logits,
        keys=keys,
        mixed=None if share is None else (examples.labels[plan.partners], share.astype(inputs.dtype)),
    )
    return train_step(state, batch, hyper, axis_name=axis_name, **train_options)


def empty_averages(rows: tuple[int, int], terms: Sequence[str]) -> dict[str, Average]:
    """Averages of nothing, to begin a window of `planned_steps` with.

    Args:
        rows: (seeds, arms).
        terms: names of the terms that are measured, see `losses.measured_terms`; without a teacher "ce" alone.
    """
    return {name: Average(total=jnp.zeros(rows), count=jnp.zeros(rows)) for name in (*terms, "loss", "grad_norm")}


def planned_steps(
    state: TrainState,
    averages: dict[str, Average],
    examples: Examples,
    teacher_variables: Any,
    hyper: Hyperparameters,
    seeds: jax.Array,
    plan: PlanStep,
    count: jax.Array,
    **options: Any,
) -> tuple[TrainState, dict[str, Average]]:
    """`planned_step` over the first `count` steps of `plan`: one program, and the same result, whatever their number.

    Args:
        state: see `planned_step`.
        averages: those of earlier steps, which go on, or `empty_averages`.
        examples, teacher_variables, hyper, seeds: see `planned_step`.
        plan: leaves lead with (step, seed, batch).
        count: () int32, at most the length of the step axis.
        **options: keyword arguments of `planned_step`.

    Returns:
        The state after these steps, and the averages over them and the earlier ones.
    """

    def body(index: jax.Array, carry: tuple[TrainState, dict[str, Average]]) -> tuple[TrainState, dict[str, Average]]:
        now = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), plan)
        state, latest = planned_step(carry[0], examples, teacher_variables, hyper, seeds, now, **options)
        return state, {name: carry[1][name].merge(one) for name, one in latest.items()}

    return jax.lax.fori_loop(0, count, body, (state, averages))
