"""Gives each command inputs that are wrong, and checks that each ends in one line.

    python tests/faults/bad_inputs.py [--only WORD] [--verbose]

An input passes where the command ends within a minute with the status of the table (2; 1 where it does the rest of its
work), says one line `error: ...` that holds the word of the table (a field or a file), shows no traceback, changes no
file that was there, and leaves no new one but the folders of a run. Each command is a fork of this process, which has
imported what it needs. The table and the counts are printed; status 1 where an input fails.
"""

import argparse
import collections
import dataclasses
import hashlib
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers import compiler

SECONDS = 60
TINY = ROOT / "tests" / "tiny.py"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = compiler.flags(devices=2)


@dataclasses.dataclass(frozen=True)
class Case:
    """One wrong input: in its arguments {d} is the folder that all share, {w} its own."""

    command: str
    room: str
    arguments: tuple[str, ...]
    word: str
    prepare: Callable[[Path, Path], None] | None = None
    status: int = 2


@dataclasses.dataclass(frozen=True)
class End:
    """How a command ended; status None = it was killed after SECONDS."""

    status: int | None
    out: str
    err: str
    seconds: float


def commands() -> dict[str, Callable[[list[str]], None]]:
    """The commands by name; each takes its arguments from sys.argv and ends the process."""
    import kdjax.deploy.export.__main__ as export
    import kdjax.deploy.landuse_map.__main__ as landuse_map
    import kdjax.run.opening  # noqa: F401 - what main imports late, so that a fork need not
    import kdjax.stages.train  # noqa: F401
    from kdjax import main
    from kdjax.deploy import catalog, predict, triton
    from kdjax.deploy.browser import __main__ as browser
    from kdjax.report import overview
    from kdjax.results import compare, two_splits
    from kdjax.runtime.command import run_command

    def of_small_networks(command: Callable[[list[str]], None]) -> None:
        runpy.run_path(str(TINY))["get_config"]()  # makes them small, in this fork
        run_command(command)

    return {
        "main": lambda argv: main.run(),
        "predict": lambda argv: run_command(predict.main),
        "map": lambda argv: run_command(landuse_map.main),
        "export": lambda argv: of_small_networks(export.main),
        "catalog": lambda argv: run_command(catalog.main),
        "triton": lambda argv: run_command(triton.main),
        "browser": lambda argv: run_command(browser.main),
        "compare": lambda argv: run_command(compare.main),
        "two_splits": lambda argv: run_command(two_splits.main),
        "overview": lambda argv: run_command(overview.main),
    }


def run_forked(command: Callable[[list[str]], None], argv: list[str], folder: Path) -> End:
    """Runs a command in a fork of this process, in `folder`."""
    out, err, began = folder / ".out", folder / ".err", time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.setpgid(0, 0)
            os.chdir(folder)
            sys.argv = ["command", *argv]
            command(argv)
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    ended, status = 0, 0
    while not ended and time.monotonic() - began < SECONDS:
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status) if ended else None
    said = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in (out, err)]
    for path in (out, err):
        path.unlink(missing_ok=True)
    return End(code, *said, time.monotonic() - began)


def listing(*folders: Path) -> dict[str, str]:
    """Every regular file below the folders, with a hash of its bytes."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and "cache" not in path.parts:
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def verdict(case: Case, end: End, before: dict[str, str], after: dict[str, str]) -> str:
    """What is wrong with how a command ended; "" where nothing is."""
    lines = end.err.strip().splitlines()
    changed = [path for path, digest in before.items() if after.get(path) != digest]
    # A run may have begun: its folder and lock stay. The others write what they were asked for, or nothing.
    half = lambda path: path.endswith(".tmp") or "export" in Path(path).parts
    new = [path for path in sorted(set(after) - set(before)) if case.command != "main" or half(path)]
    if end.status is None:
        return f"still running after {SECONDS} s"
    if "Traceback" in end.err + end.out:
        return "traceback: " + (lines[-1] if lines else "")
    if end.status != case.status:
        return f"status {end.status}" + (f": {lines[-1]}" if lines else ", silent")
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines: {' | '.join(lines)}"
    if case.word not in lines[0]:
        return f"does not name {case.word!r}: {lines[0]}"
    if changed:
        return f"changed {changed[0]}"
    return f"left {new[0]}" if new else ""


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose room, command or arguments hold this")
    parser.add_argument("--verbose", action="store_true", help="also print the line that each said")
    options = parser.parse_args()
    from faults import bad_input_cases, bad_input_cases_of_export, bad_input_cases_of_results, bad_input_cases_of_tools

    tables = (bad_input_cases, bad_input_cases_of_tools, bad_input_cases_of_results, bad_input_cases_of_export)
    wanted = lambda case: options.only in " ".join((case.command, case.room, *case.arguments))
    cases = [case for table in tables for case in table.cases() if wanted(case)]
    actions = commands()
    count, good = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        shared = Path(temporary) / "shared"
        bad_input_cases.write_shared(shared)
        bad_input_cases_of_results.write_shared(shared)
        for number, case in enumerate(cases):
            own = Path(temporary) / f"case-{number}"
            own.mkdir()
            if case.prepare:
                case.prepare(shared, own)
            argv = [argument.replace("{d}", str(shared)).replace("{w}", str(own)) for argument in case.arguments]
            before = listing(shared, own)
            end = run_forked(actions[case.command], argv, own)
            wrong = verdict(case, end, before, listing(shared, own))
            count[case.room] += 1
            good[case.room] += not wrong
            shown = " ".join(a for a in case.arguments if a not in bad_input_cases.RUN)
            head = f"{'FAILS' if wrong else 'ok   '} {case.room:9} {case.command:10} {end.seconds:4.1f} s"
            made = (
                f"  [{number}: {case.prepare.__qualname__.split('.')[-1]}]"
                if hasattr(case.prepare, "__qualname__")
                else ""
            )
            print(f"{head}  {shown}{made}", flush=True)
            if wrong or options.verbose:
                print(f"      {wrong or end.err.strip()}"[:300], flush=True)
    for room in sorted(count):
        print(f"{room}: {good[room]} of {count[room]}")
    print(f"{good.total()} of {count.total()} bad inputs ended in one line")
    raise SystemExit(good != count)


if __name__ == "__main__":
    main()
