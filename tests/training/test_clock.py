"""The speed and the time left that a training loop tells, on a clock that the test sets."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from clu.metrics import Average

from kdjax.config import base
from kdjax.objective.arms import resolve
from kdjax.training import progress
from kdjax.training.progress import Clock, Progress
from kdjax.training.step import Averages


def resolved(*names):
    return resolve(names, base().arms, temperature=4.0, learning_rate=1e-3, weight_decay=0.0)


class Waiting:
    """A clock of 1000 steps, a validation after every 100, whose population sees 64 images of 3 seeds in a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0, arms: tuple[str, ...] = ("kl",)):
        self.now, self.lines = 50.0, []
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        learner = SimpleNamespace(folder=SimpleNamespace(name="distill"), total_steps=1000)
        plan = SimpleNamespace(batch_size=64, seeds=(0, 1, 2))
        population = SimpleNamespace(
            learner=learner, arms=resolved(*arms), data=SimpleNamespace(selected_by="top1"), plan=plan, longest=100,
            evaluate_every=100,
        )  # fmt: skip
        self.clock = Clock(population, Progress(seconds, self.lines.append), 0)

    def step(self, step: int, seconds: float, averages: Averages | None = None) -> None:
        self.now += seconds
        self.clock.tick(step, averages or {})

    def validate(self, step: int, seconds: float) -> None:
        self.now += seconds
        self.clock.evaluated(step, {}, np.array([[0.5]]))


def test_the_time_left_counts_the_validations(monkeypatch):
    waiting = Waiting(monkeypatch, seconds=1e9)
    waiting.step(1, 300)  # compiles
    for step in range(2, 101):
        waiting.step(step, 0.25)
    waiting.validate(100, 60)  # compiles
    for step in range(101, 201):
        waiting.step(step, 0.25)
    waiting.validate(200, 10)
    # 4 steps/s of 192 images; 800 steps and 8 validations are to come. After the first no validation was measured yet.
    assert waiting.lines == [
        "distill: step 100/1000  768 images/s  3:45 left    validation top-1: kl 0.500",
        "distill: step 200/1000  768 images/s  4:40 left    validation top-1: kl 0.500",
    ]
    for step in range(201, 1001):
        waiting.step(step, 0.25)
    waiting.validate(1000, 10)
    assert "0:00 left" in waiting.lines[-1]


def test_the_time_left_takes_validations_with_and_without_a_checkpoint_alike(monkeypatch):
    waiting = Waiting(monkeypatch, seconds=1e9)
    waiting.step(1, 300)
    for validation, seconds in enumerate((60, 10, 2, 2, 2), 1):
        for step in range(100 * validation - 98, 100 * validation + 1):
            waiting.step(step, 0.25)
        waiting.validate(100 * validation, seconds)
    assert "  2:25 left  " in waiting.lines[-1]  # 500 steps, and five validations of 4 s


def test_lines_of_short_epochs_are_a_second_apart(monkeypatch):
    waiting = Waiting(monkeypatch, seconds=10)
    for step in range(1, 1001):
        waiting.step(step, 0.001)
        if step % 100 == 0:
            waiting.validate(step, 0.299)
    shown = [line.split()[2] for line in waiting.lines]
    assert shown == ["300/1000", "600/1000", "900/1000", "1000/1000"]


def test_a_term_without_examples_yet_has_no_value(monkeypatch):
    """A batch without a labeled image gave `ce nan`. A network that has a value counts."""
    waiting = Waiting(monkeypatch)
    count, none = jnp.array([[0.0], [2.0]]), jnp.zeros((2, 1))
    waiting.step(1, 0.25, {"ce": Average(total=3 * count, count=count), "kl": Average(total=none, count=none)})
    assert waiting.lines == ["distill: step 1/1000  ce 3.000 kl -"]


def test_terms_that_a_baseline_has_no_targets_for_are_in_no_mean(monkeypatch):
    waiting, count = Waiting(monkeypatch, arms=("kl", "labeled_alone", "student_alone")), jnp.ones((1, 3))
    values = jnp.array([[1.0, 9.0, 3.0]])
    waiting.step(1, 0.25, {name: Average(total=values, count=count) for name in ("ce", "kl")})
    assert waiting.lines == ["distill: step 1/1000  ce 4.333 kl 2.000"]


def test_a_chunk_that_had_ended_before_it_was_waited_for_does_not_raise_the_speed(monkeypatch):
    """Seen on a GPU whose host was busy: every second chunk took no time, and 301 720 images/s were told."""
    waiting = Waiting(monkeypatch)
    waiting.step(1, 300)
    for step in range(2, 42, 2):
        waiting.step(step, 0.5)
        waiting.step(step + 1, 1e-6)
    assert "768 images/s" in waiting.lines[-1]
