"""Mutants: lines of kdjax with a mistake in them, and the tests that must notice. See `mutate.py`."""

import dataclasses

STEP = "kdjax/training/step.py"
TRAIN = "kdjax/stages/train.py"
EVALUATE = "kdjax/stages/evaluate.py"
POPULATION = "kdjax/training/population.py"
LEARNER = "kdjax/training/learner.py"
TERMS = "kdjax/objective/terms.py"
OBJECTIVE = "kdjax/objective/objective.py"
STATE = "kdjax/training/state.py"

WIRING = "tests/stages/test_wiring.py"
REFERENCE = "tests/training/test_update_reference.py"
BASELINE = "tests/training/test_labelled_alone.py"
FINISHED = "tests/test_finished_run.py -m slow"
COMMANDS = "tests/test_finished_run_commands.py -m slow"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One line with a mistake.

    Attributes:
        file: where, below the root.
        old: what is there, once.
        new: what takes its place.
        tests: arguments of pytest that must fail then.
        slow: whether those tests take minutes.
    """

    file: str
    old: str
    new: str
    tests: str
    slow: bool = False


MUTANTS = (
    # Wiring: what one part hands to the next.
    Mutant(TRAIN, "        stored=stored,\n", "", f"{WIRING} -k stored_logits"),
    Mutant(TRAIN, "        online=online,\n", "", f"{WIRING} -k without_views"),
    Mutant(TRAIN, "        mixup=config.distill.mixup,\n", "", f"{WIRING} -k without_views"),
    Mutant(
        TRAIN,
        "        validation=run.dataset.validation,\n        data_seed=config.data_seed",
        "        validation=run.dataset.test,\n        data_seed=config.data_seed",
        f"{WIRING} -k what_selects",
    ),
    Mutant(
        TRAIN,
        "        validation=run.dataset.validation,\n        data_seed=run.config.data_seed",
        "        validation=run.dataset.test,\n        data_seed=run.config.data_seed",
        f"{WIRING} -k what_selects",
    ),
    Mutant(
        TRAIN, "        data_seed=config.data_seed,", "        data_seed=config.seeds[0],", f"{WIRING} -k what_selects"
    ),
    Mutant(
        TRAIN,
        "            online = Online(*targets.teacher.network, size=run.teacher_size)",
        "            online = Online(*targets.teacher.network, size=run.student.size)",
        f"{COMMANDS} -k online",
        True,
    ),
    Mutant(TRAIN, "logits.mean(0), logits.shape)", "logits[0], logits.shape)", f"{WIRING} -k mean_target"),
    Mutant(
        TRAIN,
        'if config.distill.target == "mean":',
        'if config.distill.target == "view":',
        f"{WIRING} -k stored_logits",
    ),
    Mutant(TRAIN, "        targets.pin()\n", "", f"{WIRING} -k stored_logits"),
    Mutant(
        TRAIN, "    split = run.dataset.train.labelled()", "    split = run.dataset.train", f"{WIRING} -k what_selects"
    ),
    Mutant(
        TRAIN,
        "        views = config.student.epochs\n    stored",
        "        pass\n    stored",
        f"{WIRING} -k more_views",
    ),
    Mutant(POPULATION, "        ema=learner.section.ema,", "        ema=0.0,", f"{WIRING} -k averages"),
    Mutant(POPULATION, "        mixup=data.mixup,", "        mixup=0.0,", f"{WIRING} -k averages"),
    Mutant(
        POPULATION,
        "        augmentation=data.augmentation,",
        "        augmentation=Augmentation(),",
        f"{WIRING} -k averages",
    ),
    Mutant(POPULATION, "partners=data.mixup > 0)", "partners=False)", f"{WIRING} -k averages"),
    Mutant(
        POPULATION,
        "np.array([arm.labelled_only for arm in self.learner.arms], np.int32)",
        "np.array([not arm.labelled_only for arm in self.learner.arms], np.int32)",
        f"{BASELINE} -k equally",
    ),
    Mutant(
        POPULATION,
        "np.flatnonzero(data.train.labels >= 0)",
        "np.flatnonzero(data.train.labels >= -1)",
        f"{BASELINE} -k equally",
    ),
    Mutant(
        POPULATION,
        "pool = data.views if any(arm.labelled_only and arm.needs_teacher for arm in arms) else 0",
        "pool = data.views",
        f"{BASELINE} -k equally",
    ),
    Mutant(
        LEARNER,
        "clip=self.section.clip, head_factor=self.section.head_factor)",
        "clip=0.0, head_factor=self.section.head_factor)",
        f"{WIRING} -k clipping",
    ),
    Mutant(
        LEARNER,
        "clip=self.section.clip, head_factor=self.section.head_factor)",
        "clip=self.section.clip, head_factor=1.0)",
        f"{WIRING} -k clipping",
    ),
    Mutant(LEARNER, "min(warmup, self.total_steps - 1))", "0)", f"{WIRING} -k schedule"),
    Mutant(
        LEARNER,
        "            ema=self.section.ema > 0,",
        "            ema=False,",
        "tests/training/test_ema.py -k resumed",
    ),
    Mutant(
        LEARNER,
        "        created = self._create(pretrained=loaded)",
        "        created = (self._create(pretrained=loaded), self._create())[1]",
        f"{FINISHED} -k tensors_of_the_file",
        True,
    ),
    Mutant(
        LEARNER,
        "        return Selected(best, last,",
        "        return Selected(best.replace(**last), last,",
        f"{FINISHED} -k stored_logits",
        True,
    ),
    Mutant("kdjax/main.py", "    one.data_seed += number\n", "", f"{WIRING} -k several_splits"),
    Mutant(
        "kdjax/run/soft_targets.py",
        '        "data_seed": run.config.data_seed,\n',
        "",
        "tests/run/test_soft_targets.py",
    ),
    Mutant(
        "kdjax/run/soft_targets.py",
        '        "examples": run.dataset.fingerprint,\n',
        '        "examples": "",\n',
        "tests/run/test_soft_targets.py -k examples",
    ),
    Mutant(
        "kdjax/run/soft_targets.py",
        "Shown(run.teacher_size,",
        "Shown(run.config.dataset.image_size,",
        "tests/run/test_soft_targets.py -k size",
    ),
    Mutant(
        "kdjax/run/run.py",
        "    if compared and (dataset.train.labels < 0).any()",
        "    if (dataset.train.labels < 0).any()",
        f"{BASELINE} -k joins",
    ),
    Mutant("kdjax/teacher/trained.py", '"size": shown.size, ', "", "tests/run/test_soft_targets.py -k size"),
    Mutant("kdjax/teacher/trained.py", ', "dtype": dtype}', "}", "tests/run/test_soft_targets.py -k dtype"),
    Mutant(
        "kdjax/teacher/trained.py",
        "data_seed=np.int32(shown.data_seed)",
        "data_seed=np.int32(0)",
        "tests/teacher/test_trained.py",
    ),
    Mutant(
        EVALUATE,
        "metrics.agreement(logits[row, column], teacher_logits)",
        "metrics.agreement(logits[0, column], teacher_logits)",
        f"{FINISHED} -k agreement",
        True,
    ),
    Mutant(
        EVALUATE,
        '"correct": logits[:, column].argmax(-1) == labels',
        '"correct": logits[:, 0].argmax(-1) == labels',
        f"{FINISHED} -k bootstrap",
        True,
    ),
    Mutant(
        EVALUATE,
        "predicting(selected.best.variables)",
        "predicting(selected.last)",
        f"{FINISHED} -k selected_students",
        True,
    ),
    Mutant(
        "kdjax/deploy/export/stage.py",
        "quantize.quantize(network, train[even], settings",
        "quantize.quantize(network, run.dataset.test.images, settings",
        f"{FINISHED} -k int8",
        True,
    ),
    Mutant(
        "kdjax/deploy/export/stage.py",
        "dataset.classes, dataset.meaning)",
        "dataset.classes, type(dataset.meaning)())",
        f"{COMMANDS} -k predict",
        True,
    ),
    # The objective.
    Mutant(
        "kdjax/objective/arms.py",
        "for arm in arms) for term in",
        "for arm in arms[::-1]) for term in",
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
        "    return jnp.where(labelled, -picked[..., 0], 0)",
        "    return -picked[..., 0]",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(
        TERMS,
        "return 1 - jnp.sum(teacher * student, axis=-1) /",
        "return -jnp.sum(teacher * student, axis=-1) /",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(
        OBJECTIVE,
        "counted = labels >= 0 if term.needs_labels else",
        "counted = labels >= -1 if term.needs_labels else",
        f"{REFERENCE} -k numpy",
    ),
    Mutant(OBJECTIVE, "    teacher = jax.lax.stop_gradient(teacher)\n", "", "tests/objective -k teacher"),
    Mutant(OBJECTIVE, "jnp.where(weight == 0, jax.lax.stop_gradient(x), x)", "x", "tests/objective"),
    Mutant(
        OBJECTIVE,
        "share * values + (1 - share) * term",
        "(1 - share) * values + share * term",
        "tests/training/test_mixup.py",
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
        "leaf[plan.views, plan.examples], examples.teacher",
        "leaf[0 * plan.views, plan.examples], examples.teacher",
        "tests/training/test_step.py -k stored_logits",
    ),
    Mutant("kdjax/training/optimizer.py", 'names[-1] == "kernel"', "True", f"{REFERENCE} -k numpy"),
    Mutant("kdjax/training/optimizer.py", '"head" in names', "True", f"{REFERENCE} -k numpy"),
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
        "kdjax/inputs/batch.py",
        "root = jax.random.fold_in(jax.random.key(seed), step)",
        "root = jax.random.key(seed)",
        "tests/inputs/test_batch.py -k dropout_keys",
    ),
    Mutant(
        "kdjax/inputs/batch.py",
        "    root = jax.random.key(data_seed)",
        "    root = jax.random.key(0)",
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
        "labels[kept].astype(np.int64)",
        "labels[kept].astype(np.int64) * 0",
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
        "return max(baselines(arms), key=score, default=None)",
        "return min(baselines(arms), key=score, default=None)",
        "tests/results",
    ),
    # The baseline that is shown labelled tiles only.
    Mutant(STEP, "leaf[hyper.group], batch)", "leaf[0], batch)", f"{BASELINE} -k steps_it_would_take"),
    Mutant(
        "kdjax/training/loop.py",
        "if not (arm.labelled_only and not arm.needs_teacher and name in unknown)",
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
        "if began and began != now:",
        "if False:",
        "tests/teacher/test_targets.py -k refuses",
    ),
)
