"""The command: `python -m kdjax.main --config=configs/demo.py --workdir=… --stages=teacher,distill,evaluate`."""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import threading
import warnings
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging
from ml_collections import ConfigDict

from kdjax import flags
from kdjax.errors import InputError
from kdjax.runtime import command, host, preemption

if TYPE_CHECKING:
    from kdjax.run.run import Run


def main(argv: Sequence[str]) -> None:
    """Runs the stages that the command asks for.

    Args:
        argv: the arguments of the command; the first is its name.

    Raises:
        InputError: the user can correct what is wrong.
        Preempted: the run was asked to end.
    """
    logging.set_verbosity(logging.FATAL)  # orbax and clu log every detail, and also the errors that they then raise
    options = flags.parse(argv)
    config, workdir = options.config, options.workdir
    if (workdir / ("config.json" if config.splits > 1 else "split-0")).exists():
        existing = "a run of one split" if config.splits > 1 else "the runs of several splits"
        raise InputError(f"workdir {workdir} holds {existing}, but splits is {config.splits}: choose another workdir")
    if "export" in options.stages:
        from kdjax.deploy import export

        export.check(litert=config.run.litert)
    host.prepare()
    host.connect(options.coordinator, options.processes, options.process)
    # Imported only once the flags are known to be right, because importing JAX takes seconds.
    from kdjax.run import checks
    from kdjax.run.opening import open_for_command
    from kdjax.runtime import devices, watch
    from kdjax.runtime.deadline import Deadline
    from kdjax.stages.evaluate import combine_splits

    devices.split_cpu(host.cores())
    line = command.loss_message("it does not answer")
    watch.start(command.end_after_loss, Deadline(watch.STUCK_SECONDS, os.EX_TEMPFAIL, line))
    devices.meet()
    if command.several_processes() and not devices.same(_shared_options(options)):
        raise InputError(
            "the processes of this run were started with different stages or configs: give all of them the same command"
        )
    if options.follow:
        from kdjax.stages.follow import follow

        follow(config, workdir)
        devices.barrier("followed to the end")
        return
    splits = [(config, workdir)]
    if config.splits > 1:
        checks.check_splits(config)
        splits = [_split(config, number, workdir) for number in range(config.splits)]
    runs: list[Run] = []
    for split_config, directory in splits:  # opened before any is trained, so that errors show now, not after hours
        run = open_for_command(split_config, directory, one_of_splits=config.splits > 1)
        runs.append(run)
        if "export" in options.stages:
            export.check_images(litert=split_config.run.litert, bands=run.dataset.meaning.bands is not None)
    while runs:
        run = runs.pop(0)  # popped so that its memory is freed when it has ended
        if config.splits > 1:
            run.log(f"split in {run.workdir}")
        for name in flags.STAGES:
            if name in options.stages:
                _stage(name, run)
                preemption.check_lost()
    if config.splits > 1 and "evaluate" in options.stages:
        combine_splits(workdir, [directory for _, directory in splits])


def _stage(name: str, run: Run) -> None:
    """Imports and runs one stage; a stage that is not asked for costs no import time."""
    from kdjax.runtime import devices

    pkgutil.resolve_name(flags.STAGES[name])(run)
    devices.barrier(f"{name} is written")  # the first process writes the files that the next stage reads


def _shared_options(options: flags.Options) -> str:
    """Returns the options that all processes of a run must share, as JSON."""
    document = json.loads(options.config.to_json())
    for section, field in (("dataset", "path"), ("run", "cache_dir")):  # each process may have its own folders
        document[section].pop(field, None)
    return json.dumps([document, options.stages, options.follow], sort_keys=True)


def _split(config: ConfigDict, number: int, workdir: Path) -> tuple[ConfigDict, Path]:
    """Returns the configuration and the directory of one of several splits, which is a run of its own."""
    split_config = config.copy_and_resolve_references()
    split_config.splits = 1
    if split_config.dataset.split_by == "place":
        split_config.dataset.fold = (number, config.splits)
    else:
        split_config.data_seed += number
    return split_config, workdir / f"split-{number}"


def run() -> None:
    """The entry point. However a run ends, it ends with one line and an exit status."""
    sys.unraisablehook, threading.excepthook = _unraisablehook, _thread_excepthook
    # Once a write of orbax has failed, asyncio would report each of its other writes, which nobody waits for any more.
    getLogger("asyncio").setLevel("CRITICAL")
    warnings.filterwarnings("ignore", message="coroutine '.*write.*' was never awaited")
    fix = "use a smaller batch or image size, or run.arms_at_once=1"
    command.run_command(_watched, resumable=True, less_memory=fix)


def _watched(arguments: list[str]) -> None:
    """Runs the command so that SIGTERM ends it even while a program is compiled."""
    with preemption.watched(command.end_in_call):
        main([sys.argv[0], *arguments])


def _unraisablehook(unraisable: sys.UnraisableHookArgs) -> None:
    """Reports an exception that no caller can catch, except from writes of orbax after their event loop has ended."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _thread_excepthook(arguments: threading.ExceptHookArgs) -> None:
    """Reports an exception that ends a thread, except in threads of orbax, whose exceptions their caller raises."""
    if not type(arguments.thread).__module__.startswith("orbax."):
        threading.__excepthook__(arguments)


if __name__ == "__main__":
    run()
