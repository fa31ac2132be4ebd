"""What further commands do with a finished run: the same again, other stages, other runs that take its teacher."""

import hashlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from helpers.finished_run import ARMS, CLASSES, SEEDS, SMALL, kdjax, stored
from huggingface_hub import ModelCard
from safetensors import safe_open

from kdjax.deploy import catalog, trust
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.export.__main__ import main as export_command
from kdjax.errors import InputError
from kdjax.inputs import augment
from kdjax.inputs.plan import Plan
from kdjax.networks import create
from kdjax.run.run import open_run
from kdjax.training import initial_weights

pytestmark = pytest.mark.slow

OWN_RATE = ("--config.student.learning_rate=1e-3",)
"""The default, because `student_alone` has a rate of its own: another for all arms would do nothing."""


@pytest.fixture
def copied(finished, tmp_path):
    """The run's directory, to be written to."""
    return shutil.copytree(finished.workdir, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_evaluation_and_report_again_give_the_same_bytes(finished, copied):
    """In a fresh process, from the checkpoints alone."""
    results, page = (copied / "results.json").read_bytes(), (copied / "report.html").read_bytes()
    logits = dict(np.load(copied / "evaluation" / "logits.npz"))
    for name in ("results.json", "results.md", "results.csv", "report.html"):
        (copied / name).unlink()
    shutil.rmtree(copied / "evaluation")
    kdjax(f"--workdir={copied}", *finished.flags, "--stages=evaluate,report")
    assert (copied / "results.json").read_bytes() == results
    for name, again in np.load(copied / "evaluation" / "logits.npz").items():
        np.testing.assert_array_equal(again, logits[name])
    assert (copied / "report.html").read_bytes() == page
    for name in ("results.md", "results.csv"):
        assert (copied / name).read_bytes() == (finished.workdir / name).read_bytes()


def test_a_checkpoint_that_goes_while_it_is_followed_is_passed_over(finished, copied):
    """Orbax deletes item by item; the training may even have died within that."""
    checkpoints = copied / "distill" / "checkpoints"
    first, last = sorted(int(folder.name) for folder in checkpoints.iterdir() if folder.is_dir())
    shutil.copytree(checkpoints / str(first), checkpoints / str(first - 1))
    shutil.rmtree(checkpoints / str(first - 1) / "model")
    follow = (f"--workdir={copied}", *finished.flags, "--stages=evaluate", "--follow")
    done = kdjax(*follow)
    assert f"evaluate: checkpoint {first - 1} was deleted before it was read" in done.stdout
    assert f"step {last}/{last}  validation top-1" in done.stdout
    # The last one is not being deleted: without a part it is damaged.
    shutil.rmtree(checkpoints / str(last) / "model")
    done = kdjax(*follow, check=False)
    assert done.returncode == 2 and f"checkpoints/{last} cannot be read" in done.stderr


def test_a_finished_run_trains_no_more(finished, copied):
    done = kdjax(f"--workdir={copied}", *finished.flags, "--stages=teacher,distill")
    assert "teacher: done already" in done.stdout and "distill: done already" in done.stdout


def test_the_directory_belongs_to_its_configuration(finished, copied):
    done = kdjax(f"--workdir={copied}", *finished.flags, "--config.distill.temperature=3.0", check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "distill.temperature is 3.0, was 4.0" in done.stderr


def test_another_objective_takes_every_logit_from_disk(finished, tmp_path):
    """Of the same teacher, trained once more to the same bits; each arm with its own weights."""
    options = ("--config.arms.kl.kl=0.5", "--config.arms.kl_cosine.cosine=2.0", "--config.distill.target=view")
    kdjax(f"--workdir={tmp_path / 'run'}", *finished.flags, *options, "--stages=teacher,distill,evaluate")
    results = read(tmp_path / "run" / "results.json")
    assert results["teacher"]["forward_images"] == 0 == results["teacher"]["clean_images"]
    for field in ("test", "sha256", "val_top1"):
        assert results["teacher"][field] == finished.results["teacher"][field]
    lines = (tmp_path / "run" / "distill" / "metrics.jsonl").read_text().splitlines()
    trained = [one["students"] for one in map(json.loads, lines) if one["kind"] == "train"]
    assert len(trained) == 10
    for students, before in zip(trained, finished.records("distill", "train"), strict=True):
        for name, terms in students.items():
            weights = {"kl": {"kl": 0.5}, "kl_cosine": {"kl": 1, "cosine": 2}, "student_alone": {}}
            weights["dist"] = {"dist_inter": 1, "dist_intra_batch": 1}
            soft = sum(weight * terms[term] for term, weight in weights[name.split("/")[0]].items())
            assert terms["loss"] == pytest.approx(terms["ce"] + soft, rel=1e-4)
            # Students that learn from labels alone are those of the first run, measured against other targets.
            same = before["students"][name]
            if name.startswith("student_alone"):
                assert terms["ce"] == pytest.approx(same["ce"], rel=1e-3) and terms["kl"] != same["kl"]


def test_the_teacher_of_another_run_is_taken(finished, tmp_path):
    """Students that learn from labels alone need none of its logits of views."""
    options = (*SMALL, f"--config.teacher.workdir={finished.workdir}", "--config.distill.arms=('student_alone',)")
    options = (*options, *OWN_RATE, "--config.student.epochs=2", "--config.student.warmup_epochs=0.5")
    done = kdjax(
        f"--workdir={tmp_path / 'run'}", *finished.flags, *options, "--config.run.test_symmetries=True"
    )  # fmt: skip
    alone = read(tmp_path / "run" / "results.json")
    assert len(alone["arms"]["student_alone"]["symmetries_top1"]) == 2 and "eight symmetries" in done.stdout
    assert alone["teacher"]["forward_images"] is None and not (tmp_path / "run" / "teacher").exists()
    for field in ("test", "sha256", "val_top1"):
        assert alone["teacher"][field] == finished.results["teacher"][field]
    done = kdjax(f"--workdir={tmp_path / 'other'}", *finished.flags, *options, "--config.data_seed=1", check=False)
    assert done.returncode == 2 and "splits.json" in done.stderr and done.stderr.count("\n") == 1


def test_students_alone_need_no_teacher_at_all(finished, tmp_path):
    options = (*SMALL, "--config.distill.arms=('student_alone',)", "--config.distill.target=view")
    options = (*options, *OWN_RATE, "--config.student.epochs=2", "--config.student.warmup_epochs=0.5")
    run = (f"--workdir={tmp_path / 'run'}", *finished.flags, *options)
    done = kdjax(*run, "--stages=distill,evaluate,report")
    assert read(tmp_path / "run" / "results.json")["teacher"] is None and "\nteacher" not in done.stdout
    with np.load(tmp_path / "run" / "evaluation" / "logits.npz") as file:
        assert not any(name.startswith("teacher") for name in file.files)
    said = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "without a teacher" in said and "The teacher" not in said
    options = (*run[1:], "--config.distill.arms=('kl',)", "--stages=distill")
    taught = kdjax(f"--workdir={tmp_path / 'taught'}", *options, check=False)
    assert taught.returncode == 2 and "run --stages=teacher first" in taught.stderr


def test_an_online_teacher_sees_the_views_of_the_students(finished, tmp_path):
    """One step on all images, recomputed: views by their keys, the teacher at its size, the student as it starts."""
    config = finished.config.copy_and_resolve_references()
    config.teacher.workdir, config.distill.views, config.distill.arms = str(finished.workdir), 0, ("kl",)
    config.seeds, config.distill.target = (3,), "view"
    config.student.update(
        {"model": "vgg16", "width": 0.05, "weights": None, "dropout": 0.0, "ema": 0.0, "epochs": 1, "batch_size": 96}
    )
    config.student.warmup_epochs = 0.0
    flags = (
        *finished.flags, *SMALL, f"--config.teacher.workdir={finished.workdir}", "--config.distill.views=0",
        "--config.distill.arms=('kl',)", "--config.seeds=(3,)", "--config.student.epochs=1",
        "--config.student.batch_size=96", "--config.student.warmup_epochs=0.0",
    )  # fmt: skip
    kdjax(f"--workdir={tmp_path / 'run'}", *flags, "--stages=distill,evaluate,report")
    results = read(tmp_path / "run" / "results.json")
    assert results["teacher"]["forward_images"] is None  # none was stored
    assert results["arms"]["kl"]["ci95"] is None and results["arms"]["kl"]["p_vs_alone"] is None
    assert "No latency: it is" in (tmp_path / "run" / "report.html").read_text()
    told = json.loads((tmp_path / "run" / "distill" / "metrics.jsonl").read_text().splitlines()[0])
    terms = told["students"]["kl/3"]

    examples, views, _ = (one[0] for one in Plan((3,), 96, 96, views=0)(0))
    assert sorted(examples) == list(range(96))
    root = jax.random.key(5)

    def pixels(image, example, view, size):
        key = jax.random.fold_in(jax.random.fold_in(root, example), view)
        return augment.render(image, augment.draw(key), size)

    shown = {
        size: jax.jit(jax.vmap(lambda *one, size=size: pixels(*one, size)))(
            finished.data.train.images[examples], jnp.asarray(examples), jnp.asarray(views)
        )
        for size in (32, 40)
    }
    teacher = finished.classify("teacher", finished.best("teacher"), shown[40])
    student = open_run(config, tmp_path / "again", finished.folder / "cache", lambda line: None).student
    start = jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], initial_weights.initial(student).params)
    network = create("vgg16", len(CLASSES), width=0.05, form="examples_first")
    said = np.asarray(jax.jit(lambda x: network.apply({"params": start}, x).logits)(shown[32]), np.float64)
    log_softmax = lambda x: (
        x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
    )
    p, q = log_softmax(teacher / 2), log_softmax(said / 2)
    assert terms["kl"] == pytest.approx(4 * (np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-3)
    labels = finished.data.train.labels[examples]
    assert terms["ce"] == pytest.approx(-log_softmax(said)[np.arange(96), labels].mean(), rel=1e-3)
    moved = stored(tmp_path / "run" / "distill" / "checkpoints" / "1" / "model")["params"]
    assert np.abs(moved["head"]["kernel"][0, 0] - start["head"]["kernel"]).max() > 1e-4


def test_one_student_is_exported_by_name(finished, copied):
    export_command([f"--workdir={copied}", "--arm=kl_cosine", "--seed=8"])
    chosen = read(copied / "export" / "parity.json")["student"]
    assert (chosen["arm"], chosen["seed"]) == ("kl_cosine", 8)
    assert chosen["test"]["top1"] == finished.results["arms"]["kl_cosine"]["test_top1"][1]
    card = (copied / "export" / "README.md").read_text(encoding="utf-8")
    assert "fitted on validation images, which also chose the step, so no share" in card
    assert "Chosen on validation images: the step, the settings of the 8-bit files." in card


def test_litert_files_are_written_where_they_are_asked_for(finished, copied):
    pytest.importorskip("ai_edge_quantizer")
    export_command([f"--workdir={copied}", "--litert"])
    folder, parity = copied / "export", read(copied / "export" / "parity.json")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert parity["student"]["arm"] == finished.json("export/parity.json")["student"]["arm"]
    images, labels = finished.data.test.images, finished.data.test.labels
    onnx_logits = Classifier(folder / "student.onnx").logits(images)
    for name in ("student.tflite", "student_int8.tflite"):
        one, classifier = parity["artifacts"][name], Classifier(folder / name)
        logits = classifier.logits(images)
        assert one["bytes"] == (folder / name).stat().st_size and one["latency_ms"].keys() == {"1", "32"}
        assert one["top1"] == np.mean(logits.argmax(1) == labels)
        assert one["agreement"] == np.mean(logits.argmax(1) == onnx_logits.argmax(1)) > 0.9
        assert classifier.trust.temperature == parity["trust"][name]["temperature"]
        assert f"| `{name}` | LiteRT" in card and f"| `{name}` | {classifier.trust.temperature:.3f} |" in card
    assert parity["artifacts"]["student.tflite"]["largest_logit_difference"] < 1e-3
    assert [one["chosen"] for one in parity["litert_int8_candidates"]].count(True) == 1
    assert "uint8 images, int8 logits" in card and parity["machine"]["ai_edge_litert"]


def test_a_student_that_is_not_there_leaves_the_export_as_it_is(finished, copied):
    with pytest.raises(InputError, match="no arm 'nobody'; it has .*kl_cosine"):
        export_command([f"--workdir={copied}", "--arm=nobody"])
    assert read(copied / "export" / "parity.json") == finished.json("export/parity.json")


def test_the_exported_folder(finished):
    """The student is the one with the best mean on validation; files decoded again are what was trained on."""
    folder, arms, parity = finished.workdir / "export", finished.results["arms"], finished.json("export/parity.json")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "labels.json", "parity.json", "student.int8.onnx", "student.onnx", "student.safetensors",
        "student.stablehlo", "timm_names.json", "try.html",
    ]  # fmt: skip
    chosen = parity["student"]
    mean = {name: np.mean(arm["val_top1"]) for name, arm in arms.items()}
    assert mean[chosen["arm"]] == max(mean.values())
    seed = SEEDS.index(chosen["seed"])
    assert arms[chosen["arm"]]["val_top1"][seed] == max(arms[chosen["arm"]]["val_top1"])
    assert chosen["validation"]["top1"] == arms[chosen["arm"]]["val_top1"][seed]
    assert chosen["test"]["top1"] == arms[chosen["arm"]]["test_top1"][seed]
    tested = finished.results["dataset"]["splits"]["test"]
    assert parity["test_images"] == {"count": tested, "read_from": "files", "equal_to_the_stored_ones": tested}
    for name, one in parity["artifacts"].items():
        content = (folder / name).read_bytes()
        assert one["bytes"] == len(content) and one["sha256"] == hashlib.sha256(content).hexdigest()
        if name != "student.int8.onnx":
            assert one["agreement"] == 1 and one["largest_logit_difference"] < 1e-3
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| test | {tested} | {100 * chosen['test']['top1']:.2f} |" in card
    assert "License of the data: not known" in card
    assert "fitted on validation images, which also chose the step and the student, so no share" in card
    assert "Chosen on validation images: the step, the student, the settings of the 8-bit files." in card
    assert [one["chosen"] for one in parity["int8_candidates"]].count(True) == 1
    # What is told of trust was fitted on validation and measured on test, each file's with its own logits.
    row, column = seed, ARMS.index(chosen["arm"])
    labels = {side: getattr(finished.data, side).labels for side in ("validation", "test")}
    logits = {side: finished.logits[f"student_{side}"][row, column] for side in labels}
    expected = trust.measure(trust.fit(logits["validation"], labels["validation"]), logits["test"], labels["test"])
    found = parity["trust"]
    assert found["student.onnx"]["temperature"] == pytest.approx(expected["temperature"], rel=1e-2)
    assert found["student.onnx"]["sets"] == expected["sets"] and found["student.onnx"]["unknown"] == expected["unknown"]
    assert found["student.int8.onnx"]["temperature"] != found["student.onnx"]["temperature"]
    for name, one in found.items():
        if name == "student.safetensors":
            with safe_open(folder / name, "np") as file:
                metadata = file.metadata()
        else:
            metadata = {entry.key: entry.value for entry in onnx.load(folder / name).metadata_props}
        assert json.loads(metadata["trust"])["temperature"] == one["temperature"]
        assert f"| `{name}` | {one['temperature']:.3f} |" in card
    assert read(folder / "labels.json") == list(CLASSES)


