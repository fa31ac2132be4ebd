"""The stages of a run: teacher, distill, evaluate. Each goes on where its checkpoints stand.

The working directory:
    config.json splits.json          what was run, on which files
    teacher/ distill/                checkpoints/ and metrics.jsonl; distill/teacher_logits.json
    evaluation/                      metrics.jsonl; logits.npz: test and validation logits of the selected checkpoints
    results.json                     the figures
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax import augment, metrics, models, optim, results, steps, weights
from kdjax import config as configuration
from kdjax import state as states
from kdjax.checkpoint import Checkpoints
from kdjax.data.plan import Plan
from kdjax.errors import InputError
from kdjax.evaluate import BATCH_PER_DEVICE, population_metrics, predictor
from kdjax.run import Run
from kdjax.teacher_logits import cached_pass, tree_digest
from kdjax.train import Progress, fit
from kdjax.writers import MetricsWriter

TEACHER_ARM = {"ce": 1.0}


def _hyperparameters(config: Any, arms: Sequence[Any], temperature: float) -> states.Hyperparameters:
    def column(name: str, default: float) -> np.ndarray:
        return np.array([arm.get(name, default) for arm in arms], np.float32)

    return states.Hyperparameters(
        weights={name: column(name, 0.0) for name in configuration.losses.TERMS},
        temperature=column("temperature", temperature),
        learning_rate=column("learning_rate", config.learning_rate),
        weight_decay=column("weight_decay", config.weight_decay),
    )


def _total_steps(config: Any, examples: int) -> int:
    return -(-config.epochs * examples // config.batch_size)


def _done(run: Run, stage: str, folder: str, examples: int) -> bool:
    """Whether a stage's checkpoints stand at the end of its schedule."""
    directory = run.workdir / folder / "checkpoints"
    if not directory.is_dir():
        return False
    checkpoints = Checkpoints(directory, run.mapping)
    done = checkpoints.latest_step == _total_steps(run.config[stage], examples)
    checkpoints.close()
    if done:
        run.log(f"{folder}: done already")
    return done


def _optimiser(config: Any) -> Callable[..., Any]:
    return functools.partial(optim.adamw, clip=config.clip, head_factor=config.head_factor)


def _initial_state(run: Run, stage: str, seeds: Sequence[int], arms: int, *, load: bool) -> states.TrainState:
    """A new state, or only its shapes and dtypes where `load` is False."""
    config = run.config[stage]
    size = run.teacher_size if stage == "teacher" else run.student_size
    create = functools.partial(
        states.create, run.network(stage), _optimiser(config), seeds=seeds, arms=arms, image_size=size
    )
    if not load:
        return jax.eval_shape(create)
    if not config.weights:
        return create()
    said = []

    def pretrained(variables: Any) -> Any:
        hidden_layers = stage == "teacher" and config.head == "fc"
        variables, report = weights.load_imagenet(config.weights, config.model, variables, head=hidden_layers)
        said.append(report)
        return variables

    state = create(pretrained=pretrained)
    run.log(f"{stage}: {said[0]}")
    return state


