"""Follow mode (--follow): evaluates checkpoints while another process trains.

It writes `evaluation/` only and holds no lock. The trainer may delete a checkpoint while it is read; the next one is
then read instead.
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
from kdjax.run.opening import open_for_command
from kdjax.run.run import Run
from kdjax.runtime import devices, preemption
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.stages.evaluate import Measurements, evaluate, scalars
from kdjax.training.checkpoint import FOLDER, KEPT
from kdjax.training.predictor import population_metrics

SECONDS = 10.0
"""Seconds between two checks for a new checkpoint."""


def wait_for_run(config: ConfigDict, workdir: Path) -> Run:
    """Waits until another process has begun to train a run in a directory, and opens that run.

    The run is also opened at once, so that errors which do not depend on the other process are reported before the
    wait. Only a run that has begun tells its dtype, and whether it has this configuration and these data.

    Raises:
        InputError: see `run.open_run`.
    """
    waits = not devices.smallest(record.has_begun(workdir))
    run = open_for_command(config, workdir, follows=True)
    if not waits:
        return run
    run.log(f"evaluate: waiting for a first checkpoint in {workdir}")
    while not devices.smallest(record.has_begun(workdir)):
        preemption.check_lost()
        time.sleep(SECONDS)
    return open_for_command(config, workdir, follows=True)


def follow(config: ConfigDict, workdir: Path) -> None:
    """Evaluates each new checkpoint of the students on validation, and the selected ones on test once training ends.

    The metrics go to `evaluation/follow/metrics.jsonl`, the final figures to `evaluation/results.json`.

    Args:
        config: the configuration of the run.
        workdir: the run's directory, to which another process writes.

    Raises:
        InputError: see `run.open_run`; a checkpoint cannot be read; or every student failed.
    """
    run = wait_for_run(config, workdir)
    student, validation = run.student, run.dataset.validation
    total_steps = student.total_steps
    layout, predict = student.layout, student.predictor
    directory = student.folder / FOLDER
    latest_step, waiting, all_failed = -1, False, False
    while latest_step < total_steps and not all_failed:
        preemption.check_lost()
        # The first process chooses, because another one may see a checkpoint more or less.
        next_step = devices.first_process_says(min(_steps_after(latest_step, run), default=-1))
        if next_step < 0:
            if not waiting:
                run.log(f"evaluate: waiting for a checkpoint after step {max(latest_step, 0)} in {directory}")
            waiting = True
            time.sleep(SECONDS)
            continue
        waiting, latest_step, restored = False, next_step, None
        checkpoints = student.checkpoints()
        try:
            restored = checkpoints.restore_model(layout, latest_step)
        except (OSError, ValueError, KeyError) as error:
            # Deletion takes a while, and a process that died may have left a half-deleted checkpoint.
            if (directory / str(latest_step)).exists() and len(_steps_after(latest_step, run)) < KEPT:
                raise InputError(f"checkpoint {directory}/{latest_step} cannot be read: {error}") from error
        finally:
            checkpoints.close()
        if not devices.smallest(restored is not None):
            run.log(f"evaluate: checkpoint {latest_step} was deleted before it was read")
            continue
        assert restored is not None
        variables, failed = restored
        all_failed = bool((failed >= 0).all())  # training ends early if all students have failed
        measurements = population_metrics(predict(variables, validation.images), validation.labels)
        if jax.process_index() == 0:
            tensorboard = run.config.run.tensorboard
            writer = MetricsWriter(run.workdir / "evaluation" / "follow", latest_step - 1, tensorboard=tensorboard)
            writer.write(latest_step, "validation", scalars(run, measurements))
            writer.close()
        summary = means(student.arm_names, measurements, run.selected_by)
        run.log(f"evaluate: step {latest_step}/{total_steps}  validation {NAMES[run.selected_by]}: {summary}")
    evaluate(run)


def means(names: Sequence[str], measurements: Measurements, measure: str) -> str:
    """Lists the mean of each arm over its finished seeds; `-` stands for an arm without any."""
    columns = zip(*([figures[measure] for figures in row] for row in measurements), strict=True)
    means_by_arm = zip(names, map(intervals.mean, columns), strict=True)
    return ", ".join(f"{name} {formats.number(mean)}" for name, mean in means_by_arm)


def _steps_after(step: int, run: Run) -> list[int]:
    """Returns the steps of the checkpoints after `step`."""
    if not (run.student.folder / FOLDER).is_dir():
        return []
    checkpoints = run.student.checkpoints()
    try:
        return [checkpoint_step for checkpoint_step in checkpoints.all_steps() if checkpoint_step > step]
    finally:
        checkpoints.close()
