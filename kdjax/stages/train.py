"""The stages that train: teacher and distill. Each goes on where its checkpoints stand.

The working directory:
    config.json splits.json          what was run, on which files
    teacher/ distill/                checkpoints/ and metrics.jsonl; weights.json: the file of weights
                                     they began with; profile/ where asked for
    teacher_logits.json              where the teacher's logits lie, and how many images it took to make them
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
from kdjax.objective.outputs import Outputs
from kdjax.results.comparison import NAMES
from kdjax.run.arms import head_weights
from kdjax.run.run import Run
from kdjax.run.soft_targets import check_files, fit_encoder_heads, open_targets
from kdjax.run.teacher_source import given_field
from kdjax.runtime import files, preemption
from kdjax.runtime.devices import first_process_says, for_population
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.runtime.trace import Trace
from kdjax.teacher.views import MeanOfViews
from kdjax.training.checkpoint import FOLDER
from kdjax.training.frozen import as_trained, fit_head
from kdjax.training.learner import Learner
from kdjax.training.loop import fit
from kdjax.training.memory_plan import planned
from kdjax.training.population import Online, Population, TrainingData, population
from kdjax.training.progress import Progress
from kdjax.training.step import empty_averages


def train_teacher(run: Run) -> None:
    """Stage `teacher`: fine-tunes the teacher on the labeled training images, a fresh view every time."""
    given = given_field(run.config)
    if given or run.teacher is None:
        for file, fitted in fit_encoder_heads(run):
            run.log(f"teacher: {file}: {fitted.words}")
        check_files(run)  # now rather than after hours
        run.log(f"teacher: none to train, it comes from {given}")
        return
    if _done(run.teacher, run):
        _check_same_weights(run.teacher)
        return
    for learner in (run.teacher, run.student):
        if not learner.has_checkpoints:
            learner.check_weights()  # now rather than after hours
    if not any(arm.needs_teacher for arm in run.student.arms):
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
        on_device=run.on_device(split.images),
        balanced=run.config.dataset.sampling == "balanced",
    )
    _train(run, run.teacher, data)


def distill(run: Run) -> None:
    """Stage `distill`: teacher logits once, where an arm needs them, then all arms and seeds as one program."""
    config, student = run.config, run.student
    if _done(student, run):
        return
    if not student.has_checkpoints:
        student.check_weights()
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
        on_device=run.on_device(run.dataset.train.images, stored),
        views=views,
        stored=stored,
        online=online,
        mixup=config.distill.mixup,
        balanced=run.config.dataset.sampling == "balanced",
    )
    _train(run, student, data)


def _most_visits(run: Run) -> int:
    """How often an image is shown to a student at most.

    Students of the labeled images alone train for as many steps as the others, so they go through these more often.
    """
    labels, epochs = run.dataset.train.labels, run.config.student.epochs
    shown = [(labels, epochs)]
    if any(arm.labeled_only and arm.needs_teacher for arm in run.student.arms):
        labeled = labels[labels >= 0]
        shown.append((labeled, -(-epochs * len(labels) // len(labeled))))
    balanced = run.config.dataset.sampling == "balanced"
    return max(most_visits(*one) if balanced else one[1] for one in shown)


def _soft_targets(run: Run, views: int) -> tuple[Outputs | None, Online | None]:
    """The teacher's outputs of so many views, or the teacher where there are none; what it held is let go."""
    arms, config = run.student.arms, run.config
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
    """The profile that `run.profile` asks for, of a learner that goes on from `step`."""
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


def _train(run: Run, learner: Learner, data: TrainingData) -> None:
    """Trains one learner to the end of its schedule, from its latest checkpoint where there is one."""
    folder = learner.folder.name
    trained = _planned(run, population(learner, data))
    learner = trained.learner
    checkpoints = learner.checkpoints()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(checkpoints.close)
        restored = checkpoints.restore(learner.layout, trained.empty_averages())
        if restored is not None:
            run.log(f"{folder}: continues from step {int(restored[0].step)}")
        state, averages = restored or trained.initial()
        if not data.on_device:
            what = "they do not fit" if data.stored is None else "they and the teacher's outputs do not fit"
            why = "as run.images says" if run.config.run.images == "host" else f"{what} into the devices' memory"
            run.log(f"{folder}: images are read from the host, {why}")
        if learner.section.select == "best":
            run.log(f"{folder}: the step is chosen by {NAMES[learner.selected_by]} on validation")
        trace = _trace(run, learner, int(state.step))
        writer = MetricsWriter(learner.folder, int(state.step), tensorboard=run.config.run.tensorboard)
        cleanup.callback(writer.close)
        if trace is not None:
            cleanup.callback(trace.close)
        cleanup.enter_context(preemption.deferred())
        fit(
            trained,
            state,
            averages,
            checkpoints=checkpoints,
            writer=writer,
            progress=Progress(run.config.run.log_seconds, run.log),
            trace=trace,
        )


