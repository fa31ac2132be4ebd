"""The pace of a training loop: its progress lines, and how many steps it dispatches at once."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from clu.metrics import Average

from kdjax.results.comparison import NAMES
from kdjax.runtime.devices import first_process_says
from kdjax.training.population import Population
from kdjax.training.step import Averages

CHUNK_SECONDS = 1.0
"""Time of the steps that are dispatched at once: long compared with a dispatch, short compared with the grace period
before a preempted process is killed."""

RECENT = 20
"""Number of the latest chunks that the speed shown is measured over, and of the latest validations that predict how
long those to come will take."""

APART = 1.0
"""Least seconds between a line and the line of a validation; metrics.jsonl has the validations that are not shown."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where progress lines go, and how often.

    Attributes:
        seconds: least seconds between two lines, except those of validations; 0 shows all.
        log: takes the lines.
    """

    seconds: float
    log: Callable[[str], None]


class Clock:
    """Writes progress lines (step, images/s, time left, loss terms), and sets the length of a chunk.

    The speed is that of the steps alone, without compiling, validation and saving. The time left includes the
    validations to come, at the mean time of the latest; the first does not count because it compiles its program.
    """

    TIMED = 3  # chunks of one step that are timed before longer chunks are dispatched

    def __init__(self, population: Population, progress: Progress, first: int):
        self._learner, self._arms, self._progress = population.learner, population.arms, progress
        self._selected_by, self._longest = population.data.selected_by, population.longest
        self._images = population.plan.batch_size * len(population.plan.seeds)
        self._every = population.evaluate_every
        self._step = first  # the step at which the latest chunk ended
        self._time: float | None = None  # when it ended; None before the first chunk
        self._line_time = time.monotonic()
        self._chunks: list[tuple[int, float]] = []  # steps and seconds of each
        self._validations: list[float] = []  # seconds of each, saving included
        self._chunk = 1

    def chunk(self) -> int:
        """How many steps to dispatch at once: the same number in every process."""
        return self._chunk

    def tick(self, step: int, averages: Averages) -> None:
        """Waits for the chunk that ends at `step`, and writes a line if one is due."""
        jax.block_until_ready(averages)
        now = time.monotonic()
        if self._time is not None and step > self._step:
            self._chunks.append((step - self._step, now - self._time))
            if len(self._chunks) == self.TIMED and self._longest > 1:
                rate = statistics.median(steps / seconds for steps, seconds in self._chunks)
                self._chunk = first_process_says(max(1, min(self._longest, int(CHUNK_SECONDS * rate))))
        self._step, self._time = step, now
        if now - self._line_time >= self._progress.seconds:
            self._write_line(step, averages, "")

    def evaluated(self, step: int, averages: Averages, scores: np.ndarray) -> None:
        """Writes the scores (seed, arm) of a validation that began after the latest tick.

        Its time does not count in the speed of the steps.
        """
        now = time.monotonic()
        if self._time is not None:
            self._validations.append(now - self._time)
        self._time = now
        if step < self._learner.total_steps and now - self._line_time < min(APART, self._progress.seconds):
            return
        means = ", ".join(f"{arm.name} {_mean(column)}" for arm, column in zip(self._arms, scores.T, strict=True))
        self._write_line(step, averages, f"  validation {NAMES[self._selected_by]}: {means}")

    def _write_line(self, step: int, averages: Averages, rest: str) -> None:
        speed = ""
        if len(self._chunks) >= self.TIMED:
            # The rate of all together: if a chunk ended long before it was waited for, its time counts as the next's.
            recent = self._chunks[-RECENT:]
            rate = sum(steps for steps, _ in recent) / sum(seconds for _, seconds in recent)
            left = self._left(step, rate)
            speed = f"{rate * self._images:.0f} images/s  {left // 60}:{left % 60:02d} left  "
        terms = " ".join(f"{name} {self._mean_of(name, averages[name])}" for name in averages if name != "grad_norm")
        self._progress.log(
            f"{self._learner.folder.name}: step {step}/{self._learner.total_steps}  {speed}{terms}{rest}"
        )
        self._line_time = time.monotonic()

    def _mean_of(self, name: str, average: Average) -> str:
        """The mean over the networks for which a term is measured."""
        return _mean(np.asarray(average.compute())[:, [arm.is_measured(name) for arm in self._arms]])

    def _left(self, step: int, rate: float) -> int:
        """Seconds to the end of the training, rounded."""
        last_step = self._learner.total_steps
        validations = -(-last_step // self._every) - step // self._every if step < last_step else 0
        seconds = statistics.fmean(self._validations[1:][-RECENT:]) if len(self._validations) > 1 else 0.0
        return round((last_step - step) / rate + validations * seconds)


def _mean(values: np.ndarray) -> str:
    """The mean of the values that are not NaN, for a progress line; "-" if there are none.

    Scores are NaN for networks that failed, and a hard term is NaN before the first example with a label.
    """
    finite = values[~np.isnan(values)]
    return f"{finite.mean():.3f}" if finite.size else "-"
