"""The stages of a run: teacher, distill, evaluate. Each goes on where its checkpoints stand.

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax import augment, files, memory, metrics, models, optim, preemption, results, steps, tables, teachers, weights
from kdjax import config as configuration
from kdjax import state as states
from kdjax.checkpoint import Checkpoints
from kdjax.data import Split
from kdjax.data.plan import Plan
from kdjax.errors import InputError
from kdjax.evaluate import population_metrics, predictor
from kdjax.feed import resident, streamed
from kdjax.parallel import Mapping, RowMapping
from kdjax.run import Run
from kdjax.teacher_logits import LogitsFolder, cached, named, tree_digest, view_name
from kdjax.trace import Trace
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


def total_steps(config: Any, examples: int) -> int:
    """Updates of a stage with this configuration on so many examples."""
    return -(-config.epochs * examples // config.batch_size)


def _done(run: Run, stage: str, folder: str, examples: int) -> bool:
    """Whether a stage's checkpoints stand at the end of its schedule."""
    directory = run.workdir / folder / "checkpoints"
    if not directory.is_dir():
        return False
    checkpoints = Checkpoints(directory, run.mapping)
    done = checkpoints.latest_step == total_steps(run.config[stage], examples)
    checkpoints.close()
    if done:
        run.log(f"{folder}: done already")
    return done


def _optimiser(config: Any) -> Callable[..., Any]:
    return functools.partial(optim.adamw, clip=config.clip, head_factor=config.head_factor)


def initial_state(run: Run, stage: str, seeds: Sequence[int], arms: int, *, load: bool) -> states.TrainState:
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
    averages = steps.empty_averages((len(seeds), len(arms)), soft=bool(online) or logits is not None)
    restored = checkpoints.restore(like, averages)
    if restored is None:
        initial = initial_state(run, stage, seeds, len(arms), load=True)
        restored = mapping.place((initial, averages), "rows")
    else:
        run.log(f"{folder}: goes on from step {int(restored[0].step)}")
    state, averages = restored
    model, size = run.network(stage), run.teacher_size if stage == "teacher" else run.student_size
    on_device = run.on_device(split.images)
    program = functools.partial(
        steps.planned_steps,
        student_size=size,
        teacher=online[0] if online else None,
        teacher_size=run.teacher_size,
        model=model,
        optimiser=_optimiser(config),
        schedule=optim.schedule(total, round(config.warmup_epochs * count / config.batch_size)),
        cosine_on=run.config.distill.cosine_on,
        mixup=mixup,
        arms_at_once=_arms_at_once(run, folder, model, size, config.batch_size, like, mapping),
    )
    kinds = ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole")
    mapped = mapping.map(program, kinds, "rows", donate=(0,))
    examples = steps.Examples(split.images if on_device else None, split.labels, logits, np.int32(run.config.data_seed))
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
    run: Run, folder: str, model: nn.Module, size: int, batch: int, like: states.TrainState, mapping: Mapping
) -> int | None:
    """How many arms a step computes side by side: decided once for a run, and kept in its directory."""
    record = run.workdir / folder / "program.json"
    if record.exists():
        return json.loads(record.read_text())["arms_at_once"]
    chosen = run.config.run.arms_at_once
    if chosen is None:
        seeds, arms = mapping.rows_a_device(*like.failed.shape)
        share = batch if isinstance(mapping, RowMapping) else batch // len(mapping.devices)
        # The state, and the new one that a step makes beside it.
        states_bytes = 2 * memory.tree_bytes(like) * seeds * arms // like.failed.size
        free = int(memory.ROOM * memory.capacity(mapping.local[0])) - states_bytes
        chosen = memory.arms_at_once(free, memory.activation_bytes(model, size, share), seeds, arms)
    if jax.process_index() == 0:
        record.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(record, {"arms_at_once": chosen})
    return chosen