def _train(
    run: Run,
    stage: str,
    folder: str,
    *,
    seeds: Sequence[int],
    arms: dict[str, Any],
    views: int,
    examples: steps.Examples,
    online: tuple[nn.Module, Any] | None,
) -> None:
    """Trains one population to the end of its schedule, from its latest checkpoint where there is one."""
    config = run.config[stage]
    total = _total_steps(config, len(examples.labels))
    directory = run.workdir / folder
    checkpoints = Checkpoints(directory / "checkpoints", run.mapping)
    state = checkpoints.restore(_initial_state(run, stage, seeds, len(arms), load=False))
    if state is None:
        state = run.mapping.replicate(_initial_state(run, stage, seeds, len(arms), load=True))
    else:
        run.log(f"{folder}: goes on from step {int(state.step)}")
    model = run.network(stage)
    program = functools.partial(
        steps.planned_step,
        student_size=run.teacher_size if stage == "teacher" else run.student_size,
        teacher=online[0] if online else None,
        teacher_size=run.teacher_size,
        data_seed=run.config.data_seed,
        model=model,
        optimiser=_optimiser(config),
        schedule=optim.schedule(total, round(config.warmup_epochs * len(examples.labels) / config.batch_size)),
        cosine_on=run.config.distill.cosine_on,
    )
    mapped = run.mapping.map(program, split=(False, False, False, False, False, True), donate=(0,))
    constants = run.mapping.replicate(
        (
            examples,
            online[1] if online else None,
            _hyperparameters(config, list(arms.values()), run.config.distill.temperature),
            np.array(seeds, np.int32),
        )
    )
    writer = MetricsWriter(directory, int(state.step), tensorboard=run.config.run.tensorboard)
    fit(
        lambda state, plan: mapped(state, *constants, plan),
        state,
        Plan(tuple(seeds), len(examples.labels), config.batch_size, views),
        total_steps=total,
        evaluate_every=-(-len(examples.labels) // config.batch_size),
        predict=predictor(model, size=program.keywords["student_size"], mapping=run.mapping),
        validation_images=run.dataset.validation.images,
        validation_labels=run.dataset.validation.labels,
        mapping=run.mapping,
        checkpoints=checkpoints,
        writer=writer,
        progress=Progress(
            folder, [[f"{arm}/{seed}" for arm in arms] for seed in seeds], run.config.run.log_seconds, run.log
        ),
    )
    writer.close()
    checkpoints.close()


def train_teacher(run: Run) -> None:
    """Stage `teacher`: fine-tunes the teacher on the labelled training images, a fresh view every time."""
    split = run.dataset.train
    labelled = split.labels >= 0
    if _done(run, "teacher", "teacher", int(labelled.sum())):
        return
    _train(
        run,
        "teacher",
        "teacher",
        seeds=(run.config.teacher.seed,),
        arms={"teacher": TEACHER_ARM},
        views=0,
        examples=steps.Examples(split.images[labelled], split.labels[labelled]),
        online=None,
    )


def best_teacher(run: Run) -> Any:
    """Variables of the selected teacher, without population axes, on the host's default device.

    Raises:
        InputError: there is no trained teacher, or it failed.
    """
    best, step, alive = _best(run, "teacher", "teacher", (run.config.teacher.seed,), 1)
    if step != _total_steps(run.config.teacher, int((run.dataset.train.labels >= 0).sum())):
        raise InputError(
            f"the teacher in {run.workdir}/teacher is at step {step}, not at its end: run --stages=teacher"
        )
    if not alive.all() or (np.asarray(best.step) < 0).any():
        raise InputError(f"the teacher in {run.workdir}/teacher failed: see its metrics.jsonl")
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], {"params": best.params, "batch_stats": best.batch_stats})


def _best(run: Run, stage: str, folder: str, seeds: Sequence[int], arms: int) -> tuple[states.Best, int, np.ndarray]:
    directory = run.workdir / folder / "checkpoints"
    if not directory.is_dir():
        raise InputError(f"no checkpoint in {directory}: run the stage that trains it first")
    checkpoints = Checkpoints(directory, run.mapping)
    best, alive = checkpoints.restore_best(_initial_state(run, stage, seeds, arms, load=False))
    step = checkpoints.latest_step
    checkpoints.close()
    return best, step, np.asarray(alive)


def distill(run: Run) -> None:
    """Stage `distill`: teacher logits once, then all arms and seeds as one program."""
    config = run.config
    split = run.dataset.train
    if _done(run, "student", "distill", len(split.labels)):
        return
    teacher, variables = run.network("teacher"), best_teacher(run)
    views = config.distill.views
    if views is None:
        views = min(16, config.student.epochs)
    elif views > config.student.epochs:
        run.log(f"distill: {config.student.epochs} epochs visit no more than that many of the {views} views")
        views = config.student.epochs
    logits = None
    if views:
        logits = _teacher_pass(run, teacher, variables, views)
    _train(
        run,
        "student",
        "distill",
        seeds=config.seeds,
        arms={name: config.arms[name] for name in run.arms},
        views=views,
        examples=steps.Examples(split.images, split.labels, logits),
        online=None if views else (teacher, variables),
    )


