"""The results as people read them."""

import csv
import io

import numpy as np
import pytest
from helpers.run_results import TOP1, parts

from kdjax.results import document, tables


def test_one_seed():
    out = document.build(**parts({name: values[:1] for name, values in TOP1.items()}, seeds=(0,)))
    for arm in out["arms"].values():
        assert arm["std"] is None and arm["ci95"] is None and arm["p_vs_alone"] is None
    text = tables.table(out)
    assert "One seed proves nothing" in text and "±" not in text and "95% interval" not in text
    assert all(len(line) <= tables.TABLE_WIDTH for line in text.splitlines())


def test_table_of_several_seeds():
    text = tables.table(document.build(**parts()), closing="Trained from scratch.")
    lines = text.splitlines()
    assert all(len(line) <= tables.TABLE_WIDTH for line in lines), max(map(len, lines))
    row = next(line for line in lines if line.startswith("kl_cosine"))
    for cell in ("80.00 ± 2.65", "72.68 to 85.74", "404 k", "5.6 M", " 4 "):
        assert cell in row
    teacher = next(line for line in lines if line.startswith("teacher"))
    assert "90.00" in teacher and "3.69 M" in teacher
    flat = " ".join(text.split())
    assert "one split and one teacher" in flat and "says nothing about other splits" in flat
    assert "400 test images: one of them is 0.25 points" in flat
    assert "Holm-corrected over 3 arms" in flat and "kl_cosine -10.00" in flat
    assert "weaker" not in flat and text.endswith("Trained from scratch.")


def test_a_weaker_teacher_is_said_with_the_numbers():
    flat = " ".join(tables.table(document.build(**parts(teacher=0.71))).split())
    assert "The teacher is the weaker network here: 71.00 % against 72.00 % of student_alone" in flat
    assert "student_alone +1.00" in flat
    few = {"kl_cosine": TOP1["kl_cosine"]}
    flat = " ".join(tables.table(document.build(**parts(few, teacher=0.71))).split())
    assert "71.00 % against 80.00 % of kl_cosine" in flat and "p:" not in flat


def test_a_teacher_that_is_no_weaker_but_for_rounding_is_not_called_so():
    equal = [0.2, 0.2, 0.2]
    assert np.mean(equal) > 0.2
    for name in ("student_alone", "kl_cosine"):
        flat = " ".join(tables.table(document.build(**parts({name: equal}, teacher=0.2))).split())
        assert f"points of test top-1: {name} +0.00." in flat and "weaker" not in flat


def test_a_teacher_that_knew_hidden_labels_is_told():
    given = parts()
    given["teacher"]["hidden_labels"] = 54
    said = " ".join(tables.table(document.build(**given)).split())
    assert "The teacher was trained with 54 labels that are hidden from the students." in said
    assert "hidden" not in tables.table(document.build(**parts()))


def test_a_run_without_a_teacher_has_no_row_of_one():
    given = parts({"student_alone": TOP1["student_alone"]}) | {"teacher": None}
    text = tables.table(document.build(**given))
    lines = text.splitlines()
    assert lines[4].startswith("student_alone") and sum(line.startswith("---") for line in lines) == 1
    flat = " ".join(text.split())
    assert "eacher" not in flat and "share one split, so the interval says nothing about other splits." in flat
    one_seed = parts({"student_alone": [0.7]}, seeds=(0,)) | {"teacher": None}
    assert "they would still share one split." in " ".join(tables.table(document.build(**one_seed)).split())
    assert "eacher" not in tables.markdown(document.build(**given))
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(document.build(**given)))))
    assert [row["arm"] for row in rows] == ["student_alone"] * 3


def with_bootstrap():
    given = parts()
    for number, arm in enumerate(given["arms"].values()):
        arm["correct"] = np.arange(120).reshape(3, 40) % (number + 2) > 0
    return document.build(**given)


def test_the_bootstrap_over_images_is_told_apart_from_seeds():
    flat = " ".join(tables.table(with_bootstrap()).split())
    assert "paired bootstrap over the test images: kl +16.67 (" in flat and "not what other seeds would" in flat


