"""The steps: pure functions of arrays, written for one device of a mapped axis.

`axis_name` names that axis, or is None on one device. `devices.DeviceMapping.map` supplies it. A step over several
devices computes what it computes on one, up to rounding: sums and counts are reduced separately, BatchNorm uses the
moments of the global batch, and random bits are keyed by the position in the global batch.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu.metrics import Average
from flax import struct

from kdjax.inputs import augment
from kdjax.inputs.augment import Augmentation
from kdjax.inputs.batch import Batch, Examples, PlanStep, dropout_keys, eval_views, mixing_shares, render, view_keys
from kdjax.objective.arms import Hyperparameters
from kdjax.objective.objective import objective
from kdjax.objective.outputs import Outputs
from kdjax.training.state import PROJECTION, TrainState, rows_where, without_projection

Averages = dict[str, Average]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is fixed when a training step is compiled.

    Attributes:
        network: the network in training.
        size: side of its input, px.
        optimizer: a function of learning rate and weight decay that returns an optax transformation.
        schedule: factor on the learning rate as a function of the step.
        augmentation: how views differ from their images.
        ema: decay of the moving averages of parameters and statistics, for a state that keeps them. In step n (from 0)
            the decay is min(ema, (1 + n) / (10 + n)), so that the first parameters are soon forgotten.
        mixup: parameter of the Beta distribution of the mixing shares (arXiv 1710.09412); 0 mixes nothing. There are
            no stored teacher outputs for mixtures: with `mixup` the teacher is online, or there is none.
        teacher: an online teacher, or None.
        teacher_size: side of the teacher's input, px: it sees the same crop at its own resolution.
        arms_at_once: None computes all students side by side. A number computes one seed after the other, and that
            many of its arms side by side, in the memory of that many students.
    """

    network: nn.Module
    size: int
    optimizer: Callable[[jax.Array, jax.Array], optax.GradientTransformation]
    schedule: optax.Schedule
    augmentation: Augmentation = augment.DEFAULT
    ema: float = 0.0
    mixup: float = 0.0
    teacher: nn.Module | None = None
    teacher_size: int = 0
    arms_at_once: int | None = None


@struct.dataclass
class Student:
    """One network in training, or all networks of a population if leaves lead with (seed, arm)."""

    params: Any
    batch_stats: Any
    opt_state: Any


def frozen_outputs(network: nn.Module, variables: Any, images: jax.Array) -> Outputs:
    """Outputs of a frozen teacher, without gradient.

    Args:
        network: the teacher.
        variables: its variables, without population axes.
        images: (..., size, size, bands) float in [0, 1].

    Returns:
        Outputs with leaves (..., n) float.
    """
    outputs: Any = network.apply(variables, images.reshape((-1, *images.shape[-3:])), train=False)
    restored = jax.tree.map(lambda leaf: leaf.reshape((*images.shape[:-3], -1)), outputs)
    return jax.lax.stop_gradient(restored)


def update(
    student: Student,
    batch: Batch,
    hyper: Hyperparameters,
    step: jax.Array,
    *,
    recipe: Recipe,
    axis_name: str | None = None,
) -> tuple[Student, jax.Array, Averages]:
    """One update of one student.

    Args:
        student: leaves without population axes.
        batch: this device's share, leaves lead with (batch,).
        hyper: the hyperparameters of one arm: scalars, or weights (classes,).
        step: () int32, number of the update.
        recipe: what is fixed.
        axis_name: mapped device axis.

    Returns:
        The new student, whether loss and gradient were finite, and for "loss", "grad_norm" and each term an `Average`
        over the global batch.
    """
    network = recipe.network.clone(axis_name=axis_name)

    def contribution(params: Any) -> tuple[jax.Array, tuple[Averages, Any]]:
        outputs, mutated = network.apply(
            {"params": without_projection(params), "batch_stats": student.batch_stats},
            batch.images,
            train=True,
            example_keys=batch.keys,
            mutable=["batch_stats"],
        )
        loss, averages = objective(
            outputs,
            batch.teacher,
            batch.labels,
            hyper.weights,
            hyper.temperature,
            projection=params[PROJECTION]["kernel"] if PROJECTION in params else None,
            mixed=batch.mixed,
            axis_name=axis_name,
        )
        return loss, (averages, mutated.get("batch_stats", {}))

    (loss, (averages, batch_stats)), grads = jax.value_and_grad(contribution, has_aux=True)(student.params)
    if axis_name is not None:
        loss, grads = jax.lax.psum((loss, grads), axis_name)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    transformation = recipe.optimizer(hyper.learning_rate * recipe.schedule(step), hyper.weight_decay)
    updates, opt_state = transformation.update(grads, student.opt_state, student.params)
    count = jnp.ones((), loss.dtype)
    averages |= {"loss": Average(total=loss, count=count), "grad_norm": Average(total=grad_norm, count=count)}
    return Student(optax.apply_updates(student.params, updates), batch_stats, opt_state), finite, averages


