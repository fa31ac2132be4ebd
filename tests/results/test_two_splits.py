"""python -m kdjax.results.two_splits: two runs that differ in their split alone, side by side."""

import copy
import json
import re
import subprocess
import sys

import pytest
from helpers.run_results import parts

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.results import document
from kdjax.results.two_splits import split_description, table

NAMES = [f"a/{k}.png" for k in range(6)]


def write(folder, test, top1, teacher=0.9, trial=None, **fields):
    """A run of the student alone, and of a family of two trials of which validation prefers `trial`."""
    config = json.loads(base().to_json())
    config["dataset"].update(fields)
    folder.mkdir()
    trials = {"kl": [0.9, 0.9, 0.9], "cosine": [0.5, 0.5, 0.5]} if trial else {}
    given = parts({"student_alone": top1, **trials}, teacher=teacher, config=config)
    for name in trials:
        given["arms"][name] |= {"family": "soft", "val_top1": [0.8 if name == trial else 0.7] * 3}
    results = document.build(**given)
    (folder / "results.json").write_text(json.dumps(results))
    train = [name for name in NAMES if name not in test]
    (folder / "splits.json").write_text(json.dumps({"train": train, "validation": [], "test": test}))
    return folder


@pytest.fixture
def runs(tmp_path):
    random = write(tmp_path / "random", NAMES[:2], [0.9, 0.8, 0.7])
    return random, write(tmp_path / "place", NAMES[3:], [0.6, 0.5, 0.4], 0.75, split_by="place", block_km=5.0)


def test_means_and_differences(runs):
    lines = table(*runs).splitlines()
    cells = [line.split() for line in lines]
    assert re.split(r"\s{2,}", lines[0])[-3:] == ["by image, %", "by place, 5 km, %", "points"]
    assert cells[2] == ["teacher", "vgg16_bn", "90.00", "75.00", "-15.00"]
    assert cells[4] == ["student_alone", "80.00", "±", "10.00", "50.00", "±", "10.00", "-30.00"]
    assert "on 2 and 3 test images" in table(*runs)
    done = subprocess.run(
        [sys.executable, "-m", "kdjax.results.two_splits", *map(str, runs)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.rstrip("\n") == table(*runs)


def test_a_teacher_that_one_of_the_runs_lacks_is_no_row(runs):
    path = runs[1] / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": None}))
    said = table(*runs)
    assert said.splitlines()[2].startswith("student_alone") and "eacher" not in said and said.count("\n---") == 1


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (({}, {}), "a teacher of its own"),  # nothing says who they are
        (({"sha256": "a"}, {"sha256": "a"}), "the same teacher"),
        (({"sha256": "a"}, {"sha256": "b"}), "a teacher of its own"),
        (({"sha256": "a", "fingerprints": ["f0"]}, {"sha256": "a", "fingerprints": ["f1"]}), "a teacher of its own"),
    ],
)
def test_whether_one_teacher_taught_both_is_said(runs, facts, said):
    for folder, more in zip(runs, facts, strict=True):
        results = json.loads((folder / "results.json").read_text())
        results["teacher"] |= more
        (folder / "results.json").write_text(json.dumps(results))
    assert f"Each run has one split and {said}, and part" in " ".join(table(*runs).split())


@pytest.mark.parametrize(
    ("trials", "row"),
    [
        (("kl", "kl"), ["kl", "90.00 ± 0.00", "90.00 ± 0.00", "+0.00"]),
        (("kl", "cosine"), ["soft (kl / cosine)", "90.00 ± 0.00", "50.00 ± 0.00", "-40.00"]),
    ],
)
def test_a_family_is_one_row_whichever_of_its_trials_were_chosen(tmp_path, trials, row):
    random = write(tmp_path / "random", NAMES[:2], [0.9, 0.8, 0.7], trial=trials[0])
    place = write(tmp_path / "place", NAMES[3:], [0.6, 0.5, 0.4], trial=trials[1], split_by="place")
    assert [re.split(r"\s{2,}", line) for line in table(random, place).splitlines()[4:6]] == [
        ["student_alone", "80.00 ± 10.00", "50.00 ± 10.00", "-30.00"],
        row,
    ]


def test_seeds_that_failed_are_counted_and_named(runs, tmp_path):
    said = lambda *folders: " ".join(table(*folders).split())
    assert "over seeds 0, 1, 2, on 2 and 3 test images" in said(*runs) and "(no finite" not in said(*runs)
    lost = write(tmp_path / "lost", NAMES[3:], [0.6, None, None], split_by="place")
    assert (
        f"student_alone in {lost}: seeds 1, 2 failed (no finite result) and are left out of its mean and of every "
        "comparison with it."
    ) in said(runs[0], lost)


