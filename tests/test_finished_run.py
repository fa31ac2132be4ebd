"""What the files of a run say, recomputed from its checkpoints and images. The run has learned: a third is chance."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from helpers.finished_run import ARMS, CLASSES, SEEDS, VIEWS
from safetensors.numpy import load_file

from kdjax.deploy.export import quantize
from kdjax.deploy.export.fold import fold
from kdjax.inputs import augment
from kdjax.networks import pretrained
from kdjax.run.run import open_run
from kdjax.teacher.store import tree_digest
from kdjax.training import initial_weights

pytestmark = pytest.mark.slow
STUDENTS = [(row, column, f"{arm}/{seed}") for row, seed in enumerate(SEEDS) for column, arm in enumerate(ARMS)]


def plain(images, size):
    """Images as networks are shown them in evaluation."""
    return np.asarray(jax.jit(jax.vmap(lambda image: augment.eval_view(image, size)))(images))


def log_softmax(logits):
    odds = np.asarray(logits, np.float64) - logits.max(-1, keepdims=True)
    return odds - np.log(np.exp(odds).sum(-1, keepdims=True))


def scores(logits, labels):
    """Accuracy and negative log-likelihood."""
    log_p = log_softmax(logits)
    return (logits.argmax(-1) == labels).mean(), -log_p[np.arange(len(labels)), labels].mean()


def test_the_teacher_has_learned(finished):
    top1 = max(one["students"]["teacher/0"]["top1"] for one in finished.records("teacher", "validation"))
    assert top1 > 0.9, f"the teacher's best validation accuracy is {top1}: the tests here would see nothing"
    assert finished.results["teacher"]["test"]["top1"] > 0.9
    assert min(finished.results["arms"][arm]["mean"] for arm in ARMS[1:]) > 0.8
    labels = finished.data.train.labels
    assert len(set(np.bincount(labels))) == 3 and labels.min() == 0


def test_the_loss_of_each_arm_is_the_sum_of_its_own_terms(finished):
    arms = {"student_alone": {}, "kl": {"kl": 1}, "kl_cosine": {"kl": 1, "cosine": 1}}
    arms["dist"] = {"dist_inter": 1, "dist_intra_batch": 1}
    records = finished.records("distill", "train")
    assert len(records) == finished.config.student.epochs
    for record in records:
        assert set(record["students"]) == {name for _, _, name in STUDENTS}
        for name, terms in record["students"].items():
            weights = {"ce": 1, **arms[name.split("/")[0]]}
            expected = sum(weight * terms[term] for term, weight in weights.items())
            assert terms["loss"] == pytest.approx(expected, rel=1e-4), (name, record["step"])
            assert terms["kl"] > 0 and terms["cosine"] > 0 and terms["ce"] > 0
    # The terms are of the teacher: those who ask for it come nearer to it than they were.
    first, last = records[0]["students"], records[-1]["students"]
    for term, arm in (("kl", "kl"), ("cosine", "kl_cosine"), ("dist_inter", "dist")):
        for seed in SEEDS:
            assert last[f"{arm}/{seed}"][term] < first[f"{arm}/{seed}"][term] / 2


@pytest.mark.parametrize("view", range(VIEWS))
def test_stored_logits_are_the_teachers_of_the_views(finished, view):
    """Of the best step's teacher, at its own size, of views whose keys are those of data seed, example and view."""
    best, last = finished.checkpoint("teacher", "best"), finished.checkpoint("teacher", "model")
    assert best["step"][0, 0] != last["step"], "the best step is the last: the test would see nothing"
    record = finished.json("teacher_logits.json")["views"]
    (folder,) = record["folders"]
    found = np.load(f"{folder}/view-{view:04d}-0000000.npy")
    root = jax.random.key(5)

    def pixels(image, example):
        key = jax.random.fold_in(jax.random.fold_in(root, example), view)
        return augment.render(image, augment.draw(key, augment.DEFAULT), 40)

    images = finished.data.train.images
    shown = jax.jit(jax.vmap(pixels))(images, jnp.arange(len(images)))
    np.testing.assert_allclose(found, finished.classify("teacher", finished.best("teacher"), shown), atol=2e-3)
    others = jax.tree.map(lambda leaf: leaf[0, 0], {name: last[name] for name in ("params", "batch_stats")})
    assert np.abs(found - finished.classify("teacher", others, shown)).max() > 0.05


