"""What the stages that measure write and say, without training anything."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.config import base
from kdjax.data.dataset import Split
from kdjax.errors import InputError
from kdjax.objective.arms import resolve
from kdjax.results import logits
from kdjax.results.comparison import NAMES
from kdjax.runtime import devices
from kdjax.stages import evaluate, follow


def test_what_is_said_of_a_checkpoint_leaves_failed_seeds_out():
    measured = [[{"top1": 0.5}, {"top1": None}], [{"top1": None}, {"top1": None}], [{"top1": 1.0}, {"top1": None}]]
    assert follow.means(("kl", "cosine"), measured, "top1") == "kl 0.750, cosine -"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What writing needs of a run."""
    monkeypatch.setattr(evaluate, "teacher_facts", lambda run: {"model": "stored logits", "params": None, "macs": None})
    split = lambda count: Split(
        np.zeros((count, 4, 4, 3), np.uint8), np.arange(count, dtype=np.int32) % 3, tuple(map(str, range(count)))
    )
    return SimpleNamespace(
        workdir=tmp_path, results_dir=tmp_path, dataset=SimpleNamespace(validation=split(4), test=split(6), members={}),
        student=SimpleNamespace(names=[["kl/0"]]), config=base(),
    )  # fmt: skip


def targets(*sources):
    """Soft targets of teachers (SHA-256, fingerprint of their logits); stored logits have no SHA-256."""
    return SimpleNamespace(
        record=lambda: {"clean": {"forward_images": 0, "started_images": 0}},
        digests=[sha for sha, _ in sources if sha],
        fitted_heads=[],
        sources=[
            SimpleNamespace(
                teacher=sha or None, folder=SimpleNamespace(fingerprint=one, parts={"teacher": sha} if sha else {})
            )
            for sha, one in sources
        ],
    )


def test_stored_logits_are_named_by_their_fingerprints(run):
    said = {side: np.zeros((len(getattr(run.dataset, side)), 3)) for side in evaluate.SIDES}
    facts = lambda *sources: evaluate._teacher_facts(run, targets(*sources), said)
    stored = facts(("", "f0"), ("a", "f1"), ("", "f2"))
    assert stored["logits"] == ["f0", "f2"] and stored["sha256"] == "a"
    assert "logits" not in facts(("a", "f1"))


def test_a_teacher_is_told_by_all_that_it_is_and_not_by_the_data(run):
    said = {side: np.zeros((len(getattr(run.dataset, side)), 3)) for side in evaluate.SIDES}

    def told(**parts):
        given = targets(("a", "f0"))
        given.sources[0].folder.parts |= {"examples": "e", "augmentation": [], "data_seed": 0, "format": 2, **parts}
        return evaluate._teacher_facts(run, given, said)["fingerprints"]

    assert told() == told(examples="fewer labels", augmentation=["turn"], data_seed=1)
    assert len({str(told(**one)) for one in ({}, {"head": "h0"}, {"head": "h1"}, {"size": 32}, {"dtype": "b"})}) == 5
    assert "fingerprints" not in evaluate._teacher_facts(run, targets(("a", "f1"), ("", "f2")), said)


def test_results_hold_the_digest_of_their_logits(run, monkeypatch):
    written = {}
    monkeypatch.setattr(evaluate.files, "write_json", lambda path, document: written.update(document))
    for name in ("table", "markdown", "comma_separated"):
        monkeypatch.setattr(evaluate.tables, name, lambda *arguments: "")
    rng = np.random.default_rng(0)
    said = {
        "teacher": {"validation": rng.random((4, 3)), "test": rng.random((6, 3))},
        "student": {"validation": rng.random((1, 1, 4, 3)), "test": rng.random((1, 1, 6, 3))},
    }
    measured = {side: [[{"top1": 0.5}]] for side in evaluate.SIDES}
    evaluate._write(run, 5, measured, {"arms": {}}, said)
    assert written["arms"] == {}
    path = run.workdir / "evaluation" / "logits.npz"
    assert sorted(one.name for one in path.parent.iterdir()) == ["logits.npz", "metrics.jsonl"]
    found = logits.read(path, {"student_test": (1, 1, 6, 3)}, "x", written["logits_sha256"])
    np.testing.assert_array_equal(found["teacher_validation"], said["teacher"]["validation"])
    np.testing.assert_array_equal(found["labels_test"], [0, 1, 2, 0, 1, 2])
    assert [one.tobytes() for one in found["hashes_validation"]] == [hashlib.sha256(bytes(48)).digest()] * 4


