"""Draws the figures of the README from the JSON files beside it. Needs matplotlib.

    python configs/results/draw.py

views_curve.json is of tests/benchmarks/views_curve.py. labels_P.json and labels_P_only.json are the results of
configs/label_fraction.py with P percent of the labels, and of its baseline.
"""

import json
from pathlib import Path

from matplotlib import pyplot

from kdjax import results, statistics

HERE = Path(__file__).parent


def read(name: str) -> dict:
    return json.loads((HERE / f"{name}.json").read_text())


def figure(name: str, xlabel: str, ylabel: str, draw) -> None:
    """A small figure without a box, `draw`n on its axes."""
    fig, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    draw(axes)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(HERE / f"{name}.png", dpi=150, metadata={"Software": None})
    pyplot.close(fig)


def views_curve(axes) -> None:
    curve = read("views_curve")["validation_top1"]
    for place, seeds in enumerate(curve.values()):
        axes.plot([place] * len(seeds), [100 * one for one in seeds], "o", color="0.7", markersize=4)
    axes.plot(range(len(curve)), [100 * statistics.summary(seeds)["mean"] for seeds in curve.values()], "o-")
    axes.set_xticks(range(len(curve)), list(curve))


def label_gain(percent: int) -> tuple[float, float, float]:
    """Mean and 95 % interval, in points, of the gain over the better of the two baselines, paired by seed."""
    run = read(f"labels_{percent}")
    chosen = results.select(run["arms"])
    baselines = [run["arms"][chosen["student_alone"]]]
    if (HERE / f"labels_{percent}_only.json").exists():
        alone = read(f"labels_{percent}_only")["arms"]
        baselines.append(alone[results.select(alone)["student_alone"]])
    better = max(baselines, key=lambda arm: arm["mean"])
    differences = statistics.paired_differences(run["arms"][chosen["kl_cosine"]]["test_top1"], better["test_top1"])
    summary = statistics.summary(differences)
    return 100 * summary["mean"], 100 * summary["ci95"][0], 100 * summary["ci95"][1]


def label_fraction(axes) -> None:
    percents = sorted((int(p.stem.split("_")[1]) for p in HERE.glob("labels_*[0-9].json")), reverse=True)
    gains = [label_gain(percent) for percent in percents]
    mean = [gain for gain, _, _ in gains]
    bars = [[gain - low for gain, low, _ in gains], [high - gain for gain, _, high in gains]]
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.errorbar(range(len(gains)), mean, bars, marker="o", linestyle="none", capsize=3)
    axes.set_xticks(range(len(gains)), [f"{percent} %" for percent in percents])


if __name__ == "__main__":
    if (HERE / "views_curve.json").exists():
        figure("views_curve", "views of each training image", "validation top-1, %", views_curve)
    if list(HERE.glob("labels_*.json")):
        figure("label_fraction", "labels kept", "gain in test top-1, points", label_fraction)
