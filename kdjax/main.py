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
    """Runs the stages that were asked for.

    Args:
        argv: the arguments of the command; the first is its name.

    Raises:
        InputError: anything that a person can put right.
        Preempted: the run was asked to end.
    """
    logging.set_verbosity(logging.FATAL)  # orbax and clu tell every detail, and log what they then raise as well
    options = flags.parse(argv)
    config, workdir = options.config, options.workdir
    if (workdir / ("config.json" if config.splits > 1 else "split-0")).exists():
        held = "a run of one split" if config.splits > 1 else "the runs of several splits"
        raise InputError(f"workdir {workdir} holds {held}, but splits is {config.splits}: choose another workdir")
    if "export" in options.stages:
        from kdjax.deploy import export

        export.check(litert=config.run.litert)
    host.prepare()
    host.connect(options.coordinator, options.processes, options.process)
    # After the flags are known to be right: JAX takes seconds.
    from kdjax.run import checks
    from kdjax.run.opening import opened
    from kdjax.runtime import devices, watch
    from kdjax.runtime.deadline import Deadline
    from kdjax.stages.evaluate import combine_splits

    devices.split_cpu(host.cores())
    line = command.lost_line("it is waited for in vain")
    watch.start(command.lost, Deadline(watch.STUCK_SECONDS, os.EX_TEMPFAIL, line))
    devices.meet()
    if command.several_processes() and not devices.same(_asked(options)):
        raise InputError(
            "the processes of this run were started with different stages or configs: give all of them the same command"
        )
    if options.follow:
        from kdjax.stages.follow import follow

        follow(config, workdir)
        devices.barrier("followed to the end")
        return
    parts = [(config, workdir)]
    if config.splits > 1:
        checks.check_splits(config)
        parts = [_split(config, number, workdir) for number in range(config.splits)]
    runs: list[Run] = []
    for one, directory in parts:  # all of them first: one that cannot be used would else end hours of the others
        run = opened(one, directory, one_of_splits=config.splits > 1)
        runs.append(run)
        if "export" in options.stages:
            export.check_images(litert=one.run.litert, bands=run.dataset.meaning.bands is not None)
    while runs:
        run = runs.pop(0)  # what it holds is let go when it has ended
        if config.splits > 1:
            run.log(f"split in {run.workdir}")
        for name in flags.STAGES:
            if name in options.stages:
                _stage(name, run)
                preemption.check_lost()
    if config.splits > 1 and "evaluate" in options.stages:
        combine_splits(workdir, [directory for _, directory in parts])


def _stage(name: str, run: Run) -> None:
    """Runs one stage. Its module is imported now: only those who ask for an export or a report wait for theirs."""
    from kdjax.runtime import devices

    pkgutil.resolve_name(flags.STAGES[name])(run)
    devices.barrier(f"{name} is written")  # by the first process: the next stage reads it, or all end


def _asked(options: flags.Options) -> str:
    """What all processes of a run must have been asked for."""
    document = json.loads(options.config.to_json())
    for section, place in (("dataset", "path"), ("run", "cache_dir")):  # each may have its own
        document[section].pop(place, None)
    return json.dumps([document, options.stages, options.follow], sort_keys=True)


def _split(config: ConfigDict, number: int, workdir: Path) -> tuple[ConfigDict, Path]:
    """One of several splits as a run of its own."""
    one = config.copy_and_resolve_references()
    one.splits = 1
    if one.dataset.split_by == "place":
        one.dataset.fold = (number, config.splits)
    else:
        one.data_seed += number
    return one, workdir / f"split-{number}"


def run() -> None:
    """Entry point: whatever a person or a machine does to a run ends in one line and its exit status."""
    sys.unraisablehook, threading.excepthook = _unraisable, _of_a_thread
    # What else is said of writes of orbax that nobody waits for any more, once one has failed.
    getLogger("asyncio").setLevel("CRITICAL")
    warnings.filterwarnings("ignore", message="coroutine '.*write.*' was never awaited")
    fix = "use a smaller batch or image size, or run.arms_at_once=1"
    command.run_command(lambda arguments: main([sys.argv[0], *arguments]), resumable=True, less_memory=fix)


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """Shows what no caller can catch, but for writes of orbax that fail after another one has ended their loop."""
    if str(told.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(told)


def _of_a_thread(told: threading.ExceptHookArgs) -> None:
    """Shows what ends a thread, but for those of orbax: the one that waits for them raises it."""
    if not type(told.thread).__module__.startswith("orbax."):
        threading.__excepthook__(told)


if __name__ == "__main__":
    run()
