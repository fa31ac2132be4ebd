"""Several runs on one page: whose rows are there, and which runs are refused."""

import json
import re

import numpy as np
import pytest
from helpers import evaluated_run
from helpers.overview_runs import changed, write
from helpers.run_results import TOP1

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.report import overview
from kdjax.results import intervals


@pytest.fixture
def runs(tmp_path):
    return [
        write(tmp_path / "a", val={"kl": 0.9}),
        # A better teacher, and a student alone that is the better one on validation.
        write(tmp_path / "b", teacher="resnet50", sha="b", val={"cosine": 0.8, "student_alone": 0.6},
              top1={"student_alone": [0.6, 0.7, 0.8], "cosine": [0.9, 0.9, 0.8]}),
        write(tmp_path / "c", student="resnet18", top1={"kl": [0.8, 0.8, 0.8]}),
    ]  # fmt: skip


def test_every_teacher_and_student_is_a_row(runs):
    _, rows = overview.rows(runs)
    assert [(row.name, row.arm) for row in rows] == [
        ("teacher vgg16_bn", ""),
        ("teacher resnet50", ""),
        ("mobilenet_v2 64 px alone", "student_alone"),
        ("mobilenet_v2 64 px from vgg16_bn", "kl"),
        ("mobilenet_v2 64 px from resnet50", "cosine"),
        ("resnet18 64 px from vgg16_bn", "kl"),
    ]
    assert [row.style for row in rows] == ["t", "t", "s0", "s0", "s0", "s1"]
    # The gains are over the student alone of the second run, paired by seed.
    alone = np.array([0.6, 0.7, 0.8])
    for row, arm in ((rows[3], TOP1["kl"]), (rows[4], [0.9, 0.9, 0.8])):
        assert row.gain["mean"] == pytest.approx((np.array(arm) - alone).mean())
    assert rows[5].gain is None  # nobody trained that student alone


def test_a_run_without_a_teacher_adds_no_row_of_one(runs, tmp_path):
    alone = write(tmp_path / "alone", top1={"student_alone": [0.9, 0.9, 0.9]}, val={"student_alone": 0.9})
    path = alone / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": None}))
    _, rows = overview.rows([alone, *runs])
    assert [row.name for row in rows].count("mobilenet_v2 64 px alone") == 1
    assert [row.name for row in rows if row.name.startswith("teacher")] == ["teacher vgg16_bn", "teacher resnet50"]
    assert overview.rows([alone])[1][0].name == "mobilenet_v2 64 px alone"


def test_a_student_that_was_trained_otherwise_is_another(runs, tmp_path):
    """A student of more epochs is no baseline of one of few."""
    longer = write(tmp_path / "d", val={"student_alone": 0.99}, top1={"student_alone": [0.9, 0.9, 0.9]})
    results = json.loads((longer / "results.json").read_text())
    results["config"] = {**results["config"], "student": {"epochs": 99}}
    (longer / "results.json").write_text(json.dumps(results))
    _, rows = overview.rows([*runs, longer])
    gains = {(row.run, row.name): row.gain["mean"] for row in rows if row.gain}
    before = {(row.run, row.name): row.gain["mean"] for row in overview.rows(runs)[1] if row.gain}
    assert gains == before and rows[-1].run == str(longer) and rows[-1].name.endswith("alone")


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("config.student.learning_rate", 0.5, False),
        ("config.dataset.augmentation.scale", [0.9, 1.0], False),
        ("config.dataset.label_fraction", 0.1, False),
        ("config.dataset.sampling", "balanced", False),
        ("config.dataset.sampling", None, True),  # of a version that did not have it: the default is what it did
        ("config.distill.mixup", 0.3, False),
        ("config.distill.views", 1, False),
        ("config.distill.views", 8, True),  # what unset is
        ("config.data_seed", 3, False),
        ("config.dtype", "bfloat16", False),
        ("config.dtype", "float32", True),  # what `auto` is on a CPU
        ("environment.backend", "gpu", False),
        ("dataset.fingerprint", "other", False),
        ("student.width", 0.5, False),
        ("config.dataset.path", "elsewhere", True),
        ("config.dataset.splits", "splits.json", True),  # the fingerprint says which images are on which side
        ("config.teacher.epochs", 3, True),
        ("config.distill.temperature", 2.0, True),
        ("config.run.note", "x", True),
    ],
)
def test_a_student_is_the_same_where_its_data_and_its_training_are(tmp_path, path, value, same):
    folders = [write(tmp_path / name) for name in "ab"]
    for folder in folders:
        changed(folder, "config", {**json.loads(base().to_json()), "seeds": [0, 1, 2]})
    changed(folders[1], path, value)
    _, rows = overview.rows(folders)
    assert sum(row.name.endswith("alone") for row in rows) == 2 - same