def train_teacher(run: Run) -> None:
    """Stage `teacher`: fine-tunes the teacher on the labelled training images, a fresh view every time."""
    if run.config.distill.logits or run.config.teacher.onnx:
        run.log(
            "teacher: none to train, its logits come from "
            + ("distill.logits" if run.config.distill.logits else "teacher.onnx")
        )
        return
    split = run.dataset.train
    labelled = np.flatnonzero(split.labels >= 0)
    if _done(run, "teacher", "teacher", len(labelled)):
        return
    if len(labelled) < len(split.labels):
        split = Split(split.images[labelled], split.labels[labelled], tuple(split.names[i] for i in labelled))
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


def _best_teacher(run: Run) -> Any:
    """Variables of the selected teacher, without population axes, on the host.

    Raises:
        InputError: there is no trained teacher, or it failed.
    """
    best, _, step, failed = _best(run, "teacher", "teacher", (run.config.teacher.seed,), 1)
    if (failed >= 0).any():
        raise InputError(f"the teacher in {run.workdir}/teacher failed at step {failed.max()}: see its metrics.jsonl")
    if step != total_steps(run.config.teacher, int((run.dataset.train.labels >= 0).sum())):
        raise InputError(
            f"the teacher in {run.workdir}/teacher is at step {step}, not at its end: run --stages=teacher"
        )
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], {"params": best.params, "batch_stats": best.batch_stats})


def _best(
    run: Run, stage: str, folder: str, seeds: Sequence[int], arms: int
) -> tuple[states.Best, dict[str, Any], int, np.ndarray]:
    """Each student's best, its variables at the latest step, that step, and the step at which each failed."""
    directory = run.workdir / folder / "checkpoints"
    if not directory.is_dir():
        raise InputError(f"no checkpoint in {directory}: run the stage that trains it first")
    checkpoints = Checkpoints(directory, run.mapping, read_only=run.follows)
    best, model = checkpoints.restore_best(initial_state(run, stage, seeds, arms, load=False))
    checkpoints.close()
    last = {name: model[name] for name in ("params", "batch_stats")}
    return best, last, int(model["step"]), np.asarray(model["failed"])


def _teacher(run: Run) -> teachers.Teacher | None:
    """The run's teacher; None where its logits are given."""
    config = run.config.teacher
    if run.config.distill.logits:
        return None
    size, data_seed = run.teacher_size, run.config.data_seed
    if config.onnx:
        return teachers.from_onnx(
            config.onnx,
            layout=config.onnx_layout,
            pixels=config.onnx_input,
            order=config.onnx_classes,
            classes=run.dataset.classes,
            size=size,
            data_seed=data_seed,
        )
    return teachers.from_network(
        config.model,
        run.network("teacher"),
        _best_teacher(run),
        size=size,
        data_seed=data_seed,
        dtype=str(run.dtype),
        on_device=run.on_device(run.dataset.train.images),
        mapping=run.mapping,
        facts=network_facts(run, "teacher"),
    )


def _logits_folders(run: Run, teacher: teachers.Teacher | None) -> list[LogitsFolder]:
    """Where the teacher's logits lie; several where the mean of several teachers is wanted."""
    parts = {
        "examples": run.dataset.fingerprint,
        "augmentation": augment.describe(),
        "data_seed": run.config.data_seed,
        **(teacher.parts if teacher else {}),
    }
    classes = len(run.dataset.classes)
    if teacher is None:
        return named(run.config.distill.logits, parts, classes, run.log)
    return [cached(run.cache_dir, parts, classes, run.log)]


def distill(run: Run) -> None:
    """Stage `distill`: teacher logits once, then all arms and seeds as one program."""
    config = run.config
    split = run.dataset.train
    if _done(run, "student", "distill", len(split.labels)):
        return
    teacher = _teacher(run)
    views = config.distill.views
    if views is None:
        views = min(16, config.student.epochs)
    elif views > config.student.epochs:
        run.log(f"distill: {config.student.epochs} epochs visit no more than that many of the {views} views")
        views = config.student.epochs
    logits = _view_logits(run, teacher, views) if views else None
    _train(
        run,
        "student",
        "distill",
        run.population_mapping,
        seeds=config.seeds,
        arms={name: config.arms[name] for name in run.arms},
        views=views,
        split=split,
        logits=logits,
        online=None if views else teacher.network,
        mixup=config.distill.mixup,
    )