def test_the_teacher_of_the_results_is_the_best_steps(finished):
    facts, best = finished.results["teacher"], finished.best("teacher")
    assert facts["sha256"] == tree_digest(best)
    for side in ("validation", "test"):
        images = getattr(finished.data, side).images
        expected = finished.classify("teacher", best, plain(images, 40))
        np.testing.assert_allclose(finished.logits[f"teacher_{side}"], expected, atol=2e-3)
    test = finished.data.test
    assert facts["test"]["top1"] == scores(finished.logits["teacher_test"], test.labels)[0]


@pytest.mark.parametrize(("stage", "size"), [("teacher", 40), ("distill", 32)])
def test_the_best_step_is_the_best_on_validation(finished, stage, size):
    """By the records, and again by the checkpoint on the validation images; on the test images it would be another."""
    students = [(0, 0, "teacher/0")] if stage == "teacher" else STUDENTS
    section = "teacher" if stage == "teacher" else "student"
    validation, best = finished.data.validation, finished.checkpoint(stage, "best")
    pixels = plain(validation.images, size)
    for row, column, name in students:
        told = {one["step"]: one["students"][name] for one in finished.records(stage, "validation")}
        step = max(told, key=lambda step: (told[step]["top1"], -told[step]["nll"], -step))  # noqa: B023
        assert best["step"][row, column] == step
        top1, nll = scores(finished.classify(section, finished.best(stage, row, column), pixels), validation.labels)
        assert best["score"][row, column] == pytest.approx(top1) == pytest.approx(told[step]["top1"])
        assert best["nll"][row, column] == pytest.approx(nll, abs=2e-3)
        assert told[step]["nll"] == pytest.approx(nll, abs=2e-3)
    steps = {int(step) for step in np.asarray(best["step"]).ravel()}
    assert steps != {max(told)}, "all best steps are the last: the test would see nothing"


def test_evaluation_is_of_the_selected_students(finished):
    for row, column, name in STUDENTS:
        arm = finished.results["arms"][name.split("/")[0]]
        variables = finished.best("distill", row, column)
        for side in ("validation", "test"):
            split = getattr(finished.data, side)
            expected = finished.classify("student", variables, plain(split.images, 32))
            np.testing.assert_allclose(finished.logits[f"student_{side}"][row, column], expected, atol=2e-3)
        top1, nll = scores(finished.logits["student_test"][row, column], finished.data.test.labels)
        assert arm["test_top1"][row] == top1 and arm["test_metrics"][row]["nll"] == pytest.approx(nll, rel=1e-4)
        best = finished.checkpoint("distill", "best")
        assert arm["val_top1"][row] == best["score"][row, column]
        assert arm["val_nll"][row] == pytest.approx(best["nll"][row, column], rel=1e-4)
        assert arm["selected_step"][row] == best["step"][row, column]
        last = finished.checkpoint("distill", "model")
        row_of = lambda leaf: leaf[row, column]  # noqa: B023
        trained = jax.tree.map(row_of, {name: last[name] for name in ("params", "batch_stats")})
        assert arm["final_sha256"][row] == tree_digest(trained)


def test_agreement_belongs_to_its_arm_and_seed(finished):
    """The share of equal answers is a coarse figure, so the divergence is compared too: no two students share one."""
    teacher, seen = log_softmax(finished.logits["teacher_test"]), set()
    for row, column, name in STUDENTS:
        said = log_softmax(finished.logits["student_test"][row, column])
        told = finished.results["arms"][name.split("/")[0]]["test_metrics"][row]
        assert told["agreement"] == (said.argmax(-1) == teacher.argmax(-1)).mean()
        assert told["kl"] == pytest.approx((np.exp(teacher) * (teacher - said)).sum(-1).mean(), rel=1e-4)
        seen.add(round(told["kl"], 6))
    assert len(seen) == len(STUDENTS)


