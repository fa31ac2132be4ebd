"""The one loop, for teacher and students alike."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from jax.experimental import multihost_utils

from kdjax.data.plan import Plan
from kdjax.errors import InputError, Preempted
from kdjax.inputs.feed import Feed
from kdjax.runtime import preemption
from kdjax.runtime.devices import Mapping
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.runtime.trace import Trace
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.predictor import population_metrics
from kdjax.training.state import TrainState, update_best
from kdjax.training.step import PlanStep

CHUNK_SECONDS = 1.0
"""Time of the steps that go to the devices at once: long beside what a dispatch costs, short beside a grace period."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the person who waits is told, and how often.

    Attributes:
        stage: name of the stage.
        students: names by (seed, arm), as "arm/seed".
        examples: names of the training examples.
        seconds: between two lines.
        log: takes the lines.
    """

    stage: str
    students: Sequence[Sequence[str]]
    examples: Sequence[str]
    seconds: float
    log: Callable[[str], None]


def fit(
    step: Callable[[TrainState, dict[str, Average], PlanStep, np.ndarray], tuple[TrainState, dict[str, Average]]],
    state: TrainState,
    averages: dict[str, Average],
    plan: Plan,
    feed: Feed,
    *,
    total_steps: int,
    select: str,
    evaluate_every: int,
    longest: int,
    predict: Callable[[Any, np.ndarray], np.ndarray],
    validation_images: np.ndarray,
    validation_labels: np.ndarray,
    mapping: Mapping,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    progress: Progress,
    trace: Trace | None = None,
) -> TrainState:
    """Trains a population from `state` to `total_steps`, evaluating and saving on the way.

    Steps go to the devices several at a time, so many as take `CHUNK_SECONDS`; their number changes no result.
    Evaluations, checkpoints and the end fall between two chunks.

    Args:
        step: mapped `steps.planned_steps` of the state (donated), the averages so far, this process's share of a plan,
            and the number of steps.
        state: where to begin; its step number is the only clock.
        averages: those since the last evaluation, on the devices; of nothing where training begins.
        plan: examples and views of every step.
        feed: brings its shares.
        total_steps: where to end.
        select: which evaluation is kept beside the latest state: the best one | the last one.
        evaluate_every: steps between validations; each is followed by a checkpoint. There is one at the end too.
        longest: the most steps that `feed` gives at once.
        predict: see `evaluate.predictor`.
        validation_images: (N, side, side, 3) uint8.
        validation_labels: (N,) int32.
        mapping: the devices.
        checkpoints: where states are saved.
        writer: where metrics go.
        progress: what is told.
        trace: steps to profile.

    Returns:
        The last state.

    Raises:
        InputError: no student is left whose loss and gradient are finite, or a checkpoint could not be written.
        Preempted: the run was asked to end; a checkpoint was saved.
    """
    keep_best = jax.jit(functools.partial(update_best, latest=select == "last"), donate_argnums=0)
    number = int(state.step)
    clock = _Clock(progress, number, total_steps, plan.batch_size * len(plan.seeds), longest)
    failed = np.asarray(state.failed)
    _refuse_if_none_left(failed, progress, checkpoints)
    empty = jax.tree.map(jnp.zeros_like, averages)
    before = None  # averages that are fetched while the next chunk runs
    while number < total_steps:
        if preemption.requested():
            if checkpoints.latest_step != number:
                checkpoints.save(state, averages)
            raise Preempted(f"{progress.stage}: ended by SIGTERM; step {number} is saved")
        boundary = min((number // evaluate_every + 1) * evaluate_every, total_steps)
        count = min(boundary - number, clock.chunk())
        if trace is not None:
            count = trace.before(number, count, state)
        state, averages = step(state, averages, feed(number, count), np.int32(count))
        if before is not None:
            clock.tick(number, before)
        before = averages
        number += count
        if trace is not None:
            trace.after(number, state)
        if number < boundary:
            continue
        measured = averages
        clock.tick(number, measured)
        writer.write(number, "train", _by_student(measured, progress.students), epoch=_epoch(plan, number))
        scores = population_metrics(predict(state.variables, validation_images), validation_labels)
        top1, nll = _scores(scores, "top1", -1.0), _scores(scores, "nll", np.inf)
        dtype = state.best.top1.dtype
        state = keep_best(state, *mapping.place((top1.astype(dtype), nll.astype(dtype)), "rows"))
        validation = _by_student({"top1": top1, "nll": nll}, progress.students)
        writer.write(number, "validation", validation, epoch=_epoch(plan, number))
        averages, before = empty, None
        checkpoints.save(state, averages)
        clock.evaluated(number, measured, top1)
        failed = _tell_failed(failed, np.asarray(state.failed), plan, progress)
        _refuse_if_none_left(failed, progress, checkpoints)
    return state


def _epoch(plan: Plan, step: int) -> float:
    return round(step * plan.batch_size / plan.examples, 4)


def _scores(metrics: list[list[dict[str, Any]]], name: str, worst: float) -> np.ndarray:
    """One metric by (seed, arm); a network that blew up has none and counts as `worst`."""
    return np.array([[worst if one[name] is None else one[name] for one in row] for row in metrics])


def _by_student(values: dict[str, Any], students: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    arrays = {name: np.asarray(one.compute() if hasattr(one, "compute") else one) for name, one in values.items()}
    return {
        student: {name: float(array[row, column]) for name, array in arrays.items()}
        for row, names in enumerate(students)
        for column, student in enumerate(names)
    }


def _tell_failed(before: np.ndarray, now: np.ndarray, plan: Plan, progress: Progress) -> np.ndarray:
    for row, column in np.argwhere((before < 0) & (now >= 0)):
        step = int(now[row, column])
        examples = ", ".join(progress.examples[index] for index in plan(step)[0][row])
        progress.log(
            f"{progress.stage}: {progress.students[row][column]}: loss or gradient not finite at step {step}; this "
            f"student keeps its last good parameters. The batch was {examples}"
        )
    return now


def _refuse_if_none_left(failed: np.ndarray, progress: Progress, checkpoints: Checkpoints) -> None:
    if (failed >= 0).all():
        raise InputError(
            f"{progress.stage}: nothing is left to train, the last network failed at step {failed.max()}. "
            f"{checkpoints.directory}/{checkpoints.latest_step} holds the last good parameters; "
            "try a lower learning rate in another workdir"
        )


class _Clock:
    """How fast the steps go: progress lines (step, images/s, time left, loss terms), and the length of a chunk.

    Compiling, validation and saving are not counted.
    """

    TIMED = 3  # chunks of one step that are timed before longer ones are sent

    def __init__(self, progress: Progress, first: int, total: int, images_per_step: int, longest: int):
        self._progress, self._total, self._images, self._longest = progress, total, images_per_step, longest
        self._step, self._time = first, None  # where and when the latest chunk ended; no time before the first
        self._line_time = time.monotonic()
        self._rates: list[float] = []  # steps/s of each chunk
        self._chunk = 1

    def chunk(self) -> int:
        """How many steps to send at once: the same number in every process."""
        return self._chunk

    def tick(self, step: int, averages: dict[str, Average]) -> None:
        """Waits for the chunk that ends at `step`."""
        jax.block_until_ready(averages)
        now = time.monotonic()
        if self._time is not None and step > self._step:
            self._rates.append((step - self._step) / (now - self._time))
            if len(self._rates) == self.TIMED and self._longest > 1:
                self._chunk = max(1, min(self._longest, int(CHUNK_SECONDS * statistics.median(self._rates))))
                if jax.process_count() > 1:
                    self._chunk = int(multihost_utils.broadcast_one_to_all(np.int32(self._chunk)))
        self._step, self._time = step, now
        if now - self._line_time >= self._progress.seconds:
            self._say(step, averages, "")

    def evaluated(self, step: int, averages: dict[str, Average], top1: np.ndarray) -> None:
        arms = [names.split("/")[0] for names in self._progress.students[0]]
        means = ", ".join(f"{arm} {one:.3f}" for arm, one in zip(arms, top1.mean(0), strict=True))
        self._say(step, averages, f"  validation top-1: {means}")
        self._time = time.monotonic()

    def _say(self, step: int, averages: dict[str, Average], rest: str) -> None:
        speed = ""
        if len(self._rates) >= self.TIMED:  # one chunk alone may have ended long before it was waited for
            rate = statistics.median(self._rates[-20:])
            left = (self._total - step) / rate
            speed = f"{rate * self._images:.0f} images/s  {left // 60:.0f}:{left % 60:02.0f} left  "
        terms = " ".join(
            f"{name} {float(np.mean(averages[name].compute())):.3f}" for name in averages if name != "grad_norm"
        )
        self._progress.log(f"{self._progress.stage}: step {step}/{self._total}  {speed}{terms}{rest}")
        self._line_time = time.monotonic()