def _teacher_pass(run: Run, teacher: nn.Module, variables: Any, views: int) -> np.ndarray:
    """Teacher logits (views, examples, classes) of the training split, from disk where they are there."""
    images = run.dataset.train.images
    size = run.teacher_size
    parts = {
        "teacher": tree_digest(variables),
        "model": run.config.teacher.model,
        "examples": run.dataset.fingerprint,
        "augmentation": augment.describe(),
        "size": size,
        "data_seed": run.config.data_seed,
        "dtype": str(run.dtype),
    }
    step = run.mapping.map(
        functools.partial(steps.teacher_view_step, model=teacher, size=size, data_seed=run.config.data_seed),
        split=(False, False, True, True),
    )
    placed = run.mapping.replicate((variables, images))
    batch = BATCH_PER_DEVICE * len(run.mapping.devices)

    def compute_view(view: int) -> np.ndarray:
        pieces = []
        for start in range(0, len(images), batch):
            # The last batch is filled up with its last image, and cut again.
            chosen = np.minimum(np.arange(start, start + batch), len(images) - 1).astype(np.int32)
            shares = run.mapping.split((chosen, np.full_like(chosen, view)))
            pieces.append(np.asarray(step(*placed, *shares))[: len(images) - start])
        run.log(f"teacher logits: view {view + 1} of {views}")
        return np.concatenate(pieces)

    done = cached_pass(
        run.cache_dir,
        parts,
        views=views,
        shape=(len(images), len(run.dataset.classes)),
        compute_view=compute_view,
        log=run.log,
    )
    record = run.workdir / "distill" / "teacher_logits.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(record.read_text())["forward_images"] if record.exists() else 0
    results.write(record, {"folder": str(done.folder), "views": views, "forward_images": before + done.forward_images})
    return done.logits


def finished_students(run: Run) -> tuple[states.Best, np.ndarray]:
    """Each student's selected network, leaves leading with (seed, arm), and which are usable, (seed, arm) bool.

    Raises:
        InputError: the students are not at the end of their training.
    """
    best, step, alive = _best(run, "student", "distill", run.config.seeds, len(run.arms))
    total = _total_steps(run.config.student, len(run.dataset.train.labels))
    if step != total:
        raise InputError(f"the students in {run.workdir}/distill are at step {step} of {total}: run --stages=distill")
    return best, alive & (np.asarray(best.step) >= 0)


def describe(run: Run) -> None:
    """Stage `describe`: data and networks, without training."""
    facts = {stage: network_facts(run, stage) for stage in ("teacher", "student")}
    for stage, cost in facts.items():
        run.log(
            f"{stage}: {cost['model']} at {cost['image_size']} px: {cost['params']:,} parameters, "
            f"{cost['macs']:,} multiply-adds and {cost['activation_bytes']:,} bytes of activations an image"
        )
    run.log(results.compression(facts["teacher"], facts["student"]))


