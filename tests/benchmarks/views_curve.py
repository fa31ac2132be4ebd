"""Validation accuracy of a distilled student over the number of views, and with an online teacher.

    python tests/benchmarks/views_curve.py --directory=runs/views --json=views_curve.json -- \\
        --config=configs/uc_merced.py --config.teacher.workdir=runs/uc_merced_64 --config.student.epochs=16 \\
        --config.seeds="(0,1,2)" --config.dataset.path=data/uc_merced.zip

What follows `--` goes to kdjax.main. All share the teacher of a finished run and one cache, so that a view is computed
once. The test split is not looked at. docs/results/draw.py makes the figure.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VIEWS = (1, 2, 4, 8, 16, 0)
ARM = "kl_cosine"


def best_of(workdir: Path) -> list[float]:
    """Each student's best validation top-1, by the rule that selects it, from its stage's metrics."""
    best: dict[str, tuple[float, float]] = {}
    for line in (workdir / "distill" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "validation":
            for student, one in record["students"].items():
                best[student] = max(best.get(student, (-1.0, 0.0)), (one["top1"], -one["nll"]))
    return [top1 for top1, _ in best.values()]


def measure(directory: Path, options: list[str]) -> dict[str, list[float]]:
    """Best validation top-1 of every seed, by number of views ("online" for 0)."""
    found = {}
    for views in VIEWS:
        name = str(views) if views else "online"
        workdir = directory / name
        flags = [*options, f"--config.distill.arms=('{ARM}',)", f"--config.distill.views={views}"]
        command = [sys.executable, "-m", "kdjax.main", f"--workdir={workdir}", "--stages=distill", *flags]
        subprocess.run(command, cwd=ROOT, check=True)
        found[name] = best_of(workdir)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True, help="for the working directories")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("options", nargs="*", help="flags of kdjax.main, after --")
    arguments = parser.parse_args()
    found = measure(arguments.directory.resolve(), arguments.options)
    arguments.json.write_text(json.dumps({"arm": ARM, "validation_top1": found, "command": sys.argv}, indent=1) + "\n")


if __name__ == "__main__":
    main()