def train_step(
    state: TrainState, batch: Batch, hyper: Hyperparameters, *, recipe: Recipe, axis_name: str | None = None
) -> tuple[TrainState, Averages]:
    """One update of every student of the population, on the batch of its seed.

    A student whose loss or gradient is not finite after the reduction over devices keeps its last good variables, and
    is marked as failed at this step.

    Args:
        state: leaves lead with (seed, arm).
        batch: this device's share; leaves lead with (seed, batch), or (seed, group, batch) where `hyper.group` says
            which group of examples each arm trains on.
        hyper: leaves lead with (arm,).
        recipe: what is fixed.
        axis_name: mapped device axis.

    Returns:
        The new state, and the `Average`s of `update` with leaves (seed, arm).
    """

    def update_one(student: Student, batch: Batch, hyper: Hyperparameters) -> tuple[Student, jax.Array, Averages]:
        if hyper.group is not None:
            batch = jax.tree.map(lambda leaf: leaf[hyper.group], batch)
        return update(student, batch, hyper, state.step, recipe=recipe, axis_name=axis_name)

    students = Student(state.params, state.batch_stats, state.opt_state)
    if recipe.arms_at_once is None:
        over_seeds = jax.vmap(jax.vmap(update_one, (0, None, 0)), (0, 0, None))
        new, finite, averages = over_seeds(students, batch, hyper)
    else:
        batch_size = recipe.arms_at_once if recipe.arms_at_once > 1 else None

        def update_seed(row: tuple[Student, Batch]) -> tuple[Student, jax.Array, Averages]:
            arms, shared = row
            return jax.lax.map(lambda arm: update_one(arm[0], shared, arm[1]), (arms, hyper), batch_size=batch_size)

        new, finite, averages = jax.lax.map(update_seed, (students, batch))
    failed = jnp.where(state.alive & ~finite, state.step, state.failed)
    kept = rows_where(failed < 0, new, students)
    if state.ema:
        decay = jnp.minimum(recipe.ema, (1 + state.step) / (10 + state.step))
        averaged = jax.tree.map(
            lambda mean, new: (decay * mean + (1 - decay) * new).astype(mean.dtype),
            state.ema,
            {"params": kept.params, "batch_stats": kept.batch_stats},
        )
        state = dataclasses.replace(state, ema=rows_where(failed < 0, averaged, state.ema))
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=kept.params,
        batch_stats=kept.batch_stats,
        opt_state=kept.opt_state,
        failed=failed,
    )
    return state, averages


def eval_step(
    variables: Any, images: jax.Array, *, network: nn.Module, size: int, axis_name: str | None = None
) -> jax.Array:
    """Logits of every student on images that are only resized.

    Args:
        variables: leaves lead with (seed, arm).
        images: (batch, side, side, bands) uint8 or uint16, this device's share.
        network: the network.
        size: side of the network's input, px.
        axis_name: mapped device axis.

    Returns:
        (seed, arm, global batch, classes) float, the same on every device.
    """
    inputs = eval_views(images, size)

    def logits_of(student: Any) -> jax.Array:
        outputs: Any = network.apply(student, inputs, train=False)
        return outputs.logits

    logits = jax.vmap(jax.vmap(logits_of))(variables)
    if axis_name is not None:
        logits = jax.lax.all_gather(logits, axis_name, axis=2, tiled=True)
    return logits


