"""python -m kdjax.results.compare against differences counted by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers.evaluated_run import TEST, write_run
from scipy import stats

from kdjax.errors import InputError
from kdjax.results import compare


@pytest.fixture
def runs(tmp_path):
    everything, wrong = [0, 0, 1, 1], [1, 1, 0, 0]
    write_run(
        tmp_path / "a",
        {
            "kl_0": ([wrong, wrong], "kl", 0.5),
            "kl_1": ([everything, [0, 0, 1, 0]], "kl", 0.9),  # the trial with the better validation accuracy
        },
    )
    write_run(tmp_path / "b", {"alone": ([[0, 0, 0, 1], [0, 0, 0, 0]], None, 0.5)})
    return tmp_path


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "kdjax.results.compare", *arguments], capture_output=True, text=True, timeout=120
    )


def test_the_difference_is_paired_by_seed_and_image(runs):
    found = compare.compare(f"{runs}/a:kl", f"{runs}/b:alone")
    assert found["arms"] == [f"{runs}/a:kl", f"{runs}/b:alone"] and found["seeds"] == [0, 1]
    assert found["test_top1"] == ([1.0, 0.75], [0.75, 0.5])
    assert found["over_seeds"] == {"mean": 0.25, "std": 0.0, "ci95": None}  # two seeds have no interval
    assert found["over_images"]["difference"] == 0.25  # the third image alone differs, in both seeds
    assert found["over_images"]["ci95"] == [0.0, 0.75]  # of draws of 4 from 4: none of it, or three times
    assert compare.compare(f"{runs}/a:kl_0", f"{runs}/b:alone")["test_top1"][0] == [0.0, 0.0]  # a trial by its name


def test_an_arm_that_a_family_is_named_after_is_itself(runs):
    arms = {
        "kl": ([[0, 0, 0, 0]] * 2, None, 0.5),
        "kl_hot": ([[0, 0, 1, 1]] * 2, "kl", 0.9),  # the trial of family kl that the table shows, by its own name
        "cosine_0": ([[0, 0, 0, 1]] * 2, "cosine", 0.5),
    }
    write_run(runs / "c", arms)
    found = compare.compare(f"{runs}/c:kl", f"{runs}/c:kl_hot")
    assert found["compared"] == ["kl", "kl_hot"] and found["test_top1"] == ([0.5, 0.5], [1.0, 1.0])
    found = compare.compare(f"{runs}/c:kl", f"{runs}/c:cosine")
    assert found["compared"] == ["kl", "cosine_0"]
    with pytest.raises(
        InputError, match="c:cosine and .*c:cosine_0 name one arm twice, cosine_0: give two arms, or two runs"
    ):
        compare.compare(f"{runs}/c:cosine", f"{runs}/c:cosine_0")


def test_three_seeds_have_students_interval(runs):
    write_run(runs / "c", {"kl": ([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0]], None, 0.5)})
    write_run(runs / "d", {"alone": ([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]], None, 0.5)})
    found = compare.compare(f"{runs}/c:kl", f"{runs}/d:alone")
    differences = np.array([1 - 0.5, 0.5 - 0.75, 0.75 - 0.25])
    assert found["over_seeds"]["mean"] == pytest.approx(differences.mean())
    expected = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert found["over_seeds"]["ci95"] == pytest.approx(list(expected))


def test_macro_recall_is_compared_class_by_class(runs):
    images = ("field/1.png", "field/2.png", "field/3.png", "wood/1.png")
    write_run(runs / "c", {"kl": ([[0, 1, 0, 1]], None, 0.5)}, images)
    write_run(runs / "d", {"alone": ([[0, 0, 0, 0]], None, 0.5)}, images)
    found = compare.compare(f"{runs}/c:kl", f"{runs}/d:alone")
    assert found["test_top1"] == ([0.75], [0.75]) and found["over_images"]["difference"] == 0
    macro = found["macro_recall"]
    assert macro["test"] == (pytest.approx([(2 / 3 + 1) / 2]), [0.5])
    assert macro["over_seeds"]["mean"] == pytest.approx(1 / 3) == macro["over_images"]["difference"]
    # The only image of its class is in every draw: 1/2, less 1/2 of the share of the second image among three draws.
    assert macro["over_images"]["ci95"] == pytest.approx([0.5 - 0.5, 0.5])


def test_seeds_that_failed_or_are_of_one_run_only_are_left_out(runs):
    write_run(runs / "c", {"alone": ([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], None, 0.5)}, failed=[0])
    found = compare.compare(f"{runs}/a:kl", f"{runs}/c:alone")
    assert found["seeds"] == [1] and found["test_top1"] == ([0.75], [0.75])
    write_run(runs / "d", {"alone": ([[0, 0, 0, 0]], None, 0.5)}, failed=[0])
    with pytest.raises(InputError, match="no successful seed in common"):
        compare.compare(f"{runs}/a:kl", f"{runs}/d:alone")


@pytest.mark.slow
def test_the_command_prints_json_or_one_line(runs):
    done = command(f"{runs}/a:kl", f"{runs}/b:alone")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout) == json.loads(json.dumps(compare.compare(f"{runs}/a:kl", f"{runs}/b:alone")))
    done = command(f"{runs}/a:kl")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: give two RUN:ARM")
    (runs / "a" / "results.json").write_text("garbage")
    done = command(f"{runs}/a:kl", f"{runs}/b:alone")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "a/results.json" in done.stderr


def test_help_says_how(capsys):
    compare.main(["--help"])
    assert "python -m kdjax.results.compare" in capsys.readouterr().out


def test_students_that_are_still_in_training_are_not_compared(runs):
    path = runs / "a" / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "student": {**results["student"], "step": 10, "total_steps": 100}}))
    refused(runs, f"{runs}/a:kl", "not final, its students are at step 10 of 100: run --stages=distill,evaluate")


def refused(runs, first, match):
    with pytest.raises(InputError, match=match) as caught:
        compare.compare(first, f"{runs}/b:alone")
    assert "\n" not in str(caught.value)


def test_wrong_names_are_refused(runs):
    refused(runs, f"{runs}/a:cosine", "has no such arm; give one of kl_0, kl_1")
    for name in ("", ":", "kl", f"{runs}/a", f"{runs}/nowhere:kl", f"{runs}:kl"):
        refused(runs, name, "give RUN:ARM")


def test_labels_are_those_of_the_evaluation_whatever_folders_images_lie_in(runs):
    names = ("test/field/1.png", "test/field/2.png", "test/test/1.png", "test/test/2.png")
    classes = ("field", "test")
    write_run(runs / "c", {"kl": ([[0, 0, 1, 1]], None, 0.5)}, names, classes=classes)
    write_run(runs / "d", {"alone": ([[0, 1, 1, 1]], None, 0.5)}, names, classes=classes)
    found = compare.compare(f"{runs}/c:kl", f"{runs}/d:alone")
    assert found["test_top1"] == ([1.0], [0.75]) and found["macro_recall"]["test"] == ([1.0], [0.75])


def test_images_that_share_their_names_alone_are_refused(runs):
    arms = {"alone": ([[0, 0, 1, 1]] * 2, None, 0.5)}
    write_run(runs / "c", arms, images={TEST[2]: "another"})
    refused(runs, f"{runs}/c:alone", f"have different test images: 1 of 4 differ in their pixels, such as {TEST[2]}: ")
    write_run(runs / "d", arms, classes=("wood", "field"))  # the classes are compared by name
    assert compare.compare(f"{runs}/d:alone", f"{runs}/b:alone")["test_top1"][0] == [0.0, 0.0]
    write_run(runs / "e", arms)
    path = runs / "e" / "evaluation" / "logits.npz"
    np.savez(path, **{**np.load(path), "labels_test": np.array([0, 1, 1, 1])})
    refused(runs, f"{runs}/e:alone", f"{TEST[1]} is wood in .*/e:alone and field in .*/b:alone: ")


@pytest.mark.parametrize("field", [{"storage_size": 144}, {"bands": ["B04"]}, {"value_range": [0, 4000]}])
def test_pixels_that_are_stored_otherwise_are_no_other_images(runs, field):
    arms = {"alone": ([[0, 0, 1, 1]] * 2, None, 0.5)}
    write_run(runs / "c", arms, images=dict.fromkeys(TEST, "larger"), dataset=field)
    assert compare.compare(f"{runs}/c:alone", f"{runs}/b:alone")["test_top1"][0] == [1.0, 1.0]


def test_a_value_range_that_was_found_in_the_images_counts_as_well(runs):
    arms = {"alone": ([[0, 0, 1, 1]] * 2, None, 0.5)}
    write_run(runs / "c", arms, images=dict.fromkeys(TEST, "brighter"))
    path = runs / "c" / "splits.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "value_range": [0, 4000]}))
    assert compare.compare(f"{runs}/c:alone", f"{runs}/b:alone")["test_top1"][0] == [1.0, 1.0]


def test_other_images_and_evaluations_without_labels_are_refused(runs):
    write_run(runs / "c", {"alone": ([[0], [0]], None, 0.5)}, TEST[:1])
    refused(runs, f"{runs}/c:alone", "have different test images.*dataset.splits")
    path = runs / "a" / "evaluation" / "logits.npz"  # as earlier versions wrote it
    np.savez(path, student_test=np.load(path)["student_test"])
    refused(runs, f"{runs}/a:kl", "has no array labels_test: run --stages=evaluate of that run again")


@pytest.mark.parametrize("name", ["results.json", "splits.json", "evaluation/logits.npz"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\x00", b'{"arms": 1, "test": 1, "classes": 1}'])
def test_a_damaged_file_is_named_with_what_to_do(runs, name, content):
    (runs / "a" / name).write_bytes(content)
    refused(runs, f"{runs}/a:kl", f"a/{name}.*: (run --stages=evaluate of that run again|restore that file of the run)")


def test_logits_of_another_evaluation_are_refused(runs):
    np.savez(runs / "a" / "evaluation" / "logits.npz", student_test=np.zeros((2, 1, 4, 2)))
    refused(runs, f"{runs}/a:kl", "student_test has the shape")
    results = json.loads((runs / "b" / "results.json").read_text())
    (runs / "b" / "results.json").write_text(json.dumps({**results, "logits_sha256": "0"}))
    refused(runs, f"{runs}/b:alone", "logits.npz is not of the evaluation that wrote results.json: run")
