"""What the stages hand to training, and what training makes of a section of the configuration."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import Linear, arms, learner, training_data

from kdjax import main
from kdjax.config import base
from kdjax.data.dataset import Split
from kdjax.inputs import augment
from kdjax.objective.arms import hyperparameters, resolve
from kdjax.objective.outputs import Outputs
from kdjax.runtime import devices
from kdjax.stages import train
from kdjax.training.population import Online, population

AUGMENTATION = augment.Augmentation(brightness=0.3)


def split(name, labels):
    return Split(np.zeros((len(labels), 8, 8, 3), np.uint8), np.int32(labels), tuple(f"{name}{k}" for k in labels))


DATASET = SimpleNamespace(
    classes=("a", "b", "c"),
    train=split("train", [0, 1, -1, 2]),
    validation=split("validation", [0, 1]),
    test=split("test", [2]),
)


class Targets:
    """Soft targets that tell views and examples apart, and what was asked of them."""

    def __init__(self):
        self.network = Linear(), {"params": "the teacher's"}
        self.asked, self.pinned = [], False

    def views(self, images, count, *, features):
        self.asked.append((images, count))
        logits = np.arange(count * len(images) * 3, dtype=np.float32).reshape(count, len(images), 3)
        return Outputs(logits, logits[..., :2] / 7 if features else None)

    def pin(self):
        self.pinned = True


@pytest.fixture
def handed(monkeypatch):
    """Runs a stage as far as the training, and returns the data that came to it, and the soft targets."""
    targets, came = Targets(), []
    monkeypatch.setattr(train, "open_targets", lambda run: targets)
    monkeypatch.setattr(train, "_is_done", lambda learner, run: False)
    monkeypatch.setattr(train, "_train", lambda run, *trained: came.append(trained))

    def call(stage, config, **fields):
        config.data_seed = 5
        members = resolve(tuple(config.distill.arms), config.arms, temperature=1.0, learning_rate=1.0, weight_decay=0.0)
        named = lambda name: SimpleNamespace(name=name, has_checkpoints=True, section=config[name])
        run = SimpleNamespace(
            config=config, dataset=DATASET, augmentation=AUGMENTATION, teacher_size=48,
            on_device=lambda images, stored=None: (images, stored),
            teacher=named("teacher"), student=named("student"), arms=members, selected_by="macro_recall",
            log=lambda line: None, **fields,
        )  # fmt: skip
        stage(run)
        ((learner, arms, data),) = came
        if stage is train.train_teacher:
            assert learner is run.teacher and [(arm.name, arm.weights) for arm in arms] == [("teacher", {"ce": 1.0})]
        else:
            assert learner is run.student and arms is members
        return data, targets

    return call


def test_students_are_given_the_stored_logits_of_each_view(handed):
    config = base()
    config.student.epochs = 6
    data, targets = handed(train.distill, config)
    np.testing.assert_array_equal(data.stored.logits, np.arange(6 * 4 * 3).reshape(6, 4, 3))
    assert data.stored.features is None
    ((images, count),) = targets.asked
    assert images is DATASET.train.images and count == data.views == 6 and targets.pinned
    assert data.online is None and data.mixup == 0


def test_features_are_asked_for_where_an_arm_compares_them(handed):
    config = base()
    config.distill.arms, config.distill.target = ("student_alone", "similarity"), "mean"
    stored = jax.tree.map(np.asarray, handed(train.distill, config)[0].stored)
    np.testing.assert_allclose(stored.features, stored.logits[..., :2] / 7, rtol=1e-6)


def test_more_views_than_epochs_are_not_made(handed):
    config = base()
    config.student.epochs, config.distill.views = 4, 7
    assert handed(train.distill, config)[0].views == 4


@pytest.mark.parametrize(("sampling", "views"), [("uniform", 2), ("balanced", 3)])
def test_balanced_draws_reach_training_and_may_use_more_views(handed, monkeypatch, sampling, views):
    """Two epochs of four images: the only image of the second class is half of the six draws with a label."""
    monkeypatch.setattr(DATASET, "train", split("train", [0, 0, 1, -1]))
    config = base()
    config.student.epochs, config.distill.views, config.dataset.sampling = 2, 7, sampling
    data, _ = handed(train.distill, config)
    assert data.views == views and data.balanced == (sampling == "balanced")


@pytest.mark.parametrize(
    ("sampling", "labels", "views"), [("uniform", [0, 1, 2, -1, -1, -1], 4), ("balanced", [0, 0, 1, -1, -1, -1], 6)]
)
def test_arms_of_labeled_images_alone_visit_as_many_views_as_their_plan_has(
    handed, monkeypatch, tmp_path, sampling, labels, views
):
    """Two epochs of six images: four draws of each of three with a label, or six of the one alone in its class."""
    monkeypatch.setattr(DATASET, "train", split("train", labels))
    config = base()
    config.student.epochs, config.distill.views, config.dataset.sampling = 2, 99, sampling
    config.arms.few = {"ce": 1.0, "kl": 1.0, "labeled_only": True}
    config.distill.arms = ("few",)
    data, _ = handed(train.distill, config)
    assert data.views == views
    who = learner(tmp_path, devices.DeviceMapping(jax.devices()[:1]), until=1)
    members = resolve(("few",), config.arms, temperature=1.0, learning_rate=1.0, weight_decay=0.0)
    trained = population(dataclasses.replace(who, arm_names=("few",)), members, data)
    examples, drawn = (np.concatenate([trained.plan(step)[part][0] for step in (0, 1)])[:12] for part in (0, 1))
    often = np.argmax(np.bincount(examples))
    assert len(set(drawn[examples == often])) == views == (examples == often).sum()


def test_what_the_teacher_said_counts_for_where_the_images_lie(handed):
    data, _ = handed(train.distill, base())
    assert data.on_device == (DATASET.train.images, data.stored)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_the_teacher_draws_classes_as_its_students_do(handed, sampling):
    config = base()
    config.dataset.sampling = sampling
    data, _ = handed(train.train_teacher, config)
    assert data.balanced == (sampling == "balanced")


def test_by_default_there_are_no_more_than_eight_views(handed):
    assert handed(train.distill, base())[0].views == 8 < base().student.epochs


def test_the_mean_target_is_that_of_all_views_in_each(handed):
    config = base()
    config.distill.views, config.distill.target = 2, "mean"
    data, _ = handed(train.distill, config)
    expected = np.arange(24).reshape(2, 4, 3).mean(0)
    np.testing.assert_array_equal(data.stored.logits, [expected])


def test_without_views_the_teacher_is_in_the_step_with_mixup(handed):
    config = base()
    config.distill.views, config.distill.mixup = 0, 0.3
    data, targets = handed(train.distill, config)
    assert data.stored is None and not targets.asked and targets.pinned
    assert data.online == Online(Linear(), {"params": "the teacher's"}, size=48)
    assert data.mixup == 0.3 and data.views == 0


def test_labels_alone_need_no_teacher(handed):
    config = base()
    config.distill.arms = ("student_alone",)
    data, targets = handed(train.distill, config)
    assert data.stored is None and data.online is None and not targets.asked and not targets.pinned


@pytest.mark.parametrize("stage", [train.train_teacher, train.distill])
def test_what_is_trained_on_and_what_selects(handed, stage):
    data, _ = handed(stage, base())
    assert data.validation is DATASET.validation
    assert data.data_seed == 5 and data.augmentation is AUGMENTATION and data.selected_by == "macro_recall"
    if stage is train.distill:
        assert data.train is DATASET.train
    else:  # a teacher learns from labels
        assert data.train.names == ("train0", "train1", "train2") and data.train.labels.min() >= 0
        assert data.views == 0 and data.stored is None


def recipe(colors, tmp_path, **changes):
    who = learner(tmp_path, devices.DeviceMapping(jax.devices()[:1]))
    for name, value in changes.items():
        setattr(who.section, name, value)
    return population(who, arms(), training_data(colors)).recipe


def test_the_schedule_is_that_of_the_section(colors, tmp_path):
    """37 examples in batches of 8 are 4.6 steps an epoch; a schedule of 12 steps warms up over 0.4 epochs: two."""
    schedule = recipe(colors, tmp_path).schedule
    np.testing.assert_allclose(
        [schedule(0), schedule(1), schedule(2), schedule(7), schedule(12)], [0, 0.5, 1, 0.5, 0], atol=1e-6
    )
    assert recipe(colors, tmp_path, warmup_epochs=0.0).schedule(0) == 1


@pytest.mark.parametrize(("clip", "factor"), [(1.0, 1.0), (0.1, 1.0), (1.0, 10.0)])
def test_clipping_and_the_head_factor_are_those_of_the_section(colors, tmp_path, clip, factor):
    """Adam's second step after a large and a small gradient: how large the first was taken decides it."""
    adamw = recipe(colors, tmp_path, clip=clip, head_factor=factor).optimizer(1.0, 0.0)
    params = {"head": {"bias": jnp.zeros(1)}}
    state, change = adamw.init(params), None
    for gradient in (5.0, 0.05):
        change, state = adamw.update({"head": {"bias": jnp.array([gradient])}}, state, params)
    first, second = min(5.0, clip), 0.05
    mean = (0.9 * 0.1 * first + 0.1 * second) / (1 - 0.9**2)
    square = (0.999 * 0.001 * first**2 + 0.001 * second**2) / (1 - 0.999**2)
    np.testing.assert_allclose(change["head"]["bias"], [-factor * mean / np.sqrt(square)], rtol=1e-4)