def test_markdown_has_the_same_cells():
    out = with_bootstrap()
    lines = tables.markdown(out, closing="The end.").splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("|"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[header:] if line.startswith("|")]
    assert len({len(row) for row in cells}) == 1
    assert cells[0][0] == "" and cells[2][0] == "teacher vgg16_bn" and cells[6][0] == "kl_cosine"
    assert "80.00 ± 2.65" in cells[6] and lines[-1] == "- The end."


@pytest.mark.parametrize("labeled", [600, 5940, None])
def test_the_table_says_how_many_labels_there_are(labeled):
    given = parts()
    if labeled:
        given["dataset"]["labels"] = {"labeled": labeled, "total": 5940}
    for write in (tables.table, tables.markdown):
        first = write(document.build(**given)).splitlines()[0]
        few = ", 600 of 5 940 labels" if labeled == 600 else ""
        splits = "600 / 200 / 400 images for training / validation / test"
        assert first == f"demo: 3 classes, {splits}{few}. Student: mobilenet_v2."


def test_no_number_is_left_out_of_its_column():
    cells = lambda text: [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    out = document.build(**parts())
    header, _, teacher, *rows = cells(tables.markdown(out))
    assert header == [
        "ce", "kl", "cosine", "T", "test top-1 %", "95% interval", "p (Holm)", "macro-F1 %", "NLL", "ECE %",
        "params", "MACs",
    ]  # fmt: skip
    one = out["arms"]["student_alone"]["test_metrics"][0]
    figures = [f"{100 * one['macro_f1']:.2f}", f"{one['nll']:.3f}", f"{100 * one['ece']:.2f}"]
    assert teacher == ["teacher vgg16_bn", "", "", "", "", "90.00", "", "", *figures, "3.69 M", "178 M"]
    by_name = {row[0]: row[1:] for row in rows}
    assert list(by_name) == list(TOP1)
    # An arm without a teacher has no temperature.
    assert by_name["student_alone"][:5] == ["1", "0", "0", "", "72.00 ± 2.00"]
    assert by_name["cosine"][:5] == ["1", "0", "1", "4", "72.67 ± 1.53"]
    for name, arm in out["arms"].items():
        low, high = arm["ci95"]
        assert by_name[name][5] == f"{100 * low:.2f} to {100 * high:.2f}"
        assert by_name[name][6] == ("" if name == "student_alone" else f"{arm['p_vs_alone']:.3f}")
        assert by_name[name][7:] == [*figures, "404 k", "5.6 M"]


def test_a_failed_seed_is_left_out_of_every_mean():
    def row(top1):
        _, rows = tables.table_rows(document.build(**parts(top1)))
        return next(one for one in rows if one[0] == "kl")

    whole, failed = row(TOP1), row({**TOP1, "kl": [0.75, None, 0.77]})
    assert failed[-5:] == whole[-5:]  # its seeds differ in nothing but top-1
    assert failed[5] == "76.00 ± 1.41" and failed[6] == ""  # two seeds have no interval


def test_over_splits_lost_seeds_and_lost_splits_are_named():
    good = {"student_alone": [0.7, 0.7, 0.7], "kl": [0.8, 0.8, 0.81]}
    given = lambda seed, kl: document.build(**parts({**good, "kl": kl}, config={"data_seed": seed, "seeds": (0, 1, 2)}))
    said = lambda *runs: " ".join(tables.over_splits(document.combine(runs)).split())
    whole = [given(4, good["kl"]), given(5, good["kl"])]
    assert "failed" not in said(*whole)
    assert (
        "kl: seeds 1, 2 of data seed 6 failed (no finite result) and are left out of its mean and of every comparison "
        "with it."
    ) in said(*whole, given(6, [0.9, None, None]))
    found = said(given(7, [0.9, None, 0.8]), *whole, given(6, [None] * 3))
    assert "kl: seed 1 of data seed 7, all seeds of data seed 6 failed (no finite result) and are left out" in found
    assert found.endswith("That leaves 3 of 4 splits.") and "student_alone:" not in found


def test_over_splits_the_header_names_the_arm_that_gains_are_over():
    arms = {"kl": TOP1["kl"], "labeled_alone": TOP1["cosine"]}  # without a student_alone
    runs = [document.build(**parts(arms, config={"data_seed": seed, "seeds": (0, 1, 2)})) for seed in range(2)]
    text = tables.over_splits(document.combine(runs))
    assert text.splitlines()[2].split("  ")[-1].strip() == "points over labeled_alone"
    assert "Gains are over" not in text and "None" not in text
    taught = [document.build(**parts({"kl": TOP1["kl"]}, config=run["config"])) for run in runs]
    assert "points over" not in tables.over_splits(document.combine(taught))


def test_over_splits_it_is_said_whether_one_teacher_taught_all():
    runs = [document.build(**parts(config={"data_seed": seed, "seeds": (0, 1, 2)})) for seed in range(2)]
    said = lambda: " ".join(tables.over_splits(document.combine(runs)).split())
    assert "each with a teacher of its own and 3 seeds" in said()
    for run in runs:
        run["teacher"]["fingerprints"] = ["f0"]
    assert "each with the same teacher and 3 seeds" in said()


def test_over_splits_one_seed_is_written_as_one():
    top1 = {name: values[:1] for name, values in TOP1.items()}
    runs = [document.build(**parts(top1, seeds=(0,), config={"data_seed": k, "seeds": (0,)})) for k in range(2)]
    flat = " ".join(tables.over_splits(document.combine(runs)).split())
    assert "and 1 seed an arm: mean" in flat


def test_over_splits_the_trials_of_a_family_are_named():
    runs = []
    for seed, best in enumerate(("cosine", "kl", "cosine")):
        given = parts(config={"data_seed": seed, "seeds": (0, 1, 2)})
        given["arms"]["cosine"]["family"] = "kl"
        given["arms"][best]["val_top1"] = [0.9] * 3
        runs.append(document.build(**given))
    said = lambda *runs: " ".join(tables.over_splits(document.combine(runs)).split())
    top = "kl: of each split the trial with the best validation top-1,"
    assert f"- {top} cosine of data seed 0, kl of data seed 1, cosine of data seed 2." in said(*runs)
    assert f"- {top} cosine of all." in said(runs[0], runs[2])
    alike = document.build(**parts(config={"data_seed": 0, "seeds": (0, 1, 2)}))
    assert "trial" not in said(alike, alike)


def test_over_splits_students_that_are_still_in_training_are_marked():
    runs = [document.build(**parts(config={"data_seed": seed, "seeds": (0, 1, 2)})) for seed in range(3)]
    assert "NOT FINAL" not in tables.over_splits(document.combine(runs))
    runs[1]["student"] |= {"step": 10, "total_steps": 100}
    lines = tables.over_splits(document.combine(runs)).splitlines()
    assert "- NOT FINAL: the students of data seed 1 have not finished training." in lines


@pytest.mark.parametrize(
    ("split_by", "title"), [("place", "3-fold cross-validation over places"), ("image", "Over 3 ")]
)
def test_over_splits_only_folds_of_places_are_a_cross_validation(split_by, title):
    """Of folds by image each data seed deals out its own, so that their test splits overlap."""
    folds = [(number if split_by == "place" else 0, 5) for number in range(3)]
    config = {"data_seed": 0, "seeds": (0, 1, 2)}
    runs = [
        document.build(**parts(config={**config, "dataset": {"split_by": split_by, "fold": fold}})) for fold in folds
    ]
    assert f"- {title}" in tables.over_splits(document.combine(runs))
    lost = {"kl": [0.8, None, 0.81]}
    runs[1] = document.build(**parts({**TOP1, **lost}, config=runs[1]["config"]))
    where = "fold 1" if split_by == "place" else "data seed 0"
    assert f"seed 1 of {where} failed" in " ".join(tables.over_splits(document.combine(runs)).split())


def test_hostile_names_are_harmless_in_all_three():
    given = parts()
    names = {"kl": "\x1b[31m=red|<b>", "cosine": "=1+1"}
    given["arms"] = {names.get(name, name): arm for name, arm in given["arms"].items()}
    given["dataset"]["name"] = "<script>x</script>\x1b[2J"
    out = document.build(**given)
    for text in (tables.table(out), tables.markdown(out), tables.comma_separated(out)):
        assert "\x1b" not in text
    assert "<" not in tables.markdown(out).replace("<0.0", "")
    rows = tables.markdown(out).splitlines()[2:8]
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert {row["arm"] for row in csv.DictReader(io.StringIO(tables.comma_separated(out)))} >= {"'=1+1"}
    splits = [document.build(**{**given, "config": {"data_seed": k, "seeds": (0, 1, 2)}}) for k in range(3)]
    assert "\x1b" not in tables.over_splits(document.combine(splits))


def test_the_closing_words_stay_as_they_are():
    out = document.build(**parts())
    assert tables.markdown(out, closing="See [here](x).").splitlines()[-1] == "- See [here](x)."
    assert tables.table(out, closing="Two\nlines.").splitlines()[-1] == "- Two lines."


def test_csv_has_a_line_a_student():
    given = parts({**TOP1, "kl": [0.75, None, 0.77]})
    given["arms"]["cosine"]["val_top1"] = [0.5, 0.6, 0.7]
    out = document.build(**given)
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(out))))
    assert len(rows) == 1 + 4 * 3 and rows[0]["arm"] == "teacher" and float(rows[0]["test_top1"]) == 0.9
    found = {(row["arm"], row["seed"]): row["test_top1"] for row in rows[1:]}
    assert float(found["kl_cosine", "2"]) == 0.83 and found["kl", "1"] == ""
    assert [float(row["val_top1"]) for row in rows if row["arm"] == "cosine"] == [0.5, 0.6, 0.7]
    one = out["arms"]["cosine"]["test_metrics"][0]
    weights = {row["arm"]: [float(row[term]) for term in ("ce", "kl", "cosine")] for row in rows[1:]}
    assert weights == {"student_alone": [1, 0, 0], "kl": [1, 1, 0], "cosine": [1, 0, 1], "kl_cosine": [1, 1, 1]}
    row = next(row for row in rows if row["arm"] == "cosine")
    assert {name: float(row[f"test_{name}"]) for name in tables.MEASURES} == {
        name: one[name] for name in ("top1", "macro_recall", "macro_f1", "nll", "ece", "agreement", "kl")
    }
    assert [float(row[name]) for name in ("ce", "kl", "cosine", "temperature", "val_top1")] == [1, 0, 1, 4, 0.5]


def test_csv_tells_trials_of_other_rates_apart():
    given = parts(config={"student": {"learning_rate": 1e-3, "weight_decay": 0.01}})
    given["arms"]["kl"] |= {"learning_rate": 3e-3, "weight_decay": 0.0}
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(document.build(**given)))))
    rates = {row["arm"]: (row["learning_rate"], row["weight_decay"]) for row in rows}
    assert rates["teacher"] == ("", "") and rates["kl"] == ("0.003", "0.0")
    assert rates["student_alone"] == ("0.001", "0.01")  # as the configuration has them


def test_the_table_of_a_sweep_shows_the_selected_trials():
    given = parts()
    for name, arm in given["arms"].items():
        arm["family"] = "student_alone" if name == "student_alone" else "soft"
    given["arms"]["cosine"]["val_top1"] = [0.9] * 3
    text = tables.table(document.build(**given))
    rows = [line.split()[0] for line in text.splitlines() if line and line[0] != "-"]
    assert "cosine" in rows and "kl" not in rows
    assert "student_alone of 1, soft of 3" in " ".join(text.split())
