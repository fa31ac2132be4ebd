"""How fast a training loop gets on: its lines for the person who waits, and how many steps it sends at once."""

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
"""Time of the steps that go to the devices at once: long beside what a dispatch costs, short beside a grace period."""

RECENT = 20
"""The speed shown is that of so many of the latest chunks, and validations to come count as so many of the latest."""

APART = 1.0
"""Seconds from a line to that of a validation, at least; metrics.jsonl has those that are not shown."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the person who waits is shown, and how often.

    Attributes:
        seconds: between two lines, but for those of validations; 0 shows all.
        log: takes the lines.
    """

    seconds: float
    log: Callable[[str], None]


class Clock:
    """How fast the steps go: progress lines (step, images/s, time left, loss terms), and the length of a chunk.

    The speed is that of the steps alone, without compiling, validation and saving. The time left counts the validations
    to come, each with the mean of the latest; the first is not taken as a measure, as it compiles its program.
    """

    TIMED = 3  # chunks of one step that are timed before longer ones are sent

    def __init__(self, population: Population, progress: Progress, first: int):
        self._learner, self._arms, self._progress = population.learner, population.arms, progress
        self._selected_by, self._longest = population.data.selected_by, population.longest
        self._images = population.plan.batch_size * len(population.plan.seeds)
        self._every = population.evaluate_every
        self._step = first  # where and when the latest chunk ended; no time before the first
        self._time: float | None = None
        self._line_time = time.monotonic()
        self._chunks: list[tuple[int, float]] = []  # steps and seconds of each
        self._validations: list[float] = []  # seconds of each, saving included
        self._chunk = 1

    def chunk(self) -> int:
        """How many steps to send at once: the same number in every process."""
        return self._chunk

    def tick(self, step: int, averages: Averages) -> None:
        """Waits for the chunk that ends at `step`."""
        jax.block_until_ready(averages)
        now = time.monotonic()
        if self._time is not None and step > self._step:
            self._chunks.append((step - self._step, now - self._time))
            if len(self._chunks) == self.TIMED and self._longest > 1:
                rate = statistics.median(steps / seconds for steps, seconds in self._chunks)
                self._chunk = first_process_says(max(1, min(self._longest, int(CHUNK_SECONDS * rate))))
        self._step, self._time = step, now
        if now - self._line_time >= self._progress.seconds:
            self._say(step, averages, "")

    def evaluated(self, step: int, averages: Averages, scores: np.ndarray) -> None:
        """Says what a validation gave that began after the latest tick, and counts its time apart."""
        now = time.monotonic()
        if self._time is not None:
            self._validations.append(now - self._time)
        self._time = now
        if step < self._learner.total_steps and now - self._line_time < min(APART, self._progress.seconds):
            return
        live = [column[~np.isnan(column)] for column in scores.T]
        said = [f"{one.mean():.3f}" if one.size else "-" for one in live]
        means = ", ".join(f"{arm.name} {one}" for arm, one in zip(self._arms, said, strict=True))
        self._say(step, averages, f"  validation {NAMES[self._selected_by]}: {means}")

    def _say(self, step: int, averages: Averages, rest: str) -> None:
        speed = ""
        if len(self._chunks) >= self.TIMED:
            # Of all together: where a chunk had ended long before it was waited for, its time is the next one's.
            rate = sum(steps for steps, _ in self._chunks[-RECENT:]) / sum(
                seconds for _, seconds in self._chunks[-RECENT:]
            )
            left = self._left(step, rate)
            speed = f"{rate * self._images:.0f} images/s  {left // 60}:{left % 60:02d} left  "
        terms = " ".join(f"{name} {self._mean(name, averages[name])}" for name in averages if name != "grad_norm")
        self._progress.log(
            f"{self._learner.folder.name}: step {step}/{self._learner.total_steps}  {speed}{terms}{rest}"
        )
        self._line_time = time.monotonic()

    def _mean(self, name: str, average: Average) -> str:
        """Over the networks that have a value: a hard term has none before the first example with a label."""
        values = np.asarray(average.compute())[:, [arm.is_measured(name) for arm in self._arms]]
        known = values[~np.isnan(values)]
        return f"{known.mean():.3f}" if known.size else "-"

    def _left(self, step: int, rate: float) -> int:
        """Seconds to the end, rounded."""
        total = self._learner.total_steps
        validations = -(-total // self._every) - step // self._every if step < total else 0
        each = statistics.fmean(self._validations[1:][-RECENT:]) if len(self._validations) > 1 else 0.0
        return round((total - step) / rate + validations * each)