def test_averages_and_the_online_teacher_reach_the_step(colors, tmp_path):
    data = training_data(colors)
    online = Online(Linear(), {"params": {}}, size=24)
    who = learner(tmp_path, devices.DeviceMapping(jax.devices()[:1]), ema=0.8)
    changed = SimpleNamespace(
        **vars(data) | {"stored": None, "online": online, "mixup": 0.3, "views": 0, "augmentation": AUGMENTATION}
    )
    made = population(who, arms(), changed)
    assert (made.recipe.ema, made.recipe.mixup, made.recipe.teacher_size) == (0.8, 0.3, 24)
    assert made.recipe.augmentation is AUGMENTATION
    assert made.recipe.teacher == online.network and made.plan.partners and made.plan.views == 0
    assert made.measured == ("ce", "kl", "cosine")  # the soft terms need no stored logits
    plain = population(who, arms(), data)
    assert plain.plan.views == 2 and plain.recipe.augmentation == augment.DEFAULT
    alone = SimpleNamespace(**vars(data) | {"stored": None})
    assert population(who, arms(), alone).measured == ("ce",)


def test_each_arm_has_its_own_row_of_settings():
    members = (*arms(), *resolve(("kl",), base().arms, temperature=3.0, learning_rate=0.1, weight_decay=0.2))
    hyper = hyperparameters(members)
    for column, arm in enumerate(members):
        assert float(hyper.temperature[column]) == arm.temperature
        assert float(hyper.learning_rate[column]) == np.float32(arm.learning_rate)
        assert float(hyper.weight_decay[column]) == np.float32(arm.weight_decay)
        for term, weights in hyper.weights.items():
            assert float(weights[column]) == arm.weights.get(term, 0.0)


