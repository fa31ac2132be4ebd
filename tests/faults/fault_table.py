"""Does harm to each stage of a small run, and checks that it ends in one line and that nothing is lost.

    python tests/faults/fault_table.py [--stages distill,evaluate] [--faults SIGINT,SIGTERM] [--seed 0]

The stages before the harmed one are copies of those of a run that nothing happened to. Two questions are asked of each
row of the table. Clean: did the harmed command end with the status that it should, say one line at most on its standard
error, and show no traceback? Whole: does the same command, without the fault and with the stages that follow, end with
the checkpoints, exported student and results of the run that nothing happened to, bit by bit? Counts are printed last;
status 1 where a row fails.
"""

import argparse
import dataclasses
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faults import kill_loop

STAGES = tuple(kill_loop.STAGES.split(","))
LIMIT = 64 << 10
"""The bytes of a file at which the disk is "full": config.json fits, a checkpoint does not."""

TRAINED_BEFORE = {"distill": "teacher", "evaluate": "distill", "export": "distill", "report": "distill"}


@dataclasses.dataclass(frozen=True)
class Place:
    """A run that is about to be harmed."""

    directory: Path
    stage: str
    programs: Path
    whole: Path
    seconds: float  # what the stage takes
    draw: random.Random


@dataclasses.dataclass(frozen=True)
class End:
    """How a command ended."""

    status: int
    out: str
    err: str

    def line(self) -> str:
        """The last line on its standard error."""
        return (self.err.strip().splitlines() or [""])[-1]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done, the statuses that are right, and the stages it can be done to."""

    do: Callable[[Place], End]
    statuses: tuple[int, ...]
    stages: tuple[str, ...] = STAGES


def start(directory: Path, programs: Path, stages: str, **options: object) -> subprocess.Popen:
    """The command of `kill_loop` with these stages."""
    command = [*kill_loop.command(directory, programs), f"--stages={stages}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": kill_loop.ROOT}
    return subprocess.Popen(command, **pipes, **options)


def ended(process: subprocess.Popen) -> End:
    """Waits for a command; one that takes longer than ten minutes is killed."""
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return End(process.returncode, out, err)


def at_some_instant(number: int) -> Callable[[Place], End]:
    """Sends a signal after the imports, which take about a third of a stage, and before the end."""

    def do(place: Place) -> End:
        process = start(place.directory, place.programs, place.stage)
        time.sleep(place.draw.uniform(0.4, 0.9) * place.seconds)
        process.send_signal(number)
        return ended(process)

    return do


def at_the_last_save(number: int) -> Callable[[Place], End]:
    """Sends a signal as the first file of the last checkpoint appears."""

    def do(place: Place) -> End:
        folder = place.directory / "run" / place.stage / "checkpoints"
        last = max(
            int(name) for name in os.listdir(place.whole / "run" / place.stage / "checkpoints") if name.isdigit()
        )
        process = start(place.directory, place.programs, place.stage)
        while process.poll() is None and not any(path.name.startswith(str(last)) for path in folder.glob("*")):
            time.sleep(0.001)
        process.send_signal(number)
        return ended(process)

    return do


def disk_full(place: Place) -> End:
    """No file may grow beyond LIMIT."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    return ended(start(place.directory, place.programs, place.stage, preexec_fn=limit))


def checkpoints(place: Place) -> Path:
    return place.directory / "run" / TRAINED_BEFORE[place.stage] / "checkpoints"


