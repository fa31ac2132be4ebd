"""Evaluation as a job of its own, beside a training that another process does.

Writes `evaluation/` only and holds no lock. Checkpoints may be deleted while they are read: the next one will come.
"""

import time
from pathlib import Path

import jax

from kdjax.errors import InputError
from kdjax.run.learners import initial_state, total_steps
from kdjax.run.run import Run
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.stages.evaluate import evaluate, scalars
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.predictor import population_metrics, predictor

SECONDS = 10.0
"""Between two looks for a new checkpoint."""


def follow(run: Run) -> None:
    """Evaluates each new checkpoint of the students on validation; when training has ended, the selected ones on test.

    The metrics go to `evaluation/follow/metrics.jsonl`, the final figures to `evaluation/results.json`.

    Args:
        run: opened with `follows`.
    """
    config, validation = run.config, run.dataset.validation
    total = total_steps(config.student, len(run.dataset.train.labels))
    like = initial_state(run, "student", config.seeds, len(run.arms), load=False)
    predict = predictor(run.network("student"), size=run.student_size, mapping=run.population_mapping)
    directory = run.workdir / "distill" / "checkpoints"
    seen, waiting = -1, False
    while seen < total:
        steps = _steps_after(seen, directory, run)
        if not steps:
            if not waiting:
                run.log(f"evaluate: waiting for a checkpoint after step {max(seen, 0)} in {directory}")
            waiting = True
            time.sleep(SECONDS)
            continue
        waiting, seen = False, steps[0]
        checkpoints = Checkpoints(directory, run.population_mapping, read_only=True)
        try:
            variables = checkpoints.restore_model(like, seen)
        except (OSError, ValueError, KeyError) as error:
            if (directory / str(seen)).exists():
                raise InputError(f"checkpoint {directory}/{seen} cannot be read: {error}") from error
            run.log(f"evaluate: checkpoint {seen} was deleted before it was read")
            continue
        finally:
            checkpoints.close()
        measured = population_metrics(predict(variables, validation.images), validation.labels)
        if jax.process_index() == 0:
            writer = MetricsWriter(run.workdir / "evaluation" / "follow", seen - 1, tensorboard=config.run.tensorboard)
            writer.write(seen, "validation", scalars(measured, run.arms, config.seeds))
            writer.close()
        top1 = [[one["top1"] for one in row] for row in measured]
        means = ", ".join(
            f"{arm} {sum(one or 0.0 for one in column) / len(column):.3f}"
            for arm, column in zip(run.arms, zip(*top1, strict=True), strict=True)
        )
        run.log(f"evaluate: step {seen}/{total}  validation top-1: {means}")
    evaluate(run)


def _steps_after(step: int, directory: Path, run: Run) -> list[int]:
    """Steps of the checkpoints there are after `step`."""
    if not directory.is_dir():
        return []
    checkpoints = Checkpoints(directory, run.population_mapping, read_only=True)
    try:
        return [one for one in checkpoints.all_steps() if one > step]
    finally:
        checkpoints.close()