def planned_step(
    state: TrainState,
    examples: Examples,
    teacher_variables: Any,
    hyper: Hyperparameters,
    seeds: jax.Array,
    plan: PlanStep,
    *,
    recipe: Recipe,
    axis_name: str | None = None,
) -> tuple[TrainState, Averages]:
    """Gathers and augments the images, gets the teacher's outputs once, and updates every student.

    The teacher's outputs come from one forward pass of `recipe.teacher` per seed if there is such a teacher, otherwise
    from the plan or from `examples` if these hold any. They serve all arms of their seed.

    Args:
        state: see `train_step`.
        examples: the training split.
        teacher_variables: variables of `recipe.teacher`, without population axes; None without such a teacher.
        hyper: see `train_step`.
        seeds: (seed,) int32.
        plan: this device's share of the step.
        recipe: what is fixed.
        axis_name: mapped device axis.
    """
    keys = dropout_keys(seeds, state.step, plan.places)
    share = mixing_shares(keys, recipe.mixup) if recipe.mixup else None
    images = examples.images[plan.examples] if plan.images is None else plan.images
    views = view_keys(examples.data_seed, plan.examples, plan.views)
    if share is not None:
        partners = examples.images[plan.partners] if plan.partner_images is None else plan.partner_images
        partner_views = view_keys(examples.data_seed, plan.partners, plan.partner_views)

    def pixels(size: int) -> jax.Array:
        first = render(images, views, size, recipe.augmentation)
        if share is None:
            return first
        weight = share[..., None, None, None].astype(first.dtype)
        return weight * first + (1 - weight) * render(partners, partner_views, size, recipe.augmentation)

    inputs, outputs = pixels(recipe.size), None
    if recipe.teacher is not None:
        teacher_inputs = inputs if recipe.teacher_size == recipe.size else pixels(recipe.teacher_size)
        outputs = frozen_outputs(recipe.teacher, teacher_variables, teacher_inputs)
    elif examples.teacher is not None or plan.teacher is not None:
        stored = plan.teacher
        if stored is None:
            # View numbers may exceed the stored views: a mean over views is stored as one view, and arms that need no
            # teacher may draw fresh views.
            gather = lambda leaf: leaf[jnp.minimum(plan.views, len(leaf) - 1), plan.examples]
            stored = jax.tree.map(gather, examples.teacher)
        # Features are stored in half precision, but compared in at least float32.
        outputs = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), stored)
    batch = Batch(
        images=inputs,
        labels=examples.labels[plan.examples],
        teacher=outputs,
        keys=keys,
        mixed=None if share is None else (examples.labels[plan.partners], share.astype(inputs.dtype)),
    )
    return train_step(state, batch, hyper, recipe=recipe, axis_name=axis_name)


def empty_averages(rows: tuple[int, int], terms: Sequence[str]) -> Averages:
    """Averages with zero counts, from which `planned_steps` starts after each evaluation.

    Args:
        rows: (seeds, arms).
        terms: names of the terms that are measured, see `arms.measured_terms`; without a teacher, those that need none.
    """
    return {name: Average(total=jnp.zeros(rows), count=jnp.zeros(rows)) for name in (*terms, "loss", "grad_norm")}


def planned_steps(
    state: TrainState,
    averages: Averages,
    examples: Examples,
    teacher_variables: Any,
    hyper: Hyperparameters,
    seeds: jax.Array,
    plan: PlanStep,
    count: jax.Array,
    **options: Any,
) -> tuple[TrainState, Averages]:
    """`planned_step` over the first `count` steps of `plan`, as one program for every `count`.

    How steps are divided among calls does not change the result.

    Args:
        state: see `planned_step`.
        averages: the averages so far, or `empty_averages`.
        examples, teacher_variables, hyper, seeds: see `planned_step`.
        plan: leaves lead with (step,), before the axes of a `PlanStep`.
        count: () int32, at most the length of the step axis.
        **options: keyword arguments of `planned_step`.

    Returns:
        The state after these steps, and the averages including these steps.
    """

    def body(index: jax.Array, carry: tuple[TrainState, Averages]) -> tuple[TrainState, Averages]:
        plan_step = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), plan)
        state, latest = planned_step(carry[0], examples, teacher_variables, hyper, seeds, plan_step, **options)
        return state, {name: carry[1][name].merge(average) for name, average in latest.items()}

    return jax.lax.fori_loop(0, count, body, (state, averages))
