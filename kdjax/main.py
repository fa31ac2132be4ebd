"""The command: `python -m kdjax.main --config=configs/demo.py --workdir=… --stages=teacher,distill,evaluate`."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from kdjax.config import expand_paths
from kdjax.deploy import export
from kdjax.errors import InputError, Preempted
from kdjax.runtime import host

if TYPE_CHECKING:
    from kdjax.run.run import Run

STAGES = ("describe", "teacher", "distill", "evaluate", "export", "report")
DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.py"

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"File with get_config(). Default: {DEFAULT_CONFIG}.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run. Default: runs/NAME, NAME being config.name.")
_STAGES = flags.DEFINE_list("stages", ["teacher", "distill", "evaluate"], f"Any of {', '.join(STAGES)}, in this order.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
_FOLLOW = flags.DEFINE_boolean(
    "follow", False, "With --stages=evaluate: evaluate each new checkpoint of a run that another process trains."
)


def log(line: str) -> None:
    """Prints a line with the time."""
    print(time.strftime("%H:%M:%S ") + line, flush=True)


def main(argv: list[str]) -> None:
    """Runs the stages that were asked for."""
    logging.set_verbosity(logging.WARNING)  # orbax and clu tell every detail at INFO
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: flags are written --name=value")
    for name in _STAGES.value:
        if name not in STAGES:
            raise InputError(f"--stages: unknown stage {name!r}; choose from {', '.join(STAGES)}")
    if len({value is None for value in (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)}) > 1:
        raise InputError("--coordinator, --processes and --process go together: give all three or none")
    config = _CONFIG.value
    if _FOLLOW.value and _STAGES.value != ["evaluate"]:
        raise InputError("--follow goes with --stages=evaluate: it writes evaluation/ only")
    if _FOLLOW.value and config.splits > 1:
        raise InputError(
            "--follow follows one run: set splits=1, data_seed and --workdir to those of one of the splits"
        )
    if "export" in _STAGES.value:
        export.check()
    workdir = Path(_WORKDIR.value or Path("runs") / config.name).expanduser()
    if (workdir / ("config.json" if config.splits > 1 else "split-0")).exists():
        held = "a run of one split" if config.splits > 1 else "the runs of several splits"
        raise InputError(f"workdir {workdir} holds {held}, but splits is {config.splits}: choose another workdir")
    host.prepare()
    host.connect(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    from kdjax.runtime import preemption, watch
    from kdjax.stages import evaluate, train  # after the flags are known to be right: JAX takes seconds
    from kdjax.stages.follow import follow

    preemption.install()
    watch.start(_lost)
    actions = {
        "describe": evaluate.describe,
        "teacher": train.train_teacher,
        "distill": train.distill,
        "evaluate": evaluate.evaluate,
        "export": _export,
        "report": _report,
    }
    if _FOLLOW.value:
        follow(opened(config, workdir, follows=True))
        return
    parts = [(config, workdir)]
    if config.splits > 1:
        parts = [_split(config, number, workdir) for number in range(config.splits)]
    for one, directory in parts:
        run = opened(one, directory, one_of_splits=config.splits > 1)
        for name in STAGES:
            if name in _STAGES.value:
                actions[name](run)
    if config.splits > 1 and "evaluate" in _STAGES.value:
        evaluate.combine_splits(workdir, [directory for _, directory in parts])


def _split(config: ConfigDict, number: int, workdir: Path) -> tuple[ConfigDict, Path]:
    """One of several splits as a run of its own."""
    one = config.copy_and_resolve_references()
    one.splits = 1
    one.data_seed += number
    return one, workdir / f"split-{number}"


def opened(config: ConfigDict, workdir: Path, **options: bool) -> Run:
    """Sets the process up and opens the run with the options of `run.open_run`."""
    expand_paths(config)
    host.prepare()
    import jax  # after the flags are known to be right: it takes seconds

    from kdjax.run.run import open_run

    cache = Path(config.run.cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kdjax")
    # Resolved, as JAX makes the name of the folder a part of what a program is found by.
    jax.config.update("jax_compilation_cache_dir", str((cache / "programs").resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # many small ones add up to seconds
    say = log if jax.process_index() == 0 else lambda line: None
    return open_run(config, workdir, cache, say, **options)


def _export(run: Run) -> None:
    from kdjax.deploy.export.stage import export as export_student  # needs the extra `export`

    export_student(run)


def _report(run: Run) -> None:
    from kdjax.report.stage import report  # only those who ask for it wait for its imports

    report(run)


def _parse(argv: list[str]) -> list[str]:
    """Flags, with one line for each mistake in them."""
    if not any(re.match("--?config(=|$)", argument) for argument in argv):
        argv.insert(1, f"--config={DEFAULT_CONFIG}")
    try:
        rest = flags.FLAGS(argv)
        if not _CONFIG.value.get("name"):
            raise InputError("--config: its get_config() gives no configuration: let it begin with kdjax.config.base()")
    except (AttributeError, KeyError) as error:
        fields = [argument.split("=")[0] for argument in argv if argument.startswith("--config.")]
        words = set(re.findall(r"\w+", str(error)))
        wrong = next((field for field in fields if words & set(field.split(".")[1:])), None)
        if wrong is None:  # a mistake in the code of the config file
            raise
        near = re.search('Did you mean "(.+?)"', str(error))
        hint = f"did you mean {near[1]}?" if near else "kdjax/config.py has all"
        raise InputError(f"{wrong}: there is no such field; {hint}") from error
    except (flags.Error, TypeError, ValueError, OSError, InputError) as error:
        # What a config file raises comes as the text of its traceback, after the flag.
        flag, _, trace = str(error).partition("Error whilst parsing config file:")
        if isinstance(error, OSError):
            flag, trace = "--config:", str(error)
        raise InputError(
            " ".join(f"{flag} {trace.strip().splitlines()[-1]}".split() if trace else flag.split())
        ) from error
    return rest


def run() -> None:
    """Entry point: bad input ends in one line and exit status 2."""
    try:
        app.run(main, flags_parser=_parse)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        _end(2)
    except Preempted as error:  # of several processes all end so
        print(f"{error}; the same command goes on from there", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)  # schedulers requeue on it
    except Exception as error:
        if not _others():
            raise
        if isinstance(error, sys.modules["jax"].errors.JaxRuntimeError):
            _lost(" ".join(str(error).split())[:200])
        traceback.print_exc()
        _end(1)


def _lost(why: str) -> None:
    print(
        f"error: another process of this run has ended or is not reached ({why}); start all of them again with the "
        "same command, it goes on from the latest checkpoint",
        file=sys.stderr,
    )
    _end(os.EX_TEMPFAIL)


def _others() -> bool:
    """Whether this is one of several processes."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _end(status: int) -> None:
    """Ends this process, at once where there are others: JAX's own shutdown would wait until they end as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    if _others():
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
