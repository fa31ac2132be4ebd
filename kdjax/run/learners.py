"""The networks of a run: as they begin, and as its checkpoints hold them."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax import networks
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.run import other_run
from kdjax.run.run import Run
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.checkpoint import Checkpoints


def total_steps(config: Any, examples: int) -> int:
    """Updates of a stage with this configuration on so many examples."""
    return -(-config.epochs * examples // config.batch_size)


def optimiser(config: Any) -> Callable[..., Any]:
    """The optimiser of a stage, from learning rate and weight decay; see `optim.adamw`."""
    return functools.partial(optimizer.adamw, clip=config.clip, head_factor=config.head_factor)


def initial_state(run: Run, stage: str, seeds: Sequence[int], arms: int, *, load: bool) -> states.TrainState:
    """A new state, or only its shapes and dtypes where `load` is False."""
    config = run.config[stage]
    size = run.teacher_size if stage == "teacher" else run.student_size
    create = functools.partial(
        states.create,
        run.network(stage),
        optimiser(config),
        seeds=seeds,
        arms=arms,
        image_size=size,
        ema=config.ema > 0,
    )
    if not load:
        return jax.eval_shape(create)
    if not config.weights:
        return create()
    said = []

    def loaded(variables: Any) -> Any:
        hidden_layers = stage == "teacher" and config.head == "fc"
        variables, report = pretrained.load_imagenet(config.weights, config.model, variables, head=hidden_layers)
        said.append(report)
        return variables

    state = create(pretrained=loaded)
    run.log(f"{stage}: {said[0]}")
    return state


def check_weights(run: Run, *stages: str) -> None:
    """Makes sure that the networks of these stages can start from the weights they are to start from.

    Raises:
        InputError: names the field, and what does not fit.
    """
    for stage in stages:
        config, network = run.config[stage], run.network(stage)
        if config.weights:
            size = run.teacher_size if stage == "teacher" else run.student_size
            example = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
            variables = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), example)
            try:
                pretrained.check(config.weights, config.model, dict(variables))
            except InputError as error:
                raise InputError(f"{stage}.{error}; --config.{stage}.weights= (nothing) starts from scratch") from None


def best_students(
    run: Run, stage: str, directory: Path, seeds: Sequence[int], arms: int
) -> tuple[states.Best, dict[str, Any], int, np.ndarray]:
    """Each student's best, its variables at the latest step, that step, and the step at which each failed.

    Args:
        run: the run.
        stage: 'teacher' or 'student'.
        directory: of the stage's checkpoints.
        seeds: names of the rows.
        arms: number of columns.

    Raises:
        InputError: there is no checkpoint.
    """
    if not directory.is_dir():
        raise InputError(f"no checkpoint in {directory}: run the stage that trains it first")
    checkpoints = Checkpoints(
        directory, run.mapping, read_only=run.follows or not directory.is_relative_to(run.workdir)
    )
    best, model = checkpoints.restore_best(initial_state(run, stage, seeds, arms, load=False))
    checkpoints.close()
    last = {name: model[name] for name in ("params", "batch_stats")}
    return best, last, int(model["step"]), np.asarray(model["failed"])


def best_teacher(run: Run) -> Any:
    """Variables of the selected teacher, without population axes, on the host: this run's, or the run's it names.

    Raises:
        InputError: there is no trained teacher, or it failed.
    """
    config = run.config.teacher
    if config.workdir:
        folder, total = Path(config.workdir) / "teacher", other_run.total_steps(run.config)
    else:
        folder, total = run.workdir / "teacher", total_steps(config, int((run.dataset.train.labels >= 0).sum()))
    best, _, step, failed = best_students(run, "teacher", folder / "checkpoints", (config.seed,), 1)
    if (failed >= 0).any():
        raise InputError(f"the teacher in {folder} failed at step {failed.max()}: see its metrics.jsonl")
    if step != total:
        raise InputError(f"the teacher in {folder} is at step {step}, not at its end: run --stages=teacher there")
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], {"params": best.params, "batch_stats": best.batch_stats})


def finished_students(run: Run) -> tuple[states.Best, np.ndarray]:
    """Each student's selected network, leaves leading with (seed, arm), and which are usable, (seed, arm) bool.

    Raises:
        InputError: the students are not at the end of their training.
    """
    best, _, step, failed = best_students(
        run, "student", run.workdir / "distill" / "checkpoints", run.config.seeds, len(run.arms)
    )
    total = total_steps(run.config.student, len(run.dataset.train.labels))
    if step != total:
        raise InputError(f"the students in {run.workdir}/distill are at step {step} of {total}: run --stages=distill")
    return best, (failed < 0) & (np.asarray(best.step) >= 0)


def teacher_facts(run: Run) -> dict[str, Any]:
    """What the teacher is and costs, as results.json has it; of one that is no network of kdjax's, its name."""
    given = "stored logits" if run.config.distill.logits else run.config.teacher.onnx
    return {"model": Path(given).name, "params": None, "macs": None} if given else network_facts(run, "teacher")


def network_facts(run: Run, stage: str) -> dict[str, Any]:
    """What the teacher or the student is and costs, as results.json has it."""
    config, network = run.config[stage], run.network(stage)
    size = run.teacher_size if stage == "teacher" else run.student_size
    facts = {"model": config.model, "width": config.width, "image_size": size, **networks.cost(network, size)}
    heads = networks.cost_by_head(network, size)
    return {**facts, "head": config.head, "heads": heads} if stage == "teacher" and heads else facts