@pytest.mark.parametrize("split_by", ["image", "place"])
def test_several_splits_are_runs_of_their_own(monkeypatch, tmp_path, split_by):
    """Each in a folder of its own, with its data seed or its fold; what they say together is asked for once."""
    ran, combined = [], []
    monkeypatch.setattr(
        "kdjax.run.opening.open_for_command",
        lambda config, workdir, **options: SimpleNamespace(
            asked=(config.data_seed, config.splits, config.dataset.fold, workdir), workdir=workdir, log=print
        ),
    )
    monkeypatch.setattr(main, "_stage", lambda name, run: ran.append((name, run.asked)))
    monkeypatch.setattr(
        "kdjax.stages.evaluate.combine_splits", lambda workdir, parts: combined.append((workdir, parts))
    )
    monkeypatch.setattr("kdjax.runtime.watch.start", lambda lost, stuck: None)
    where = tmp_path / "run"
    given = ["--config.splits=3", "--config.data_seed=4", f"--config.dataset.split_by={split_by}"]
    main.main(["kdjax", f"--workdir={where}", *given, "--stages=teacher,evaluate"])
    parts = [where / f"split-{number}" for number in range(3)]
    expected = [
        (4, 1, (number, 3), part) if split_by == "place" else (4 + number, 1, (), part)
        for number, part in enumerate(parts)
    ]
    assert (
        [run for name, run in ran if name == "teacher"] == expected == [run for name, run in ran if name == "evaluate"]
    )
    assert combined == [(where, parts)]
