"""Mutants of the wiring: what one part of kdjax hands to the next. See `mutate.py`."""

import dataclasses

STEP = "kdjax/training/step.py"
TRAIN = "kdjax/stages/train.py"
EVALUATE = "kdjax/stages/evaluate.py"
POPULATION = "kdjax/training/population.py"
LEARNER = "kdjax/training/learner.py"
INITIAL_WEIGHTS = "kdjax/training/initial_weights.py"
TERMS = "kdjax/objective/terms.py"
OBJECTIVE = "kdjax/objective/objective.py"
STATE = "kdjax/training/state.py"

WIRING = "tests/stages/test_wiring.py"
REFERENCE = "tests/training/test_update_reference.py"
BASELINE = "tests/training/test_labeled_alone.py"
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


WIRED = (
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
        "        online = Online(*targets.network, size=run.teacher_size)",
        "        online = Online(*targets.network, size=run.student.size)",
        f"{COMMANDS} -k online",
        True,
    ),
    Mutant(
        "kdjax/teacher/views.py",
        "np.asarray(self._views).mean(0, keepdims=True)",
        "np.asarray(self._views)[:1]",
        f"{WIRING} -k mean_target",
    ),
    Mutant(
        TRAIN,
        'if config.distill.target == "mean":',
        'if config.distill.target == "view":',
        f"{WIRING} -k stored_logits",
    ),
    Mutant(TRAIN, "    targets.pin()\n", "", f"{WIRING} -k stored_logits"),
    Mutant(
        TRAIN, "    split = run.dataset.train.labeled()", "    split = run.dataset.train", f"{WIRING} -k what_selects"
    ),
    Mutant(
        TRAIN,
        "        views = most\n    stored",
        "        pass\n    stored",
        f"{WIRING} -k more_views",
    ),
    Mutant(POPULATION, "        ema=section.ema,", "        ema=0.0,", f"{WIRING} -k averages"),
    Mutant(POPULATION, "        mixup=data.mixup,", "        mixup=0.0,", f"{WIRING} -k averages"),
    Mutant(
        POPULATION,
        "        augmentation=data.augmentation,",
        "        augmentation=Augmentation(),",
        f"{WIRING} -k averages",
    ),
    Mutant(POPULATION, "partners=data.mixup > 0, labels", "partners=False, labels", f"{WIRING} -k averages"),
    Mutant(
        POPULATION,
        "groups=tuple(plans.index(plan_of(arm)) for arm in arms)",
        "groups=tuple(plans.index(plan_of(arm)) for arm in arms[::-1])",
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
        "views=data.views if arm.needs_teacher else 0",
        "views=data.views",
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
    Mutant(POPULATION, "min(warmup, steps - 1))", "0)", f"{WIRING} -k schedule"),
    Mutant(
        LEARNER,
        "            ema=self.section.ema > 0,",
        "            ema=False,",
        "tests/training/test_ema.py -k resumed",
    ),
    Mutant(
        "kdjax/data/loading.py",
        "        keys.append(tile_places.names)\n",
        "",
        "tests/data/test_places.py -k stay_on_one_side",
    ),
    Mutant(
        "kdjax/data/groups.py",
        "        current[part] += counts[number]\n",
        "",
        "tests/data/test_groups.py -k shared_out",
    ),
    Mutant(
        "kdjax/main.py",
        "        split_config.dataset.fold = (number, config.splits)\n",
        "        split_config.dataset.fold = (0, config.splits)\n",
        f"{WIRING} -k several_splits",
    ),
    Mutant(
        "kdjax/training/frozen.py",
        "value[..., indices] for",
        "value[..., sorted(indices)] for",
        "tests/training/test_frozen.py -k order_of_our_classes",
    ),
    Mutant(
        "kdjax/teacher/views.py",
        "np.mean(parts, axis=0) if len(parts) > 1 else parts[0]",
        "parts[0]",
        "tests/teacher/test_targets.py -k several_teachers",
    ),
    Mutant(
        "kdjax/teacher/onnx.py",
        "        return Outputs(values @ head.kernel + head.bias, values)",
        "        return Outputs(values @ head.kernel + head.bias, values * 2)",
        "tests/teacher/test_onnx.py -k encoder",
    ),
    Mutant(
        INITIAL_WEIGHTS,
        "    state = learner.scratch(pretrained=lambda _: loaded.variables)",
        "    state = learner.scratch()",
        f"{FINISHED} -k tensors_of_the_file",
        True,
    ),
    Mutant(
        LEARNER,
        "        selected = Selected(best, last,",
        "        selected = Selected(best.replace(**last), last,",
        f"{FINISHED} -k stored_logits",
        True,
    ),
    Mutant("kdjax/main.py", "    split_config.data_seed += number\n", "", f"{WIRING} -k several_splits"),
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
        "ViewSettings(run.teacher_size,",
        "Shown(run.config.dataset.image_size,",
        "tests/run/test_soft_targets.py -k size",
    ),
    Mutant(
        "kdjax/run/arms.py",
        "if len(alone) in (0, len(selected)) or any(",
        "if any(",
        f"{BASELINE} -k joins",
    ),
    Mutant("kdjax/teacher/trained.py", '"size": view_settings.size,', "", "tests/run/test_soft_targets.py -k size"),
    Mutant("kdjax/teacher/trained.py", '"dtype": dtype,', "", "tests/run/test_soft_targets.py -k dtype"),
    Mutant(
        "kdjax/teacher/trained.py",
        "data_seed=np.int32(view_settings.data_seed)",
        "data_seed=np.int32(0)",
        "tests/teacher/test_trained.py",
    ),
    Mutant(
        EVALUATE,
        "metrics.agreement(test_logits[row, column], teacher_logits)",
        "metrics.agreement(test_logits[0, column], teacher_logits)",
        f"{FINISHED} -k agreement",
        True,
    ),
    Mutant(
        EVALUATE,
        '"correct": test_logits[:, column].argmax(-1) == labels',
        '"correct": test_logits[:, 0].argmax(-1) == labels',
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
        "quantize.quantize(network, calibration_images, settings, metadata",
        "quantize.quantize(network, run.dataset.test.images, settings, metadata",
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
    Mutant(
        "kdjax/training/memory_plan.py",
        "        budget = measure_budget()  # the compiler",
        "        # the compiler",
        "tests/training/test_memory_plan.py -k leaves_behind",
    ),
    Mutant(
        "kdjax/run/other_run.py",
        'keep = [name not in hidden for name in splits["train"]]',
        'keep = [True for name in splits["train"]]',
        "tests/run/test_other_run.py -k labels_that_the_teacher",
    ),
    Mutant(
        "kdjax/teacher/targets.py",
        "        self._check_folders_without_teacher(rows, features)\n",
        "",
        "tests/teacher/test_targets.py -k lacks",
    ),
    Mutant(
        "kdjax/results/comparison.py",
        'dataset.get("class_counts", {}).get("train", ())',
        'dataset.get("class_counts", {}).get("test", ())',
        "tests/results/test_unequal.py -k three_times",
    ),
    Mutant(
        "kdjax/run/soft_targets.py",
        "return learns or run.teacher is None",
        "return True or taught or run.teacher is None",
        "tests/test_finished_run_commands.py -k students_alone_need",
        slow=True,
    ),
    Mutant(
        "kdjax/deploy/trust.py",
        "return (log_temperature / PRIOR) ** 2 / 2 - float",
        "return -float",
        "tests/deploy/test_trust.py -k boast",
    ),
    Mutant(
        "kdjax/run/run.py",
        "if not begun and devices.first_process_says(record.has_begun(workdir)):",
        "if False:",
        "tests/test_main.py -k left_alone",
    ),
    Mutant(
        "kdjax/run/record.py",
        "if devices.first_process_says(recorded_path != path):",
        "if recorded_path != path:",
        "tests/run/test_record.py",
    ),
    Mutant("kdjax/run/record.py", "        if changed:\n", "        if False:\n", "tests/run/test_record.py"),
    Mutant(
        "kdjax/stages/follow.py",
        "while latest_step < total_steps and not all_failed:",
        "while latest_step < total_steps:",
        "tests/stages/test_evaluate.py -k nobody",
    ),
    Mutant(
        "kdjax/data/sentinel2_offset.py", "if not has_data.all():", "if False:", "tests/data/test_sentinel2_offset.py"
    ),
)