def test_the_bootstrap_is_that_of_its_arm(finished):
    """Pairs of one seed on one image; images are drawn again, all seeds together."""
    labels, rng = finished.data.test.labels, np.random.default_rng(0)
    right = finished.logits["student_test"].argmax(-1) == labels
    gains = [finished.results["arms"][arm]["bootstrap"]["difference"] for arm in ARMS[1:]]
    assert max(map(abs, gains)) > 0.02, "all arms are as good: the test would see nothing"
    for column, arm in enumerate(ARMS[1:], 1):
        gain = (right[:, column].astype(float) - right[:, 0]).mean(0)
        found = finished.results["arms"][arm]["bootstrap"]
        assert found["difference"] == pytest.approx(gain.mean())
        drawn = gain[rng.integers(len(gain), size=(20000, len(gain)))].mean(1)
        np.testing.assert_allclose(found["ci95"], np.percentile(drawn, [2.5, 97.5]), atol=0.5 / len(labels))
    assert finished.results["arms"]["student_alone"]["bootstrap"] is None


def test_students_start_from_the_tensors_of_the_file(finished, tmp_path):
    """Bit by bit in all but the head, which each seed draws for itself."""
    assert str(finished.weights) in finished.said
    config = finished.config.copy_and_resolve_references()
    student = open_run(config, tmp_path / "run", finished.folder / "cache", lambda line: None).student
    state = initial_weights.initial(student)
    there = load_file(finished.weights)
    heads = []
    for row, column, _ in STUDENTS:
        variables = jax.tree.map(lambda leaf: np.asarray(leaf)[row, column], state.variables)  # noqa: B023
        tensors = pretrained.named_tensors("mobilenet_v2", variables, "torchvision")
        for name, tensor in there.items():
            if not name.startswith("classifier"):
                assert tensors[name].tobytes() == tensor.tobytes(), name
        heads.append(tensors["classifier.1.weight"].tobytes())
    assert len(set(heads)) == len(SEEDS)


def test_the_students_have_the_temperatures_and_the_schedule_of_the_configuration(finished):
    assert {name: arm["temperature"] for name, arm in finished.results["arms"].items()} == {
        "student_alone": 4.0, "kl": 2.0, "kl_cosine": 4.0, "dist": 4.0,
    }  # fmt: skip
    assert finished.results["student"]["step"] == finished.results["student"]["total_steps"] == 10 * 96 // 16


def test_int8_is_calibrated_on_training_images_and_chosen_on_validation(finished):
    onnxruntime = pytest.importorskip("onnxruntime")
    export, train = finished.workdir / "export", finished.data.train.images
    parity = finished.json("export/parity.json")
    tried = parity["int8_candidates"]
    (chosen,) = (one for one in tried if one["chosen"])
    assert chosen["logit_rms_error"] == min(one["logit_rms_error"] for one in tried)

    def run(name, images):
        session = onnxruntime.InferenceSession(export / name, providers=["CPUExecutionProvider"])
        return session.run(None, {"images": images})[0]

    validation = finished.data.validation
    off = run("student.int8.onnx", validation.images) - run("student.onnx", validation.images)
    assert chosen["logit_rms_error"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-3)
    said = run("student.int8.onnx", validation.images)
    assert chosen["validation_top1"] == scores(said, validation.labels)[0]
    # Calibrated once more, on the training images, it has the same bytes; on others it has not.
    settings = quantize.Settings(**{field: chosen[field] for field in quantize.Settings.__dataclass_fields__})
    student = parity["student"]
    variables = finished.best("distill", SEEDS.index(student["seed"]), ARMS.index(student["arm"]))
    graph = fold("mobilenet_v2", variables, storage_size=48, image_size=32)
    weights = lambda model: [tensor.raw_data for tensor in model.graph.initializer]
    import onnx

    there = weights(onnx.load(export / "student.int8.onnx"))
    assert weights(quantize.quantize(graph, train, settings, {})) == there
    assert weights(quantize.quantize(graph, finished.data.test.images, settings, {})) != there


