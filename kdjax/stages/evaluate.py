"""Stage `evaluate`, and the combined results of several splits."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.errors import InputError
from kdjax.objective.arms import measured_terms
from kdjax.results import document, logits, metrics, tables
from kdjax.results.comparison import NAMES
from kdjax.run import other_run
from kdjax.run.network_facts import network_facts, teacher_facts
from kdjax.run.run import Run
from kdjax.run.soft_targets import has_teacher, open_targets
from kdjax.runtime import files
from kdjax.runtime.environment import environment
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.teacher.store import DATA_PARTS, fingerprint, tree_digest
from kdjax.teacher.targets import Targets
from kdjax.training.learner import Selected
from kdjax.training.predictor import mean_over_symmetries, population_metrics

SIDES = ("validation", "test")
Measurements = list[list[dict[str, Any]]]
"""The figures of each student, by (seed, arm)."""


def evaluate(run: Run) -> None:
    """Evaluates the selected checkpoints on validation and test, and writes results.json and the closing table.

    It reads checkpoints only, so it gives the same figures in a fresh process and however often it is run.
    """
    dataset = run.dataset
    targets = open_targets(run) if has_teacher(run) else None
    teacher_logits = {} if targets is None else targets.clean({side: getattr(dataset, side).images for side in SIDES})
    selected = run.student.selected()
    _check_final(run, selected)
    predict = run.student.predicting(selected.best.variables)
    student_logits = {side: predict(getattr(dataset, side).images) for side in SIDES}
    measurements = {side: population_metrics(student_logits[side], getattr(dataset, side).labels) for side in SIDES}
    symmetric = None
    if run.config.run.test_symmetries:
        symmetric = population_metrics(mean_over_symmetries(predict, dataset.test.images), dataset.test.labels)
    results = document.build(
        dataset=_dataset_facts(run),
        teacher=None if targets is None else _teacher_facts(run, targets, teacher_logits),
        student={
            **network_facts(run.student),
            "step": selected.step,
            "total_steps": run.student.total_steps,
        },
        arms=_arms(run, selected, measurements, student_logits["test"], teacher_logits.get("test"), symmetric),
        environment=environment(),
        config=json.loads(run.config.to_json()),
        labels=dataset.test.labels,
    )
    if jax.process_index() == 0:
        _write(run, selected.step, measurements, results, {"teacher": teacher_logits, "student": student_logits})


def combine_splits(workdir: Path, parts: Sequence[Path]) -> None:
    """Combines the results of the runs in `parts`, one per split: writes `workdir`/results.json, and prints a table."""
    if jax.process_index() == 0:
        fix = "run --stages=evaluate again"
        combined = document.combine([document.read(part / "results.json", fix) for part in parts])
        files.write_json(workdir / "results.json", combined)
        print("\n" + tables.over_splits(combined) + f"\n\n{workdir / 'results.json'}")


def scalars(run: Run, measurements: Measurements) -> dict[str, Any]:
    """Returns the figures of `population_metrics` that are single numbers, by the name of the network."""
    return {
        name: {key: value for key, value in figures.items() if not isinstance(value, list)}
        for names, row in zip(run.student.names, measurements, strict=True)
        for name, figures in zip(names, row, strict=True)
    }


def _check_final(run: Run, selected: Selected) -> None:
    """Logs that figures are not final, and refuses to replace the figures of the finished run with them."""
    total_steps = run.student.total_steps
    if selected.step == total_steps:
        return
    path = run.results_dir / "results.json"
    if path.exists():
        previous = files.read_json(path, "remove it, and evaluate again")
        if isinstance(previous, dict) and previous.get("student", {}).get("step") == total_steps:
            raise InputError(
                f"{path} holds the figures of the finished run, but the latest whole checkpoint is of step "
                f"{selected.step} of {total_steps}: run --stages=distill to train on from there"
            )
    run.log(f"evaluate: the students are at step {selected.step} of {total_steps}: these figures are not final")


def _arms(
    run: Run,
    selected: Selected,
    measurements: dict[str, Measurements],
    test_logits: np.ndarray,
    teacher_logits: np.ndarray | None,
    symmetric: Measurements | None,
) -> dict[str, Any]:
    """Returns the arms in the form that `document.build` takes."""
    student, labels = run.student, run.dataset.test.labels
    terms = measured_terms(run.arms)
    rows = range(len(student.seeds))

    def none_if_unusable(column: int, values: Sequence[Any]) -> list[Any]:
        """Replaces the values of unusable students of an arm, one per seed, by None."""
        return [value if selected.usable[row, column] else None for row, value in enumerate(values)]

    arms = {}
    for column, arm in enumerate(run.arms):
        test_figures = [
            {**measurements["test"][row][column], **metrics.agreement(test_logits[row, column], teacher_logits)}
            for row in rows
        ]
        arms[arm.name] = {
            "weights": {term: arm.weights.get(term, 0.0) for term in terms},
            "temperature": arm.temperature,
            "learning_rate": arm.learning_rate,
            "weight_decay": arm.weight_decay,
            "seeds": list(student.seeds),
            "test": none_if_unusable(column, test_figures),
            **{
                f"val_{name}": none_if_unusable(column, [measurements["validation"][row][column][name] for row in rows])
                for name in (*NAMES, "nll")
            },
            "selected_step": [int(step) for step in selected.best.step[:, column]],
            "final_sha256": [_digest(selected.last, row, column) for row in rows],
            "correct": test_logits[:, column].argmax(-1) == labels,
            **({"family": arm.family} if arm.family != arm.name else {}),
            **({"labeled_only": True} if arm.labeled_only else {}),
            **({"class_weights": list(arm.class_weights)} if arm.class_weights and arm.has_hard else {}),
        }
        if symmetric:
            arms[arm.name]["symmetries_top1"] = none_if_unusable(
                column, [symmetric[row][column]["top1"] for row in rows]
            )
    return arms


def _dataset_facts(run: Run) -> dict[str, Any]:
    dataset, labels = run.dataset, run.dataset.train.labels
    facts = {
        "name": dataset.name,
        "classes": dataset.classes,
        "splits": {"train": len(dataset.train), "val": len(dataset.validation), "test": len(dataset.test)},
        "class_counts": dataset.class_counts,
        "fingerprint": dataset.fingerprint,
        "overlap": dataset.overlap,
    }
    if (labels < 0).any():
        facts["labels"] = {"labeled": int((labels >= 0).sum()), "total": len(labels)}
    return facts


def _teacher_facts(run: Run, targets: Targets, teacher_logits: dict[str, np.ndarray]) -> dict[str, Any]:
    dataset, record = run.dataset, targets.record()
    validation = metrics.classification(teacher_logits["validation"], dataset.validation.labels)
    stored_logits = [source.folder.fingerprint for source in targets.sources if source.teacher is None]
    hidden = other_run.hidden_labels(other_run.borrowed_runs(run.config), dataset)
    # Parts that describe the data are left out, because the same teacher may teach students on other data.
    teacher_parts = [
        {name: part for name, part in source.folder.parts.items() if name not in DATA_PARTS}
        for source in targets.sources
    ]
    # Stored logits may not record their teacher.
    identified = all("teacher" in parts for parts in teacher_parts)
    passes = [record[kind] for kind in ("views", "clean") if kind in record]
    return {
        **teacher_facts(run),
        **({"sha256": ", ".join(targets.digests)} if targets.digests else {}),
        **({"logits": stored_logits} if stored_logits else {}),
        **({"fingerprints": list(map(fingerprint, teacher_parts))} if identified else {}),
        **({"hidden_labels": hidden} if hidden else {}),  # labels that only the teacher was trained with
        **({"fitted_heads": targets.fitted_heads} if targets.fitted_heads else {}),
        "forward_images": record["views"]["forward_images"] if "views" in record else None,
        "clean_images": record["clean"]["forward_images"],
        "repeated_images": sum(max(0, counts["started_images"] - counts["forward_images"]) for counts in passes),
        **{f"val_{name}": validation[name] for name in NAMES},
        "test": metrics.classification(teacher_logits["test"], dataset.test.labels),
    }


def _write(
    run: Run,
    step: int,
    measurements: dict[str, Measurements],
    results: dict[str, Any],
    logits_by_network: dict[str, dict[str, Any]],
) -> None:
    """Writes the folder `evaluation` and the results in three formats, and prints the closing table."""
    folder = run.workdir / "evaluation"
    writer = MetricsWriter(folder, -1, tensorboard=False)  # replaces the previous evaluation
    for side in SIDES:
        writer.write(step, side, scalars(run, measurements[side]))
    writer.close()
    arrays = {
        f"{network}_{side}": array for network, sides in logits_by_network.items() for side, array in sides.items()
    }
    for side in SIDES:  # labels and hashes of the images, for comparisons with other runs
        split = getattr(run.dataset, side)
        arrays |= {f"labels_{side}": split.labels, f"hashes_{side}": split.image_hashes()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write_bytes(folder / "logits.npz", content.getvalue())
    results["logits_sha256"] = logits.digest(arrays)
    note = run.config.run.note or None
    files.write_json(run.results_dir / "results.json", results)
    files.write_text(run.results_dir / "results.md", tables.markdown(results, note))
    files.write_text(run.results_dir / "results.csv", tables.comma_separated(results))
    print("\n" + tables.table(results, note) + f"\n\n{run.results_dir / 'results.json'}")


def _digest(variables: Any, row: int, column: int) -> str:
    """Returns the SHA-256 of one student's variables."""
    return tree_digest(jax.tree.map(lambda leaf: np.asarray(leaf)[row, column], variables))