def test_the_export_is_described(finished, copied):
    """The head of its card, and the item of a catalog, say what the run says."""
    data = ModelCard((copied / "export" / "README.md").read_text(encoding="utf-8")).data
    chosen = finished.json("export/parity.json")["student"]
    figures = {one.metric_name: one.metric_value for one in data.eval_results}
    assert data.model_name == "learned" and data.eval_results[0].dataset_name == "tiles"
    assert (figures["top-1"], figures["macro-F1"]) == (chosen["test"]["top1"], chosen["test"]["macro_f1"])
    assert ("knowledge-distillation" in data.tags) == (chosen["arm"] != "student_alone")
    catalog.main([str(copied / "export")])
    facts = read(copied / "export" / "stac_item.json")["properties"]
    assert facts["mlm:total_parameters"] == finished.results["student"]["params"]
    assert facts["mlm:pretrained_source"] == finished.weights.name  # a file of this machine
    (given,), (logits, _) = facts["mlm:input"], facts["mlm:output"]
    assert given["input"]["shape"] == [-1, 48, 48, 3] and "32 px and normalization are inside" in given["description"]
    assert [one["name"] for one in logits["classification:classes"]] == list(CLASSES)


def test_predict_says_of_the_files_what_the_run_says(finished):
    """From the command line, over all tiles: the deep images among them take the range of training."""
    export = finished.workdir / "export"
    done = kdjax(export / "student.onnx", finished.tiles, "--format=json", module="kdjax.deploy.predict")
    said = {
        Path(one["image"]).relative_to(finished.tiles).as_posix(): one["classes"][0] for one in json.loads(done.stdout)
    }
    assert len(said) == sum(CLASSES.values())
    chosen, splits = finished.json("export/parity.json")["student"], finished.json("splits.json")
    row, column = SEEDS.index(chosen["seed"]), ARMS.index(chosen["arm"])
    temperature = finished.json("export/parity.json")["trust"]["student.onnx"]["temperature"]
    for side in ("validation", "test"):
        logits = finished.logits[f"student_{side}"][row, column].astype(np.float64)
        for name, one in zip(splits[side], logits / temperature, strict=True):
            odds = np.exp(one - one.max())
            assert said[name]["class"] == tuple(CLASSES)[one.argmax()]
            assert said[name]["probability"] == pytest.approx(odds.max() / odds.sum(), abs=1e-4)