def _check_same_weights(learner: Learner) -> None:
    """A teacher that is its file of weights must not have another by now."""
    if learner.section.fit != "all" and learner.weights and not learner.read_only:
        try:
            now = pretrained.digest(learner.section.weights)
        except InputError:  # it is gone; the teacher is in its checkpoint
            return
        if learner.weights["sha256"] != now:
            raise InputError(
                f"{learner.name}.weights: {learner.section.weights} is another file than the one that {learner.folder} "
                "was made of: put that back, or choose another workdir"
            )


def _adopt(run: Run, learner: Learner, split: Split) -> None:
    """A teacher whose weights stay as they are, written as the checkpoint of its only step."""
    validation = run.dataset.validation
    if learner.section.fit == "head":
        state, fitted = fit_head(learner, split, validation, head_weights(run.config, run.dataset))
        run.log(f"{learner.folder.name}: frozen; {fitted.words}")
        scores = {"top1": fitted.linear_top1, "neighbors_top1": fitted.neighbors_top1}
    else:
        state, measured = as_trained(learner, run.dataset.classes, validation)
        scores = {"top1": measured["top1"]}
        run.log(
            f"{learner.folder.name}: as it was trained elsewhere, right on {100 * scores['top1']:.2f} % of validation; "
            "make sure that it was not trained on validation or test images of this run"
        )
    _record(learner, None)
    writer = MetricsWriter(learner.folder, 0, tensorboard=run.config.run.tensorboard)
    checkpoints = learner.checkpoints()
    try:
        writer.write(learner.total_steps, "validation", {learner.names[0][0]: scores}, epoch=0.0)
        averages = empty_averages(learner.rows, ("ce",))
        checkpoints.save(*learner.mapping.place((state, averages), "rows"))
    finally:
        writer.close()
        checkpoints.close()


def _planned(run: Run, trained: Population) -> Population:
    """On which devices, and with how many arms side by side: decided once, and kept in the stage's folder.

    A number of arms that the user gives is that of all that train at a time, so it means one device of a CPU.
    """
    learner, given = trained.learner, run.config.run.arms_at_once
    mappings = for_population(*learner.rows)
    if given is not None:
        trained = trained.on(mappings[-1]).with_arms_at_once(given)
        _record(trained.learner, given)
        return trained
    record = learner.folder / "program.json"
    if first_process_says(learner.has_checkpoints and record.exists()):
        kept = files.read_json(record, "remove it; it is decided again")
        shape = kept.get("devices")
        for mapping in mappings:
            if mapping.shape == (shape and tuple(shape)):
                return trained.on(mapping).with_arms_at_once(kept.get("arms_at_once"))
    trained = planned([trained.on(mapping) for mapping in mappings], run.log)
    chosen = first_process_says(trained.recipe.arms_at_once or 0) or None
    _record(trained.learner, chosen)
    return trained.with_arms_at_once(chosen)


def _record(learner: Learner, chosen: int | None) -> None:
    """Writes how a stage computes, and the layout of its checkpoints, for runs that take its networks as teacher."""
    if jax.process_index() == 0:
        learner.folder.mkdir(parents=True, exist_ok=True)
        layout = {
            "steps": learner.total_steps,
            "seeds": learner.seeds,
            "arms": [arm.name for arm in learner.arms],
            "projection": learner.projection,
        }
        program = {"devices": learner.mapping.shape, "arms_at_once": chosen}
        files.write_json(learner.folder / "program.json", {**program, **layout})


def _done(learner: Learner, run: Run) -> bool:
    """Whether a stage's checkpoints stand at the end of its schedule."""
    # The first process may have made the folder when another looks, and all must open the checkpoints or none.
    if not first_process_says((learner.folder / FOLDER).is_dir()):
        return False
    checkpoints = learner.checkpoints()
    try:
        done = checkpoints.latest_whole_step() == learner.total_steps
    finally:
        checkpoints.close()
    if done:
        run.log(f"{learner.folder.name}: done already")
    return done