def evaluate(run: Run) -> None:
    """Stage `evaluate`: the selected checkpoints on validation and test, results.json and the closing table.

    Reads checkpoints only: it gives the same figures in a fresh process, as often as it is run.
    """
    dataset, config = run.dataset, run.config
    teacher = jax.tree.map(lambda leaf: np.asarray(leaf)[None, None], best_teacher(run))
    teacher_logits = _logits(run, "teacher", run.teacher_size, teacher)
    best, step, alive = _best(run, "student", "distill", config.seeds, len(run.arms))
    total = _total_steps(config.student, len(dataset.train.labels))
    if step != total:
        run.log(f"evaluate: the students are at step {step} of {total}: these figures are not final")
    student_logits = _logits(run, "student", run.student_size, {"params": best.params, "batch_stats": best.batch_stats})

    tests = population_metrics(student_logits["test"], dataset.test.labels)
    validations = population_metrics(student_logits["validation"], dataset.validation.labels)
    arms = {}
    for column, name in enumerate(run.arms):
        arm = config.arms[name]
        valid = [bool(alive[row, column]) and int(best.step[row, column]) >= 0 for row in range(len(config.seeds))]
        measured = [
            {
                **tests[row][column],
                **metrics.agreement(student_logits["test"][row, column], teacher_logits["test"][0, 0]),
            }
            for row in range(len(config.seeds))
        ]
        arms[name] = {
            "weights": {term: arm.get(term, 0.0) for term in configuration.losses.TERMS},
            "temperature": arm.get("temperature", config.distill.temperature),
            "seeds": list(config.seeds),
            "test": [one if ok else None for one, ok in zip(measured, valid, strict=True)],
            "val_top1": [validations[row][column]["top1"] if ok else None for row, ok in enumerate(valid)],
            "selected_step": [int(one) for one in best.step[:, column]],
        }
    document = results.build(
        dataset={
            "name": dataset.name,
            "classes": dataset.classes,
            "splits": {
                "train": len(dataset.train.labels),
                "val": len(dataset.validation.labels),
                "test": len(dataset.test.labels),
            },
            "fingerprint": dataset.fingerprint,
        },
        teacher={
            **network_facts(run, "teacher"),
            "forward_images": _forward_images(run),
            "val_top1": population_metrics(teacher_logits["validation"], dataset.validation.labels)[0][0]["top1"],
            "test": population_metrics(teacher_logits["test"], dataset.test.labels)[0][0],
        },
        student=network_facts(run, "student"),
        arms=arms,
        environment=results.environment(),
        config=json.loads(config.to_json()),
    )
    if jax.process_index() == 0:
        folder = run.workdir / "evaluation"
        writer = MetricsWriter(folder, -1, tensorboard=False)  # an evaluation replaces the one before
        for kind, measured in (("validation", validations), ("test", tests)):
            writer.write(step, kind, _scalars(measured, run.arms, config.seeds))
        writer.close()
        _save_logits(folder, teacher_logits, student_logits)
        results.write(run.workdir / "results.json", document)
        print("\n" + results.table(document, config.run.note or None) + f"\n\n{run.workdir / 'results.json'}")


def _scalars(measured: list[list[dict[str, Any]]], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The figures of `population_metrics` that are one number each, by student."""
    return {
        f"{arm}/{seed}": {name: value for name, value in one.items() if not isinstance(value, list)}
        for seed, row in zip(seeds, measured, strict=True)
        for arm, one in zip(arms, row, strict=True)
    }


def _logits(run: Run, stage: str, size: int, variables: Any) -> dict[str, np.ndarray]:
    predict = predictor(run.network(stage), size=size, mapping=run.mapping)
    variables = run.mapping.replicate(variables)
    splits = {"validation": run.dataset.validation, "test": run.dataset.test}
    return {name: predict(variables, split.images) for name, split in splits.items()}


def network_facts(run: Run, stage: str) -> dict[str, Any]:
    """What the teacher or the student is and costs, as results.json has it."""
    config, network = run.config[stage], run.network(stage)
    size = run.teacher_size if stage == "teacher" else run.student_size
    facts = {"model": config.model, "width": config.width, "image_size": size, **models.cost(network, size)}
    heads = models.cost_by_head(network, size)
    return {**facts, "head": config.head, "heads": heads} if stage == "teacher" and heads else facts


def _forward_images(run: Run) -> int | None:
    """Images the teacher saw for the array of logits; None for an online teacher, which sees every batch."""
    record = run.workdir / "distill" / "teacher_logits.json"
    return json.loads(record.read_text())["forward_images"] if record.exists() else None


def _save_logits(folder: Path, teacher: dict[str, np.ndarray], student: dict[str, np.ndarray]) -> None:
    temporary = folder / "logits.tmp.npz"
    np.savez(
        temporary,
        **{f"teacher_{name}": logits[0, 0] for name, logits in teacher.items()},
        **{f"student_{name}": logits for name, logits in student.items()},
    )
    temporary.replace(folder / "logits.npz")
