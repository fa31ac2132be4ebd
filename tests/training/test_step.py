"""The train step: devices, neighbors and keys change nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import networks
from kdjax.inputs.batch import Examples, PlanStep
from kdjax.inputs.feed import resident_feed
from kdjax.inputs.plan import Plan
from kdjax.networks import mobilenet_v2, vgg16
from kdjax.objective.arms import Hyperparameters
from kdjax.objective.outputs import Outputs
from kdjax.objective.terms import CORE
from kdjax.runtime import devices
from kdjax.teacher.teacher import ViewSettings
from kdjax.teacher.trained import view_step
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.step import Recipe, empty_averages, planned_steps

CLASSES, EXAMPLES, BATCH, SIZE = 5, 40, 16, 32
MODEL = networks.create("mobilenet_v2", CLASSES, width=0.1, dropout=0.2, form="examples_last")
OPTIMIZER = functools.partial(optimizer.adamw, clip=1.0, head_factor=10.0)
SEEDS = (3, 7)


def arms(rows=slice(None)):
    columns = {
        "ce": [1.0, 1.0, 0.5], "kl": [0.0, 1.0, 2.0], "cosine": [0.0, 1.0, 0.5], "temperature": [4.0, 2.0, 1.0],
        "learning_rate": [1e-3, 2e-3, 1e-3], "weight_decay": [0.01, 0.02, 0.0],
    }  # fmt: skip
    columns = {name: np.array(one)[rows] for name, one in columns.items()}
    return Hyperparameters(weights={name: columns.pop(name) for name in ("ce", "kl", "cosine")}, **columns)


def examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    labels[rng.permutation(EXAMPLES)[:25]] = -1  # labeled examples spread unevenly over the devices
    return Examples(
        images=rng.integers(0, 256, (EXAMPLES, 36, 36, 3), dtype=np.uint8),
        labels=labels,
        teacher=Outputs(rng.normal(size=(3, EXAMPLES, CLASSES)) * 3),
    )


def double(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


@functools.cache
def program(mapping, teacher, arms_at_once):
    """The mapped step, compiled once for each mapping."""
    return mapping.map(
        functools.partial(
            planned_steps,
            recipe=Recipe(
                MODEL, SIZE, OPTIMIZER, optimizer.schedule(100, 2), teacher=teacher, teacher_size=SIZE,
                arms_at_once=arms_at_once,
            ),
        ),
        ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole"),
        (0, 1),
        donate=(0,),
    )  # fmt: skip


def initial(seeds, count):
    return double(states.create(states.initializer(MODEL, SIZE), OPTIMIZER, seeds=seeds, arms=count))


@functools.cache
def on(count):
    return devices.DeviceMapping(jax.devices()[:count])


def run(mapping, *, seeds=SEEDS, hyper=None, number=5, data=None, teacher=None, arms_at_once=None):
    """Five steps in float64; returns the state and each step's averages."""
    hyper = arms() if hyper is None else hyper
    mapped = program(mapping, teacher and teacher[0], arms_at_once)
    data, teacher = mapping.place((data or examples(), teacher and teacher[1]))
    constants = data, teacher, mapping.place(hyper, "arms"), mapping.place(np.array(seeds, np.int32), "seeds")
    feed = resident_feed(Plan(tuple(seeds), EXAMPLES, BATCH, views=3), mapping, 1)
    rows = len(seeds), len(hyper.temperature)
    empty = mapping.place(empty_averages(rows, CORE if data.teacher is not None or teacher else ("ce",)), "rows")
    state, seen = mapping.place(initial(seeds, rows[1]), "rows"), []
    for step in range(number):
        state, averages = mapped(state, empty, *constants, feed(step, 1), np.int32(1))
        seen.append(jax.tree.map(np.asarray, averages))
    return jax.tree.map(np.asarray, state), seen


def close(a, b, rtol=1e-9):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        # Two convolutions, and four blocks with every kind of layer, compile faster than thirteen and seventeen.
        patch.setattr(vgg16, "BLOCKS", ((64,), (128,)))
        patch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2)))
        yield


@pytest.fixture(scope="module")
def alone_on_one_device(float64):
    return run(on(1))


@pytest.mark.slow
def test_eight_devices_equal_one(alone_on_one_device):
    assert len(jax.devices()) == 8
    state, averages = run(on(8))
    close(averages, alone_on_one_device[1])
    close(
        (state.params, state.batch_stats, state.opt_state),
        tuple(getattr(alone_on_one_device[0], name) for name in ("params", "batch_stats", "opt_state")),
    )


