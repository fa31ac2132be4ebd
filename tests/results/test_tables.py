"""The results as people read them."""

import csv
import io

import numpy as np
from test_results import TOP1, parts

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
    for cell in ("80.00 ± 2.65", "73.43 to 86.57", "404 k", "5.6 M", " 4 "):
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


def test_csv_has_a_line_a_student():
    out = document.build(**parts({**TOP1, "kl": [0.75, None, 0.77]}))
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(out))))
    assert len(rows) == 1 + 4 * 3 and rows[0]["arm"] == "teacher" and float(rows[0]["test_top1"]) == 0.9
    found = {(row["arm"], row["seed"]): row["test_top1"] for row in rows[1:]}
    assert float(found["kl_cosine", "2"]) == 0.83 and found["kl", "1"] == ""


def test_the_table_of_a_sweep_shows_the_selected_trials():
    given = parts()
    for name, arm in given["arms"].items():
        arm["family"] = "student_alone" if name == "student_alone" else "soft"
    given["arms"]["cosine"]["val_top1"] = [0.9] * 3
    text = tables.table(document.build(**given))
    rows = [line.split()[0] for line in text.splitlines() if line and line[0] != "-"]
    assert "cosine" in rows and "kl" not in rows
    assert "student_alone of 1, soft of 3" in " ".join(text.split())


def test_figures_of_unfinished_students_are_marked():
    given = parts()
    given["student"] |= {"step": 8, "total_steps": 8}
    assert "NOT FINAL" not in " ".join(tables.table_notes(document.build(**given)))
    given["student"] |= {"step": 6}
    assert tables.table_notes(document.build(**given))[0] == "NOT FINAL: the students are at step 6 of 8."


def test_compression_is_said_with_and_without_the_hidden_layers():
    student = {"params": 2_000_000, "macs": 10_000_000, "activation_bytes": 500_000}
    teacher = {"params": 14_000_000, "macs": 1_000_000_000, "activation_bytes": 2_000_000, "head": "average"}
    heads = {"average": {"params": 14_000_000}, "fc": {"params": 134_000_000}}
    text = tables.compression({**teacher, "heads": heads}, student)
    assert "7 times the parameters" in text and "100 times the multiply-adds" in text and "4 times the bytes" in text
    assert "With VGG16's fully connected head" in text and "134 M" in text and "67 times the student's" in text
    text = tables.compression({**teacher, "params": 134_000_000, "head": "fc", "heads": heads}, student)
    assert "67 times the parameters" in text and "Without" in text and "7 times the student's" in text
    assert " ".join(tables.compression(**{k: parts()[k] for k in ("teacher", "student")}).split()) in " ".join(
        tables.table(document.build(**parts())).split()
    )
