"""Evaluation as a job of its own, next to a training that another process does.

Writes `evaluation/` only and holds no lock. Checkpoints may be deleted while they are read: the next one will come.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kdjax.errors import InputError
from kdjax.results import formats, intervals
from kdjax.results.comparison import NAMES
from kdjax.run import record
from kdjax.run.opening import opened
from kdjax.run.run import Run
from kdjax.runtime import devices, preemption
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.stages.evaluate import Measured, evaluate, scalars
from kdjax.training.checkpoint import FOLDER, KEPT
from kdjax.training.predictor import population_metrics

SECONDS = 10.0
"""Between two looks for a new checkpoint."""


def begun(config: ConfigDict, workdir: Path) -> Run:
    """The run that another process trains in a directory, opened once it has begun.

    What is wrong without it is said at once. But its dtype, and whether its configuration and data are these, is known
    of a run that has begun only.

    Raises:
        InputError: see `run.open_run`.
    """
    waits = not devices.least(record.begun(workdir))
    run = opened(config, workdir, follows=True)
    if not waits:
        return run
    run.log(f"evaluate: waiting for a first checkpoint in {workdir}")
    while not devices.least(record.begun(workdir)):
        preemption.check_lost()
        time.sleep(SECONDS)
    return opened(config, workdir, follows=True)


def follow(config: ConfigDict, workdir: Path) -> None:
    """Evaluates each new checkpoint of the students on validation; when training has ended, the selected ones on test.

    The metrics go to `evaluation/follow/metrics.jsonl`, the final figures to `evaluation/results.json`.

    Args:
        config: of the run.
        workdir: its directory, where another process writes.

    Raises:
        InputError: see `run.open_run`; a checkpoint cannot be read; or every student failed.
    """
    run = begun(config, workdir)
    student, validation = run.student, run.dataset.validation
    total = student.total_steps
    layout, predict = student.layout, student.predictor
    directory = student.folder / FOLDER
    seen, waiting, lost = -1, False, False
    while seen < total and not lost:
        preemption.check_lost()
        # The first process chooses: another may look when there is one more, or one is gone.
        chosen = devices.first_process_says(min(_steps_after(seen, run), default=-1))
        if chosen < 0:
            if not waiting:
                run.log(f"evaluate: waiting for a checkpoint after step {max(seen, 0)} in {directory}")
            waiting = True
            time.sleep(SECONDS)
            continue
        waiting, seen, restored = False, chosen, None
        checkpoints = student.checkpoints()
        try:
            restored = checkpoints.restore_model(layout, seen)
        except (OSError, ValueError, KeyError) as error:
            # Deleting takes a while, and a process that died may have left half of it.
            if (directory / str(seen)).exists() and len(_steps_after(seen, run)) < KEPT:
                raise InputError(f"checkpoint {directory}/{seen} cannot be read: {error}") from error
        finally:
            checkpoints.close()
        if not devices.least(restored is not None):
            run.log(f"evaluate: checkpoint {seen} was deleted before it was read")
            continue
        assert restored is not None
        variables, failed = restored
        lost = bool((failed >= 0).all())  # then training has ended before its last step
        measured = population_metrics(predict(variables, validation.images), validation.labels)
        if jax.process_index() == 0:
            tensorboard = run.config.run.tensorboard
            writer = MetricsWriter(run.workdir / "evaluation" / "follow", seen - 1, tensorboard=tensorboard)
            writer.write(seen, "validation", scalars(run, measured))
            writer.close()
        said = means([arm.name for arm in student.arms], measured, student.selected_by)
        run.log(f"evaluate: step {seen}/{total}  validation {NAMES[student.selected_by]}: {said}")
    evaluate(run)


def means(names: Sequence[str], measured: Measured, measure: str) -> str:
    """The mean of each arm over the seeds that have one, `-` where none has: a student that failed has no accuracy."""
    columns = zip(*([one[measure] for one in row] for row in measured), strict=True)
    said = zip(names, columns, strict=True)
    return ", ".join(f"{name} {formats.number(intervals.mean(column))}" for name, column in said)


def _steps_after(step: int, run: Run) -> list[int]:
    """Steps of the checkpoints there are after `step`."""
    if not (run.student.folder / FOLDER).is_dir():
        return []
    checkpoints = run.student.checkpoints()
    try:
        return [one for one in checkpoints.all_steps() if one > step]
    finally:
        checkpoints.close()