def test_each_arm_has_its_own_facts_and_failed_students_have_no_figures():
    settings = {"kl": {"ce": 1.0, "kl": 1.0}, "soft": {"kl": 1.0}}
    arms = resolve(("kl", "soft"), settings, temperature=4.0, learning_rate=1e-3, weight_decay=0.0)
    arms = tuple(dataclasses.replace(one, class_weights=(1.0, 2.0)) for one in arms)
    arms = (dataclasses.replace(arms[0], learning_rate=3e-3, weight_decay=0.1), arms[1])
    run = SimpleNamespace(
        arms=arms,
        student=SimpleNamespace(seeds=(0,)),
        dataset=SimpleNamespace(test=SimpleNamespace(labels=np.array([0, 1]))),
    )
    selected = SimpleNamespace(
        usable=np.array([[True, False]]), best=SimpleNamespace(step=np.array([[7, 4]])), last={"w": np.zeros((1, 2))}
    )
    measured = {side: [[dict.fromkeys((*NAMES, "nll"), 0.5)] * 2] for side in evaluate.SIDES}
    said = evaluate._arms(run, selected, measured, np.zeros((1, 2, 2, 2)), np.zeros((2, 2)), None)
    assert (said["kl"]["selected_step"], said["soft"]["selected_step"]) == ([7], [4])
    assert said["kl"]["val_top1"] == [0.5] and said["soft"]["val_top1"] == said["soft"]["test"] == [None]
    rates = [(said[name]["learning_rate"], said[name]["weight_decay"]) for name in ("kl", "soft")]
    assert rates == [(3e-3, 0.1), (1e-3, 0.0)]
    # Class weights count where labels do.
    assert said["kl"]["class_weights"] == [1.0, 2.0] and "class_weights" not in said["soft"]


def test_figures_of_a_finished_run_are_not_replaced_by_unfinished_ones(tmp_path):
    run = SimpleNamespace(student=SimpleNamespace(total_steps=9), results_dir=tmp_path, log=lambda line: None)
    evaluate._check_final(run, SimpleNamespace(step=5))
    (tmp_path / "results.json").write_text(json.dumps({"student": {"step": 9}}))
    with pytest.raises(InputError, match="holds the figures of the finished run, but .* of step 5 of 9"):
        evaluate._check_final(run, SimpleNamespace(step=5))
    evaluate._check_final(run, SimpleNamespace(step=9))


def test_a_teacher_is_measured_on_each_side_and_what_it_computed_twice_is_told(run):
    given = targets(("a", "f0"))
    counts = {"clean": (5, 8), "views": (4, 4)}
    given.record = lambda: {name: dict(forward_images=a, started_images=b) for name, (a, b) in counts.items()}
    right, wrong = (np.eye(3)[(np.arange(6) + shift) % 3] for shift in (0, 1))
    found = evaluate._teacher_facts(run, given, {"validation": wrong[:4], "test": right})
    assert (found["val_top1"], found["test"]["top1"], found["repeated_images"]) == (0.0, 1.0, 3)


def test_the_labels_of_the_training_images_are_counted(run):
    train = Split(np.zeros((5, 4, 4, 3), np.uint8), np.array([0, -1, -1, -1, 2]), tuple("abcde"))
    data = SimpleNamespace(
        **vars(run.dataset), train=train, name="d", classes=("a",), class_counts={}, fingerprint="f", overlap=0.0
    )
    facts = evaluate._dataset_facts(SimpleNamespace(dataset=data))
    assert facts["labels"] == {"labeled": 2, "total": 5}


@pytest.mark.parametrize("failed", [[[3, 7]], [[3, -1]]])
def test_nobody_follows_a_training_in_which_all_students_failed(monkeypatch, tmp_path, failed):
    """It ends before its last step: no checkpoint is to come."""
    asked = []

    def restore(layout, step):
        asked.append(step)
        return {}, np.array(failed)

    checkpoints = SimpleNamespace(restore_model=restore, close=lambda: None)
    student = SimpleNamespace(
        total_steps=9, layout=None, folder=tmp_path, checkpoints=lambda: checkpoints, arm_names=(),
        predictor=lambda variables, images: np.zeros((1, 0, 1, 2)),
    )  # fmt: skip
    validation = SimpleNamespace(images=None, labels=np.zeros(1, int))
    run = SimpleNamespace(
        student=student, dataset=SimpleNamespace(validation=validation), log=lambda line: None, workdir=tmp_path,
        config=SimpleNamespace(run=SimpleNamespace(tensorboard=False)), selected_by="top1",
    )  # fmt: skip
    monkeypatch.setattr(follow, "wait_for_run", lambda config, workdir: run)
    monkeypatch.setattr(follow, "scalars", lambda run, measured: {})
    monkeypatch.setattr(follow, "_steps_after", lambda step, run: [one for one in (8, 9) if one > step])
    monkeypatch.setattr(follow, "evaluate", lambda run: asked.append("end"))
    follow.follow(None, tmp_path)
    assert asked == ([8, "end"] if min(failed[0]) >= 0 else [8, 9, "end"])


def test_processes_that_follow_together_read_the_checkpoint_that_the_first_has_found(monkeypatch, tmp_path):
    """Another may look when there is one more: they would measure steps of their own in one program."""
    asked, said = [], iter([3, 9])
    checkpoints = SimpleNamespace(restore_model=lambda layout, step: asked.append(step), close=lambda: None)
    student = SimpleNamespace(
        total_steps=9, layout=None, predictor=None, folder=tmp_path, checkpoints=lambda: checkpoints
    )
    run = SimpleNamespace(student=student, dataset=SimpleNamespace(validation=None), log=lambda line: None)
    monkeypatch.setattr(follow, "wait_for_run", lambda config, workdir: run)
    monkeypatch.setattr(follow, "_steps_after", lambda step, run: [6, 9])
    monkeypatch.setattr(follow, "evaluate", lambda run: asked.append("end"))
    monkeypatch.setattr(devices, "first_process_says", lambda answer: next(said))
    follow.follow(None, tmp_path)
    assert asked == [3, 9, "end"]
