"""Draws the figures of the README from the JSON files beside it. Needs matplotlib.

    python configs/results/draw.py

views_curve.json is of tests/benchmarks/views_curve.py. labels_P.json and labels_P_only.json are the results of
configs/label_fraction.py with P percent of the labels, and of its baseline. uc_merced_64_validation.jsonl has the lines
of kind "validation" of that run's distill/metrics.jsonl.
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


def label_fraction(figure) -> None:
    """Left the accuracies, right the gain over the better baseline with its interval, paired by seed."""
    percents = sorted((int(p.stem.split("_")[1]) for p in HERE.glob("labels_*[0-9].json")), reverse=True)
    top1 = {"teacher": [], "student alone, labelled tiles": [], "student alone, all tiles": [], "kl_cosine": []}
    gains = []
    for percent in percents:
        run, only = read(f"labels_{percent}"), read(f"labels_{percent}_only")["arms"]
        chosen = results.select(run["arms"])
        distilled, mixed = (run["arms"][chosen[family]] for family in ("kl_cosine", "student_alone"))
        labelled = only[results.select(only)["student_alone"]]
        for name, mean in zip(
            top1,
            (run["teacher"]["test"]["top1"], labelled["mean"], mixed["mean"], distilled["mean"]),
            strict=True,
        ):
            top1[name].append(100 * mean)
        # The better on test, so that chance in the choice between them favours the baseline.
        better = max(labelled, mixed, key=lambda arm: arm["mean"])
        gains.append(statistics.summary(statistics.paired_differences(distilled["test_top1"], better["test_top1"])))
    places = range(len(percents))
    left, right = figure.subplots(1, 2)
    for name, means in top1.items():
        left.plot(places, means, "o--" if name == "teacher" else "o-", label=name)
    left.set(xlabel="labels kept", ylabel="test top-1, %")
    left.legend(frameon=False, fontsize="small")
    mean = [100 * gain["mean"] for gain in gains]
    bars = [[100 * (gain["mean"] - gain["ci95"][0]) for gain in gains] for _ in range(2)]
    right.axhline(0, color="grey", linewidth=0.8)
    right.errorbar(places, mean, bars, marker="o", linestyle="none", capsize=3)
    right.set(xlabel="labels kept", ylabel="gain of kl_cosine, points")
    for axes in (left, right):
        axes.set_xticks(places, [f"{percent} %" for percent in percents])


if __name__ == "__main__":
    save("views_curve", 5, views_curve)
    save("learning_curves", 8, learning_curves)
    save("label_fraction", 8, label_fraction)
