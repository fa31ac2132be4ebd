"""The stages that measure: describe, evaluate, and what several splits say together."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.objective import objective
from kdjax.results import document as contents
from kdjax.results import metrics, notes, tables
from kdjax.run.learners import best_students, network_facts, teacher_facts, total_steps
from kdjax.run.run import Run
from kdjax.runtime import files
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.teacher.store import tree_digest
from kdjax.teacher.targets import clean_logits, teacher_of
from kdjax.training.predictor import mean_over_symmetries, population_metrics, predictor


def describe(run: Run) -> None:
    """Stage `describe`: data and networks, without training."""
    facts = {"teacher": teacher_facts(run), "student": network_facts(run, "student")}
    for stage, cost in facts.items():
        size = (
            f" at {cost['image_size']} px: {cost['params']:,} parameters, {cost['macs']:,} multiply-adds and "
            f"{cost['activation_bytes']:,} bytes of activations an image"
        )
        run.log(f"{stage}: {cost['model']}{size if cost['params'] else ''}")
    run.log(notes.compression(facts["teacher"], facts["student"]))


def evaluate(run: Run) -> None:
    """Stage `evaluate`: the selected checkpoints on validation and test, results.json and the closing table.

    Reads checkpoints only: it gives the same figures in a fresh process, as often as it is run.
    """
    dataset, config = run.dataset, run.config
    teacher = teacher_of(run)
    teacher_logits = clean_logits(run, teacher)
    best, last, step, failed = best_students(
        run, "student", run.workdir / "distill" / "checkpoints", config.seeds, len(run.arms)
    )
    total = total_steps(config.student, len(dataset.train.labels))
    if step != total:
        run.log(f"evaluate: the students are at step {step} of {total}: these figures are not final")
    predict = _students(run, {"params": best.params, "batch_stats": best.batch_stats})
    student_logits = {"validation": predict(dataset.validation.images), "test": predict(dataset.test.images)}

    tests = population_metrics(student_logits["test"], dataset.test.labels)
    validations = population_metrics(student_logits["validation"], dataset.validation.labels)
    symmetric = None
    if config.run.test_symmetries:
        symmetric = population_metrics(mean_over_symmetries(predict, dataset.test.images), dataset.test.labels)
    arms = {}
    weighed = objective.measured_terms(config.arms[name] for name in run.arms)
    for column, name in enumerate(run.arms):
        arm = config.arms[name]
        valid = [failed[row, column] < 0 and int(best.step[row, column]) >= 0 for row in range(len(config.seeds))]
        measured = [
            {**tests[row][column], **metrics.agreement(student_logits["test"][row, column], teacher_logits["test"])}
            for row in range(len(config.seeds))
        ]
        arms[name] = {
            "weights": {term: arm.get(term, 0.0) for term in weighed},
            "temperature": arm.get("temperature", config.distill.temperature),
            "seeds": list(config.seeds),
            "test": [one if ok else None for one, ok in zip(measured, valid, strict=True)],
            "val_top1": [validations[row][column]["top1"] if ok else None for row, ok in enumerate(valid)],
            "selected_step": [int(one) for one in best.step[:, column]],
            "final_sha256": [_digest(last, row, column) for row in range(len(config.seeds))],
            "correct": student_logits["test"][:, column].argmax(-1) == dataset.test.labels,
            **({"family": arm.family} if "family" in arm else {}),
        }
        if symmetric:
            top1 = [symmetric[row][column]["top1"] if ok else None for row, ok in enumerate(valid)]
            arms[name]["symmetries_top1"] = top1
    paths = {run.workdir / "teacher_logits.json", run.results_dir / "teacher_logits.json"}
    record = {kind: one for path in paths if path.exists() for kind, one in json.loads(path.read_text()).items()}
    document = contents.build(
        dataset={
            "name": dataset.name,
            "classes": dataset.classes,
            "splits": {
                "train": len(dataset.train.labels),
                "val": len(dataset.validation.labels),
                "test": len(dataset.test.labels),
            },
            "fingerprint": dataset.fingerprint,
            "overlap": dataset.overlap,
        },
        teacher={
            **teacher_facts(run),
            **({"sha256": teacher.parts["teacher"]} if teacher else {}),
            "forward_images": record["views"]["forward_images"] if "views" in record else None,
            "clean_images": record["clean"]["forward_images"],
            "repeated_images": sum(max(0, one["started_images"] - one["forward_images"]) for one in record.values()),
            "val_top1": metrics.classification(teacher_logits["validation"], dataset.validation.labels)["top1"],
            "test": metrics.classification(teacher_logits["test"], dataset.test.labels),
        },
        student={**network_facts(run, "student"), "step": step, "total_steps": total},
        arms=arms,
        environment=contents.environment(),
        config=json.loads(config.to_json()),
    )
    if jax.process_index() == 0:
        folder = run.workdir / "evaluation"
        writer = MetricsWriter(folder, -1, tensorboard=False)  # an evaluation replaces the one before
        for kind, measured in (("validation", validations), ("test", tests)):
            writer.write(step, kind, scalars(measured, run.arms, config.seeds))
        writer.close()
        _save_logits(folder, teacher_logits, student_logits)
        note = config.run.note or None
        files.write_json(run.results_dir / "results.json", document)
        files.write_text(run.results_dir / "results.md", tables.markdown(document, note))
        files.write_text(run.results_dir / "results.csv", tables.comma_separated(document))
        print("\n" + tables.table(document, note) + f"\n\n{run.results_dir / 'results.json'}")


def combine_splits(workdir: Path, parts: Sequence[Path]) -> None:
    """What the runs in `parts`, one a split, say together: results.json in `workdir`, and a table."""
    if jax.process_index() == 0:
        combined = contents.combine([contents.read(part / "results.json", "run that split again") for part in parts])
        files.write_json(workdir / "results.json", combined)
        print("\n" + tables.over_splits(combined) + f"\n\n{workdir / 'results.json'}")


def _students(run: Run, variables: Any) -> Callable[[np.ndarray], np.ndarray]:
    """From images to the logits (seed, arm, N, classes) of the students with these variables."""
    mapping = run.population_mapping
    predict = predictor(run.network("student"), size=run.student_size, mapping=mapping)
    return functools.partial(predict, mapping.place(variables, "rows"))


def _digest(variables: Any, row: int, column: int) -> str:
    """SHA-256 of one student's variables."""
    return tree_digest(jax.tree.map(lambda leaf: np.asarray(leaf)[row, column], variables))


def scalars(measured: list[list[dict[str, Any]]], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The figures of `population_metrics` that are one number each, by student."""
    return {
        f"{arm}/{seed}": {name: value for name, value in one.items() if not isinstance(value, list)}
        for seed, row in zip(seeds, measured, strict=True)
        for arm, one in zip(arms, row, strict=True)
    }


def _save_logits(folder: Path, teacher: dict[str, np.ndarray], student: dict[str, np.ndarray]) -> None:
    temporary = folder / "logits.tmp.npz"
    np.savez(
        temporary,
        **{f"teacher_{name}": logits for name, logits in teacher.items()},
        **{f"student_{name}": logits for name, logits in student.items()},
    )
    temporary.replace(folder / "logits.npz")
