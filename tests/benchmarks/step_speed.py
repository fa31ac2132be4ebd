"""Speed of kdjax's steps beside PyTorch's: the same networks, shapes, batch, objective and optimizer, in one run.

    python tests/benchmarks/step_speed.py [--shapes=64x32,128x64] [--rows=student_train,...] [--json=FILE]

Each side runs in a process of its own, set up as its users run it, and the sides take turns: a few steps of the one, a
few of the other, again and again; the table holds medians. The batch lies on the device on both sides; compiling and
warm-up are not counted. First both sides must compute the same loss from the same weights.

On CPU, in float32, PyTorch runs channels_last, eager and with torch.compile. On a GPU its modes are torch.compile's
default and max-autotune, with bfloat16 autocast, channels_last and the fused optimizer, and the share of the measured
rate of a large bfloat16 matrix product is given. A ratio is kdjax's images/s ÷ those of the fastest PyTorch.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from sides import MODES, Worker, needed, network

ROWS = ("teacher_forward", "teacher_train", "student_forward", "student_train", "online_distillation",
        "cached_distillation", "efficientnet_lite0_train", "efficientnet_lite0_forward", "efficientnet_lite2_forward",
        "resnet50_forward")  # fmt: skip


def passes(row: str, macs: dict[str, int]) -> int:
    """Multiply-adds an image: a training step is three forward passes."""
    if row.endswith("forward"):
        return macs[network(row)]
    return 3 * macs[network(row)] + (macs["teacher"] if row == "online_distillation" else 0)


def cached_over_alone(folder: Path, size: int, batch: int, turns: int) -> float:
    """Time of a cached distillation step over that of a step without teacher, in two fresh processes.

    The median of the ratios of neighboring turns: what else goes on on the machine changes both of a pair.
    """
    rows = ("student_train", "cached_distillation")
    workers = [Worker("kdjax", folder, size, batch) for _ in rows]
    for row, worker in zip(rows, workers, strict=True):
        worker.call("prepare", row, "kdjax")
        worker.call("run", 2)
    ratios = []
    for turn in range(turns):
        order = (0, 1) if turn % 2 else (1, 0)
        seconds = {which: workers[which].call("run", 2)[0] for which in order}
        ratios.append(seconds[1] / seconds[0])
    for worker in workers:
        worker.close()
    return statistics.median(ratios)


def measure(shape: tuple[int, int], rows: tuple[str, ...], modes: tuple[str, ...] | None, repeats: int) -> dict:
    """All rows of one shape (size, batch)."""
    size, batch = shape
    with tempfile.TemporaryDirectory() as folder:
        ours = Worker("kdjax", Path(folder), size, batch)
        known = ours.call("describe", needed(rows))
        modes = modes or MODES[known["kind"]]
        theirs = {mode: Worker("pytorch", Path(folder), size, batch) for mode in modes}
        known |= theirs[modes[0]].call("describe")
        table = {}
        for row in rows:
            workers = {"kdjax": ours} | theirs
            losses = {name: worker.call("prepare", row, name) for name, worker in workers.items()}
            for loss in losses.values():
                tolerance = 1e-4 if known["kind"] == "cpu" else 3e-2
                if not abs(loss - losses["kdjax"]) <= tolerance * abs(losses["kdjax"]):
                    raise SystemExit(f"{row}: the sides differ before any timing: {losses}")
            # Steps a turn: about a quarter of a second, or one.
            turns = {}
            for name, worker in workers.items():
                worker.call("run", 1)
                turns[name] = max(1, round(0.25 / worker.call("run", 1)[0]))
            seconds = {name: [] for name in workers}
            for _ in range(repeats):
                for name, worker in workers.items():
                    seconds[name].append([value / turns[name] for value in worker.call("run", turns[name])])
            medians, processor = (
                {name: statistics.median(pair[which] for pair in pairs) for name, pairs in seconds.items()}
                for which in (0, 1)
            )
            entry = {
                "images_per_second": {name: batch / value for name, value in medians.items()},
                "ratio": min(medians[mode] for mode in modes) / medians["kdjax"],
                "ratio_by_mode": {mode: medians[mode] / medians["kdjax"] for mode in modes},
                "loss": losses["kdjax"],
            }
            if known["kind"] == "cpu":
                # What other processes do to the machine changes this less than it changes the clock.
                entry["ratio_of_processor_time"] = min(processor[mode] for mode in modes) / processor["kdjax"]
            else:
                rate = 2 * passes(row, known["macs"]) * batch / medians["kdjax"]
                entry["share_of_matrix_product"] = rate / known["matrix_product_flops"]
            table[row] = entry
            show(shape, row, entry)
        for worker in theirs.values():
            worker.close()
        if {"student_train", "cached_distillation"} <= set(rows):
            table["cached_over_alone_time"] = cached_over_alone(Path(folder), size, batch, 3 * repeats)
            ratio = table["cached_over_alone_time"]
            print(f"    cached distillation step ÷ step without teacher: {ratio:.3f}", flush=True)
        ours.close()
    return {"size": size, "batch": batch, "known": known, "rows": table}


def show(shape: tuple[int, int], row: str, entry: dict) -> None:
    rates = "  ".join(f"{name} {rate:9.1f}" for name, rate in entry["images_per_second"].items())
    share = f"  share {entry['share_of_matrix_product']:.0%}" if "share_of_matrix_product" in entry else ""
    if "ratio_of_processor_time" in entry:
        share = f" ({entry['ratio_of_processor_time']:.2f} by processor time)"
    print(f"{shape[0]} px x {shape[1]}  {row:20s} images/s: {rates}  ratio {entry['ratio']:.2f}{share}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="64x32,128x64", help="SIZExBATCH, comma-separated")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--modes", help="PyTorch's modes: eager, compile, max-autotune; default by device")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shapes = [tuple(int(number) for number in shape.split("x")) for shape in options.shapes.split(",")]
    modes = tuple(options.modes.split(",")) if options.modes else None
    results = []
    for shape in shapes:
        results.append(measure(shape, tuple(options.rows.split(",")), modes, options.repeats))
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
