"""Every stage with a teacher from elsewhere; `test_finished_run_commands` has trained, borrowed and online ones."""

import json
import re

import numpy as np
import pytest
from helpers.finished_run import SEEDS, SMALL, kdjax, stored
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow


def options(kind, finished):
    if kind == "teacher.onnx":  # a student of the run: bytes at the size that images are kept at
        path = finished.workdir / "export" / "student.onnx"
        return f"--config.teacher.onnx={path}", "--config.teacher.onnx_input=uint8", "--config.teacher.image_size=48"
    if kind == "teacher.students":
        return f"--config.teacher.students={finished.workdir}:kl", "--config.teacher.image_size=32"
    if kind == "teacher.fit":  # a student of the run, as if it had been trained elsewhere
        return (
            "--config.teacher.model=mobilenet_v2", "--config.teacher.width=0.1", "--config.teacher.fit=nothing",
            f"--config.teacher.weights={finished.workdir / 'export' / 'student.safetensors'}",
            "--config.teacher.image_size=32",
        )  # fmt: skip
    (folder,) = finished.json("teacher_logits.json")["views"]["folders"]
    return (f"--config.teacher.ensemble=('logits={folder}','students={finished.workdir}:dist')",)


@pytest.mark.parametrize("kind", ["teacher.onnx", "teacher.ensemble", "teacher.students", "teacher.fit"])
def test_a_teacher_from_elsewhere_goes_through_every_stage(finished, tmp_path, kind):
    workdir = tmp_path / "run"
    given = (
        *finished.flags, *SMALL, *options(kind, finished), "--config.distill.arms=('kl',)", "--config.seeds=(3,)",
        "--config.student.epochs=1", "--config.student.warmup_epochs=0.0", "--config.distill.views=1",
    )  # fmt: skip
    done = kdjax(f"--workdir={workdir}", *given, "--stages=describe,teacher,distill,evaluate,report")
    if kind == "teacher.fit":
        assert "as it was trained elsewhere" in done.stdout and "teacher mobilenet_v2" in done.stdout
    else:
        assert f"none to train, it comes from {kind}" in done.stdout
        assert ("The size of the teacher is not known" in done.stdout) == (kind != "teacher.students")
    results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    with np.load(workdir / "evaluation" / "logits.npz") as file:
        teacher = file["teacher_test"]
    if kind == "teacher.ensemble":  # of which one is stored
        assert results["teacher"]["forward_images"] == results["dataset"]["splits"]["train"]
        both = finished.logits["student_test"][:, list(finished.results["arms"]).index("dist")].mean(0)
        np.testing.assert_allclose(teacher, (finished.logits["teacher_test"] + both) / 2, atol=1e-3)
    elif kind == "teacher.students":
        both = finished.logits["student_test"][:, list(finished.results["arms"]).index("kl")]
        np.testing.assert_allclose(teacher, both.mean(0), atol=1e-3)
        assert results["teacher"]["params"] == len(SEEDS) * finished.results["student"]["params"]
        assert results["teacher"]["macs"] == len(SEEDS) * finished.results["student"]["macs"]
    else:
        parity = finished.json("export/parity.json")
        row = SEEDS.index(parity["student"]["seed"])
        column = list(finished.results["arms"]).index(parity["student"]["arm"])
        np.testing.assert_allclose(teacher, finished.logits["student_test"][row, column], atol=1e-3)
    assert (workdir / "report.html").is_file()
    # Another teacher under a run that has begun is refused by every stage that needs it.
    record = workdir / "teacher_logits.json"
    document = json.loads(record.read_text(encoding="utf-8"))
    assert len(set(document["fingerprints"])) == (2 if kind == "teacher.ensemble" else 1)
    other = {"fingerprints": ["0123456789abcdef"], "teachers": ["0123456789abcdef"]}
    record.write_text(json.dumps({**document, **other}), encoding="utf-8")
    for stage in ("evaluate", "report") if kind == "teacher.onnx" else ():  # three seconds of Python each
        done = kdjax(f"--workdir={workdir}", *given, f"--stages={stage}", check=False)
        assert done.returncode == 2 and "0123456789abcdef" in done.stderr and done.stderr.count("\n") == 1


def test_an_encoder_goes_through_every_stage(finished, tmp_path):
    """The logits of a student are embeddings as good as any."""
    workdir = tmp_path / "run"
    given = (
        *finished.flags, *SMALL, *options("teacher.onnx", finished), "--config.teacher.onnx_gives=embeddings",
        "--config.distill.arms=('kl_features',)", "--config.seeds=(3,)", "--config.student.epochs=1",
        "--config.student.warmup_epochs=0.0", "--config.distill.views=1",
    )  # fmt: skip
    for flags, said in (
        (("--stages=distill",), "run --stages=teacher first"),
        (("--stages=teacher", "--config.teacher.onnx_output=none"), "has no output 'none'; it has logits"),
    ):
        done = kdjax(f"--workdir={workdir}", *given, *flags, check=False)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    done = kdjax(f"--workdir={workdir}", *given, "--stages=describe,teacher,distill,evaluate,report")
    linear = float(re.search(r"on validation a linear head is right on ([\d.]+) %", done.stdout)[1])
    results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert linear > 70 and 100 * results["teacher"]["val_top1"] == pytest.approx(linear, abs=0.01)
    neighbors = float(re.search(r"the 10 nearest neighbors on ([\d.]+) %", done.stdout)[1])
    (fitted,) = results["teacher"]["fitted_heads"]
    assert fitted.keys() == {"strength", "linear_top1", "neighbors_top1"}
    assert [100 * fitted[name] for name in ("linear_top1", "neighbors_top1")] == pytest.approx(
        [linear, neighbors], abs=0.01
    )
    line = json.loads((workdir / "distill" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["students"]["kl_features/3"]["features_cosine"] > 0
    assert "a linear head" not in kdjax(f"--workdir={workdir}", *given, "--stages=teacher").stdout


def test_a_frozen_teacher_is_its_weights_with_a_fitted_head(finished, tmp_path):
    """Features of random weights tell the colors of the tiles apart; the students learn from them."""
    workdir = tmp_path / "run"
    given = (
        *finished.flags, *SMALL, "--config.teacher.model=mobilenet_v2", "--config.teacher.width=0.1",
        f"--config.teacher.weights={finished.weights}", "--config.teacher.fit=head",
        "--config.teacher.image_size=32",
        "--config.distill.arms=('kl_features',)", "--config.seeds=(3,)", "--config.student.epochs=1",
        "--config.student.warmup_epochs=0.0", "--config.distill.views=1",
    )  # fmt: skip
    done = kdjax(f"--workdir={workdir}", *given, "--stages=teacher,distill")
    linear = float(re.search(r"frozen; on validation a linear head is right on ([\d.]+) %", done.stdout)[1])
    (line,) = (workdir / "teacher" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    measured = json.loads(line)["students"]["teacher/0"]
    assert linear > 70 and 100 * measured["top1"] == pytest.approx(linear, abs=0.01)
    line = json.loads((workdir / "distill" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["students"]["kl_features/3"]["features_cosine"] > 0
    kernel = stored(workdir / "teacher" / "checkpoints" / "1" / "best")["params"]["stem"]["kernel"][0, 0]
    np.testing.assert_array_equal(kernel, load_file(finished.weights)["features.0.0.weight"].transpose(2, 3, 1, 0))
    again = kdjax(f"--workdir={workdir}", *given, "--stages=teacher")
    assert "teacher: done already" in again.stdout
