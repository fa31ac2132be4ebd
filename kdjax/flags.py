"""The flags of `python -m kdjax.main`: what to run, on which configuration. Nothing here imports JAX."""

import dataclasses
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from kdjax.config import check_fields, from_file
from kdjax.errors import InputError

STAGES = {
    "describe": "kdjax.stages.describe:describe",
    "teacher": "kdjax.stages.train:train_teacher",
    "distill": "kdjax.stages.train:distill",
    "evaluate": "kdjax.stages.evaluate:evaluate",
    "export": "kdjax.deploy.export.stage:export",
    "report": "kdjax.report.stage:report",
}
"""The stages in the order in which they run, each with its function, which is imported only when the stage runs."""

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.py"
USAGE = """python -m kdjax.main [--config=FILE[:ARGUMENT]] [--config.FIELD=VALUE …] [other flags]

Trains a land-use teacher, distills it into small students, evaluates them and exports them. The same command again
continues where it stopped. A config file is Python code, and it is run. Every field is in kdjax/config.py.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of the flags.

    Attributes:
        config: the configuration, with the overrides from the command line.
        workdir: directory of the run.
        stages: the stages to run, any of `STAGES`.
        follow: whether to evaluate each new checkpoint of a run that another process trains.
        coordinator, processes, process: address of the first of several processes, their number, and the index of this
            one; all None if there is only one.
    """

    config: ConfigDict
    workdir: Path
    stages: tuple[str, ...]
    follow: bool
    coordinator: str | None
    processes: int | None
    process: int | None


def parse(argv: Sequence[str]) -> Options:
    """Parses the arguments of the command, the first of which is its name.

    Raises:
        InputError: names the flag or field, and what is wrong with it.
        SystemExit: help was requested and has been printed.
    """
    wants_help = any(argument in ("-h", "-help", "--help", "--helpshort", "--helpfull") for argument in argv[1:])
    source, rest = _take_config(argv)
    rest = _last_of_each(rest)
    values = _define_flags()
    if wants_help:
        print(f"{USAGE}\n{values.get_help()}")
        raise SystemExit(0)
    config = load_config(source)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(rest))
        extra = values(list(rest))
    except (AttributeError, KeyError) as error:
        raise InputError(_unknown_field(rest, error)) from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from error
    if len(extra) > 1:
        raise InputError(f"unexpected argument {extra[1]!r}: flags are written --name=value")
    settings: dict[str, Any] = {name: values[name].value for name in values}
    config = settings["config"]
    options = Options(
        config=config,
        workdir=_workdir(settings["workdir"], str(config.name)),
        stages=tuple(settings["stages"]),
        **{name: settings[name] for name in ("follow", "coordinator", "processes", "process")},
    )
    _check(options)
    return options


def _workdir(value: str | None, name: str) -> Path:
    if value == "":  # such as an unset variable of the shell
        raise InputError("--workdir: give the directory of the run, as --workdir=runs/mine")
    try:
        return Path(value or Path("runs") / name).expanduser()
    except RuntimeError:
        raise InputError(f"--workdir: {value}: there is no such home directory: give another path") from None


def load_config(source: str) -> ConfigDict:
    """Loads the configuration that a file's `get_config(argument)` returns.

    Args:
        source: FILE, whose `get_config` then takes its default argument, or FILE:ARGUMENT.

    Raises:
        InputError: there is no such file, its code raises (the message names the line), or it returns no configuration.
    """
    path, argument = re.fullmatch(r"(.*?)(?::(.*))?", source, re.DOTALL).groups()  # type: ignore[union-attr]
    try:
        config = from_file(path, argument or "")
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(_in_file(path, error)) from error
    if not isinstance(config, ConfigDict) or "name" not in config:
        raise InputError(
            f"--config: get_config() of {path} returns no configuration: begin it with kdjax.config.base()"
        )
    return config


