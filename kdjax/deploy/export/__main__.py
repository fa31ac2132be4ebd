"""The command: `python -m kdjax.deploy.export --workdir=… [--arm=NAME] [--seed=N] [--litert]`."""

from pathlib import Path

from ml_collections import ConfigDict

from kdjax.deploy import export
from kdjax.errors import InputError
from kdjax.runtime import files, host
from kdjax.runtime.command import Parser, run_command

SECTIONS = ("dataset", "teacher", "student", "distill", "arms", "run")
"""Sections of a configuration in every version of kdjax."""


def main(argv: list[str]) -> None:
    """Exports a student of a finished run.

    Raises:
        InputError: the user can correct the arguments, the run or the installation.
    """
    parser = Parser(prog="python -m kdjax.deploy.export", description="Writes WORKDIR/export from a finished run.")
    parser.add_argument("--workdir", type=Path, required=True, help="directory of the run")
    parser.add_argument("--arm", help="default: the best on validation")
    parser.add_argument("--seed", type=int, help="default: the best on validation")
    parser.add_argument("--litert", action="store_true", help="write LiteRT (TFLite) files as well, like run.litert")
    options = parser.parse_args(argv)
    workdir = options.workdir.expanduser()
    document = files.read_json(workdir / "config.json", "--workdir: give the directory of a run")
    if not isinstance(document, dict) or not all(isinstance(document.get(name), dict) for name in SECTIONS):
        raise InputError(f"--workdir: no run in {workdir}: its config.json holds no configuration")
    program = workdir / "distill" / "program.json"
    # Runs of earlier versions have no names there; `export` checks them again once the data are read.
    names = files.read_json(program, "remove it; it is written again") if program.is_file() else {}
    if isinstance(names, dict) and {"arms", "seeds"} <= names.keys():
        export.check_student(names["arms"], names["seeds"], options.arm, options.seed)
    litert = options.litert or bool(document["run"].get("litert"))
    export.check(litert=litert)
    host.prepare()
    # Imported after the arguments were checked, because importing JAX takes seconds.
    from kdjax.deploy.export.stage import export as export_student
    from kdjax.run.opening import open_for_command
    from kdjax.run.record import completed

    run = open_for_command(ConfigDict(completed(document)), workdir)
    run.config.run.litert = litert
    export_student(run, options.arm, options.seed)


if __name__ == "__main__":
    run_command(main, resumable=True)
