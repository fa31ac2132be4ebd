"""The fair baseline where labels are few: students that are shown the labeled tiles only, in the same population."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import learner, training_data

from kdjax.config import base
from kdjax.inputs.batch import Batch, dropout_keys, render, view_keys
from kdjax.inputs.plan import Groups
from kdjax.objective.arms import hyperparameters, resolve
from kdjax.run.arms import student_arms
from kdjax.runtime import devices
from kdjax.runtime.metrics_writer import MetricsWriter
from kdjax.training.loop import fit
from kdjax.training.population import population
from kdjax.training.progress import Progress
from kdjax.training.step import train_step

TAUGHT, BASELINE = ("student_alone", "kl_cosine"), "labeled_alone"
LABELLED, STEPS = 12, 6


def named(*names, also=None):
    return resolve(names, {**base().arms, **(also or {})}, temperature=2.0, learning_rate=0.3, weight_decay=0.1)


def without_labels(colors):
    """The colors with labels for the first twelve only, unevenly spread."""
    images, labels = colors
    order = np.random.default_rng(1).permutation(len(labels))
    kept = np.where(np.isin(np.arange(len(labels)), order[:LABELLED]), labels, -1)
    whole = training_data(colors)  # the teacher knows every label
    return dataclasses.replace(whole, train=dataclasses.replace(whole.train, labels=kept.astype(np.int32)))


def made(colors, folder, *names, also=None):
    who = dataclasses.replace(learner(folder, devices.DeviceMapping(jax.devices()[:1])), arm_names=names)
    return population(who, named(*names, also=also), without_labels(colors))


@pytest.mark.parametrize(
    ("names", "labels", "joins"),
    [
        (TAUGHT, [0, -1], True),
        (TAUGHT, [0, 1], False),  # every tile has a label
        (("student_alone",), [0, -1], False),  # nobody is taught
        (("kl", "cosine"), [0, -1], False),  # nobody is not: there is no gain to state
        ((*TAUGHT, BASELINE), [0, -1], False),  # it is there already
        ((*TAUGHT, "mine"), [0, -1], False),  # under another name
        ((*TAUGHT, "taught"), [0, -1], True),  # one that learns from the teacher is no baseline
    ],
)
def test_it_joins_where_gains_are_stated_and_tiles_lack_labels(names, labels, joins):
    config = base()
    config.arms.mine = {"ce": 2.0, "labeled_only": True}
    config.arms.taught = {"ce": 1.0, "kl": 1.0, "labeled_only": True}
    config.distill.arms = names
    found = student_arms(config, SimpleNamespace(classes=("a", "b"), train=SimpleNamespace(labels=np.array(labels))))
    assert tuple(arm.name for arm in found) == (*names, *([BASELINE] * joins))
    alone = next((arm for arm in found if arm.name == BASELINE), None)
    if alone:
        assert alone.labeled_only and not alone.needs_teacher and alone.weights == {"ce": 1.0}
        assert (alone.temperature, alone.learning_rate) == (4.0, config.student.learning_rate)


FEW_LABELS = SimpleNamespace(classes=("a",), train=SimpleNamespace(labels=np.array([0, -1])))


def test_its_own_settings_in_a_config_are_kept():
    config = base()
    config.arms.labeled_alone.learning_rate = 0.125
    for family in ({}, {"family": "alone"}):  # also where it could copy trials
        config.arms.update(alone_0={"ce": 1.0, **family}, alone_1={"ce": 1.0, **family})
        config.distill.arms = ("alone_0", "alone_1", "kl_cosine")
        found = student_arms(config, FEW_LABELS)
        assert len(found) == 4 and found[-1].name == BASELINE and found[-1].learning_rate == 0.125


def test_it_has_the_trials_of_the_students_alone():
    """The best of twelve on validation would beat one by chance."""
    config = base()
    rates = (5e-4, 1e-3, 2e-3)
    config.arms.update(
        {f"alone_{k}": {"ce": 2.0, "learning_rate": rate, "family": "alone"} for k, rate in enumerate(rates)},
        other={"ce": 1.0, "family": "alone", "weight_decay": 0.1, "class_weights": ("a=2",)},
        single={"ce": 1.0},
    )
    config.distill.arms = ("kl", "single", "alone_0", "alone_1", "alone_2", "other")
    found = student_arms(config, FEW_LABELS)[6:]
    assert [arm.name for arm in found] == [f"{BASELINE}_{name}" for name in ("0", "1", "2", "other")]
    assert all(arm.labeled_only and arm.family == BASELINE and not arm.needs_teacher for arm in found)
    assert [arm.learning_rate for arm in found] == [*rates, config.student.learning_rate]
    assert [arm.weights["ce"] for arm in found] == [2, 2, 2, 1]
    assert found[3].weight_decay == 0.1 and found[0].weight_decay == config.student.weight_decay


def test_it_is_shown_labeled_examples_only_equally_often_in_fresh_views(colors, tmp_path):
    trained = made(colors, tmp_path, *TAUGHT, BASELINE)
    labels = trained.data.train.labels
    rows = np.flatnonzero(labels >= 0)
    assert isinstance(trained.plan, Groups) and len(rows) == LABELLED
    assert trained.hyperparameters().group.tolist() == [0, 0, 1]
    examples, views = (np.stack([trained.plan(step)[part] for step in range(12)]) for part in (0, 1))
    for row in range(2):
        shown = examples[:, row, 1].ravel()  # 12 steps of 8: eight epochs of the twelve
        np.testing.assert_array_equal(np.bincount(shown, minlength=len(labels))[rows], [8] * LABELLED)
        assert set(shown) == set(rows)
        assert len(set(zip(shown, views[:, row, 1].ravel(), strict=True))) == len(shown)
        assert set(views[:, row, 0].ravel()) == {0, 1} and (labels[examples[:, row, 0]] < 0).any()
    # Another arm does not change what it is shown; that one is shown what the teacher has seen.
    taught = {"taught": {"ce": 1.0, "kl": 1.0, "labeled_only": True}}
    beside = made(colors, tmp_path, *TAUGHT, "taught", BASELINE, also=taught)
    assert beside.hyperparameters().group.tolist() == [0, 0, 1, 2]
    for step in range(12):
        pairs = list(zip(beside.plan(step), trained.plan(step), strict=True))
        for found, before in pairs:
            np.testing.assert_array_equal(found[:, [0, 2]], before)
        np.testing.assert_array_equal(pairs[0][0][:, 1], pairs[0][0][:, 2])
        assert pairs[1][0][:, 1].max() < 2
    # Nothing is rendered for nobody.
    only = made(colors, tmp_path, BASELINE)
    assert only.hyperparameters().group is None
    for found, before in zip(only.plan(7), trained.plan(7), strict=True):
        np.testing.assert_array_equal(found, before[:, 1])
    assert only.examples_of(3, 1, 0) == trained.examples_of(3, 1, 2)
    names = trained.examples_of(3, 1, 2)
    assert names == [trained.data.train.names[index] for index in examples[3, 1, 1]]
    assert trained.examples_of(3, 1, 0) == [trained.data.train.names[index] for index in examples[3, 1, 0]]


def double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree)


def walked(trained):
    """The parameters after a few steps in float64, (seed, arm, …)."""
    mapping = trained.learner.mapping
    state = mapping.place(double(trained.learner.scratch()), "rows")
    averages, step, feed = double(trained.empty_averages()), trained.step(), trained.feed(0)
    for number in range(STEPS):
        state, averages = step(state, averages, feed(number, 1), np.int32(1))
    assert (np.asarray(state.failed) < 0).all()
    return jax.tree.map(np.asarray, state.params)


@pytest.mark.slow
def test_the_others_train_as_they_do_without_it(colors, tmp_path):
    with jax.enable_x64(True):
        among, alone = walked(made(colors, tmp_path, *TAUGHT, BASELINE)), walked(made(colors, tmp_path, *TAUGHT))
    for with_it, without in zip(jax.tree.leaves(among), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(with_it[:, :2], without, rtol=1e-9, atol=1e-9)
        assert np.abs(with_it[:, 2] - with_it[:, 0]).max() > 1e-3


@pytest.mark.slow
def test_it_takes_the_steps_it_would_take_alone_on_the_labeled_tiles(colors, tmp_path):
    """Against the bare train step of one arm, on batches that are put together here."""
    trained = made(colors, tmp_path, *TAUGHT, BASELINE)
    split, recipe = trained.data.train, trained.recipe
    with jax.enable_x64(True):
        among = walked(trained)
        hyper = hyperparameters(named(BASELINE))
        state = double(dataclasses.replace(trained.learner, arm_names=(BASELINE,)).scratch())
        step = jax.jit(functools.partial(train_step, recipe=recipe))
        for number in range(STEPS):
            examples, views, places = (part[:, 1] for part in trained.plan(number))
            assert (split.labels[examples] >= 0).all()
            keys = view_keys(trained.data.data_seed, jnp.asarray(examples), jnp.asarray(views))
            pixels = render(jnp.asarray(split.images)[examples], keys, trained.learner.size)
            dropout = dropout_keys(jnp.array([0, 1]), jnp.int32(number), jnp.asarray(places))
            state, _ = step(state, Batch(pixels, jnp.asarray(split.labels)[examples], None, dropout), hyper)
        for with_others, alone in zip(jax.tree.leaves(among), jax.tree.leaves(state.params), strict=True):
            # Views are drawn in float32, which two programs may round differently.
            np.testing.assert_allclose(with_others[:, 2:], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_terms_that_it_has_no_targets_for_are_not_told(colors, tmp_path):
    trained = made(colors, tmp_path, *TAUGHT, BASELINE)
    checkpoints, writer = trained.learner.checkpoints(), MetricsWriter(tmp_path, 0, tensorboard=False)
    state, averages = trained.initial()
    progress = Progress(1e9, lambda line: None)
    try:
        fit(trained, state, averages, checkpoints=checkpoints, writer=writer, progress=progress)
    finally:
        writer.close()
        checkpoints.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained_on = [one["students"] for one in records if one["kind"] == "train"]
    for students in trained_on:
        for name, told in students.items():
            soft = set() if name.startswith(BASELINE) else {"kl", "cosine"}
            assert set(told) == {"ce", "loss", "grad_norm", *soft}, name
            if name.startswith(BASELINE):
                assert told["loss"] == pytest.approx(told["ce"], rel=1e-5)
    assert len(trained_on) == 3
