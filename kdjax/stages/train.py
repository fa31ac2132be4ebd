"""The stages that train: teacher and distill. Each goes on where its checkpoints stand.

The working directory:
    config.json splits.json          what was run, on which files
    teacher/ distill/                checkpoints/ and metrics.jsonl; profile/ where asked for
    teacher_logits.json              where the teacher's logits lie, and how many images it took to make them
    evaluation/                      metrics.jsonl; logits.npz: test and validation logits of the selected checkpoints
    results.json results.md results.csv   the figures
"""

import contextlib
import functools
import json
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.config import given_teacher
from kdjax.data import Split
from kdjax.data.plan import Plan
from kdjax.inputs.feed import resident, streamed
from kdjax.objective import objective
from kdjax.run.learners import check_weights, initial_state, optimiser, total_steps
from kdjax.run.run import Run
from kdjax.runtime import files, memory, preemption
from kdjax.runtime.devices import Mapping, RowMapping, first_process_says
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.runtime.trace import Trace
from kdjax.teacher.targets import teacher_of, view_logits
from kdjax.training import optimizer, step
from kdjax.training import state as states
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.loop import Progress, fit
from kdjax.training.predictor import predictor

TEACHER_ARM = {"ce": 1.0}
DEFAULT_VIEWS = 8
"""Validation accuracy rises up to here, see the README."""


def train_teacher(run: Run) -> None:
    """Stage `teacher`: fine-tunes the teacher on the labelled training images, a fresh view every time."""
    given = given_teacher(run.config)
    if given:
        run.log(f"teacher: none to train, it comes from {given}")
        return
    split = run.dataset.train.labelled()
    if _done(run, "teacher", "teacher", len(split)):
        return
    _check_weights(run, teacher="teacher", student="distill")
    _train(
        run,
        "teacher",
        "teacher",
        run.mapping,
        seeds=(run.config.teacher.seed,),
        arms={"teacher": TEACHER_ARM},
        views=0,
        split=split,
    )


def distill(run: Run) -> None:
    """Stage `distill`: teacher logits once, where an arm needs them, then all arms and seeds as one program."""
    config = run.config
    split = run.dataset.train
    if _done(run, "student", "distill", len(split.labels)):
        return
    _check_weights(run, student="distill")
    arms = {name: config.arms[name] for name in run.arms}
    views = config.distill.views
    if views is None:
        views = min(DEFAULT_VIEWS, config.student.epochs)
    elif views > config.student.epochs:
        run.log(f"distill: {config.student.epochs} epochs visit no more than that many of the {views} views")
        views = config.student.epochs
    logits = online = None
    if objective.needs_teacher(arms.values()):
        teacher = teacher_of(run)
        if views:
            logits = view_logits(run, teacher, views)
            if config.distill.target == "mean":
                logits = np.broadcast_to(logits.mean(0), logits.shape)
        else:
            online = teacher.network
    _train(
        run,
        "student",
        "distill",
        run.population_mapping,
        seeds=config.seeds,
        arms=arms,
        views=views,
        split=split,
        logits=logits,
        online=online,
        mixup=config.distill.mixup,
    )


def _check_weights(run: Run, **folders: str) -> None:
    """Refuses weights that do not fit now rather than after hours, for the stages that have no checkpoint yet."""
    check_weights(
        run,
        *(stage for stage, folder in folders.items() if not any((run.workdir / folder).glob("checkpoints/[0-9]*"))),
    )