def byte_flipped(place: Place) -> End:
    """In the middle of the largest file of the checkpoints that the stage reads."""
    path = max((path for path in checkpoints(place).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return ended(start(place.directory, place.programs, place.stage))


def optimizer_removed(place: Place) -> End:
    """From the latest of the checkpoints that the stage reads."""
    step = max(int(path.name) for path in checkpoints(place).iterdir() if path.name.isdigit())
    shutil.rmtree(checkpoints(place) / str(step) / "optimizer")
    return ended(start(place.directory, place.programs, place.stage))


def cache_deleted(place: Place) -> End:
    """Everything in the cache but the compiled programs."""
    for path in (place.directory / "cache").iterdir():
        if path.name != "programs":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return ended(start(place.directory, place.programs, place.stage))


READ = tuple(TRAINED_BEFORE)
FAULTS = {
    "SIGKILL": Fault(at_some_instant(signal.SIGKILL), (-signal.SIGKILL, 0)),
    "SIGTERM": Fault(at_some_instant(signal.SIGTERM), (os.EX_TEMPFAIL, 0)),
    # Before Python has its handlers, and after it gave them back, the signal itself ends it: to a shell that is 130.
    "SIGINT": Fault(at_some_instant(signal.SIGINT), (130, 0, -signal.SIGINT)),
    "SIGTERM at the last save": Fault(at_the_last_save(signal.SIGTERM), (os.EX_TEMPFAIL,), ("teacher", "distill")),
    "SIGINT at the last save": Fault(at_the_last_save(signal.SIGINT), (130,), ("teacher", "distill")),
    "disk full": Fault(disk_full, (1, 2), ("teacher", "distill", "export")),
    "a byte flipped": Fault(byte_flipped, (0, 1, 2), READ),
    "optimizer removed": Fault(optimizer_removed, (0, 1, 2), READ),
    "cache deleted": Fault(cache_deleted, (0,), READ),
}


def unclean(fault: Fault, end: End) -> str:
    """What is wrong with how a command ended; "" where nothing is."""
    if "Traceback" in end.err + end.out:
        return f"traceback of {len(end.err.splitlines())} lines: {end.line()}"
    if end.status not in fault.statuses:
        return f"status {end.status}: {end.line()}"
    if end.status not in (0, -signal.SIGKILL) and len(end.err.strip().splitlines()) != 1:
        return f"{len(end.err.strip().splitlines())} lines: {end.line()}"
    return ""


def harm(name: str, place: Place) -> tuple[str, str]:
    """Does one fault; returns what was not clean and what was lost."""
    fault = FAULTS[name]
    wrong = unclean(fault, fault.do(place))
    rest = ",".join(STAGES[STAGES.index(place.stage) :])
    again = ended(start(place.directory, place.programs, rest))
    if again.status:  # a damaged checkpoint may need the stage that made it
        again = ended(start(place.directory, place.programs, ",".join(STAGES)))
    if again.status:
        return wrong, f"does not go on: status {again.status}: {again.line()}"
    return wrong, ", ".join(kill_loop.differences(place.whole, place.directory))


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--directory", type=Path, help="where the runs are kept; default: a temporary directory")
    options = parser.parse_args()
    os.environ.update(XLA_FLAGS=kill_loop.FLAGS, JAX_PLATFORMS="cpu")
    sys.path.insert(0, str(kill_loop.ROOT))
    draw, rows, clean, kept = random.Random(options.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        root = options.directory or Path(temporary)
        programs = root / "programs"
        programs.mkdir(parents=True, exist_ok=True)
        before, seconds = {}, {}
        for round_ in ("compiles", "whole"):  # the second finds its programs compiled: its times are those of a fault
            for stage in STAGES:
                began = time.monotonic()
                if round_ == "whole":
                    before[stage] = root / f"before-{stage}"
                    if (root / "whole").exists():
                        shutil.copytree(root / "whole", before[stage], symlinks=True)
                (root / round_).mkdir(exist_ok=True)
                end = ended(start(root / round_, programs, stage))
                if end.status:
                    raise SystemExit(f"stage {stage} fails without a fault:\n{end.out[-2000:]}{end.err[-2000:]}")
                seconds[stage] = time.monotonic() - began
        chosen = [stage for stage in STAGES if stage in options.stages.split(",")]
        for name in options.faults.split(","):
            for stage in (stage for stage in chosen if stage in FAULTS[name].stages):
                rows += 1
                directory = root / f"row-{rows}"
                if before[stage].exists():
                    shutil.copytree(before[stage], directory, symlinks=True)
                directory.mkdir(exist_ok=True)
                wrong, lost = harm(name, Place(directory, stage, programs, root / "whole", seconds[stage], draw))
                clean, kept = clean + (not wrong), kept + (not lost)
                shown = f"NOT CLEAN: {wrong}" if wrong else "clean"
                print(f"{name:25} {stage:9} {shown}; {'LOST: ' + lost if lost else 'whole'}"[:400], flush=True)
                shutil.rmtree(directory)
    print(f"{clean} of {rows} clean, {kept} of {rows} whole")
    raise SystemExit(min(clean, kept) < rows)


if __name__ == "__main__":
    main()
