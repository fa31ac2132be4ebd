"""The stages that train: teacher and distill. Each continues from its latest checkpoint.

The working directory:
    config.json splits.json          the configuration, and the files of each split
    teacher/ distill/                checkpoints/ and metrics.jsonl; weights.json: the weights file that training
                                     started from; profile/ if asked for
    teacher_logits.json              where the teacher's logits are stored, and how many images they took
    evaluation/                      metrics.jsonl; logits.npz: test and validation logits of the selected checkpoints,
                                     with the labels
    results.json results.md results.csv   the figures
"""

import contextlib

import jax

from kdjax.config import DEFAULT_VIEWS
from kdjax.data.dataset import Split
from kdjax.errors import InputError
from kdjax.inputs.balanced import most_visits
from kdjax.networks import pretrained
from kdjax.objective.arms import Arm
from kdjax.objective.outputs import Outputs
from kdjax.results.comparison import NAMES
from kdjax.run.arms import common_weights, head_weights, teacher_arms
from kdjax.run.run import Run
from kdjax.run.soft_targets import check_files, fit_encoder_heads, open_targets
from kdjax.run.teacher_source import given_field
from kdjax.runtime import files, preemption
from kdjax.runtime.devices import first_process_says, for_population
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.runtime.trace import Trace
from kdjax.teacher.views import MeanOfViews
from kdjax.training import initial_weights
from kdjax.training.checkpoint import FOLDER
from kdjax.training.frozen import as_trained, fit_head
from kdjax.training.learner import WEIGHTS, Learner
from kdjax.training.loop import fit
from kdjax.training.memory_plan import planned
from kdjax.training.population import Online, Population, TrainingData, population
from kdjax.training.progress import Progress
from kdjax.training.state import TrainState
from kdjax.training.step import Averages, empty_averages


def train_teacher(run: Run) -> None:
    """Stage `teacher`: fine-tunes the teacher on the labeled training images, with a new view of an image each time."""
    field = given_field(run.config)
    if field or run.teacher is None:
        for file, head_fit in fit_encoder_heads(run):
            run.log(f"teacher: {file}: {head_fit.words}")
        check_files(run)  # report an unusable file now rather than after hours
        run.log(f"teacher: none to train, it comes from {field}")
        return
    if _is_done(run.teacher, run):
        _check_same_weights(run.teacher)
        return
    for learner in (run.teacher, run.student):
        if not learner.has_checkpoints:
            initial_weights.check(learner)  # report unusable weights now rather than after hours
    if not any(arm.needs_teacher for arm in run.arms):
        run.log("teacher: no arm of distill.arms learns from it; without it, --stages=distill,evaluate suffices")
    split = run.dataset.train.labeled()
    if run.config.teacher.fit != "all":
        _adopt(run, run.teacher, split)
        return
    data = TrainingData(
        train=split,
        validation=run.dataset.validation,
        data_seed=run.config.data_seed,
        augmentation=run.augmentation,
        selected_by=run.selected_by,
        on_device=run.on_device(split.images),
        balanced=run.config.dataset.sampling == "balanced",
    )
    arms = teacher_arms(run.config.teacher, common_weights(run.config, run.dataset))
    _train(run, run.teacher, arms, data)


def distill(run: Run) -> None:
    """Stage `distill`: computes the teacher's logits if an arm needs them, then trains all arms and seeds together."""
    config, student = run.config, run.student
    if _is_done(student, run):
        return
    if not student.has_checkpoints:
        initial_weights.check(student)
    views = config.distill.views
    if views is None:
        views = min(DEFAULT_VIEWS, config.student.epochs)
    elif views > (most := _most_visits(run)):
        run.log(f"distill: {config.student.epochs} epochs visit no more than {most} of the {views} views")
        views = most
    stored, online = _soft_targets(run, views)
    data = TrainingData(
        train=run.dataset.train,
        validation=run.dataset.validation,
        data_seed=config.data_seed,
        augmentation=run.augmentation,
        selected_by=run.selected_by,
        on_device=run.on_device(run.dataset.train.images, stored),
        views=views,
        stored=stored,
        online=online,
        mixup=config.distill.mixup,
        balanced=run.config.dataset.sampling == "balanced",
    )
    _train(run, student, run.arms, data)


