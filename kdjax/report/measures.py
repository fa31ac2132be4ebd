"""The sections that show figures: learning curves, classes, calibration and cost."""

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.objective.terms import TERMS
from kdjax.report import charts, findings
from kdjax.report.markup import Markup, element
from kdjax.report.material import Material
from kdjax.report.parts import details, figure, panels, scroll, table
from kdjax.report.summary import leading_arm
from kdjax.results import formats, intervals, metrics, notes
from kdjax.results.comparison import NAMES, failed_seeds, figures, find_alone, judged_by, shown_arms, uses_teacher


def _styles(material: Material) -> dict[str, str]:
    """Returns the style of each arm that is shown."""
    return {name: f"s{number % charts.STYLES}" for number, name in enumerate(shown_arms(material.results))}


def _network_indices(material: Material, arm: str) -> list[int]:
    """Returns the indices of the networks of an arm."""
    return [number for number, (name, _) in enumerate(material.students) if name == arm]


def curves(material: Material) -> list[Markup]:
    """Shows every loss term, and the validation measure that chooses the step, over epochs."""
    styles = _styles(material)
    arms = shown_arms(material.results)
    failed = {f"{arm}/{seed}" for arm, results in arms.items() for seed in failed_seeds(results)}
    students = _series(material.records["distill"], styles, failed)
    teacher = _series(material.records["teacher"], {"teacher": "t"})
    panel_charts = []
    titles = {"loss": "Weighted sum of the terms", **{key: term.title for key, term in TERMS.items()}}
    for term, title in titles.items():
        if series := students.get(("train", term)):
            alt = f"{title} over epochs: {_end_values(series)}"
            panel_charts.append((title, charts.curves(series, alt=alt, log=True)))
    measure = judged_by(material.results["dataset"])
    if ("validation", measure) not in students:  # earlier versions recorded top-1 only
        measure = "top1"
    key = ("validation", measure)
    if series := [*teacher.get(key, []), *students.get(key, [])]:
        percents = lambda lines: tuple(line * [1, 100] for line in lines)
        series = [
            dataclasses.replace(curve, lines=percents(curve.lines), failed=percents(curve.failed)) for curve in series
        ]
        title = f"Validation {NAMES[measure]}"
        panel_charts.append(
            (f"{title}, %", charts.curves(series, alt=f"{title} over epochs: {_end_values(series)}", unit="%"))
        )
    if series := teacher.get(("train", "ce")):
        title = "The teacher's cross-entropy, nats"
        panel_charts.append((title, charts.curves(series, alt=f"{title}, over epochs", log=True)))
    caption = (
        ("Thick: mean over seeds; thin: each seed. " if len(material.results["config"]["seeds"]) > 1 else "One seed. ")
        + ("A seed that failed is drawn up to there, and is not in the mean. " if failed else "")
        + "Training losses are means over the steps since the previous point, on augmented views. A term is drawn for "
        f"every student, even if its weight is 0{_unmeasured(arms)}. "
        f"Validation: {material.results['dataset']['splits']['val']} images"
    )
    last = material.results["config"].get("student", {}).get("select") == "last"
    caption += "; each student is that of its last step." if last else ", which choose the step of each student."
    if material.results["teacher"] and not teacher:
        caption += " The teacher was not trained in this run, so it has no curves."
    legend = charts.legend([*([("teacher", "t")] if teacher else []), *styles.items()])
    return [legend, figure(panels(panel_charts), caption)]


