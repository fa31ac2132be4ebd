"""All mutants: lines of kdjax with a mistake in them, and the tests that must notice. See `mutate.py`."""

from mutants_bands import OF_BANDS
from mutants_results import OF_RESULTS
from mutants_runs import OF_RUNS
from mutants_wiring import BASELINE, OBJECTIVE, REFERENCE, STATE, STEP, TERMS, WIRED, WIRING, Mutant

MUTANTS = (
    *WIRED,
    *OF_BANDS,
    *OF_RUNS,
    *OF_RESULTS,
    # The objective.
    Mutant(
        "kdjax/objective/arms.py",
        "(term, 0.0) for arm in arms)",
        "(term, 0.0) for arm in arms[::-1])",
        f"{WIRING} -k own_row",
    ),
    Mutant(
        "kdjax/objective/arms.py",
        "temperature=column(arm.temperature for arm in arms)",
        "temperature=column(arms[0].temperature for arm in arms)",
        f"{WIRING} -k own_row",
    ),
    Mutant(
        "kdjax/objective/arms.py",
        "weight_decay=column(arm.weight_decay",
        "weight_decay=column(arm.learning_rate",
        f"{WIRING} -k own_row",
    ),
    Mutant(
        TERMS,
        "return temperature**2 * kl_divergence(teacher.logits",
        "return temperature * kl_divergence(teacher.logits",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(TERMS, "jnp.exp(log_p) * (log_p - log_q)", "jnp.exp(log_q) * (log_p - log_q)", f"{REFERENCE} -k numpy"),
    Mutant(
        TERMS,
        "    return jnp.where(labeled, -log_probability[..., 0], 0)",
        "    return -log_probability[..., 0]",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(
        TERMS,
        "return 1 - jnp.sum(unit(teacher) * unit(student), axis=-1)",
        "return -jnp.sum(unit(teacher) * unit(student), axis=-1)",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(
        OBJECTIVE,
        "counted = labels >= 0 if term.needs_labels else",
        "counted = labels >= -1 if term.needs_labels else",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(OBJECTIVE, "    teacher = jax.lax.stop_gradient(teacher)\n", "", "tests/objective -k teacher"),
    Mutant(OBJECTIVE, "jnp.where(off, jax.lax.stop_gradient(x), x)", "x", "tests/objective"),
    Mutant(
        OBJECTIVE,
        "share * values + (1 - share) * second\n",
        "(1 - share) * values + share * second\n",
        "tests/training/test_mixup.py",
    ),
    Mutant(OBJECTIVE, "else jnp.sum(weighted)", "else weight[0] * total", "tests/objective/test_weights_of_classes.py"),
    Mutant(
        OBJECTIVE,
        "(1 - share) * _example_weights(weight, second_labels) * second",
        "(1 - share) * _example_weights(weight, labels) * second",
        "tests/objective/test_weights_of_classes.py",
    ),
    Mutant(
        TERMS,
        "return self.needs_labels and not self.needs_teacher",
        "return self.needs_labels",
        "tests/objective/test_weights_of_classes.py",
    ),
    # The update.
    Mutant(STEP, "recipe.schedule(step), hyper", "recipe.schedule(step + 1), hyper", f"{REFERENCE} -k numpy"),
    Mutant(
        STEP,
        "finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        "finite = jnp.isfinite(loss)",
        f"{REFERENCE} -k infinite",
    ),
    Mutant(
        STEP, "(1 + state.step) / (10 + state.step)", "(1 + state.step) / (100 + state.step)", f"{REFERENCE} -k numpy"
    ),
    Mutant(
        STEP,
        '{"params": kept.params, "batch_stats": kept.batch_stats}',
        '{"params": kept.params, "batch_stats": state.ema["batch_stats"]}',
        f"{REFERENCE} -k numpy",
    ),
    Mutant(STEP, "            example_keys=batch.keys,\n", "", "tests/inputs/test_batch.py -k own_keys"),
    Mutant(
        STEP,
        "dropout_keys(seeds, state.step, plan.places)",
        "dropout_keys(seeds, jnp.int32(0), plan.places)",
        "tests/inputs/test_batch.py -k own_keys",
    ),
    Mutant(
        STEP,
        "(examples.labels[plan.partners], share",
        "(examples.labels[plan.examples], share",
        "tests/training/test_mixup.py",
    ),
    Mutant(
        STEP,
        "plan.views, len(leaf) - 1), plan.examples]",
        "0 * plan.views, len(leaf) - 1), plan.examples]",
        "tests/training/test_step.py -k stored_logits",
    ),
    Mutant("kdjax/training/optimizer.py", 'names[-1] == "kernel"', "True", f"{REFERENCE} -k numpy"),
    Mutant(
        "kdjax/training/optimizer.py",
        'names[:-1] in (["head"], ["head", "logits"])',
        "True",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(
        "kdjax/training/optimizer.py",
        "optax.clip_by_global_norm(clip) if clip",
        "optax.clip(clip) if clip",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(
        "kdjax/training/optimizer.py",
        "warmup_cosine_decay_schedule(0.0, 1.0,",
        "warmup_cosine_decay_schedule(0.1, 1.0,",
        "tests/training/test_optimizer.py -k schedule",
    ),
    Mutant(STATE, "& (nll < best.nll)", "& (nll > best.nll)", "tests/training/test_step.py -k best_is_higher"),
    Mutant(STATE, "return self.ema or {", "return {", "tests/training/test_ema.py -k evaluated"),
    # Inputs.
    Mutant(
        "kdjax/inputs/plan.py",
        "np.random.default_rng((seed, epoch, 0))",
        "np.random.default_rng((seed, 0))",
        "tests/inputs/test_plan.py",
    ),
    Mutant(
        "kdjax/inputs/plan.py",
        "np.random.default_rng((seed, epoch, 0))",
        "np.random.default_rng((0, epoch, 0))",
        "tests/inputs/test_plan.py",
    ),
    Mutant(
        "kdjax/inputs/balanced.py",
        "np.random.default_rng((seed, int(cycle), 4, place))",
        "np.random.default_rng((seed, epoch, 4, place))",
        "tests/inputs/test_balanced.py",
    ),
    Mutant(
        "kdjax/inputs/balanced.py",
        "np.divmod(turn[slots] // classes, len(members))",
        "np.divmod(np.arange(len(slots)), len(members))",
        "tests/inputs/test_balanced.py",
    ),
    Mutant(
        "kdjax/inputs/batch.py",
        "root = jax.random.fold_in(key(seed), step)",
        "root = key(seed)",
        "tests/inputs/test_batch.py -k dropout_keys",
    ),
    Mutant(
        "kdjax/inputs/batch.py",
        "    root = key(data_seed)",
        "    root = key(0)",
        "tests/inputs/test_batch.py -k view_keys",
    ),
    Mutant("kdjax/inputs/augment.py", "log_low + u[1]", "log_low + u[2]", "tests/inputs/test_augment.py -k version"),
    Mutant(
        "kdjax/inputs/augment.py",
        '            "symmetries": self.symmetries,\n',
        "",
        "tests/run/test_soft_targets.py -k symmetries",
    ),
    # Networks, data, results.
    Mutant(
        "kdjax/data/class_weights.py",
        "if even else counts",
        "if even else 1 + 0 * counts",
        "tests/data/test_class_weights.py",
    ),
    Mutant(
        "kdjax/results/intervals.py",
        "strata = [difference] if labels is None else",
        "strata = [difference] if True else",
        "tests/results/test_unequal.py",
    ),
    Mutant(
        "kdjax/networks/layers.py",
        "1.0 - rate, x.shape[1:]",
        "rate, x.shape[1:]",
        "tests/inputs/test_batch.py -k four_fifths",
    ),
    Mutant("kdjax/networks/layers.py", "jax.random.fold_in(key, layer)", "key", "tests/inputs/test_batch.py -k masks"),
    Mutant("kdjax/networks/layers.py", "var * (count / max(count - 1, 1))", "var", f"{REFERENCE} -k numpy"),
    Mutant(
        "kdjax/data/splits.py",
        'ranked(f"labels-{purpose}", seed,',
        'ranked(f"labels-{purpose}", 0,',
        "tests/data/test_splits_seeds.py",
    ),
    Mutant(
        "kdjax/data/splits.py", "    notes += _drop_shared(side, pool.digests)\n", "", "tests/data/test_splits_seeds.py"
    ),
    Mutant(
        "kdjax/data/splits.py", '("validation", ("test",))', '("validation", ())', "tests/data/test_splits_seeds.py"
    ),
    Mutant(
        "kdjax/results/metrics.py",
        "labels[labeled].astype(np.int64)",
        "labels[labeled].astype(np.int64) * 0",
        "tests/results/test_metrics.py",
    ),
    Mutant(
        "kdjax/results/metrics.py",
        "np.exp(log_teacher) * (log_teacher - log_student)",
        "np.exp(log_student) * (log_student - log_teacher)",
        "tests/results/test_metrics.py",
    ),
    Mutant(
        "kdjax/results/intervals.py", "(len(ranked) - rank) * p", "len(ranked) * p", "tests/results/test_intervals.py"
    ),
    Mutant(
        "kdjax/results/intervals.py",
        "    difference = a.mean(0) - b.mean(0)\n",
        "    difference = a.mean(0) - b.mean(0)[::-1]\n",
        "tests/results/test_intervals.py",
    ),
    Mutant(
        "kdjax/results/comparison.py",
        "return max(baselines(arms), key=lambda name: rank(arms[name], measure), default=None)",
        "return min(baselines(arms), key=lambda name: rank(arms[name], measure), default=None)",
        "tests/results",
    ),
    # The baseline that is shown labeled tiles only.
    Mutant(STEP, "leaf[hyper.group], batch)", "leaf[0], batch)", f"{BASELINE} -k steps_it_would_take"),
    Mutant(
        "kdjax/training/loop.py",
        "if arm.is_measured(name)",
        "if name",
        f"{BASELINE} -k not_told",
    ),
    Mutant(
        "kdjax/training/step.py",
        "kept = rows_where(failed < 0, new, students)",
        "kept = new",
        "tests/training/test_update_reference.py -k infinite",
    ),
    Mutant(
        "kdjax/teacher/targets.py",
        "if not recorded or recorded == current:",
        "if True:",
        "tests/teacher/test_targets.py -k refuses",
    ),
    # The process.
    Mutant(
        STATE,
        "new if missing(leaf) else leaf",
        "new if missing(leaf) else jnp.zeros_like(leaf)",
        "tests/training/test_state.py",
    ),
    Mutant(
        "kdjax/runtime/heap.py",
        "elif free > 2 * self._usual + SPARE:",
        "elif free > 2 * self._usual + (1 << 40):",
        "tests/runtime/test_heap.py",
    ),
    Mutant(
        "kdjax/runtime/command.py",
        "                preemption.ignore_sigterm()",
        "                pass",
        "tests/runtime/test_leaving.py",
    ),
)
