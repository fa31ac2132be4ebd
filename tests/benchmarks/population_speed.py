"""What a trained student costs: populations on stored teacher logits, beside runs with an online teacher one by one.

    python tests/benchmarks/population_speed.py [--shape=64x32] [--populations=1,4,16] [--json=FILE]

Device-seconds of one student's training step, in one run, the programs taking turns; medians. A population's share of
the teacher's pass is counted in: `--views` forward passes of each image serve `--epochs` epochs of all its students.
The others train one student at a time and run the teacher in every step, in kdjax and in PyTorch (eager and compiled on
CPU; torch.compile's default and max-autotune on a GPU). Ratios say how many times cheaper a population's student is.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from sides import MODES, Worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="64x32", help="SIZExBATCH")
    parser.add_argument("--populations", default="1,4,16")
    parser.add_argument("--at-once", default="4", help="arms computed side by side: all of all seeds, or a number")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size, batch = map(int, options.shape.split("x"))
    populations = [int(count) for count in options.populations.split(",")]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A process for each program, so that each has its own peak of memory.
        workers = {"teacher_forward": Worker("kdjax", folder, size, batch)}
        kind = workers["teacher_forward"].call("describe")["kind"]
        workers |= {f"population_{count}": Worker("kdjax", folder, size, batch) for count in populations}
        workers["kdjax_online"] = Worker("kdjax", folder, size, batch)
        workers |= {f"pytorch_online_{mode}": Worker("pytorch", folder, size, batch) for mode in MODES[kind]}
        for program, worker in workers.items():
            row = "online_distillation" if "online" in program else program
            mode = options.at_once if row.startswith("population") else program.removeprefix("pytorch_online_")
            worker.call("prepare", row, mode)
            worker.call("run", 1)
        seconds = {program: [] for program in workers}
        for _ in range(options.repeats):
            for program, worker in workers.items():
                seconds[program].append(worker.call("run", 1)[0])
        step = {program: statistics.median(values) for program, values in seconds.items()}
        memory = {count: workers[f"population_{count}"].call("memory") for count in populations}
        for worker in workers.values():
            worker.close()

    online = {program: value for program, value in step.items() if "online" in program}
    fastest = min(value for program, value in online.items() if program.startswith("pytorch"))
    results = {
        "shape": [size, batch], "views": options.views, "epochs": options.epochs, "at_once": options.at_once,
        "kind": kind, "seconds_a_student_step": dict(online), "populations": {},
    }  # fmt: skip
    for program, value in online.items():
        print(f"{program:28s} {1000 * value:8.1f} ms a student's step")
    for count in populations:
        shared = step["teacher_forward"] * options.views / options.epochs
        each = (step[f"population_{count}"] + shared) / count
        results["populations"][count] = {
            "seconds_a_student_step": each,
            "ratio_to_pytorch_online": fastest / each,
            "ratio_to_kdjax_online": step["kdjax_online"] / each,
            "state_bytes_a_student": memory[count]["state"] // count,
            "peak_bytes_a_student": memory[count]["peak"] // count,
        }
        state, peak = (memory[count][what] / count / 1e6 for what in ("state", "peak"))
        print(
            f"population of {count:3d}            {1000 * each:8.1f} ms a student's step, "
            f"{fastest / each:.2f} x cheaper than PyTorch online, {step['kdjax_online'] / each:.2f} x than kdjax "
            f"online; state {state:.0f} MB, peak {peak:.0f} MB a student"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