def _most_visits(run: Run) -> int:
    """Returns the largest number of times that a student sees any one image.

    Students that see the labeled images only train for as many steps as the others, so they repeat them more often.
    """
    labels, epochs = run.dataset.train.labels, run.config.student.epochs
    visited = [(labels, epochs)]
    if any(arm.labeled_only and arm.needs_teacher for arm in run.arms):
        labeled = labels[labels >= 0]
        visited.append((labeled, -(-epochs * len(labels) // len(labeled))))
    balanced = run.config.dataset.sampling == "balanced"
    return max(most_visits(seen_labels, passes) if balanced else passes for seen_labels, passes in visited)


def _soft_targets(run: Run, views: int) -> tuple[Outputs | None, Online | None]:
    """Returns the teacher's stored outputs for `views` views, or the teacher itself if `views` is 0.

    Both are None if no arm needs a teacher. The memory of a teacher that is not returned is freed.
    """
    arms, config = run.arms, run.config
    if not any(arm.needs_teacher for arm in arms):
        return None, None
    targets = open_targets(run)
    stored, online = None, None
    if views:
        features = any(arm.needs_features for arm in arms)
        stored = targets.views(run.dataset.train.images, views, features=features)
        if config.distill.target == "mean":
            stored = jax.tree.map(MeanOfViews, stored)
    else:
        assert targets.network is not None
        online = Online(*targets.network, size=run.teacher_size)
    targets.pin()
    return stored, online


def _trace(run: Run, learner: Learner, step: int) -> Trace | None:
    """Returns the profiler that `run.profile` asks for; None if there is none, or if this start misses its steps."""
    if not run.config.run.profile:
        return None
    first, last = run.config.run.profile
    if not step <= first < learner.total_steps:
        run.log(
            f"{learner.folder.name}: run.profile begins at step {first}, and this start has the steps {step} to "
            f"{learner.total_steps - 1}: nothing is profiled"
        )
        return None
    return Trace(first, last, learner.folder / "profile")


def _train(run: Run, learner: Learner, arms: tuple[Arm, ...], data: TrainingData) -> None:
    """Trains a learner's networks to the end of their schedule, from the latest checkpoint if there is one."""
    folder = learner.folder.name
    planned_population = _plan_program(run, population(learner, arms, data))
    learner = planned_population.learner
    checkpoints = learner.checkpoints()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(checkpoints.close)
        restored = checkpoints.restore(learner.layout, planned_population.empty_averages())
        if restored is not None:
            run.log(f"{folder}: continues from step {int(restored[0].step)}")
        state, averages = restored or _initial(planned_population)
        if not data.on_device:
            what = "they do not fit" if data.stored is None else "they and the teacher's outputs do not fit"
            why = "as run.images says" if run.config.run.images == "host" else f"{what} into the devices' memory"
            run.log(f"{folder}: images are read from the host, {why}")
        if learner.section.select == "best":
            run.log(f"{folder}: the step is chosen by {NAMES[data.selected_by]} on validation")
        trace = _trace(run, learner, int(state.step))
        writer = MetricsWriter(learner.folder, int(state.step), tensorboard=run.config.run.tensorboard)
        cleanup.callback(writer.close)
        if trace is not None:
            cleanup.callback(trace.close)
        cleanup.enter_context(preemption.deferrable())
        fit(
            planned_population,
            state,
            averages,
            checkpoints=checkpoints,
            writer=writer,
            progress=Progress(run.config.run.log_seconds, run.log),
            trace=trace,
        )


def _initial(trained: Population) -> tuple[TrainState, Averages]:
    """The state that training begins with. From scratch, the folder keeps no record of weights."""
    learner = trained.learner
    if not learner.section.weights and jax.process_index() == 0:
        # Left by a start with weights that was given up before its first checkpoint.
        (learner.folder / WEIGHTS).unlink(missing_ok=True)
    return trained.initial()


def _check_same_weights(learner: Learner) -> None:
    """Makes sure that the weights file of a teacher that is not fine-tuned has not changed.

    Raises:
        InputError: the file has changed.
    """
    if learner.section.fit != "all" and learner.weights and not learner.read_only:
        try:
            digest = pretrained.digest(learner.section.weights)
        except InputError:  # the file is gone, but the checkpoint holds the teacher
            return
        if learner.weights["sha256"] != digest:
            raise InputError(
                f"{learner.name}.weights: {learner.section.weights} is another file than the one that {learner.folder} "
                "was made of: put that back, or choose another workdir"
            )


def _adopt(run: Run, learner: Learner, split: Split) -> None:
    """Writes a frozen teacher, with its fitted head if there is one, as the checkpoint of its only step."""
    validation = run.dataset.validation
    if learner.section.fit == "head":
        weights = head_weights(run.config, run.dataset)
        state, head_fit = fit_head(learner, split, validation, selected_by=run.selected_by, weights=weights)
        run.log(f"{learner.folder.name}: frozen; {head_fit.words}")
        scores = {"top1": head_fit.linear_top1, "neighbors_top1": head_fit.neighbors_top1}
    else:
        state, figures = as_trained(learner, run.dataset.classes, validation, selected_by=run.selected_by)
        scores = {"top1": figures["top1"]}
        run.log(
            f"{learner.folder.name}: as it was trained elsewhere, right on {100 * scores['top1']:.2f} % of validation; "
            "make sure that it was not trained on validation or test images of this run"
        )
    _record_program(learner, None)
    writer = MetricsWriter(learner.folder, 0, tensorboard=run.config.run.tensorboard)
    checkpoints = learner.checkpoints()
    try:
        writer.write(learner.total_steps, "validation", {learner.names[0][0]: scores}, epoch=0.0)
        averages = empty_averages(learner.rows, ("ce",))
        checkpoints.save(*learner.mapping.place((state, averages), "rows"))
    finally:
        writer.close()
        checkpoints.close()


def _plan_program(run: Run, candidate: Population) -> Population:
    """Decides which devices train a population, and how many arms train at once; the stage's folder keeps the decision.

    A number that the user gives counts all arms that train at once, so on a CPU it implies a single device.
    """
    learner, arms_at_once = candidate.learner, run.config.run.arms_at_once
    mappings = for_population(*learner.rows)
    if arms_at_once is not None:
        candidate = candidate.on(mappings[-1]).with_arms_at_once(arms_at_once)
        _record_program(candidate.learner, arms_at_once)
        return candidate
    record = learner.folder / "program.json"
    if first_process_says(learner.has_checkpoints and record.exists()):
        program = files.read_json(record, "remove it; it is decided again")
        shape = program.get("devices")
        for mapping in mappings:
            if mapping.shape == (shape and tuple(shape)):
                return candidate.on(mapping).with_arms_at_once(program.get("arms_at_once"))
    candidate = planned([candidate.on(mapping) for mapping in mappings], run.log)
    arms_at_once = first_process_says(candidate.recipe.arms_at_once or 0) or None
    _record_program(candidate.learner, arms_at_once)
    return candidate.with_arms_at_once(arms_at_once)


def _record_program(learner: Learner, arms_at_once: int | None) -> None:
    """Writes how a stage computes, and the layout of its checkpoints for runs that use its networks as teacher."""
    if jax.process_index() == 0:
        learner.folder.mkdir(parents=True, exist_ok=True)
        layout = {
            "steps": learner.total_steps,
            "seeds": learner.seeds,
            "arms": learner.arm_names,
            "projection": learner.projection,
        }
        program = {"devices": learner.mapping.shape, "arms_at_once": arms_at_once}
        files.write_json(learner.folder / "program.json", {**program, **layout})


def _is_done(learner: Learner, run: Run) -> bool:
    """Whether a stage's checkpoints have reached the end of its schedule."""
    # Either all processes open the checkpoints or none; the first one may have just made the folder.
    if not first_process_says((learner.folder / FOLDER).is_dir()):
        return False
    checkpoints = learner.checkpoints()
    try:
        is_done = checkpoints.latest_whole_step() == learner.total_steps
    finally:
        checkpoints.close()
    if is_done:
        run.log(f"{learner.folder.name}: done already")
    return is_done