def _train(
    run: Run,
    stage: str,
    folder: str,
    mapping: Mapping,
    *,
    seeds: Sequence[int],
    arms: dict[str, Any],
    views: int,
    split: Split,
    logits: np.ndarray | None = None,
    online: tuple[nn.Module, Any] | None = None,
    mixup: float = 0.0,
) -> None:
    """Trains one population to the end of its schedule, from its latest checkpoint where there is one."""
    config = run.config[stage]
    count = len(split.labels)
    total = total_steps(config, count)
    directory = run.workdir / folder
    checkpoints = Checkpoints(directory / "checkpoints", mapping)
    like = initial_state(run, stage, seeds, len(arms), load=False)
    measured = objective.measured_terms(arms.values()) if online or logits is not None else ("ce",)
    averages = step.empty_averages((len(seeds), len(arms)), measured)
    restored = checkpoints.restore(like, averages)
    resumed = restored is not None
    if not resumed:
        initial = initial_state(run, stage, seeds, len(arms), load=True)
        restored = mapping.place((initial, averages), "rows")
    else:
        run.log(f"{folder}: goes on from step {int(restored[0].step)}")
    state, averages = restored
    model, size = run.network(stage), run.teacher_size if stage == "teacher" else run.student_size
    on_device = run.on_device(split.images)
    program = functools.partial(
        step.planned_steps,
        student_size=size,
        teacher=online[0] if online else None,
        teacher_size=run.teacher_size,
        model=model,
        optimiser=optimiser(config),
        schedule=optimizer.schedule(total, min(round(config.warmup_epochs * count / config.batch_size), total - 1)),
        cosine_on=run.config.distill.cosine_on,
        ema=config.ema,
        mixup=mixup,
        arms_at_once=_arms_at_once(run, folder, model, size, config.batch_size, like, mapping, total, resumed),
    )
    kinds = ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole")
    mapped = mapping.map(program, kinds, (0, 1), donate=(0,))
    examples = step.Examples(split.images if on_device else None, split.labels, logits, np.int32(run.config.data_seed))
    placed = mapping.place(examples)
    teacher = mapping.place(online[1]) if online else None
    hyper = mapping.place(_hyperparameters(config, list(arms.values()), run.config.distill.temperature), "arms")
    seed_row = mapping.place(np.array(seeds, np.int32), "seeds")
    plan = Plan(tuple(seeds), count, config.batch_size, views, partners=mixup > 0)
    evaluate_every = -(-count // config.batch_size)
    if on_device:
        longest, feed = evaluate_every, resident(plan, mapping, evaluate_every)
    else:
        run.log(f"{folder}: the images do not fit into the devices' memory and are read from the host")
        longest, feed = 1, streamed(plan, mapping, split.images, int(state.step), total)
    trace = Trace(*run.config.run.profile, directory / "profile") if run.config.run.profile else None
    writer = MetricsWriter(directory, int(state.step), tensorboard=run.config.run.tensorboard)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(checkpoints.close)
        cleanup.callback(writer.close)
        if trace is not None:
            cleanup.callback(trace.close)
        cleanup.enter_context(preemption.deferred())
        fit(
            lambda state, averages, share, count: mapped(
                state, averages, placed, teacher, hyper, seed_row, share, count
            ),
            state,
            averages,
            plan,
            feed,
            total_steps=total,
            select=config.select,
            evaluate_every=evaluate_every,
            longest=longest,
            predict=predictor(model, size=size, mapping=mapping),
            validation_images=run.dataset.validation.images,
            validation_labels=run.dataset.validation.labels,
            mapping=mapping,
            checkpoints=checkpoints,
            writer=writer,
            progress=Progress(
                folder,
                [[f"{arm}/{seed}" for arm in arms] for seed in seeds],
                split.names,
                run.config.run.log_seconds,
                run.log,
            ),
            trace=trace,
        )


def _arms_at_once(
    run: Run,
    folder: str,
    model: nn.Module,
    size: int,
    batch: int,
    like: states.TrainState,
    mapping: Mapping,
    total: int,
    resumed: bool,
) -> int | None:
    """How many arms a step computes side by side: as configured, or decided once and kept in the run's directory.

    The `total` steps are written there too, for runs that take this one's teacher.
    """
    record = run.workdir / folder / "program.json"
    chosen = run.config.run.arms_at_once
    if chosen is None and resumed and record.exists():
        return json.loads(record.read_text())["arms_at_once"]
    if chosen is None and like.failed.size > 1:
        seeds, arms = mapping.rows_a_device(*like.failed.shape)
        share = batch if isinstance(mapping, RowMapping) else batch // len(mapping.devices)
        # The state, and the new one that a step makes beside it.
        states_bytes = 2 * memory.tree_bytes(like) * seeds * arms // like.failed.size
        free = int(memory.ROOM * memory.capacity(mapping.local[0])) - states_bytes
        chosen = memory.arms_at_once(free, memory.activation_bytes(model, size, share), seeds, arms)
        if chosen is None and seeds > 1 and jax.default_backend() == "cpu":
            chosen = arms  # one seed after the other keeps more in cache: half the time at 4 x 4 students (measured)
    if jax.process_index() == 0:
        record.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(record, {"arms_at_once": chosen, "steps": total})
    return chosen


def _hyperparameters(config: Any, arms: Sequence[Any], temperature: float) -> states.Hyperparameters:
    def column(name: str, default: float) -> np.ndarray:
        return np.array([arm.get(name, default) for arm in arms], np.float32)

    return states.Hyperparameters(
        weights={name: column(name, 0.0) for name in objective.measured_terms(arms)},
        temperature=column("temperature", temperature),
        learning_rate=column("learning_rate", config.learning_rate),
        weight_decay=column("weight_decay", config.weight_decay),
    )


def _done(run: Run, stage: str, folder: str, examples: int) -> bool:
    """Whether a stage's checkpoints stand at the end of its schedule."""
    directory = run.workdir / folder / "checkpoints"
    # The first process may have made it when another looks, and all must open the checkpoints or none.
    if not first_process_says(directory.is_dir()):
        return False
    checkpoints = Checkpoints(directory, run.mapping)
    done = checkpoints.latest_step == total_steps(run.config[stage], examples)
    checkpoints.close()
    if done:
        run.log(f"{folder}: done already")
    return done