def _unmeasured(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """Names the arms for which terms with the teacher are not measured, see `objective.arms.Arm.is_measured`."""
    names = [name for name, arm in arms.items() if arm.get("labeled_only") and not uses_teacher(arm)]
    if not names or not any(map(uses_teacher, arms.values())):
        return ""
    return f", but terms that compare with the teacher are not measured for {' and '.join(names)}"


def _end_values(series: Sequence[charts.Series]) -> str:
    """Returns an alternative text that says where each curve ends."""
    return "; ".join(f"{curve.name} ends at {curve.mean[-1, 1]:.3g}" for curve in series)


def _series(
    records: Sequence[Mapping[str, Any]], styles: Mapping[str, str], failed: Collection[str] = ()
) -> dict[tuple[str, str], list[charts.Series]]:
    """Returns curves by kind of record and measure, for the arms that have a style.

    A student that failed keeps its variables and is measured on, so its curves are cut where its loss becomes None.
    """
    points_by_arm: dict[tuple[str, str], dict[str, dict[str, list[tuple[float, float]]]]] = {}
    cut = set()
    for record in records:
        for student, values in record["students"].items():
            arm = student.rpartition("/")[0]
            if student in failed and values.get("loss", 0) is None:
                cut.add(student)
            for measure, value in values.items() if arm in styles and student not in cut else ():
                if value is not None:
                    of_arm = points_by_arm.setdefault((record["kind"], measure), {}).setdefault(arm, {})
                    of_arm.setdefault(student, []).append((record["epoch"], value))
    lines = lambda runs, is_failed: tuple(
        np.array(line) for name, line in runs.items() if (name in failed) == is_failed
    )
    return {
        key: [charts.Series(arm, styles[arm], lines(runs, False), lines(runs, True)) for arm, runs in arms.items()]
        for key, arms in points_by_arm.items()
    }


def classes(material: Material) -> list[Markup]:
    """Shows the recall of each class, and confusion matrices."""
    test, styles = material.test, _styles(material)
    names, leader = material.results["dataset"]["classes"], leading_arm(material.results)
    outputs = {} if test.teacher is None else {"teacher": test.teacher[None]}
    outputs |= {arm: test.students[rows] for arm in styles if (rows := _network_indices(material, arm))}
    counts = {network: findings.confusion(logits, test.labels) for network, logits in outputs.items()}
    recall = {network: _recall(matrix) for network, matrix in counts.items()}
    # More than three networks in one row cannot be told apart.
    alone = find_alone(shown_arms(material.results), judged_by(material.results["dataset"]))
    shown_networks = [network for network in dict.fromkeys(("teacher", alone, leader)) if network in outputs]
    marks = {"teacher": "t", **styles}
    images = np.bincount(test.labels, minlength=len(names))
    present = images[images > 0]
    fewest, most = int(present.min(initial=len(test.labels))), int(images.max())
    empty_classes = [name for name, count in zip(names, images, strict=True) if not count]
    per_class = str(fewest) if fewest == most else f"{fewest} to {most}"
    dots = charts.recalls(
        names,
        [(network, marks[network], recall[network]) for network in shown_networks],
        alt=f"Recall of each class for {', '.join(shown_networks)}; the figures are in the table beside it",
    )
    caption = (
        f"Share of a class's test images that are put into it; {per_class} images per class, so one image is up to "
        f"{100 / max(fewest, 1):.1f} points. "
        + (f"The test images have none of {_enumerated(empty_classes)}. " if empty_classes else "")
        + "Students: mean over seeds."
    )
    recall_table = table(
        "Recall, %",
        ("class", "images", *recall),
        (
            (name, images[k], *("–" if recalls[k] is None else f"{recalls[k]:.1f}" for recalls in recall.values()))
            for k, name in enumerate(names)
        ),
        "dense",
    )
    if not outputs:
        return [element("p", "No network was measured.")]
    first = leader or "teacher"
    others = [
        _matrix(names, network, counts[network], len(outputs[network])) for network in outputs if network != first
    ]
    return [
        element("h3", "Recall"),
        charts.legend([(network, marks[network]) for network in shown_networks]),
        element("div", figure(dots, caption), figure(recall_table, "Recall of all networks, %."), class_="beside"),
        _matrix(names, first, counts[first], len(outputs[first])),
        *([details("Confusion matrices of the others", *others)] if others else []),
    ]


def _enumerated(names: Sequence[str]) -> str:
    """Joins names as in "one, two and three"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _recall(counts: np.ndarray) -> list[float | None]:
    return [100 * float(row[k] / row.sum()) if row.sum() else None for k, row in enumerate(counts)]


def _matrix(names: Sequence[str], network: str, counts: np.ndarray, seeds: int) -> Markup:
    summary = f"{counts.sum() - np.trace(counts)} of {counts.sum()} predictions are wrong"
    chart = charts.confusion(names, counts, alt=f"Confusion matrix of {network}; {summary}")
    caption = (
        f"{counts.sum() // seeds} test images"
        + (f", counted for each of {seeds} seeds" if seeds > 1 else "")
        + f". {summary}. "
        "Color: share of the row; blue is right, orange is wrong."
    )
    heading = element("h3", f"Confusion matrix: {network}")
    return element("div", heading, figure(scroll(chart, f"Confusion matrix of {network}"), caption))


def calibration(material: Material) -> list[Markup]:
    """Shows reliability diagrams, and the error among the most confident answers."""
    results, test = material.results, material.test
    networks = []
    if test.teacher is not None:
        networks.append(("teacher", "t", test.teacher[None], results["teacher"]["test"].get("ece")))
    for name, style in _styles(material).items():
        if rows := _network_indices(material, name):
            errors = [figures and figures["ece"] for figures in results["arms"][name]["test_metrics"]]
            networks.append((name, style, test.students[rows], intervals.mean(errors)))
    if not networks:
        return [element("p", "No network was measured.")]
    diagrams = []
    for name, style, log_probabilities, error in networks:
        heading = name if error is None else f"{name}, ECE {100 * error:.2f} %"
        bins = findings.calibration(log_probabilities, test.labels)
        diagrams.append((heading, charts.reliability(bins, style, alt=f"Reliability diagram of {heading}")))
    caption = (
        f"{metrics.ECE_BINS} bins of equal width over {len(test.labels)} test images; the area of a dot is its number "
        "of predictions, those of all seeds together. Above the dashed line a network is underconfident, below it "
        "overconfident. Small dots stand for a few images: read nothing into them. ECE is the mean "
        "distance from the line; students: mean over seeds."
    )
    risks = [
        charts.Series(
            name, style, tuple(findings.risk_over_coverage(one_seed, test.labels) for one_seed in log_probabilities)
        )
        for name, style, log_probabilities, _ in networks
    ]
    risk_caption = (
        "Error among the test images that a network is surest of, over the share of them that is answered: what it "
        "would be if the others were left to a person. Faint lines: the seeds. The first few images are left out."
    )
    return [
        element("p", "When a network says 80 %, is it right four times in five?"),
        figure(panels(diagrams, "panels small"), caption),
        element("h3", "Risk over coverage"),
        charts.legend([(name, style) for name, style, *_ in networks]),
        figure(
            panels([("Error, %", charts.curves(risks, alt=_risks(risks), unit="%", x_label="answered, %"))]),
            risk_caption,
        ),
    ]


def _risks(series: Sequence[charts.Series]) -> str:
    """Returns an alternative text with the error among half of the images and among all."""
    return "; ".join(
        f"{curve.name}: error {curve.mean[len(curve.mean) // 2, 1]:.1f} % with "
        f"{curve.mean[len(curve.mean) // 2, 0]:.0f} % answered, {curve.mean[-1, 1]:.1f} % with all"
        for curve in series
    )


def cost(material: Material) -> list[Markup]:
    """Shows accuracy over size, arithmetic and, if it was measured, latency."""
    results, parity = material.results, material.parity
    panel_charts = []
    measure = judged_by(results["dataset"])
    for key, unit in (("params", "parameters"), ("macs", "multiply-adds")):
        points = [
            charts.Point(name, style, network[key], 100 * mean, interval)
            for name, style, network, mean, interval in _accuracies(material, measure)
            if network.get(key) and mean is not None
        ]
        if points:
            heading = f"{NAMES[measure].capitalize()} over {unit}"
            panel_charts.append((heading, scattered(points, f"{unit}, log scale", NAMES[measure])))
    artifacts = parity["artifacts"] if parity else {}
    exported = parity["student"]["arm"] if parity else ""
    style = _styles(material).get(exported, "s0")
    latency_points = [
        charts.Point(name, style, artifact["latency_ms"]["1"], 100 * artifact["top1"])
        for name, artifact in artifacts.items()
        if artifact["latency_ms"] and artifact["top1"] is not None
    ]
    caption = (
        f"{results['dataset']['splits']['test']} test images. Students are means over seeds, with the 95 % interval "
        "where there are three or more that differ."
    )
    if latency_points:
        heading = f"Top-1 over latency, exported {exported}"
        panel_charts.append((heading, scattered(latency_points, "ms for one image, log scale")))
        unmeasured = "; the teacher is not exported, so it has none" if results["teacher"] else ""
        caption += f" Latency was measured on the exported files{unmeasured}."
    else:
        caption += " No latency: it is measured when a student is exported (--stages=export)."
    sentence = [element("p", notes.compression(results["teacher"], results["student"]))] if results["teacher"] else []
    return [*sentence, figure(panels(panel_charts), caption), *(_files(parity) if parity else [])]


def scattered(points: Sequence[charts.Point], x_label: str, measure: str = "top-1") -> Markup:
    """Draws a measure of networks on test, %, over their cost."""
    alt = f"Test {measure} over {x_label}: " + "; ".join(f"{p.name} {p.y:.2f} % at {p.x:.3g}" for p in points)
    return charts.scatter(points, alt=alt, x_label=x_label, y_label=f"test {measure}, %")


def _accuracies(
    material: Material, measure: str
) -> Iterator[tuple[str, str, Mapping[str, Any], float | None, tuple[float, float] | None]]:
    results = material.results
    if teacher := results["teacher"]:
        yield "teacher", "t", teacher, teacher["test"].get(measure), None
    for name, style in _styles(material).items():
        arm = figures(results["arms"][name], measure)
        interval = (100 * arm["ci95"][0], 100 * arm["ci95"][1]) if arm["ci95"] else None
        yield name, style, results["student"], arm["mean"], interval


def _files(parity: Mapping[str, Any]) -> list[Markup]:
    percent = functools.partial(formats.percent, missing="–")
    student, machine, test_count = parity["student"], parity["machine"], parity["test_images"]["count"]
    rows = (
        (
            name,
            f"{artifact['bytes'] / 1e6:.2f}",
            percent(artifact["top1"]),
            percent(artifact["agreement"]),
            *(f"{artifact['latency_ms'][batch]:.2f}" if artifact["latency_ms"] else "–" for batch in ("1", "32")),
        )
        for name, artifact in parity["artifacts"].items()
    )
    litert = f" and ai-edge-litert {machine['ai_edge_litert']}" if "ai_edge_litert" in machine else ""
    header = ("file", "MB", "test top-1 %", "same class as the student, %", "ms for 1 image", "ms for 32")
    caption = (
        f"The exported student {student['arm']}, seed {student['seed']}, on {test_count} test images. Median times "
        f"with onnxruntime {machine['onnxruntime']}{litert} on one of {machine['cpu_count']} CPUs "
        f"({machine['machine']}), alongside whatever else was running."
    )
    section = [element("h3", "Exported files"), figure(table("Exported files", header, rows), caption)]
    return [*section, *(_calibration(parity["trust"]) if parity.get("trust") else [])]


def _calibration(trust: Mapping[str, Any]) -> list[Markup]:
    """Shows the effect of each file's temperature on the test images; exports of earlier versions lack it."""
    percent = functools.partial(formats.percent, missing="–")
    rows = (
        (
            name,
            formats.number(effect["temperature"]),
            *(formats.number(effect[when]["nll"]) for when in ("before", "after")),
            *(percent(effect[when]["ece"]) for when in ("before", "after")),
        )
        for name, effect in trust.items()
    )
    header = ("file", "temperature", "NLL before", "NLL after", "ECE % before", "ECE % after")
    caption = (
        "Calibration on the test images: before, and after the logits are divided by the file's temperature, which was "
        "fitted on validation images. NLL: negative log-likelihood; ECE: expected calibration error."
    )
    return [figure(table("Calibration of the exported files", header, rows), caption)]