def test_a_student_began_with_what_its_file_of_weights_held(tmp_path):
    """One path may have held two files, and one file may lie at two places."""
    folders = [write(tmp_path / name) for name in "abc"]
    for folder, (path, digest) in zip(folders, (("w", "one"), ("elsewhere", "one"), ("w", "two")), strict=True):
        changed(folder, "config.student", {"weights": f"{path}.safetensors"})
        changed(folder, "student.weights", {"file": path, "sha256": digest})
    _, rows = overview.rows(folders)
    assert [row.run[-1] for row in rows if row.name.endswith("alone")] == ["a", "c"]


def test_teachers_of_one_name_are_told_apart_by_what_they_say(tmp_path):
    """Stored logits have no SHA-256: their fingerprints and, in results of older versions, their figures tell."""
    name = "stored logits of vgg16 at 64 px"
    teachers = [("a", ["f0"], 0.9), ("b", ["f1"], 0.9), ("c", ["f1"], 0.9), ("d", None, 0.9), ("e", None, 0.5)]
    folders = [write(tmp_path / run, teacher=name, sha=None) for run, *_ in teachers]
    for folder, (_, logits, top1) in zip(folders, teachers, strict=True):
        changed(folder, "teacher.sha256", None)
        if logits:
            changed(folder, "teacher.logits", logits)
        changed(folder, "teacher.test.top1", top1)
    _, rows = overview.rows(folders)
    assert [(row.run[-1], row.figures["mean"]) for row in rows if row.style == "t"] == [
        ("a", 0.9), ("b", 0.9), ("d", 0.9), ("e", 0.5),
    ]  # fmt: skip


def test_teachers_of_one_file_are_told_apart_by_their_fingerprints(tmp_path):
    """One ONNX file with two heads is two teachers; of an older version the figures tell."""
    folders = [write(tmp_path / name, teacher="encoder.onnx") for name in "abcde"]
    for folder, told, top1 in zip(
        folders, (["f0"], ["f0"], ["f1"], None, None), (0.9, 0.8, 0.9, 0.9, 0.5), strict=True
    ):
        changed(folder, "teacher.test.top1", top1)
        if told:
            changed(folder, "teacher.fingerprints", told)
    assert [row.run[-1] for row in overview.rows(folders)[1] if row.style == "t"] == ["a", "c", "d", "e"]


def test_a_baseline_with_failed_seeds_is_behind_a_whole_one(runs):
    changed(runs[1], "arms.student_alone.val_top1", [0.9, None, None])
    best = next(row for row in overview.rows(runs)[1] if row.name == "mobilenet_v2 64 px alone")
    assert best.run == str(runs[0])


def test_latency_is_that_of_the_exported_arm(runs):
    (runs[0] / "export").mkdir()
    arm = json.loads((runs[0] / "results.json").read_text())["arms"]["kl"]
    student = {"arm": "kl", "seed": arm["seeds"][1], "test": arm["test_metrics"][1]}
    parity = {"student": student, "artifacts": {"student.onnx": {"latency_ms": {"1": 1.25, "32": 20.0}}}}
    (runs[0] / "export" / "parity.json").write_text(json.dumps(parity))
    measured = {row.name: row.cost.get("latency_ms") for row in overview.rows(runs)[1]}
    assert measured.pop("mobilenet_v2 64 px from vgg16_bn") == 1.25 and not any(measured.values())
    student["seed"] = 99  # of a run that was here before
    (runs[0] / "export" / "parity.json").write_text(json.dumps(parity))
    assert not any(row.cost.get("latency_ms") for row in overview.rows(runs)[1])


