"""Validation accuracy of a distilled student over the number of views, and with an online teacher.

    python tests/benchmarks/views_curve.py --directory=runs/views --json=views_curve.json -- \
        --config=configs/uc_merced.py --config.seeds="(0,1,2)" --config.dataset.path=data/uc_merced.zip

What follows `--` goes to kdjax.main. One teacher is trained; each number of views has a working directory with a copy
of its checkpoint, so that only the students differ. All share one cache: a view is computed once. The test split is
not looked at. configs/results/draw.py makes the figure.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VIEWS = (1, 2, 4, 8, 16, 0)
ARMS = ("student_alone", "kl_cosine")


def run(workdir: Path, stages: str, options: list[str]) -> None:
    command = [sys.executable, "-m", "kdjax.main", f"--workdir={workdir}", f"--stages={stages}", *options]
    subprocess.run(command, cwd=ROOT, check=True)


def best_of(workdir: Path) -> dict[str, float]:
    """Each student's best validation top-1, by the rule that selects it, from its stage's metrics."""
    best: dict[str, tuple[float, float]] = {}
    for line in (workdir / "distill" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "validation":
            for student, one in record["students"].items():
                best[student] = max(best.get(student, (-1.0, 0.0)), (one["top1"], -one["nll"]))
    return {student: top1 for student, (top1, _) in best.items()}


def measure(directory: Path, options: list[str]) -> dict[str, dict[str, list[float]]]:
    """Best validation top-1 of every seed, by number of views ("online" for 0) and arm."""
    options = [*options, f"--config.distill.arms={ARMS!r}"]
    teacher = directory / "teacher"
    run(teacher, "teacher", [*options, f"--config.distill.views={max(VIEWS)}"])
    found = {}
    for views in VIEWS:
        name = str(views) if views else "online"
        workdir, here = directory / name, [*options, f"--config.distill.views={views}"]
        if not (workdir / "teacher").exists():
            run(workdir, "describe", here)  # a directory is of no other config until it holds a checkpoint
            shutil.copytree(teacher / "teacher", workdir / "teacher")
        run(workdir, "distill", here)
        best = best_of(workdir)
        found[name] = {arm: [best[student] for student in best if student.startswith(f"{arm}/")] for arm in ARMS}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True, help="for the working directories")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("options", nargs="*", help="flags of kdjax.main, after --")
    arguments = parser.parse_args()
    found = measure(arguments.directory.resolve(), arguments.options)
    arguments.json.write_text(json.dumps({"validation_top1": found, "command": sys.argv}, indent=1) + "\n")


if __name__ == "__main__":
    main()
