"""Kills a small run again and again, and checks that it ends as if nothing had happened.

    python tests/faults/kill_loop.py --kills 50 [--seed 0] [--directory DIR]

A run through all stages, in a fresh process each time, gets SIGKILL up to two seconds after a random line of progress,
and is started again with the same command until it ends by itself. Then its checkpoints (every array, bit by bit), its
exported student and its results.json (but for environment and repeated work) must be those of a run that was never
killed; and the whole starts over with another working directory and cache, until there were so many kills. The compiled
programs are shared by all.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import compiler

STAGES = "teacher,distill,evaluate,export,report"
FLAGS = compiler.flags(devices=2)


def command(directory: Path, programs: Path) -> list[str]:
    cache = directory / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "programs").exists():
        (cache / "programs").symlink_to(programs)
    return [
        sys.executable, "-m", "kdjax.main", f"--config={ROOT / 'tests' / 'tiny.py'}", "--config.dataset.source=demo",
        "--config.dataset.demo_classes=3", "--config.dataset.demo_train=48", "--config.dataset.demo_validation=12",
        "--config.dataset.demo_test=12",
        f"--workdir={directory / 'run'}", f"--config.run.cache_dir={cache}", f"--stages={STAGES}",
        "--config.seeds=(0,)", "--config.distill.arms=('student_alone','kl_cosine')",
    ]  # fmt: skip


def start(directory: Path, programs: Path) -> subprocess.Popen:
    log = open(directory / "log.txt", "a", encoding="utf-8")
    return subprocess.Popen(command(directory, programs), cwd=ROOT, stdout=log, stderr=log)


def lines(directory: Path) -> int:
    """How many of progress the log has. They begin with the time; those of the closing table come all at once."""
    path = directory / "log.txt"
    return len(re.findall(rb"^\d\d:\d\d:\d\d .*\n", path.read_bytes(), re.MULTILINE)) if path.exists() else 0


def killed(process: subprocess.Popen, directory: Path, said: int, delay: float) -> bool:
    """Kills the process `delay` seconds after the log has `said` lines; false where it has ended before."""
    while lines(directory) < said:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def arrays(directory: Path) -> dict[str, np.ndarray]:
    """Every array of the latest checkpoints."""
    import jax
    import orbax.checkpoint as ocp

    found = {}
    for stage in ("teacher", "distill"):
        folder = directory / "run" / stage / "checkpoints"
        step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        for item in ("model", "optimizer", "best", "averages"):
            with ocp.StandardCheckpointer() as checkpointer:
                tree = checkpointer.restore((folder / str(step) / item).absolute())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                found[f"{stage}/{step}/{item}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def differences(one: Path, other: Path) -> list[str]:
    """What tells two finished runs apart."""
    found = []
    left, right = arrays(one), arrays(other)
    found += sorted(set(left) ^ set(right))
    found += [name for name in left if name in right and left[name].tobytes() != right[name].tobytes()]
    documents = []
    for directory in (one, other):
        document = json.loads((directory / "run" / "results.json").read_text(encoding="utf-8"))
        document.pop("environment"), document["config"].pop("run"), document["teacher"].pop("repeated_images")
        documents.append(document)
    found += [f"results.json: {name}" for name in documents[0] if documents[0][name] != documents[1][name]]
    for name in ("student.safetensors", "student.onnx", "labels.json"):
        contents = [(directory / "run" / "export" / name).read_bytes() for directory in (one, other)]
        found += [name] if contents[0] != contents[1] else []
    for directory in (one, other):  # the page has times in it, so no two are equal
        page = directory / "run" / "report.html"
        found += [] if page.read_text(encoding="utf-8").rstrip().endswith("</html>") else [str(page)]
    for stage in ("teacher", "distill"):
        contents = [
            (directory / "run" / stage / "metrics.jsonl").read_text(encoding="utf-8") for directory in (one, other)
        ]
        found += [f"{stage}/metrics.jsonl"] if contents[0] != contents[1] else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--directory", type=Path, help="where the runs are kept; default: a temporary directory")
    options = parser.parse_args()
    os.environ.update(XLA_FLAGS=FLAGS, JAX_PLATFORMS="cpu")  # also of this process, which reads the checkpoints
    sys.path.insert(0, str(ROOT))
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.directory or Path(temporary)
        programs = root / "programs"
        programs.mkdir(parents=True, exist_ok=True)
        (root / "whole").mkdir()
        if start(root / "whole", programs).wait():
            said = (root / "whole" / "log.txt").read_text(encoding="utf-8")
            raise SystemExit(f"the run fails without being killed:\n{said[-3000:]}")
        whole = lines(root / "whole")
        kills = rounds = same = different = 0
        while kills < options.kills:
            rounds += 1
            directory = root / f"round-{rounds}"
            directory.mkdir()
            here = 0
            while True:
                before = lines(directory)
                process = start(directory, programs)
                due = before + draw.randrange(whole)
                if kills + here < options.kills and killed(process, directory, due, draw.uniform(0, 2)):
                    here += 1
                    continue
                if status := process.wait():
                    text = (directory / "log.txt").read_text(encoding="utf-8")[-3000:]
                    raise SystemExit(f"round {rounds}: exit status {status} after {here} kills:\n{text}")
                break
            kills += here
            found = differences(root / "whole", directory)
            same, different = same + here * (not found), different + bool(found)
            verdict = "DIFFERS: " + ", ".join(found) if found else "bit-identical"
            print(f"round {rounds}: {here} kills, {verdict}", flush=True)
    print(f"{same} of {kills} kills ended bit-identical")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