def test_the_page_has_the_table_and_a_chart_for_each_cost(runs, tmp_path, capsys):
    overview.main([*map(str, runs), f"--output={tmp_path / 'page.html'}"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.count("<svg") == 2 and "6 networks" in capsys.readouterr().out
    assert "mobilenet_v2 64 px from resnet50 gains most, +16.67 points." in page


def test_rows_of_one_name_are_told_apart_in_the_chart(tmp_path):
    folders = [write(tmp_path / "a", teacher="vgg16", sha="a"), write(tmp_path / "b", teacher="vgg16", sha="b")]
    measure, rows = overview.rows(folders)
    page = overview.render(rows, {"splits": {"test": 12}, "name": "made"}, measure)
    drawn = re.sub("<title>.*?</title>", "", page[page.index("<svg") : page.index("</svg>")])
    names = re.findall("<text[^>]*>([^<]*(?:vgg16|alone|…)[^<]*)</text>", drawn)
    assert len(names) == len(set(names)) == len(rows) == 5


@pytest.mark.parametrize("output", ["", "none/page.html", ".", "results.json"])
def test_a_page_that_cannot_be_written_is_refused(runs, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--output .*: give the name of a .html file in an existing folder"):
        overview.main([*map(str, runs), f"--output={output}"])


def test_a_page_whose_name_the_disk_refuses_is_named(runs, tmp_path):
    with pytest.raises(InputError, match="--output .*: cannot be written .*File name too long"):
        overview.main([*map(str, runs), f"--output={tmp_path / ('a' * 300)}.html"])


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path):
    other = write(tmp_path / "d", test=("a/1", "b/2"))
    with pytest.raises(InputError, match="d: its test images or classes are not those of .*a: give runs of one"):
        overview.rows([*runs, other])
    with pytest.raises(InputError, match="e has no results.json"):
        overview.rows([tmp_path / "e"])
    with pytest.raises(InputError, match="a is given twice"):
        overview.rows([*runs, runs[0]])
    (runs[0] / "export").mkdir()
    for text in ("null", "{}", '{"artifacts": []}'):
        (runs[0] / "export" / "parity.json").write_text(text)
        with pytest.raises(InputError, match="parity.json is not what an export writes"):
            overview.rows(runs)
    (other / "results.json").write_text("[]")
    with pytest.raises(InputError, match="not the results.json of a run"):
        overview.rows([other])


def test_images_that_share_their_names_alone_are_refused(tmp_path):
    arms = {"alone": ([[0, 0, 1, 1]] * 3, None, 0.5)}
    evaluated_run.write_run(tmp_path / "a", arms)
    evaluated_run.write_run(tmp_path / "b", arms)
    assert overview.rows([tmp_path / "a", tmp_path / "b"])
    evaluated_run.write_run(tmp_path / "c", arms, images={evaluated_run.TEST[2]: "another"})
    with pytest.raises(InputError, match="a and .*c have different test images: 1 of 4 differ in their pixels"):
        overview.rows([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    (tmp_path / "c" / "evaluation" / "logits.npz").unlink()
    assert overview.rows([tmp_path / "a", tmp_path / "c"])


def test_students_that_are_still_in_training_are_refused(runs):
    changed(runs[1], "student.step", 100)
    changed(runs[1], "student.total_steps", 100)
    assert overview.rows(runs)
    changed(runs[1], "student.step", 10)
    with pytest.raises(InputError, match="b/results.json is not final, its students are at step 10 of 100: run "):
        overview.rows(runs)


def unequal(folder):
    """The run with unequal classes, and macro recall on validation as top-1."""
    results = json.loads((folder / "results.json").read_text())
    results["dataset"]["class_counts"] = {"train": [90, 20, 20], "test": [4, 4, 4]}
    for arm in results["arms"].values():
        arm["val_macro_recall"] = arm["val_top1"]
    (folder / "results.json").write_text(json.dumps(results))


def test_every_run_shows_its_best_arm_by_what_the_page_is_judged_by(tmp_path):
    """Also a run that by itself is judged otherwise."""
    folders = [write(tmp_path / "a"), write(tmp_path / "b", val={"kl": 0.2, "cosine": 0.9})]
    unequal(folders[0])
    for name, value in {"student_alone": 0.1, "kl": 0.9, "cosine": 0.2, "kl_cosine": 0.1}.items():
        changed(folders[1], f"arms.{name}.val_macro_recall", [value] * 3)
    assert [row.arm for row in overview.rows(folders)[1] if row.run == str(folders[1]) and row.taught] == ["kl"]
    assert [row.arm for row in overview.rows(folders[1:])[1] if row.taught] == ["cosine"]
    changed(folders[1], "arms.kl.val_macro_recall", None)  # of an earlier version
    with pytest.raises(InputError, match="b/results.json has no macro recall, .* run --stages=evaluate of that run ag"):
        overview.rows(folders)


def test_where_classes_are_unequal_macro_recall_takes_the_place_of_top1(runs):
    """Its gains differ from those of top-1 in these runs."""
    for run in runs[:2]:
        results = json.loads((run / "results.json").read_text())
        results["dataset"]["class_counts"] = {"train": [90, 20, 20], "test": [4, 4, 4]}
        for name, arm in results["arms"].items():
            recall = [value - 0.1 - 0.05 * (name == "student_alone") for value in arm["test_top1"]]
            arm["macro_recall"] |= {"test": recall, **intervals.accuracies(recall)}
            arm["val_macro_recall"] = arm["val_top1"]
        results["teacher"]["test"]["macro_recall"] = 0.77
        (run / "results.json").write_text(json.dumps(results))
    measure, rows = overview.rows(runs[:2])
    assert measure == "macro_recall" and rows[0].figures["mean"] == 0.77
    alone, taught = np.array([0.6, 0.7, 0.8]) - 0.15, np.array([0.9, 0.9, 0.8]) - 0.1
    assert rows[2].figures["mean"] == pytest.approx(alone.mean())
    assert rows[4].gain["mean"] == pytest.approx((taught - alone).mean())
    page = overview.render(rows, {"splits": {"test": 12}, "name": "made"}, measure)
    assert "test macro recall %" in page and "Macro recall over parameters" in page and "top-1" not in page.lower()
