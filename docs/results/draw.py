"""Draws the figures of docs/ and prints the tables, from the JSON files in this folder.

    python docs/results/draw.py

The figures need matplotlib; the tables do not. README.md in this folder gives the command behind each file. A file is
the results.json of that run, except:

demo.json, demo_seedN.json: the demo, and with --config.data_seed=N; the path of the cache is left out.
aitlas_networks.json: figures of others; its fields say whose.
views_curve.json: the output of tests/benchmarks/views_curve.py.
uc_merced_64_validation.jsonl: the lines of kind "validation" in distill/metrics.jsonl of the run uc_merced_64; and so
    uc_merced_224_gpu_validation.jsonl.
labels_P*: runs of configs/label_fraction.py with P percent of the labels. `_only` is the baseline on the labeled tiles
    alone, `_upper` has a teacher trained with all labels, `_split2` is another split, `_objectives` has the objectives
    of other papers, and `_only_soft` is kl_cosine on the labeled tiles alone.
labels_P_gain: the output of `python -m kdjax.results.compare` for kl_cosine and the baseline that is better on test,
    a choice that favors the baseline.
labels_10_OBJECTIVE_gain: the same for each other objective and kl_cosine. `_only_soft_gain` compares `_only_soft` with
    the baseline, and `_unlabeled_gain` compares kl_cosine on all tiles with `_only_soft`.
"""

import json
import re
from pathlib import Path

from kdjax.results import comparison, intervals

HERE = Path(__file__).parent
FORMER_NAMES = {"kl_standardised": "kl_standardized"}


def read(name: str) -> dict:
    return json.loads((HERE / f"{name}.json").read_text())


def save(name: str, width: float, draw) -> None:
    """Writes a small figure without boxes. `draw` puts the axes on it."""
    from matplotlib import pyplot  # only the figures need it

    figure = pyplot.figure(figsize=(width, 3), layout="constrained")
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / f"{name}.png", dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def interval(ci95: list[float] | None) -> str:
    """In points."""
    return " to ".join(f"{100 * end:+.1f}" for end in ci95) if ci95 else "no interval"


def draw_gains(axes, places, gains: list[dict], label: str | None = None) -> None:
    """Means with their 95 % intervals, in points, and a line at 0."""
    bars = [100 * (gain["mean"] - gain["ci95"][0]) if gain["ci95"] else 0 for gain in gains]
    axes.errorbar(places, [100 * gain["mean"] for gain in gains], bars, fmt="o", capsize=3, label=label)
    axes.axhline(0, color="gray", linewidth=0.8)


def views_curve(figure) -> None:
    axes = figure.subplots()
    curve = read("views_curve")["validation_top1"]
    for place, seeds in enumerate(curve.values()):
        axes.plot([place] * len(seeds), [100 * one for one in seeds], "o", color="0.7", markersize=4)
    axes.plot(range(len(curve)), [100 * intervals.summary(seeds)["mean"] for seeds in curve.values()], "o-")
    axes.set_xticks(range(len(curve)), list(curve))
    axes.set(xlabel="views of each training image", ylabel="validation top-1, %")


def learning_curves(figure, name: str = "uc_merced_64_validation", lowest: float | None = None) -> None:
    """Validation top-1, from `lowest` percent on, and NLL over epochs, the mean over the seeds of each arm."""
    lines = [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines]
    arms = dict.fromkeys(student.rpartition("/")[0] for student in lines[0]["students"])
    left, right = figure.subplots(1, 2)
    for axes, metric, scale in ((left, "top1", 100), (right, "nll", 1)):
        for arm in arms:
            seeds = ([v[metric] for k, v in line["students"].items() if k.startswith(f"{arm}/")] for line in lines)
            axes.plot(epochs, [scale * intervals.summary(one)["mean"] for one in seeds], label=arm)
    left.set(xlabel="epoch", ylabel="validation top-1, %", ylim=(lowest, None))
    right.set(xlabel="epoch", ylabel="validation NLL, nats")
    left.legend(frameon=False)


def trial(name: str, family: str) -> dict | None:
    """The trial of `family` that is best on validation in the results `name`; None if there are no such results."""
    if not (HERE / f"{name}.json").exists():
        return None
    arms = read(name)["arms"]
    return arms[comparison.select(arms, "top1")[family]]