def test_the_calibration_of_each_file_that_has_a_temperature(finished):
    """Before it that of the student itself, in floats; and after it what NumPy says."""
    onnxruntime = pytest.importorskip("onnxruntime")
    export, parity, test = finished.workdir / "export", finished.json("export/parity.json"), finished.data.test
    trust = parity["trust"]
    assert list(trust) == ["student.safetensors", "student.onnx", "student.int8.onnx"]
    for name in ("student.safetensors", "student.onnx"):
        for measure in ("nll", "ece"):
            assert trust[name]["before"][measure] == pytest.approx(parity["student"]["test"][measure], rel=1e-3)
    with safetensors.safe_open(export / "student.safetensors", "np") as file:
        assert trust["student.safetensors"]["temperature"] == json.loads(file.metadata()["trust"])["temperature"]
    for name in ("student.onnx", "student.int8.onnx"):
        session = onnxruntime.InferenceSession(export / name, providers=["CPUExecutionProvider"])
        logits = session.run(None, {"images": test.images})[0].astype(np.float64) / trust[name]["temperature"]
        right = logits[np.arange(len(logits)), test.labels]
        nll = np.mean(np.log(np.exp(logits - right[:, None]).sum(1)))
        assert trust[name]["after"]["nll"] == pytest.approx(nll, rel=1e-4)
    card, report = (
        (finished.workdir / name).read_text(encoding="utf-8") for name in ("export/README.md", "report.html")
    )
    assert f"| `student.safetensors` | {trust['student.safetensors']['temperature']:.3f} |" in card
    assert "Calibration of the exported files" in report


def test_the_counts_of_the_results(finished):
    results, splits = finished.results, finished.json("splits.json")
    sides = results["dataset"]["splits"]
    assert [len(splits[name]) for name in ("train", "validation", "test")] == list(sides.values())
    assert sum(sides.values()) == sum(CLASSES.values())
    # One teacher forward per view and training example, whatever the number of arms, seeds and epochs.
    assert results["teacher"]["forward_images"] == VIEWS * sides["train"]
    assert tuple(results["arms"]) == ARMS
    for arm in results["arms"].values():
        assert arm["seeds"] == list(SEEDS) and arm["mean"] == pytest.approx(np.mean(arm["test_top1"]))
        assert arm["ci95"] is None and arm["p_vs_alone"] is None  # two seeds are too few
    assert results["arms"]["dist"]["weights"]["dist_intra_batch"] == 1
    for stage in ("teacher", "distill"):
        assert {record["kind"] for record in finished.records(stage)} == {"train", "validation"}
    records = finished.records("evaluation")
    assert [record["kind"] for record in records] == ["validation", "test"]
    assert records[1]["students"]["kl/8"]["top1"] == results["arms"]["kl"]["test_top1"][1]


def test_where_the_weights_came_from_is_in_the_results(finished):
    record = finished.results["student"]["weights"]
    assert record["sha256"] == hashlib.sha256(finished.weights.read_bytes()).hexdigest()
    assert record["source"] == str(finished.weights) and record["naming"] == "torchvision"
    assert finished.results["teacher"]["weights"] is None  # from scratch


def test_what_the_command_prints(finished):
    assert str(finished.workdir / "results.json") in finished.said and "kl_cosine" in finished.said
    assert "times the parameters" in finished.said and "times the multiply-adds" in finished.said  # describe
    names = sorted(path.name for path in finished.workdir.iterdir())
    assert names == [
        ".lock", "config.json", "distill", "evaluation", "export", "report.html", "results.csv", "results.json",
        "results.md", "splits.json", "teacher", "teacher_logits.json",
    ]  # fmt: skip


def test_the_page_has_the_figures(finished):
    page = (finished.workdir / "report.html").read_text(encoding="utf-8")
    for arm in finished.results["arms"].values():
        assert f"{100 * arm['mean']:.2f} ± {100 * arm['std']:.2f}" in page
    assert "ms for 1 image" in page and page.count("view 2 of") == 3  # one training image of each class
    assert page.count('alt="test image ') >= 12