def _view_logits(run: Run, teacher: teachers.Teacher | None, views: int) -> np.ndarray:
    """Teacher logits (views, examples, classes) of the training split."""
    images = run.dataset.train.images
    names = [view_name(view) for view in range(views)]

    def compute(name: str, start: int, end: int) -> np.ndarray:
        return teacher.views(images, np.arange(start, end), names.index(name))

    return np.stack(_stored_logits(run, teacher, "views", dict.fromkeys(names, len(images)), compute))


def _clean_logits(run: Run, teacher: teachers.Teacher | None) -> dict[str, np.ndarray]:
    """Teacher logits of the plain validation and test images."""
    splits = {"validation": run.dataset.validation, "test": run.dataset.test}

    def compute(name: str, start: int, end: int) -> np.ndarray:
        return teacher.clean(splits[name].images[start:end])

    rows = {name: len(split) for name, split in splits.items()}
    return dict(zip(splits, _stored_logits(run, teacher, "clean", rows, compute), strict=True))


def _stored_logits(
    run: Run,
    teacher: teachers.Teacher | None,
    kind: str,
    rows: dict[str, int],
    compute: Callable[[str, int, int], np.ndarray],
) -> list[np.ndarray]:
    """The logits of each name, read where they are on disk; the images that went through the teacher are counted.

    The count is of what was missing when this run first asked, so that an interruption does not change it; what had to
    be computed again after one is counted apart.
    """
    record = run.results_dir / "teacher_logits.json"
    document = json.loads(record.read_text()) if record.exists() else {}
    folders = _logits_folders(run, teacher)
    if kind not in document:
        missing = [end - start for name, count in rows.items() for start, end in folders[0].missing(name, count)]
        document[kind] = {
            "folders": [str(one.folder) for one in folders],
            "forward_images": sum(missing) if teacher else 0,
            "started_images": 0,
        }
    found = []
    for number, (name, count) in enumerate(rows.items()):

        def counted(start: int, end: int, name: str = name, number: int = number) -> np.ndarray:
            run.log(f"teacher logits: {name} ({number + 1} of {len(rows)}), images {start} to {end}")
            document[kind]["started_images"] += end - start
            _write(record, document)
            return compute(name, start, end)

        found.append(np.mean([one.read(name, count, counted if teacher else None) for one in folders], axis=0))
    _write(record, document)
    run.log(
        f"teacher logits: {', '.join(document[kind]['folders'])}: {kind} complete, "
        f"{document[kind]['started_images']} images went through the teacher"
    )
    return found


def _write(path: Path, document: dict[str, Any]) -> None:
    if jax.process_index() == 0:
        files.write_json(path, document)


def finished_students(run: Run) -> tuple[states.Best, np.ndarray]:
    """Each student's selected network, leaves leading with (seed, arm), and which are usable, (seed, arm) bool.

    Raises:
        InputError: the students are not at the end of their training.
    """
    best, _, step, failed = _best(run, "student", "distill", run.config.seeds, len(run.arms))
    total = total_steps(run.config.student, len(run.dataset.train.labels))
    if step != total:
        raise InputError(f"the students in {run.workdir}/distill are at step {step} of {total}: run --stages=distill")
    return best, (failed < 0) & (np.asarray(best.step) >= 0)


def describe(run: Run) -> None:
    """Stage `describe`: data and networks, without training."""
    facts = {stage: network_facts(run, stage) for stage in ("teacher", "student")}
    for stage, cost in facts.items():
        run.log(
            f"{stage}: {cost['model']} at {cost['image_size']} px: {cost['params']:,} parameters, "
            f"{cost['macs']:,} multiply-adds and {cost['activation_bytes']:,} bytes of activations an image"
        )
    run.log(tables.compression(facts["teacher"], facts["student"]))