def _in_file(path: str, error: BaseException) -> str:
    """A one-line message on what the code of a config file raised."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == path:
            line = frame.lineno
    message = " ".join(str(error).split()) or "no message"
    return f"--config: {path}{f', line {line}' if line else ''}: {type(error).__name__}: {message}"


def _take_config(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The value of --config (the last, if it is given several times) and the other arguments."""
    source, rest, arguments = str(DEFAULT_CONFIG), [], iter(argv)
    for argument in arguments:
        match = re.fullmatch(r"--?config(?:=(.*))?", argument, re.DOTALL)
        if not match:
            rest.append(argument)
            continue
        value = match[1] if match[1] is not None else next(arguments, "")
        if not value:
            raise InputError("--config: give the file of a configuration, as --config=configs/demo.py")
        source = value
    return source, rest


def _last_of_each(arguments: Sequence[str]) -> list[str]:
    """Drops all but the last value of each field, because ml_collections would concatenate the values of a tuple."""
    latest: dict[str, list[str]] = {}
    remaining = list(reversed(arguments))
    while remaining:
        argument = remaining.pop()
        field = re.fullmatch(r"--?(config\.[^=]+)(=.*)?", argument, re.DOTALL)
        parts = [argument]
        if field and field[2] is None and remaining and not re.match(r"--?[A-Za-z]", remaining[-1]):
            parts.append(remaining.pop())  # --config.FIELD VALUE
        name = field[1] if field else str(len(latest))  # arguments that are not fields stay where they are
        latest.pop(name, None)
        latest[name] = parts
    return [part for parts in latest.values() for part in parts]


def _define_flags() -> flags.FlagValues:
    """Defines the flags other than the configuration, in a new `FlagValues` for each parse of a command line."""
    values = flags.FlagValues()
    define: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "Directory of the run. Default: runs/NAME, NAME being config.name.", **define)
    flags.DEFINE_list(
        "stages", ["teacher", "distill", "evaluate"], f"Any of {', '.join(STAGES)}, in this order.", **define
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.", **define)
    flags.DEFINE_integer("processes", None, "Number of processes.", lower_bound=1, **define)
    flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0, **define)
    flags.DEFINE_boolean(
        "follow",
        False,
        "With --stages=evaluate: evaluate each new checkpoint of a run that another process trains.",
        **define,
    )
    return values


def _check(options: Options) -> None:
    """Checks the options as far as possible without data and JAX."""
    check_fields(options.config)
    if not options.stages:
        raise InputError(f"--stages is empty: choose from {', '.join(STAGES)}")
    for name in options.stages:
        if name not in STAGES:
            raise InputError(f"--stages: unknown stage {name!r}; choose from {', '.join(STAGES)}")
    if len({value is None for value in (options.coordinator, options.processes, options.process)}) > 1:
        raise InputError("--coordinator, --processes and --process go together: give all three or none")
    if options.process is not None and options.processes is not None and options.process >= options.processes:
        raise InputError(f"--process is {options.process}, but there are {options.processes}: they are counted from 0")
    splits = options.config.splits
    if options.follow and options.stages != ("evaluate",):
        raise InputError("--follow goes with --stages=evaluate: it writes evaluation/ only")
    if options.follow and splits != 1:
        raise InputError(
            "--follow follows one run: set splits=1, data_seed and --workdir to those of one of the splits"
        )
    if any(mark in str(options.workdir) for mark in "[]*?"):
        raise InputError(
            f"workdir {options.workdir}: orbax reads '[', ']', '*' and '?' as patterns: choose another name"
        )


def _unknown_field(argv: Sequence[str], error: Exception) -> str:
    """A one-line message on an unknown field of the configuration."""
    fields = [argument.split("=")[0] for argument in argv if re.match(r"--?(no)?config\.", argument)]
    words = set(re.findall(r"\w+", str(error)))
    unknown = next(
        (field for field in fields if words & set(field.split(".")[1:])), fields[0] if fields else "--config"
    )
    suggestion = re.search('Did you mean "(.+?)"', str(error))
    if re.match(r"--?config\.arms\.\w+\.\w+$", unknown):
        return f"{unknown}: the arm does not set it; give an arm new fields in a config file"
    hint = f"did you mean {suggestion[1]}?" if suggestion else "kdjax/config.py has all"
    return f"{unknown}: there is no such field; {hint}"