def label_row(name: str) -> dict[str, dict | None]:
    """Teacher, students of each kind, and the gain in the run `name` of label_fraction.py."""
    gain = read(f"{name}_gain")
    return {
        "teacher": {"mean": read(name)["teacher"]["test"]["top1"], "std": None},
        "alone, labeled tiles": trial(f"{name}_only", "student_alone"),
        "alone, all tiles": trial(name, "student_alone"),
        "kl_cosine": trial(name, "kl_cosine"),
        "kl_cosine, teacher with all labels": trial(f"{name}_upper", "kl_cosine"),
        "gain, 95 % over seeds": gain["over_seeds"],
        "95 % over test images": {"mean": None, **gain["over_images"]},
    }


def label_table(rows: dict[str, dict[str, dict | None]]) -> str:
    """Several rows of `label_row` as a Markdown table of test top-1 in percent."""
    names = list(next(iter(rows.values())))
    lines = ["| labels kept | " + " | ".join(names) + " |", "|---" + "|---:" * len(names) + "|"]
    for labels, row in rows.items():
        cells = [labels]
        for name, arm in row.items():
            if arm is None:
                cells.append("")
            elif "over" in name:
                mean = f"{100 * arm['mean']:+.1f}, " if arm["mean"] is not None else ""
                cells.append(mean + interval(arm["ci95"]))
            else:
                cells.append(f"{100 * arm['mean']:.1f}" + ("" if arm["std"] is None else f" ± {100 * arm['std']:.1f}"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def label_fractions() -> dict[str, dict[str, dict | None]]:
    """`label_row` of each fraction, the most labels first."""
    names = {re.fullmatch(r"labels_(\d+)", path.stem) for path in HERE.glob("labels_*.json")} - {None}
    names = sorted(names, key=lambda name: int(name[1]), reverse=True)
    return {f"{name[1]} %": label_row(name[0]) for name in names}


def demo_table() -> str:
    """The demo with five data seeds, each with scenes and a teacher of its own, as a Markdown table in percent."""
    lines = [
        "| data seed | teacher | student alone | KL + cosine | points, 95 % over seeds | p | NLL |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for seed, name in enumerate(("demo", *(f"demo_seed{number}" for number in range(1, 5)))):
        run = read(name)
        alone, distilled = run["arms"]["labeled_alone"], run["arms"]["kl_cosine"]
        gain, p = distilled["minus_alone"], distilled["p_vs_alone"]
        nll = [sum(one["nll"] for one in arm["test_metrics"]) / len(arm["seeds"]) for arm in (alone, distilled)]
        means = [f"{100 * arm['mean']:.1f} ± {100 * arm['std']:.1f}" for arm in (alone, distilled)]
        cells = [
            str(seed), f"{100 * run['teacher']['test']['top1']:.1f}", *means,
            f"{100 * gain['mean']:+.1f}, {interval(gain['ci95'])}", f"{p:.3f}", f"{nll[0]:.2f} → {nll[1]:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def objective_table() -> str:
    """The objectives of other papers against kl_cosine, with 10 % of the labels, as a Markdown table."""
    lines = [
        "| objective | test top-1 % | over kl_cosine, 95 % over seeds | 95 % over test images |",
        "|---|---:|---:|---:|",
    ]
    ours = trial("labels_10", "kl_cosine")
    lines.append(f"| kl_cosine | {100 * ours['mean']:.1f} ± {100 * ours['std']:.1f} | | |")
    for name in comparison.select(read("labels_10_objectives")["arms"], "top1"):
        arm, gain = trial("labels_10_objectives", name), read(f"labels_10_{name}_gain")
        over_seeds = f"{100 * gain['over_seeds']['mean']:+.1f}, {interval(gain['over_seeds']['ci95'])}"
        lines.append(
            f"| {FORMER_NAMES.get(name, name)} | {100 * arm['mean']:.1f} ± {100 * arm['std']:.1f} | {over_seeds} | "
            f"{interval(gain['over_images']['ci95'])} |"
        )
    return "\n".join(lines)


def summary_table() -> str:
    """KL + cosine against the student alone in every run on real images, as a Markdown table."""
    runs = {
        "UC Merced, 64 px": "uc_merced_64",
        "UC Merced, 128 px": "uc_merced_128_views15",
        "EuroSAT RGB, 64 px, a fifth of the training tiles": "eurosat_20_percent",
        "EuroSAT RGB, 64 px, AiTLAS split": "eurosat_64_aitlas",
        "EuroSAT RGB, 128 px, AiTLAS split, from EfficientNet-Lite2": "eurosat_128_gpu",
        "UC Merced, 128 px, AiTLAS split": "pairs_mobilenet_v2_vgg16",
        "the same from EfficientNet-Lite2": "pairs_mobilenet_v2_efficientnet_lite2_seeds8",
        "the same, EfficientNet-Lite0 as the student": "pairs_efficientnet_lite0_efficientnet_lite2",
        "UC Merced, 224 px, AiTLAS split, from EfficientNet-Lite2": "uc_merced_224",
        "the same from that run's six students": "uc_merced_224_students",
        "the same from ten students alone, 40 epochs": "uc_merced_224_ten",
        "RSSCN7, 128 px, AiTLAS split": "rsscn7_128_vgg16_arms",
        "RSSCN7, 128 px, AiTLAS split, from EfficientNet-Lite2": "rsscn7_128",
        "the same from three students alone": "rsscn7_128_students",
        "RSSCN7, 192 px, AiTLAS split, from six students alone": "rsscn7_192_students",
        "UC Merced, 64 px, 20 % of the labels": "labels_20",
        "UC Merced, 64 px, 10 % of the labels": "labels_10",
        "UC Merced, 64 px, 5 % of the labels": "labels_5",
        "UC Merced, 64 px, 10 % of the labels, another split": "labels_10_split2",
        "UC Merced, 64 px, width 0.35 from scratch": "width_35",
    }
    others = {  # runs whose students alone are in another run
        "uc_merced_224_students": "uc_merced_224",
        "uc_merced_224_ten": "uc_merced_224_ten_alone",
        "rsscn7_192_students": "rsscn7_192_alone",
    }
    lines = [
        "| data | seeds | teacher | alone | KL + cosine | gain, 95 % over seeds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, name in runs.items():
        if name in others:
            gain, alone = read(f"{name}_gain")["over_seeds"], trial(others[name], "student_alone")
        elif name.startswith("labels"):  # the gain is over the better of two baselines
            gain = read(f"{name}_gain")["over_seeds"]
            alone = max(
                trial(name, "student_alone"), trial(f"{name}_only", "student_alone"), key=lambda arm: arm["mean"]
            )
        else:
            gain, alone = read(name)["arms"]["kl_cosine"]["minus_alone"], trial(name, "student_alone")
        arm = trial(name, "kl_cosine")
        accuracies = (read(name)["teacher"]["test"]["top1"], alone["mean"], arm["mean"])  # a teacher may be unmeasured
        lines.append(
            f"| {title} | {len(arm['seeds'])} | "
            + " | ".join("" if one is None else f"{100 * one:.1f}" for one in accuracies)
            + " | "
            f"{100 * gain['mean']:+.1f}, {interval(gain['ci95'])} |"
        )
    return "\n".join(lines)


def label_fraction(figure) -> None:
    """Left: the accuracies. Right: the gain over the better baseline, with its interval."""
    rows = label_fractions()
    left, right = figure.subplots(1, 2)
    for name in next(iter(rows.values())):
        known = [(place, row[name]) for place, row in enumerate(rows.values()) if row[name] is not None]
        if known and "over" not in name:
            style = "o--" if "teacher" in name else "o-"
            left.plot([place for place, _ in known], [100 * arm["mean"] for _, arm in known], style, label=name)
    left.set(xlabel="labels kept", ylabel="test top-1, %")
    left.legend(frameon=False, fontsize="small")
    draw_gains(right, range(len(rows)), [row["gain, 95 % over seeds"] for row in rows.values()])
    right.set(xlabel="labels kept", ylabel="gain of kl_cosine, points")
    for axes in (left, right):
        axes.set_xticks(range(len(rows)), list(rows))


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


def aitlas(figure) -> None:
    """Test top-1 over parameters on the splits of AiTLAS Benchmark Arena: their networks in gray, and ours."""
    others = read("aitlas_networks")["networks"]
    ours = {
        "uc_merced": {
            "VGG16, average head": (read("pairs_mobilenet_v2_vgg16"), "teacher"),
            "EfficientNet-Lite2": (read("pairs_mobilenet_v2_efficientnet_lite2"), "teacher"),
            "alone, 128 px": (read("pairs_mobilenet_v2_vgg16"), "student_alone"),
            "from Lite2, 128 px": (read("pairs_mobilenet_v2_efficientnet_lite2"), "kl_cosine"),
            "MobileNetV2 alone, 224 px": (read("uc_merced_224_ten_alone"), "student_alone"),
            "from ten such": (read("uc_merced_224_ten"), "kl_cosine"),
        },
        "eurosat_rgb": {
            "EfficientNet-Lite2": (read("eurosat_128_gpu"), "teacher"),
            "MobileNetV2 alone": (read("eurosat_128_gpu"), "student_alone"),
        },
        "rsscn7": {
            "EfficientNet-Lite2": (read("rsscn7_128"), "teacher"),
            "MobileNetV2 alone, 192 px": (read("rsscn7_192_alone"), "student_alone"),
            "from Lite2": (read("rsscn7_128"), "kl_cosine"),
            "from six such": (read("rsscn7_192_students"), "kl_cosine"),
        },
    }
    titles = {"uc_merced": "UC Merced", "eurosat_rgb": "EuroSAT RGB", "rsscn7": "RSSCN7"}
    for axes, (name, points) in zip(figure.subplots(1, 3), ours.items(), strict=True):
        # AlexNet lies far below the others and would press them together.
        theirs = {label: one for label, one in others.items() if label != "AlexNet"}
        axes.plot(
            [one["parameters"] for one in theirs.values()], [one[name] for one in theirs.values()], "o", color="0.6"
        )
        axes.set(xlabel="parameters", ylabel="test top-1, %", title=titles[name], xscale="log", xlim=(1.5e6, 5e8))
        for label, one in theirs.items():
            _name(axes, label, one["parameters"], one[name], "0.4")
        for label, (run, arm) in points.items():
            x = run["teacher" if arm == "teacher" else "student"]["params"]
            y = 100 * (run["teacher"]["test"]["top1"] if arm == "teacher" else run["arms"][arm]["mean"])
            axes.plot(x, y, "o", color="tab:blue")
            _name(axes, label, x, y, "tab:blue")


def _name(axes, label: str, x: float, y: float, color: str) -> None:
    # Right of the point, but for those with another one there.
    places = {
        "ConvNeXt-T": ((-4, -9), "right"),
        "from ten such": ((4, -9), "left"),
        "DenseNet-161": ((4, 3) if axes.get_title() == "EuroSAT RGB" else (4, -9), "left"),
        "MLP-Mixer-B/16": ((0, 5), "center"),
        "ResNet-50": ((4, -4) if axes.get_title() == "EuroSAT RGB" else (3, 3), "left"),
        "ViT-B/16": ((4, -9), "left"),
    }
    place, side = places.get(label, ((4, 2), "left"))
    axes.annotate(label, (x, y), xytext=place, textcoords="offset points", ha=side, fontsize=7, color=color)


def aitlas_table() -> str:
    """The networks of AiTLAS Benchmark Arena as a Markdown table, the smallest first."""
    found = read("aitlas_networks")["networks"]
    lines = ["| network | parameters | UC Merced | EuroSAT RGB | RSSCN7 |", "|---|---:|---:|---:|---:|"]
    for name, one in sorted(found.items(), key=lambda item: item[1]["parameters"]):
        cells = [
            f"{one['parameters'] / 1e6:.1f} M",
            *(f"{one[data]:.2f}" for data in ("uc_merced", "eurosat_rgb", "rsscn7")),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables() -> list[str]:
    """The Markdown tables of README.md in this folder, and that of the README of the repository."""
    rows = {**label_fractions(), "10 %, another split, 5 seeds": label_row("labels_10_split2")}
    return [demo_table(), label_table(rows), objective_table(), aitlas_table(), summary_table()]


if __name__ == "__main__":
    print("\n\n".join(tables()))
    save("views_curve", 5, views_curve)
    save("learning_curves", 8, learning_curves)
    save("learning_curves_224", 8, lambda figure: learning_curves(figure, "uc_merced_224_gpu_validation", lowest=80))
    save("label_fraction", 8, label_fraction)
    save("width", 5, width)
    save("aitlas", 13, aitlas)