def evaluate(run: Run) -> None:
    """Stage `evaluate`: the selected checkpoints on validation and test, results.json and the closing table.

    Reads checkpoints only: it gives the same figures in a fresh process, as often as it is run.
    """
    dataset, config = run.dataset, run.config
    teacher = _teacher(run)
    teacher_logits = _clean_logits(run, teacher)
    best, last, step, failed = _best(run, "student", "distill", config.seeds, len(run.arms))
    total = total_steps(config.student, len(dataset.train.labels))
    if step != total:
        run.log(f"evaluate: the students are at step {step} of {total}: these figures are not final")
    student_logits = _student_logits(run, {"params": best.params, "batch_stats": best.batch_stats})

    tests = population_metrics(student_logits["test"], dataset.test.labels)
    validations = population_metrics(student_logits["validation"], dataset.validation.labels)
    arms = {}
    for column, name in enumerate(run.arms):
        arm = config.arms[name]
        valid = [failed[row, column] < 0 and int(best.step[row, column]) >= 0 for row in range(len(config.seeds))]
        measured = [
            {**tests[row][column], **metrics.agreement(student_logits["test"][row, column], teacher_logits["test"])}
            for row in range(len(config.seeds))
        ]
        arms[name] = {
            "weights": {term: arm.get(term, 0.0) for term in configuration.losses.TERMS},
            "temperature": arm.get("temperature", config.distill.temperature),
            "seeds": list(config.seeds),
            "test": [one if ok else None for one, ok in zip(measured, valid, strict=True)],
            "val_top1": [validations[row][column]["top1"] if ok else None for row, ok in enumerate(valid)],
            "selected_step": [int(one) for one in best.step[:, column]],
            "final_sha256": [_digest(last, row, column) for row in range(len(config.seeds))],
            "correct": student_logits["test"][:, column].argmax(-1) == dataset.test.labels,
            **({"family": arm.family} if "family" in arm else {}),
        }
    paths = {run.workdir / "teacher_logits.json", run.results_dir / "teacher_logits.json"}
    record = {kind: one for path in paths if path.exists() for kind, one in json.loads(path.read_text()).items()}
    facts = teacher.facts if teacher else {"model": "stored logits", "params": None, "macs": None}
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
            **facts,
            **({"sha256": teacher.parts["teacher"]} if teacher else {}),
            "forward_images": record["views"]["forward_images"] if "views" in record else None,
            "clean_images": record["clean"]["forward_images"],
            "repeated_images": sum(max(0, one["started_images"] - one["forward_images"]) for one in record.values()),
            "val_top1": metrics.classification(teacher_logits["validation"], dataset.validation.labels)["top1"],
            "test": metrics.classification(teacher_logits["test"], dataset.test.labels),
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
        combined = results.combine([json.loads((part / "results.json").read_text()) for part in parts])
        files.write_json(workdir / "results.json", combined)
        print("\n" + tables.over_splits(combined) + f"\n\n{workdir / 'results.json'}")


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


def _student_logits(run: Run, variables: Any) -> dict[str, np.ndarray]:
    mapping = run.population_mapping
    predict = predictor(run.network("student"), size=run.student_size, mapping=mapping)
    placed = mapping.place(variables, "rows")
    splits = {"validation": run.dataset.validation, "test": run.dataset.test}
    return {name: predict(placed, split.images) for name, split in splits.items()}


def network_facts(run: Run, stage: str) -> dict[str, Any]:
    """What the teacher or the student is and costs, as results.json has it."""
    config, network = run.config[stage], run.network(stage)
    size = run.teacher_size if stage == "teacher" else run.student_size
    facts = {"model": config.model, "width": config.width, "image_size": size, **models.cost(network, size)}
    heads = models.cost_by_head(network, size)
    return {**facts, "head": config.head, "heads": heads} if stage == "teacher" and heads else facts


def _save_logits(folder: Path, teacher: dict[str, np.ndarray], student: dict[str, np.ndarray]) -> None:
    temporary = folder / "logits.tmp.npz"
    np.savez(
        temporary,
        **{f"teacher_{name}": logits for name, logits in teacher.items()},
        **{f"student_{name}": logits for name, logits in student.items()},
    )
    temporary.replace(folder / "logits.npz")
