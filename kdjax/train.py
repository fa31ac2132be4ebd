"""The one loop, for teacher and students alike."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kdjax.checkpoint import Checkpoints
from kdjax.data.plan import Plan
from kdjax.evaluate import population_metrics
from kdjax.parallel import Mapping
from kdjax.state import TrainState, update_best
from kdjax.steps import PlanStep
from kdjax.writers import MetricsWriter


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the person who waits is told, and how often.

    Attributes:
        stage: name of the stage.
        students: names by (seed, arm), as "arm/seed".
        seconds: between two lines.
        log: takes the lines.
    """

    stage: str
    students: Sequence[Sequence[str]]
    seconds: float
    log: Callable[[str], None]


def fit(
    step: Callable[[TrainState, PlanStep], tuple[TrainState, dict[str, Any]]],
    state: TrainState,
    plan: Plan,
    *,
    total_steps: int,
    evaluate_every: int,
    predict: Callable[[Any, np.ndarray], np.ndarray],
    validation_images: np.ndarray,
    validation_labels: np.ndarray,
    mapping: Mapping,
    checkpoints: Checkpoints,
    writer: MetricsWriter,
    progress: Progress,
) -> TrainState:
    """Trains a population from `state` to `total_steps`, evaluating and saving on the way.

    Args:
        step: mapped train step of the state (donated) and this process's share of the plan.
        state: where to begin; its step number is the only clock.
        plan: examples and views of every step.
        total_steps: where to end.
        evaluate_every: steps between validations; each is followed by a checkpoint. There is one at the end too.
        predict: see `evaluate.predictor`.
        validation_images: (N, side, side, 3) uint8.
        validation_labels: (N,) int32.
        mapping: the devices.
        checkpoints: where states are saved.
        writer: where metrics go.
        progress: what is told.

    Returns:
        The last state.
    """
    keep_best = jax.jit(update_best, donate_argnums=0)
    clock = _Clock(progress, int(state.step), total_steps, plan.batch_size * len(plan.seeds))
    alive = np.asarray(state.alive)
    window: dict[str, Any] = {}
    pending = None  # averages of the step before, fetched while the next one runs
    for number in range(int(state.step), total_steps):
        arrays = PlanStep(*plan(number))
        state, averages = step(state, mapping.split(arrays, axis=1))
        if pending is not None:
            window = _merged(window, pending)
            clock.tick(number, window)
        pending = averages
        if (number + 1) % evaluate_every == 0 or number + 1 == total_steps:
            window, pending = _merged(window, pending), None
            writer.write(number + 1, "train", _by_student(window, progress.students), epoch=_epoch(plan, number + 1))
            logits = predict(state.variables, validation_images)
            scores = population_metrics(logits, validation_labels)
            top1, nll = _scores(scores, "top1", -1.0), _scores(scores, "nll", np.inf)
            dtype = state.best.top1.dtype
            state = keep_best(state, *mapping.replicate((top1.astype(dtype), nll.astype(dtype))))
            validation = _by_student({"top1": top1, "nll": nll}, progress.students)
            writer.write(number + 1, "validation", validation, epoch=_epoch(plan, number + 1))
            alive = _tell_failed(alive, np.asarray(state.alive), number + 1, progress)
            checkpoints.save(state)
            clock.evaluated(number + 1, window, top1)
            window = {}
    return state


def _epoch(plan: Plan, step: int) -> float:
    return round(step * plan.batch_size / plan.examples, 4)


def _scores(metrics: list[list[dict[str, Any]]], name: str, worst: float) -> np.ndarray:
    """One metric by (seed, arm); a network that blew up has none and counts as `worst`."""
    return np.array([[worst if one[name] is None else one[name] for one in row] for row in metrics])


def _merged(window: dict[str, Any], averages: dict[str, Any]) -> dict[str, Any]:
    return {name: window[name].merge(one) if name in window else one for name, one in averages.items()}


def _by_student(values: dict[str, Any], students: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    arrays = {name: np.asarray(one.compute() if hasattr(one, "compute") else one) for name, one in values.items()}
    return {
        student: {name: float(array[row, column]) for name, array in arrays.items()}
        for row, names in enumerate(students)
        for column, student in enumerate(names)
    }


def _tell_failed(before: np.ndarray, now: np.ndarray, step: int, progress: Progress) -> np.ndarray:
    for row, column in np.argwhere(before & ~now):
        progress.log(
            f"{progress.stage}: {progress.students[row][column]}: loss or gradient not finite before step {step}; "
            "this student keeps its last good parameters"
        )
    return now


class _Clock:
    """Progress lines: step, images/s, time left, loss terms."""

    def __init__(self, progress: Progress, first: int, total: int, images_per_step: int):
        self._progress, self._total, self._images = progress, total, images_per_step
        self._from_step, self._from_time = first, time.monotonic()
        self._line_time = self._from_time

    def tick(self, step: int, window: dict[str, Any]) -> None:
        if step and time.monotonic() - self._line_time >= self._progress.seconds:
            self._say(step, window, "")

    def evaluated(self, step: int, window: dict[str, Any], top1: np.ndarray) -> None:
        arms = [names.split("/")[0] for names in self._progress.students[0]]
        means = ", ".join(f"{arm} {one:.3f}" for arm, one in zip(arms, top1.mean(0), strict=True))
        self._say(step, window, f"  validation top-1: {means}")

    def _say(self, step: int, window: dict[str, Any], rest: str) -> None:
        now = time.monotonic()
        rate = max(step - self._from_step, 1) / (now - self._from_time)
        terms = " ".join(
            f"{name} {float(np.mean(window[name].compute())):.3f}" for name in window if name != "grad_norm"
        )
        left = (self._total - step) / rate
        self._progress.log(
            f"{self._progress.stage}: step {step}/{self._total}  {rate * self._images:.0f} images/s  "
            f"{left // 60:.0f}:{left % 60:02.0f} left  {terms}{rest}"
        )
        self._line_time = now
