"""Mutants of what a run writes: figures, tables, and the files that hold them. See `mutate.py`."""

from mutants_wiring import EVALUATE, TRAIN, Mutant

DOCUMENT = "kdjax/results/document.py"
SHAPE = "kdjax/results/schema.py"
PLAN = "kdjax/inputs/plan.py"
FILES = "kdjax/runtime/files.py"
EVALUATE_TESTS = "tests/stages/test_evaluate.py"
TRAIN_TESTS = "tests/stages/test_train.py"
UNEQUAL = "tests/results/test_unequal.py"

OF_RESULTS = (
    # The stages.
    Mutant(
        EVALUATE,
        'isinstance(previous, dict) and previous.get("student", {}).get("step") == total_steps:',
        "False:",
        f"{EVALUATE_TESTS} -k not_replaced",
    ),
    Mutant(
        EVALUATE,
        "return [value if selected.usable[row, column] else None for row, value in enumerate(values)]",
        "return list(values)",
        f"{EVALUATE_TESTS} -k each_arm",
    ),
    Mutant(
        EVALUATE,
        '"selected_step": [int(step) for step in selected.best.step[:, column]],',
        '"selected_step": [int(step) for step in selected.best.step[:, 0]],',
        f"{EVALUATE_TESTS} -k each_arm",
    ),
    Mutant(
        EVALUATE,
        'max(0, counts["started_images"] - counts["forward_images"])',
        'max(0, counts["forward_images"] - counts["started_images"])',
        f"{EVALUATE_TESTS} -k computed_twice",
    ),
    Mutant(
        EVALUATE,
        'metrics.classification(teacher_logits["validation"], dataset.validation.labels)',
        'metrics.classification(teacher_logits["test"], dataset.test.labels)',
        f"{EVALUATE_TESTS} -k computed_twice",
    ),
    Mutant(
        EVALUATE,
        'facts["labels"] = {"labeled": int((labels >= 0).sum()), "total": len(labels)}',
        'facts["labels"] = {"labeled": int((labels < 0).sum()), "total": len(labels)}',
        f"{EVALUATE_TESTS} -k are_counted",
    ),
    Mutant(
        TRAIN,
        "fit_head(learner, split, validation, selected_by=run.selected_by, weights=weights)",
        "fit_head(learner, split, validation, selected_by=run.selected_by)",
        f"{TRAIN_TESTS} -k fitted_head",
    ),
    Mutant(
        TRAIN,
        "done = checkpoints.latest_whole_step() == learner.total_steps",
        "done = checkpoints.latest_step == learner.total_steps",
        f"{TRAIN_TESTS} -k is_not_done",
    ),
    Mutant(
        TRAIN,
        "if first_process_says(learner.has_checkpoints and record.exists()):",
        "if first_process_says(record.exists()):",
        f"{TRAIN_TESTS} -k without_a_checkpoint",
    ),
    # The results.
    Mutant(
        "kdjax/results/intervals.py",
        "return ROUNDING * max(1.0, *map(abs, values))",
        "return ROUNDING",
        "tests/results/test_intervals.py -k rounding_grows",
    ),
    Mutant(
        "kdjax/results/comparison.py",
        "(on_validation(arms[name], measure) or 0.0) > best]",
        '(on_validation(arms[name], "top1") or 0.0) > best]',
        f"{UNEQUAL} -k lost_seeds",
    ),
    Mutant(
        DOCUMENT,
        "    selected = comparison.select(documented, measure)\n",
        '    selected = comparison.select(documented, "top1")\n',
        f"{UNEQUAL} -k trials",
    ),
    Mutant(
        DOCUMENT,
        'comparison.select(run["arms"], measure)) for run in runs]',
        'comparison.select(run["arms"], "top1")) for run in runs]',
        f"{UNEQUAL} -k trials",
    ),
    Mutant(
        DOCUMENT,
        "return identities[0][0] is not None and all(identity == identities[0] for identity in identities)",
        "return all(identity == identities[0] for identity in identities)",
        "tests/results/test_two_splits.py -k one_teacher",
    ),
    Mutant(
        DOCUMENT,
        "[value for arm in split_arms for value in arm.get(key, ())]",
        "[value for arm in split_arms[:1] for value in arm.get(key, ())]",
        f"{UNEQUAL} -k mean_of_all",
    ),
    Mutant(
        "kdjax/results/metrics.py",
        "if not np.isfinite(logits).all():\n        return {**und",
        "if np.isnan(logits).any():\n        return {**und",
        "tests/results/test_metrics.py -k has_failed",
    ),
    Mutant(
        "kdjax/results/logits.py",
        'sha256.update(f"{name} {array.shape} {array.dtype.str}\\n".encode())',
        'sha256.update(f"{array.shape} {array.dtype.str}\\n".encode())',
        "tests/results/test_logits.py -k another_evaluation",
    ),
    Mutant(
        "kdjax/results/tables.py",
        "validation = [arm[key][place] for key in selected_by]",
        "validation = [arm[key][0] for key in selected_by]",
        "tests/results/test_tables.py -k csv",
    ),
    Mutant(
        SHAPE,
        '("test_top1", "val_top1", "val_macro_recall", "val_nll")',
        '("test_top1", "val_top1", "val_nll")',
        "tests/results/test_schema.py -k value_that_is_none",
    ),
    Mutant(
        SHAPE,
        '"val_macro_recall", "val_nll") if',
        '"val_macro_recall") if',
        "tests/results/test_schema.py -k value_that_is_none",
    ),
    # Files, plans and the fitted head.
    Mutant(FILES, "            os.fsync(file.fileno())\n", "", "tests/runtime/test_files.py -k on_the_disk"),
    Mutant(
        FILES,
        "    os.chmod(temporary, 0o644)  # mkstemp makes it private\n        os",
        "    os",
        "tests/runtime/test_files.py -k on_the_disk",
    ),
    Mutant(
        PLAN,
        "partners[row, in_epoch], partner_views[row, in_epoch] = order[paired], view[paired]",
        "partners[row, in_epoch], partner_views[row, in_epoch] = order[paired], view[slots]",
        "tests/inputs/test_plan.py -k partners",
    ),
    Mutant(
        PLAN,
        "self._rows[examples], self._rows[partners]",
        "self._rows[examples], partners",
        "tests/inputs/test_plan.py -k partners",
    ),
    Mutant(
        "kdjax/training/probe.py",
        "class_weights = jnp.asarray(weights, standardized.dtype) if len(weights) else None",
        "by_class = None",
        "tests/training/test_probe.py -k copies",
    ),
)
