"""The loop, its checkpoints and its evaluation, on a network small enough for exact comparisons."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_run
from helpers.small_run import MAPPINGS, OPTIMIZER, Linear, learner, train

from kdjax.errors import InputError
from kdjax.inputs.batch import dropout_keys, view_keys
from kdjax.inputs.feed import resident_feed, streamed_feed
from kdjax.inputs.plan import Plan
from kdjax.objective.terms import CORE
from kdjax.runtime import devices
from kdjax.training import loop
from kdjax.training import predictor as evaluate
from kdjax.training import state as states
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.learner import Learner
from kdjax.training.population import Population
from kdjax.training.predictor import mean_over_symmetries, predictor
from kdjax.training.progress import Clock
from kdjax.training.step import empty_averages


@pytest.mark.slow
@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_a_resumed_run_gives_the_same_bits(tmp_path, colors, mapping, host):
    how = {"mapping": MAPPINGS[mapping](), "host": host}
    whole, records, lines = train(tmp_path / "whole", colors, **how, until=12)
    assert int(whole.step) == 12
    train(tmp_path / "parts", colors, **how, until=6)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "kind": "train"}\n{"step": 8, "ki')  # what a killed run leaves behind
    resumed, again, _ = train(tmp_path / "parts", colors, **how, until=12)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert again == records
    assert any("images/s" in line and "validation top-1: a " in line for line in lines)


@pytest.mark.slow
def test_images_from_the_host_are_the_same_images(tmp_path, colors):
    """Streamed or held on the device: the same plan, pixels and (one program apart) parameters."""
    mapping, plan = devices.DeviceMapping(jax.devices()[:4]), Plan((0, 1), 37, 8, 2)
    held, read = resident_feed(plan, mapping, 1), streamed_feed(plan, mapping, colors[0], 2, 9)
    for number in range(2, 9):
        share, again = held(number, 1), read(number, 1)
        assert again.images.shape == (4, 1, 2, 2, 8, 8, 3) and again.images.dtype == np.uint8
        np.testing.assert_array_equal(again.images, colors[0][share.examples])
        jax.tree.map(np.testing.assert_array_equal, again.replace(images=None), share)
    one, _, _ = train(tmp_path / "device", colors, mapping=mapping, until=9)
    other, _, _ = train(tmp_path / "host", colors, mapping=mapping, until=9, host=True)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one, other)


@pytest.mark.slow
@pytest.mark.parametrize("mapping", ["one", "batch"])
def test_the_number_of_steps_sent_at_once_changes_nothing(tmp_path, colors, mapping):
    runs = [
        train(tmp_path / str(longest), colors, mapping=MAPPINGS[mapping](), until=12, longest=longest)
        for longest in (1, 3)
    ]
    jax.tree.map(np.testing.assert_array_equal, runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_saving_takes_a_twentieth_of_the_time_at_most(tmp_path, colors, monkeypatch):
    """A save of 1 s is followed by one 19 s later at the earliest; the last state is saved whenever it comes."""
    seconds, saved = [0.0], []
    save, evaluated = Checkpoints.save, Clock.evaluated

    def slow_save(self, state, averages):
        saved.append((int(state.step), seconds[0]))
        seconds[0] += 1
        save(self, state, averages)

    def slow_epoch(self, *args):
        seconds[0] += 10
        evaluated(self, *args)

    monkeypatch.setattr(Checkpoints, "save", slow_save)
    monkeypatch.setattr(Clock, "evaluated", slow_epoch)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: seconds[0], sleep=lambda _: None))
    train(tmp_path, colors, mapping=MAPPINGS["one"](), until=12)
    assert saved == [(3, 0.0), (9, 21.0), (12, 32.0)]


def test_a_state_in_which_all_have_failed_is_saved(tmp_path, colors, monkeypatch):
    """However short the time since the last checkpoint: a second start must not train on."""
    make = loop._validation

    def failing(population):
        validate = make(population)

        def measured(state):
            state, scores = validate(state)
            if int(state.step) == 6:
                state = dataclasses.replace(state, failed=jnp.full_like(state.failed, 5))
            return state, scores

        return measured

    monkeypatch.setattr(loop, "SAVING_SHARE", 1e-9)
    monkeypatch.setattr(loop, "_validation", failing)
    with pytest.raises(InputError, match=r"failed at step 5\..*checkpoints/6 holds"):
        train(tmp_path, colors, mapping=MAPPINGS["one"](), until=12)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("cpu", ["sent", 1, "sent", 2, "sent", 3, 3]), ("gpu", ["sent", "sent", 1, "sent", 2, 3])],
)
def test_a_cpu_has_one_call_at_a_time(tmp_path, colors, monkeypatch, backend, expected):
    """Two in flight have working memory twice. An accelerator is sent the next while one runs."""
    events, tick, step = [], Clock.tick, Population.step

    def waited(self, number, averages):
        events.append(number)
        tick(self, number, averages)

    def sending(self):
        mapped = step(self)
        return lambda *args: events.append("sent") or mapped(*args)

    monkeypatch.setattr(Clock, "tick", waited)
    monkeypatch.setattr(Population, "step", sending)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    train(tmp_path, colors, mapping=MAPPINGS["one"](), until=3, longest=1)
    assert events == expected


def test_students_shared_out_over_devices_train_as_they_do_on_one(tmp_path, colors):
    rows, said, _ = train(tmp_path / "rows", colors, mapping=MAPPINGS["rows"](), until=12)
    one, again, _ = train(tmp_path / "one", colors, mapping=MAPPINGS["one"](), until=12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), rows, one)
    assert [record["step"] for record in said] == [record["step"] for record in again]


def test_rows_are_shared_out_where_they_divide_evenly():
    assert len(jax.devices()) == 8
    shapes = lambda seeds, arms: [mapping.shape for mapping in devices.for_population(seeds, arms)]
    assert shapes(2, 4) == [(2, 4)]
    assert shapes(8, 3) == [(8, 1)]
    assert shapes(3, 8) == [(1, 8)]
    assert shapes(5, 4) == shapes(1, 1) == [None]  # the batch is shared out instead


def test_a_stage_ends_when_no_student_is_left(tmp_path, colors):
    with pytest.raises(InputError, match=r"failed at step [0-9]+.*checkpoints/[0-9]+ holds"):
        train(tmp_path, colors, mapping=MAPPINGS["one"](), until=12, rate=np.inf)
    with pytest.raises(InputError, match="failed at step"):  # a second start does not train on
        train(tmp_path, colors, mapping=MAPPINGS["one"](), until=12, rate=np.inf)


def test_where_every_network_failed_that_is_said(tmp_path, colors):
    with pytest.raises(InputError, match="nothing is left to train"):
        train(tmp_path, colors, mapping=MAPPINGS["one"](), until=12, rate=np.inf)
    with pytest.raises(InputError, match="every student in .* failed, the last at step"):
        learner(tmp_path, MAPPINGS["one"]()).finished()


def test_the_best_step_is_the_one_the_metrics_say(tmp_path, colors):
    state, records, _ = train(tmp_path, colors, mapping=devices.DeviceMapping(jax.devices()[:1]), until=12)
    for row in range(2):
        for column, arm in enumerate("ab"):
            scores = [
                (one["students"][f"{arm}/{row}"]["top1"], -one["students"][f"{arm}/{row}"]["nll"], -one["step"])
                for one in records if one["kind"] == "validation"
            ]  # fmt: skip
            assert state.best.step[row, column] == -max(scores)[2]
    assert state.best.score.min() > 0.5  # the task is easy: it learned


def test_where_classes_are_unequal_the_best_step_is_that_of_macro_recall(tmp_path, colors, monkeypatch):
    """Of seven images of one class and one of another: first all are taken for the first class, then half of them."""
    labels = np.array([0] * 7 + [1], np.int32)
    said = {"first": [0] * 8, "second": [0, 0, 0, 0, 1, 1, 1, 1]}
    for measure, kept in (("top1", 1), ("macro_recall", 2)):
        who = learner(tmp_path, devices.DeviceMapping(jax.devices()[:1]))
        answers = iter(said.values())
        predict = lambda variables, images, answers=answers: np.broadcast_to(np.eye(3)[next(answers)], (2, 2, 8, 3))
        monkeypatch.setattr(Learner, "predictor", property(lambda self, predict=predict: predict))
        split = SimpleNamespace(images=None, labels=labels)
        data = SimpleNamespace(validation=split, selected_by=measure)
        validate = loop._validation(SimpleNamespace(learner=who, data=data))
        state = who.scratch()
        for step in (1, 2):
            state, scores = validate(dataclasses.replace(state, step=np.int32(step)))
        assert np.all(np.asarray(state.best.step) == kept)
        expected = {"top1": 7 / 8, "macro_recall": (4 / 7 + 1) / 2}[measure]
        np.testing.assert_allclose(state.best.score, expected, rtol=1e-6)
        assert set(scores) == {"top1", "nll", measure}


def test_the_last_step_is_kept_where_that_is_asked_for(tmp_path, colors):
    state, _, _ = train(tmp_path, colors, mapping=devices.DeviceMapping(jax.devices()[:1]), until=12, select="last")
    assert np.all(state.best.step == 12)
    jax.tree.map(np.testing.assert_array_equal, state.best.params, state.params)


def test_evaluation_counts_every_example_once(colors, monkeypatch):
    """37 examples in padded batches on 8 devices equal one example after the other."""
    images, _ = colors
    variables = states.create(states.initializer(Linear(), 8), OPTIMIZER, seeds=(0, 1), arms=2).variables
    logits = predictor(Linear(), size=8, mapping=devices.DeviceMapping())(variables, images)
    kernel, bias = (np.asarray(variables["params"]["head"][name]) for name in ("kernel", "bias"))
    expected = np.einsum("nc,sack->sank", images.mean((1, 2)) / 255, kernel) + bias[:, :, None]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(evaluate, "LAYER_BYTES", 1)  # one image a device at once
    again = predictor(Linear(), size=8, mapping=devices.DeviceMapping())(variables, images)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)


def test_small_splits_of_about_one_length_share_a_program(colors, monkeypatch):
    images, _ = colors
    shapes = []

    def step(variables, share):
        shapes.append(len(share))
        return np.zeros((1, 1, len(share), 3), np.float32)

    monkeypatch.setattr(evaluate, "compiled", lambda *_, **__: step)
    predict = predictor(Linear(), size=8, mapping=SimpleNamespace(devices=[None], split=lambda chosen: chosen))
    variables = states.create(states.initializer(Linear(), 8), OPTIMIZER, seeds=(0,), arms=1).variables
    for count in (1, 15, 16, 17, 30, 32, 33, 37):
        assert predict(variables, images[:count]).shape == (1, 1, count, 3)
    assert shapes == [16, 16, 16, 32, 32, 32, 64, 64]


def test_mean_over_the_eight_symmetries(colors):
    """Against all eight written out, with logits that depend on where a pixel is; turning an image changes nothing."""
    images = colors[0]
    weights = np.random.default_rng(1).normal(0, 2e-3, (8, 8, 3, 3))
    predict = lambda one: np.einsum("nhwc,hwck->nk", np.asarray(one, float), weights)[None]
    swapped = images.swapaxes(1, 2)
    flips = [(0, 0), (0, 1), (1, 0), (1, 1)]
    eight = [one[:, :: 1 - 2 * a, :: 1 - 2 * b] for one in (images, swapped) for a, b in flips]
    odds = np.exp([predict(one) for one in eight])
    expected = (odds / odds.sum(-1, keepdims=True)).mean(0)
    got = mean_over_symmetries(predict, images)
    assert got.shape == (1, len(images), 3)
    np.testing.assert_allclose(np.exp(got), expected, rtol=1e-12)
    np.testing.assert_allclose(mean_over_symmetries(predict, swapped[:, ::-1]), got, rtol=1e-12)


@pytest.mark.usefixtures("every_epoch_saved")
def test_checkpoints_keep_two_and_evaluation_restores_without_the_optimizer(tmp_path, colors):
    train(tmp_path, colors, mapping=devices.DeviceMapping(jax.devices()[:1]), until=12)
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert kept == [9, 12]
    create = functools.partial(states.create, states.initializer(Linear(), 8), OPTIMIZER, seeds=(0, 1), arms=2)
    checkpoints = Checkpoints(tmp_path / "checkpoints", devices.DeviceMapping())
    best, model = checkpoints.restore_best(jax.eval_shape(create))
    whole, _ = checkpoints.restore(jax.eval_shape(create), empty_averages((2, 2), CORE))
    jax.tree.map(np.testing.assert_array_equal, best, whole.best)
    assert np.all(model["failed"] == -1) and model["step"] == 12
    checkpoints.close()


def test_a_checkpoint_of_another_layout_is_refused(tmp_path, colors):
    train(tmp_path, colors, mapping=devices.DeviceMapping(jax.devices()[:1]), until=3)
    checkpoints = Checkpoints(tmp_path / "checkpoints", devices.DeviceMapping(jax.devices()[:1]))
    other = jax.eval_shape(
        functools.partial(states.create, states.initializer(Linear(), 8), OPTIMIZER, seeds=(0,), arms=2)
    )
    with pytest.raises(InputError, match="does not fit"):
        checkpoints.restore(other, empty_averages((1, 2), CORE))
    checkpoints.close()


def test_dropout_and_view_keys_do_not_depend_on_the_neighbors():
    places = jnp.arange(8, dtype=jnp.int32)[None]
    keys = jax.random.key_data(dropout_keys(jnp.array([5]), jnp.int32(3), places))
    part = jax.random.key_data(dropout_keys(jnp.array([4, 5]), jnp.int32(3), jnp.tile(places[:, 6:], (2, 1))))
    np.testing.assert_array_equal(keys[0, 6:], part[1])
    views = jax.random.key_data(view_keys(0, jnp.array([[3, 9]]), jnp.array([[1, 0]])))
    assert len(np.unique(np.concatenate([keys[0], views[0]]), axis=0)) == 10


def test_a_network_that_blew_up_has_no_accuracy(tmp_path, colors, monkeypatch):
    """And counts for nothing in the mean of those that go on."""
    good, bad = small_run.arms()
    monkeypatch.setattr(small_run, "arms", lambda rate: (good, dataclasses.replace(bad, learning_rate=1e38)))
    _, records, lines = train(tmp_path, colors, mapping=MAPPINGS["one"](), until=6)
    expected = []
    for students in [record["students"] for record in records if record["kind"] == "validation"]:
        live = {arm: [one for seed in (0, 1) if (one := students[f"{arm}/{seed}"]["top1"]) is not None] for arm in "ab"}
        assert all(0 <= one <= 1 for values in live.values() for one in values)
        expected.append(
            ", ".join(f"{arm} {np.mean(values):.3f}" if values else f"{arm} -" for arm, values in live.items())
        )
    assert [line.rpartition("top-1: ")[2] for line in lines if "validation top-1" in line] == expected
    assert any(one["top1"] is None for record in records for one in record["students"].values() if "top1" in one)