@pytest.mark.parametrize(
    ("fields", "titles"),
    [
        (({"splits": "a"}, {"splits": "b"}), ["split of a file (one), %", "split of a file (two), %"]),
        (
            ({"split_by": "place", "fold": (0, 5)}, {"split_by": "place", "fold": (1, 5)}),
            ["by place, 1 km, fold 0 of 5, %", "by place, 1 km, fold 1 of 5, %"],
        ),
    ],
)
def test_the_columns_have_titles_of_their_own(tmp_path, fields, titles):
    folders = [
        write(tmp_path / name, test, [0.9, 0.8, 0.7], block_km=1.0, **given)
        for name, test, given in zip(("one", "two"), (NAMES[:2], NAMES[3:]), fields, strict=True)
    ]
    assert re.split(r"\s{2,}", table(*folders).splitlines()[0])[1:3] == titles


def test_runs_of_one_name_have_their_paths_as_titles(tmp_path):
    folders = []
    for part, test in (("a", NAMES[:2]), ("b", NAMES[3:])):
        (tmp_path / part).mkdir()
        folders.append(write(tmp_path / part / "run", test, [0.9, 0.8, 0.7]))
    first = table(*folders).splitlines()[0]
    assert all(f"by image ({folder})" in first for folder in folders)


def test_what_cannot_be_set_side_by_side_is_refused(runs, tmp_path):
    random, place = runs
    with pytest.raises(InputError, match="have the same split"):
        table(random, write(tmp_path / "again", NAMES[:2], [0.5, 0.5, 0.5]))
    with pytest.raises(InputError, match=r"dataset.label_fraction is 1.0 in .*random and 0.5 in .*few"):
        table(random, write(tmp_path / "few", NAMES[:1], [0.5, 0.5, 0.5], label_fraction=0.5))
    with pytest.raises(
        InputError, match=r"the arms of .*random are student_alone, those of .*more student_alone, soft"
    ):
        table(random, write(tmp_path / "more", NAMES[1:3], [0.5, 0.5, 0.5], trial="kl"))
    other = json.loads((place / "splits.json").read_text())
    (place / "splits.json").write_text(json.dumps({**other, "train": ["b/1.png"]}))
    with pytest.raises(InputError, match="have different images"):
        table(random, place)


def test_other_images_of_the_same_names_are_refused(runs):
    """Every data set has a 1.png."""
    for folder, odd in zip(runs, ("", NAMES[4]), strict=True):
        document = json.loads((folder / "splits.json").read_text())
        digests = {side: [name + "!" * (name == odd) for name in names] for side, names in document.items()}
        (folder / "splits.json").write_text(json.dumps({**document, "digests": digests}))
        if not odd:
            assert "student_alone" in table(*runs)  # the other is of an earlier version
    with pytest.raises(InputError, match="have different images of the same names: give runs of one data set"):
        table(*runs)


def test_the_dtypes_that_ran_are_compared_and_not_what_was_asked(runs):
    random, place = runs
    results = json.loads((place / "results.json").read_text())
    results["config"]["dtype"] = "float32"  # what `auto` is on a CPU
    (place / "results.json").write_text(json.dumps(results))
    assert "student_alone" in table(random, place)
    results["config"]["dtype"], results["environment"]["backend"] = "auto", "gpu"
    (place / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match=r"dtype is 'float32' in .*random and 'bfloat16' in .*place"):
        table(random, place)


def test_students_that_are_still_in_training_are_refused(runs):
    path = runs[1] / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "student": {**results["student"], "step": 10, "total_steps": 100}}))
    with pytest.raises(InputError, match=r"place/results.json is not final, its students are at step 10 of 100: run "):
        table(*runs)


def test_a_run_that_has_no_macro_recall_is_refused_beside_one_of_unequal_classes(runs):
    old, unequal = (json.loads((folder / "results.json").read_text()) for folder in runs)
    del old["arms"]["student_alone"]["macro_recall"], old["teacher"]["test"]["macro_recall"]
    (runs[0] / "results.json").write_text(json.dumps(old))
    assert table(*runs)
    unequal["dataset"]["class_counts"] = {"train": [90, 10, 10], "val": [3, 3, 3], "test": [1, 1, 1]}
    unequal["arms"]["student_alone"]["val_macro_recall"] = [0.5] * 3
    (runs[1] / "results.json").write_text(json.dumps(unequal))
    with pytest.raises(InputError, match="random/results.json has no macro recall, .* run --stages=evaluate of that"):
        table(*runs)


def test_how_a_split_was_drawn_in_words():
    section = json.loads(base().to_json())["dataset"]
    say = lambda **fields: split_description({**copy.deepcopy(section), **fields})
    assert say() == "by image" and say(splits="s.json") == "split of a file"
    assert say(split_by="place", block_km=0.5) == "by place, 0.5 km"
    assert say(split_by="place", places="flights.csv") == "by place"
    assert say(group_near_duplicates=True) == "by image, near-duplicates together"
