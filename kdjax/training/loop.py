"""The training loop of teachers and students."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import InputError, Preempted
from kdjax.runtime import devices, heap, preemption
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.runtime.trace import Trace
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.population import Population
from kdjax.training.predictor import population_metrics
from kdjax.training.progress import Clock, Progress
from kdjax.training.state import TrainState, update_best
from kdjax.training.step import Averages

PAUSE, LONGEST_PAUSE = 0.01, 0.05
"""After each chunk on a CPU, the loop pauses for this share of the chunk's time, but no longer than these seconds, so
that the client returns its working memory."""

SAVING_SHARE = 0.05
"""Largest share of the time that goes into saving. If epochs are so short that a checkpoint after each would take more,
some are skipped."""


def fit(
    population: Population,
    state: TrainState,
    averages: Averages,
    *,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    progress: Progress,
    trace: Trace | None = None,
) -> TrainState:
    """Trains a population from `state` to the end of its schedule, evaluating and saving on the way.

    Steps go to the devices in chunks that take about `progress.CHUNK_SECONDS`; the length of a chunk does not change
    the result. Evaluations, checkpoints and the end fall between two chunks.

    Args:
        population: the networks, their data and their step.
        state: where to begin; its step number is the only clock.
        averages: the averages since the last evaluation, on the devices; empty at the start of a training.
        checkpoints: where states are saved, after each validation unless that would take more than `SAVING_SHARE`.
        writer: where metrics are written.
        progress: what is shown to the user.
        trace: steps to profile.

    Returns:
        The last state.

    Raises:
        InputError: no network is left whose loss and gradient are finite, or a checkpoint could not be written.
        Preempted: the run was asked to end; a checkpoint was saved.
    """
    learner, number = population.learner, int(state.step)
    last_step, every = learner.total_steps, population.evaluate_every
    step, feed = population.step(), population.feed(number)
    validate = _validation(population)
    clock = Clock(population, progress, number)
    failed = _check_failed(state, None, population, checkpoints, progress)
    empty = jax.tree.map(jnp.zeros_like, averages)
    # JAX's CPU client allocates working memory when a call is dispatched, and frees it a moment after the results: with
    # two calls in flight or without a pause, a process took 8 to 12 GB at 224 px instead of 4.5 GB (measured).
    ahead, trim = jax.default_backend() != "cpu", heap.Trim()
    previous = None  # averages of the chunk before, fetched while the next chunk runs
    save_due = time.monotonic()
    while number < last_step:
        if preemption.requested():
            if checkpoints.latest_step != number:
                checkpoints.save(state, averages)
            raise Preempted(f"{learner.folder.name}: ended by SIGTERM; step {number} is saved")
        boundary = min((number // every + 1) * every, last_step)
        count = min(boundary - number, clock.chunk())
        if trace is not None:
            count = trace.before(number, count, state)
        share, dispatched = feed(number, count), time.monotonic()
        state, averages = step(state, averages, share, np.int32(count))
        if ahead and previous is not None:
            clock.tick(number, previous)
        number += count
        preemption.defer()  # the step is compiled, and from now on there is something to save
        if not ahead:
            clock.tick(number, averages)
            time.sleep(min(LONGEST_PAUSE, PAUSE * (time.monotonic() - dispatched)))
            trim()
        previous = averages
        if trace is not None:
            trace.after(number, state)
        if number < boundary:
            continue
        clock.tick(number, averages)
        writer.write(number, "train", _by_network(averages, population), epoch=_epoch(population, number))
        state, scores = validate(state)
        writer.write(number, "validation", _by_network(scores, population), epoch=_epoch(population, number))
        epoch_averages, averages, previous = averages, empty, None
        start, last = time.monotonic(), number == last_step or bool((np.asarray(state.failed) >= 0).all())
        if devices.first_process_says(last or start >= save_due):
            checkpoints.save(state, averages)
            end = time.monotonic()
            save_due = end + (end - start) * (1 / SAVING_SHARE - 1)
        clock.evaluated(number, epoch_averages, scores[population.data.selected_by])
        failed = _check_failed(state, failed, population, checkpoints, progress)
    return state


def _validation(population: Population) -> Callable[[TrainState], tuple[TrainState, dict[str, np.ndarray]]]:
    """A function that evaluates a state on validation, updates its `best`, and returns it with scores (seed, arm)."""
    learner, validation, selected_by = population.learner, population.data.validation, population.data.selected_by
    predict = learner.predictor
    latest = learner.section.select == "last"
    keep_best = jax.jit(functools.partial(update_best, latest=latest), donate_argnums=0)

    def validate(state: TrainState) -> tuple[TrainState, dict[str, np.ndarray]]:
        metrics = population_metrics(predict(state.variables, validation.images), validation.labels)
        scores = {name: _scores(metrics, name) for name in dict.fromkeys(("top1", selected_by, "nll"))}
        dtype = state.best.score.dtype
        worst = {selected_by: -1.0, "nll": np.inf}
        ranks = tuple(np.where(np.isnan(scores[name]), bad, scores[name]).astype(dtype) for name, bad in worst.items())
        return keep_best(state, *learner.mapping.place(ranks, "rows")), scores

    return validate


def _epoch(population: Population, step: int) -> float:
    return round(step * population.plan.batch_size / population.plan.examples, 4)


def _scores(metrics: list[list[dict[str, Any]]], name: str) -> np.ndarray:
    """One metric by (seed, arm), float64; NaN for a network whose outputs are not finite."""
    return np.array([[np.nan if figures[name] is None else figures[name] for figures in row] for row in metrics])


def _by_network(values: Mapping[str, Any], population: Population) -> dict[str, dict[str, float]]:
    """Arrays or averages (seed, arm), regrouped by the name of the network, without what `Arm.is_measured` excludes."""
    arrays = {
        name: np.asarray(value.compute() if hasattr(value, "compute") else value) for name, value in values.items()
    }
    return {
        network: {name: float(array[row, column]) for name, array in arrays.items() if arm.is_measured(name)}
        for row, networks in enumerate(population.learner.names)
        for column, (network, arm) in enumerate(zip(networks, population.arms, strict=True))
    }


def _check_failed(
    state: TrainState,
    already_failed: np.ndarray | None,
    population: Population,
    checkpoints: Checkpoints,
    progress: Progress,
) -> np.ndarray:
    """Logs each network that has failed since the last check, and returns the steps of all failures, (seed, arm).

    Args:
        state: the latest state.
        already_failed: the result of the last check; None logs nothing.
        population, checkpoints, progress: see `fit`.

    Raises:
        InputError: every network has failed.
    """
    learner, failed = population.learner, np.asarray(state.failed)
    for row, column in np.argwhere((already_failed < 0) & (failed >= 0)) if already_failed is not None else ():
        step = int(failed[row, column])
        progress.log(
            f"{learner.folder.name}: {learner.names[row][column]}: loss or gradient not finite at step {step}; this "
            f"network keeps its last good parameters. The batch was "
            f"{', '.join(population.examples_of(step, row, column))}"
        )
    if (failed >= 0).all():
        raise InputError(
            f"{learner.folder.name}: nothing is left to train, the last network failed at step {failed.max()}. "
            f"{checkpoints.directory}/{checkpoints.latest_step} holds the last good parameters; "
            "try a lower learning rate in another workdir"
        )
    return failed
