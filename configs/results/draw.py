"""Draws the figures of the README from the JSON files beside it. Needs matplotlib.

    python configs/results/draw.py

views_curve.json is of tests/benchmarks/views_curve.py. labels_P.json and labels_P_only.json are the results of
configs/label_fraction.py with P percent of the labels, and of its baseline; labels_P_upper.json is with a teacher that
had all labels. width_35.json is of configs/width.py. uc_merced_64_validation.jsonl has the lines of kind "validation"
of that run's distill/metrics.jsonl.
"""

import json
from pathlib import Path

from matplotlib import pyplot

from kdjax import results, statistics

HERE = Path(__file__).parent


def read(name: str) -> dict:
    return json.loads((HERE / f"{name}.json").read_text())


def save(name: str, width: float, draw) -> None:
    """A small figure without boxes: `draw` puts axes on it."""
    figure = pyplot.figure(figsize=(width, 3), layout="constrained")
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / f"{name}.png", dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def draw_gains(axes, places, gains: list[dict], label: str | None = None) -> None:
    """Means with their 95 % intervals, in points, above a line at 0."""
    bars = [100 * (gain["mean"] - gain["ci95"][0]) for gain in gains]
    axes.errorbar(places, [100 * gain["mean"] for gain in gains], bars, fmt="o", capsize=3, label=label)
    axes.axhline(0, color="grey", linewidth=0.8)


def views_curve(figure) -> None:
    axes = figure.subplots()
    curve = read("views_curve")["validation_top1"]
    for place, seeds in enumerate(curve.values()):
        axes.plot([place] * len(seeds), [100 * one for one in seeds], "o", color="0.7", markersize=4)
    axes.plot(range(len(curve)), [100 * statistics.summary(seeds)["mean"] for seeds in curve.values()], "o-")
    axes.set_xticks(range(len(curve)), list(curve))
    axes.set(xlabel="views of each training image", ylabel="validation top-1, %")


def learning_curves(figure) -> None:
    """Validation top-1 and NLL over epochs, the mean over the seeds of each arm."""
    lines = [json.loads(line) for line in (HERE / "uc_merced_64_validation.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines]
    arms = dict.fromkeys(student.rpartition("/")[0] for student in lines[0]["students"])
    left, right = figure.subplots(1, 2)
    for axes, metric, scale in ((left, "top1", 100), (right, "nll", 1)):
        for arm in arms:
            seeds = ([v[metric] for k, v in line["students"].items() if k.startswith(f"{arm}/")] for line in lines)
            axes.plot(epochs, [scale * statistics.summary(one)["mean"] for one in seeds], label=arm)
    left.set(xlabel="epoch", ylabel="validation top-1, %")
    right.set(xlabel="epoch", ylabel="validation NLL, nats")
    left.legend(frameon=False)


def trial(name: str, family: str) -> dict | None:
    """Of the results `name`, the trial of `family` that validation prefers; None without such results."""
    if not (HERE / f"{name}.json").exists():
        return None
    arms = read(name)["arms"]
    return arms[results.select(arms)[family]]


def label_rows() -> dict[int, dict[str, dict | None]]:
    """By percent of labels kept: students of each kind, the teacher, and what `kl_cosine` gains, paired by seed."""
    percents = sorted((int(p.stem.split("_")[1]) for p in HERE.glob("labels_*[0-9].json")), reverse=True)
    rows = {}
    for percent in percents:
        rows[percent] = row = {
            "teacher": {"mean": read(f"labels_{percent}")["teacher"]["test"]["top1"], "std": None},
            "alone, labelled tiles": trial(f"labels_{percent}_only", "student_alone"),
            "alone, all tiles": trial(f"labels_{percent}", "student_alone"),
            "kl_cosine": trial(f"labels_{percent}", "kl_cosine"),
            "kl_cosine, teacher with all labels": trial(f"labels_{percent}_upper", "kl_cosine"),
        }
        # The better on test, so that chance in the choice between them favours the baseline.
        baselines = (arm for name, arm in row.items() if name.startswith("alone") and arm)
        better = max(baselines, key=lambda arm: arm["mean"])["test_top1"]
        differences = statistics.paired_differences(row["kl_cosine"]["test_top1"], better)
        row["gain"] = statistics.summary(differences)
    return rows


def label_table(rows: dict[int, dict[str, dict | None]]) -> str:
    """`label_rows` in Markdown, top-1 on test in percent."""
    names = list(next(iter(rows.values())))
    lines = ["| labels kept | " + " | ".join(names) + " |", "|" + "---:|" * (len(names) + 1)]
    for percent, row in rows.items():
        cells = [f"{percent} %"]
        for name, arm in row.items():
            if arm is None:
                cells.append("")
            elif name == "gain":
                cells.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in (arm["mean"], *arm["ci95"]))))
            else:
                cells.append(f"{100 * arm['mean']:.1f}" + (f" ± {100 * arm['std']:.1f}" if arm["std"] else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def label_fraction(figure) -> None:
    """Left the accuracies, right the gain over the better baseline with its interval."""
    rows = label_rows()
    left, right = figure.subplots(1, 2)
    for name in next(iter(rows.values())):
        known = [(place, row[name]) for place, row in enumerate(rows.values()) if row[name] is not None]
        if known and name != "gain":
            style = "o--" if "teacher" in name else "o-"
            left.plot([place for place, _ in known], [100 * arm["mean"] for _, arm in known], style, label=name)
    left.set(xlabel="labels kept", ylabel="test top-1, %")
    left.legend(frameon=False, fontsize="small")
    draw_gains(right, range(len(rows)), [row["gain"] for row in rows.values()])
    right.set(xlabel="labels kept", ylabel="gain of kl_cosine, points")
    for axes in (left, right):
        axes.set_xticks(range(len(rows)), [f"{percent} %" for percent in rows])


def width(figure) -> None:
    """What each soft objective gains over the student alone, by the student's width."""
    axes = figure.subplots()
    runs = {"1.0, from ImageNet weights": "uc_merced_64", "0.35, from scratch": "width_35"}
    for number, arm in enumerate(("kl", "cosine", "kl_cosine")):
        places = [place + 0.12 * (number - 1) for place in range(len(runs))]
        draw_gains(axes, places, [read(name)["arms"][arm]["minus_alone"] for name in runs.values()], arm)
    axes.set_xticks(range(len(runs)), list(runs))
    axes.set(xlabel="width of the student", ylabel="gain, points", xlim=(-0.5, len(runs) - 0.5))
    axes.legend(frameon=False)


if __name__ == "__main__":
    save("views_curve", 5, views_curve)
    save("learning_curves", 8, learning_curves)
    save("label_fraction", 8, label_fraction)
    save("width", 5, width)
    print(label_table(label_rows()))