@pytest.mark.slow
@pytest.mark.parametrize("arms_at_once", [1, 2])
def test_a_population_split_into_parts_equals_the_whole(alone_on_one_device, arms_at_once):
    state, averages = run(on(8), arms_at_once=arms_at_once)  # 2 does not divide the 3 arms
    close(averages, alone_on_one_device[1])
    close(
        (state.params, state.batch_stats, state.opt_state),
        tuple(getattr(alone_on_one_device[0], name) for name in ("params", "batch_stats", "opt_state")),
    )


@pytest.mark.slow
def test_students_over_devices_equal_one_device(alone_on_one_device):
    state, averages = run(devices.RowMapping((2, 3), jax.devices()[:6]))
    close(averages, alone_on_one_device[1])
    close((state.params, state.batch_stats), (alone_on_one_device[0].params, alone_on_one_device[0].batch_stats))


@pytest.mark.slow
def test_each_student_follows_the_update_it_would_follow_alone(alone_on_one_device):
    together, _ = alone_on_one_device
    for row, seed in enumerate(SEEDS):
        for column in range(3):
            alone, _ = run(on(1), seeds=(seed,), hyper=arms(slice(column, column + 1)))
            close(
                jax.tree.map(lambda x: x[0, 0], (alone.params, alone.batch_stats)),
                jax.tree.map(lambda x: x[row, column], (together.params, together.batch_stats)),  # noqa: B023
            )


def test_arms_of_a_seed_start_alike_and_seeds_differ():
    head = initial(SEEDS, 2).params["head"]["kernel"]
    np.testing.assert_array_equal(head[:, 0], head[:, 1])
    assert np.all(head[0] != head[1])


@pytest.mark.slow
def test_a_student_that_is_not_finite_freezes_alone(alone_on_one_device):
    hyper = arms()
    weights = {**hyper.weights, "kl": np.array([0.0, np.inf, 2.0])}
    state, _ = run(on(8), hyper=hyper.replace(weights=weights))
    np.testing.assert_array_equal(state.failed, [[-1, 0, -1]] * 2)
    before = initial(SEEDS, 3)
    row = lambda tree, column: jax.tree.map(lambda x: x[:, column], tree)
    close(row(state.params, 1), row(before.params, 1), rtol=1e-15)
    for column in (0, 2):
        close(row(state.params, column), row(alone_on_one_device[0].params, column))


@pytest.mark.slow
def test_stored_logits_are_those_of_the_teacher_on_the_pixels_the_students_see():
    """The pass over the views, looked up, against one forward of the teacher inside the step."""
    teacher = networks.create("vgg16", CLASSES, width=0.05, form="examples_last")
    variables = {"batch_stats": {}, **double(dict(teacher.init(jax.random.key(1), jnp.zeros((1, SIZE, SIZE, 3)))))}
    data = examples().replace(teacher=None)
    made = on(1).map(
        functools.partial(view_step, network=teacher, view_settings=ViewSettings(SIZE, data_seed=0)),
        ("whole", "whole", "batch"),
    )
    everyone = np.arange(EXAMPLES, dtype=np.int32)
    stored = [made(variables, data, PlanStep(everyone, np.full_like(everyone, view))) for view in range(3)]
    _, online = run(on(1), data=data, teacher=(teacher, variables), number=2)
    _, cached = run(on(1), data=data.replace(teacher=jax.tree.map(lambda *views: jnp.stack(views), *stored)), number=2)
    assert all(np.all(one["kl"].total > 0) for one in online)
    # Views are drawn in float32, and two programs may round them differently.
    close(online, cached, rtol=1e-5)


def test_best_is_higher_top1_then_lower_nll_then_earlier():
    state = initial((0,), 3)
    scores = [([0.5, 0.5, 0.5], [1.0, 1.0, 1.0]), ([0.6, 0.5, 0.5], [9.0, 0.9, 1.0]), ([0.4, 0.5, 0.7], [0.1, 0.95, 1])]
    for step, (top1, nll) in enumerate(scores):
        marked = jax.tree.map(lambda x: jnp.full_like(x, step), state.params)  # noqa: B023
        failed = jnp.array([[-1, -1, -1 if step < 2 else 1]])
        state = states.update_best(
            state.replace(step=jnp.int32(step), params=marked, failed=failed), jnp.float32([top1]), jnp.float32([nll])
        )
    np.testing.assert_array_equal(state.best.step, [[1, 1, 0]])
    np.testing.assert_array_equal(state.best.params["head"]["bias"][0, :, 0], [1, 1, 0])
    worse, alive = jnp.float32([[0.1, 0.1, 0.1]]), state.replace(step=jnp.int32(9))
    last = states.update_best(alive, worse, worse, latest=True).best
    np.testing.assert_array_equal(last.step, [[9, 9, 0]])  # the one that failed keeps what it had
    np.testing.assert_array_equal(last.params["head"]["bias"][0, :, 0], [2, 2, 0])
