"""The command, from flags to results.json, on a tiny folder; and what bad input ends in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
CONFIG = Path(__file__).with_name("tiny.py")
FLAGS = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"


def kdjax(*flags, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "kdjax.main", f"--config={CONFIG}", *map(str, flags)],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env={**os.environ, "XLA_FLAGS": FLAGS},
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def tiles(tmp_path_factory):
    """Three classes of 20 images of odd sizes: among them a grey-scale, an RGBA, a 16-bit TIFF and a CMYK JPEG."""
    import tifffile

    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    for number, name in enumerate(("field", "forest", "water")):
        (folder / name).mkdir()
        for index in range(20):
            height, width = rng.integers(30, 60, 2)
            colour = np.full(3, 40) + 150 * (np.arange(3) == number)
            pixels = np.clip(colour + rng.normal(size=(height, width, 3)) * 30, 0, 255).astype(np.uint8)
            path = folder / name / f"{index:02d}.png"
            if index == 0:
                Image.fromarray(pixels).convert("L").save(path)
            elif index == 1:
                Image.fromarray(pixels).convert("RGBA").save(path)
            elif index == 2:
                tifffile.imwrite(path.with_suffix(".tif"), pixels.astype(np.uint16) * 257)
            elif index == 3:
                Image.fromarray(pixels).convert("CMYK").save(path.with_suffix(".jpg"))
            else:
                Image.fromarray(pixels).save(path)
    return folder


def without_time_and_place(results):
    return {name: value for name, value in results.items() if name not in ("environment", "config")}


@pytest.mark.slow
def test_folder_to_results_and_evaluation_again(tiles, tmp_path, cache):
    flags = (f"--config.dataset.path={tiles}", f"--config.run.cache_dir={cache}")
    first = kdjax(f"--workdir={tmp_path / 'a'}", *flags)
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert str(tmp_path / "a" / "results.json") in first.stdout and "kl_cosine" in first.stdout
    splits = json.loads((tmp_path / "a" / "splits.json").read_text())
    assert [len(splits[name]) for name in ("train", "validation", "test")] == list(
        results["dataset"]["splits"].values()
    )
    # One teacher forward per view and training example, whatever the number of arms, seeds and epochs.
    assert results["teacher"]["forward_images"] == 2 * results["dataset"]["splits"]["train"]
    assert set(results["arms"]) == {"student_alone", "kl", "cosine", "kl_cosine"}
    for arm in results["arms"].values():
        assert len(arm["test_top1"]) == len(arm["seeds"]) == 2
        assert arm["mean"] == pytest.approx(np.mean(arm["test_top1"]))
    for stage in ("teacher", "distill"):
        records = [json.loads(line) for line in (tmp_path / "a" / stage / "metrics.jsonl").read_text().splitlines()]
        assert {record["kind"] for record in records} == {"train", "validation"}

    records = [json.loads(line) for line in (tmp_path / "a" / "evaluation" / "metrics.jsonl").read_text().splitlines()]
    assert [record["kind"] for record in records] == ["validation", "test"]
    assert records[1]["students"]["kl/1"]["top1"] == results["arms"]["kl"]["test_top1"][1]

    # Evaluation in a fresh process, from checkpoints alone, gives the same figures.
    (tmp_path / "a" / "results.json").unlink()
    done = kdjax(f"--workdir={tmp_path / 'a'}", *flags, "--stages=describe,evaluate,export,report")
    again = json.loads((tmp_path / "a" / "results.json").read_text())
    assert again == results
    assert "times the parameters" in done.stdout and "times the multiply-adds" in done.stdout
    check_export(tmp_path / "a", results, tiles)
    check_report(tmp_path / "a", results)
    page = (tmp_path / "a" / "report.html").read_bytes()
    kdjax(f"--workdir={tmp_path / 'a'}", *flags, "--stages=report")
    assert (tmp_path / "a" / "report.html").read_bytes() == page

    # One student by name, in place of the other; what is not there leaves the export as it is.
    export = (sys.executable, "-m", "kdjax.deploy.export", f"--workdir={tmp_path / 'a'}")
    options = dict(cwd=ROOT, capture_output=True, text=True, timeout=900)
    subprocess.run([*export, "--arm=cosine", "--seed=1"], check=True, **options)
    exported = json.loads((tmp_path / "a" / "export" / "parity.json").read_text())["student"]
    assert (exported["arm"], exported["seed"]) == ("cosine", 1)
    assert exported["test"]["top1"] == pytest.approx(results["arms"]["cosine"]["test_top1"][1], abs=0.09)
    refused = subprocess.run([*export, "--arm=nobody"], **options)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "kl_cosine" in refused.stderr
    assert json.loads((tmp_path / "a" / "export" / "parity.json").read_text())["student"] == exported
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        ".lock", "config.json", "distill", "evaluation", "export", "report.html", "results.csv", "results.json",
        "results.md", "splits.json", "teacher", "teacher_logits.json",
    ]  # fmt: skip

    # Another run with the same teacher takes every logit from disk.
    options = ("--config.distill.arms=('kl_cosine','dist')", "--config.distill.target=mean", "--config.student.ema=0.9")
    kdjax(f"--workdir={tmp_path / 'b'}", *flags, *options)
    other = json.loads((tmp_path / "b" / "results.json").read_text())
    assert other["teacher"]["forward_images"] == 0
    assert other["teacher"]["test"] == results["teacher"]["test"]
    assert other["arms"]["dist"]["weights"]["dist_intra_batch"] == 1

    # A run may take the teacher of another, and students that learn from labels alone need none of its logits.
    options = (f"--config.teacher.workdir={tmp_path / 'a'}", "--config.distill.arms=('student_alone',)")
    done = kdjax(f"--workdir={tmp_path / 'c'}", *flags, *options, "--config.run.test_symmetries=True")
    alone = json.loads((tmp_path / "c" / "results.json").read_text())
    assert len(alone["arms"]["student_alone"]["symmetries_top1"]) == 2 and "eight symmetries" in done.stdout
    assert alone["teacher"]["forward_images"] is None and not (tmp_path / "c" / "teacher").exists()
    assert alone["teacher"]["test"] == results["teacher"]["test"]
    assert alone["teacher"]["sha256"] == results["teacher"]["sha256"]
    refused = kdjax(f"--workdir={tmp_path / 'd'}", *flags, *options, "--config.data_seed=1", check=False)
    assert refused.returncode == 2
    assert "splits.json" in refused.stderr and refused.stderr.count("\n") == 1

    # The workdir belongs to its config.
    refused = kdjax(f"--workdir={tmp_path / 'a'}", *flags, "--config.distill.temperature=2", check=False)
    assert refused.returncode == 2
    assert "distill.temperature is 2.0, was 4.0" in refused.stderr and "Traceback" not in refused.stderr


def check_export(workdir, results, tiles):
    """The folder `export` of a run on `tiles` with two seeds and all arms."""
    folder = workdir / "export"
    assert sorted(path.name for path in folder.iterdir()) == [
        "labels.json", "model_card.md", "parity.json", "student.int8.onnx", "student.onnx", "student.safetensors",
        "student.stablehlo", "timm_names.json",
    ]  # fmt: skip
    parity = json.loads((folder / "parity.json").read_text())
    chosen, arms = parity["student"], results["arms"]
    mean = {name: np.mean(arm["val_top1"]) for name, arm in arms.items()}
    assert mean[chosen["arm"]] == max(mean.values())
    seed = arms[chosen["arm"]]["seeds"].index(chosen["seed"])
    assert chosen["validation"]["top1"] == arms[chosen["arm"]]["val_top1"][seed]
    assert chosen["test"]["top1"] == arms[chosen["arm"]]["test_top1"][seed]
    # The files themselves, decoded anew, are what was trained on; the float forms say what the student says.
    tested = results["dataset"]["splits"]["test"]
    assert parity["test_images"] == {"count": tested, "read_from": "files", "equal_to_the_stored_ones": tested}
    for name, one in parity["artefacts"].items():
        assert one["bytes"] == (folder / name).stat().st_size
        if name != "student.int8.onnx":
            assert one["agreement"] == 1 and one["largest_logit_difference"] < 1e-3
    card = (folder / "model_card.md").read_text()
    assert (
        f"| test | {tested} | {100 * chosen['test']['top1']:.2f} |" in card and "Licence of the data: not known" in card
    )
    assert [one["chosen"] for one in parity["int8_candidates"]].count(True) == 1
    assert json.loads((folder / "labels.json").read_text()) == ["field", "forest", "water"]
    # From the command line, over all tiles: the deep image among them takes the range of training.
    done = subprocess.run(
        [sys.executable, "-m", "kdjax.deploy.predict", folder / "student.onnx", tiles, "--format=json"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    said = {Path(one["image"]).relative_to(tiles).as_posix(): one["classes"][0] for one in json.loads(done.stdout)}
    logits = np.load(workdir / "evaluation" / "logits.npz")["student_test"]
    names = json.loads((workdir / "splits.json").read_text())["test"]
    column = list(arms).index(chosen["arm"])
    for name, row in zip(names, logits[seed, column], strict=True):
        odds = np.exp(row.astype(np.float64) - row.max())
        assert said[name]["class"] == ("field", "forest", "water")[row.argmax()]
        assert said[name]["probability"] == pytest.approx(odds.max() / odds.sum(), abs=1e-4)


def check_report(workdir, results):
    """The page of a run with two seeds and all arms; `test_report` looks at what pages hold."""
    page = (workdir / "report.html").read_text()
    for arm in results["arms"].values():
        assert f"{100 * arm['mean']:.2f} ± {100 * arm['std']:.2f}" in page
    assert "ms for 1 image" in page and page.count("view 2 of") == 3  # one training image of each class
    tested = results["dataset"]["splits"]["test"]
    assert page.count('alt="test image ') >= tested  # 12 or fewer: all are among the hardest


@pytest.mark.slow
def test_online_teacher_on_the_demo(tmp_path, cache):
    kdjax(
        f"--workdir={tmp_path}", f"--config.run.cache_dir={cache}", "--config.distill.views=0",
        "--config.dataset.source=demo", "--config.seeds=(3,)", "--stages=teacher,distill,evaluate,report",
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["teacher"]["forward_images"] is None
    assert results["arms"]["kl"]["ci95"] is None and results["arms"]["kl"]["p_vs_alone"] is None
    assert "Latency is not here" in (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def bad(tiles, tmp_path_factory):
    """Runs the command in this process and returns its one line of complaint."""
    from absl import flags

    from kdjax import main

    cache, argv = tmp_path_factory.mktemp("cache"), sys.argv

    def run(capsys, workdir, *arguments, config=CONFIG):
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)  # ml_collections makes one for each override it meets
        flags.FLAGS.unparse_flags()
        given = [f"--config={config}", f"--config.dataset.path={tiles}", f"--config.run.cache_dir={cache}"]
        sys.argv = ["kdjax", f"--workdir={workdir}", *(given if config else ()), *arguments]
        with pytest.raises(SystemExit) as stop:
            main.run()
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    yield run
    sys.argv = argv


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.dataset.path=/nowhere/tiles", "/nowhere/tiles"),
        ("--config.dataset.image_size=0", "dataset.image_size"),
        ("--config.student.batch_size=4000", "student.batch_size"),
        ("--config.teacher.batch_size=12", "divisible by the 8 devices"),
        ("--config.teacher.model=resnet", "teacher.model"),
        ("--config.distill.arms=('nobody',)", "distill.arms"),
        ("--config.distill.temperature=-1.0", "distill.temperature"),
        ("--config.distill.temperature=abc", "temperature"),
        ("--config.distill.temprature=2", "--config.distill.temprature: there is no such field; did you mean temp"),
        ("--config.dataset.storage_size=24", "dataset.storage_size is 24"),
        ("--config.dataset.builder=eurosat", "dataset.builder is eurosat, but dataset.source is 'folder'"),
        ("--config.dataset.value_range=('a','b')", "dataset.value_range"),
        ("--config.run.log_seconds=inf", "run.log_seconds"),
        ("--config.run.cache_dir=/dev/null/cache", "run.cache_dir"),
        ("--config.student.weights=None", "--config.student.weights="),
        ("--config.distill.cosine_on=pixels", "distill.cosine_on"),
        ("--config.arms.kl.kl=-1.0", "arms.kl.kl"),
        ("--config.seeds=()", "seeds"),
        ("--config.seeds=(1,1)", "seeds"),
        ("--config.seeds=(3000000000,)", "seeds is 3000000000: must be below"),
        ("--config.student.warmup_epochs=99.0", "student.warmup_epochs"),
        ("--config.teacher.weights=/nowhere/vgg.safetensors", "teacher.weights"),
        ("--config.dataset.label_fraction=0.0", "dataset.label_fraction"),
        ("--config.dataset.source=web", "dataset.source"),
        ("--config.distill.logits=('/nowhere',)", "distill.logits: /nowhere is no folder of teacher logits"),
        ("--config.distill.mixup=0.2", "distill.views=0"),
        ("--config.distill.target=best", "distill.target"),
        ("--config.student.ema=1.0", "student.ema"),
        ("--config.distill.views=-1", "distill.views"),
        ("--config.teacher.onnx=/nowhere/teacher.onnx", "no file /nowhere/teacher.onnx"),
        ("--config.teacher.onnx_layout=HWC", "teacher.onnx_layout"),
        ("--config.splits=0", "splits is 0"),
        ("--config.run.profile=(5,2)", "run.profile"),
        ("--config.run.images=tape", "run.images"),
        ("--config.run.arms_at_once=0", "run.arms_at_once"),
        ("--follow", "--follow goes with --stages=evaluate"),
        ("--workdir=/dev/null/run", "workdir /dev/null/run cannot be written"),
        ("--coordinator=127.0.0.1:1", "--coordinator, --processes and --process go together"),
        ("--stages=dream", "--stages"),
        ("--stages=evaluate", "no checkpoint"),
        ("--stages=export", "no checkpoint"),
        ("--stages=report", "run --stages=evaluate first"),
        ("--colour=red", "colour"),
        ("stray", "stray"),
    ],
)
def test_bad_flags_end_in_one_line_and_write_no_run(bad, capsys, tmp_path, flag, said):
    assert said in bad(capsys, tmp_path / "run", flag)
    assert flag.startswith(("--stages=e", "--stages=r")) or not (tmp_path / "run").exists()
    assert not (tmp_path / "run" / "export").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.student.nofield=3"], "--config.student.nofield: there is no such field"),
        (["--config.dataset.path=tiles"], "dataset.source is 'demo'"),
        (["--config=/nowhere/config.py"], "/nowhere/config.py"),
        (["--config=/nowhere/config.py", "--config.data_seed=1"], "/nowhere/config.py"),
        ([f"--config={ROOT}/configs/folder.py:abc"], "folder.py:abc: ValueError: invalid literal"),
        ([f"--config={ROOT}/configs/ablation.py:absent"], "no file"),
        (["--follow", "--stages=evaluate", "--config.splits=2"], "--follow follows one run"),
    ],
)
def test_bad_flags_without_the_usual_config_end_in_one_line(bad, capsys, tmp_path, flags, said):
    assert said in bad(capsys, tmp_path / "run", *flags, config=None)
    assert not (tmp_path / "run").exists()


def test_a_config_file_without_a_configuration_is_refused(bad, capsys, tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    return {}\n")
    line = bad(capsys, tmp_path / "run", f"--config={tmp_path / 'config.py'}", config=None)
    assert "kdjax.config.base()" in line


def test_one_split_and_several_share_no_workdir(bad, capsys, tmp_path):
    (tmp_path / "several" / "split-0").mkdir(parents=True)
    assert "holds the runs of several splits" in bad(capsys, tmp_path / "several")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text("{}")
    assert "holds a run of one split" in bad(capsys, tmp_path / "one", "--config.splits=2")


def test_weights_that_do_not_fit_the_student_are_refused_before_the_teacher_is_trained(bad, capsys, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "resnet.safetensors"
    save_file({"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)}, path)
    line = bad(capsys, tmp_path / "run", f"--config.student.weights={path}", "--stages=teacher")
    assert line.startswith(f"error: student.weights {path} do not fit mobilenet_v2")
    assert not (tmp_path / "run" / "teacher").exists()


def test_unknown_loss_term_is_refused(bad, capsys, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        CONFIG.read_text().replace("    return config", "    config.arms.kl.focal = 1.0\n    return config")
    )
    line = bad(capsys, tmp_path / "run", config=config)
    assert "arms.kl.focal" in line and "cosine" in line


@pytest.mark.parametrize("content", [None, "", "{"])
def test_checkpoints_without_their_config_are_refused(bad, capsys, tmp_path, content):
    (tmp_path / "run" / "teacher" / "checkpoints" / "3").mkdir(parents=True)
    if content is not None:
        (tmp_path / "run" / "config.json").write_text(content)
    assert "no readable config.json" in bad(capsys, tmp_path / "run")


def test_a_run_with_checkpoints_refuses_other_data(bad, capsys, tmp_path, tiles):
    import shutil

    copy = shutil.copytree(tiles, tmp_path / "tiles")
    flags = (f"--config.dataset.path={copy}", "--stages=evaluate")
    assert "no checkpoint" in bad(capsys, tmp_path / "new", *flags)  # config and splits are written

    def begun(name):
        folder = shutil.copytree(tmp_path / "new", tmp_path / name, ignore=shutil.ignore_patterns(".lock"))
        (folder / "distill" / "checkpoints" / "3").mkdir(parents=True)  # of which nothing is read here
        return folder

    assert "no checkpoint" in bad(capsys, begun("same"), *flags)
    (copy / "water" / "10.png").rename(copy / "water" / "99.png")
    assert "no checkpoint" in bad(capsys, tmp_path / "empty", *flags)  # nothing is trained yet
    other = begun("other")
    before = (other / "splits.json").read_bytes()
    line = bad(capsys, other, *flags)
    assert "holds a run on other data" in line and "water/" in line
    assert (other / "splits.json").read_bytes() == before
    (other / "splits.json").unlink()
    assert "no readable splits.json" in bad(capsys, other, *flags)


def test_weights_of_another_architecture_are_refused(bad, capsys, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "resnet.safetensors"
    save_file({"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)}, path)
    assert str(path) in bad(capsys, tmp_path / "run", f"--config.teacher.weights={path}", "--stages=teacher")


@pytest.mark.parametrize("kind", ["one class", "one image", "text as jpg", "truncated"])
def test_bad_folders_end_in_one_line(bad, capsys, tmp_path, tiles, kind):
    import shutil

    folder = tmp_path / "tiles"
    shutil.copytree(tiles, folder)
    if kind == "one class":
        shutil.rmtree(folder / "field")
        shutil.rmtree(folder / "water")
        said = "class"
    elif kind == "one image":
        for path in sorted((folder / "field").iterdir())[1:]:
            path.unlink()
        said = "field"
    else:
        path = folder / "water" / "broken.jpg"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8)).save(path)
        path.write_bytes(b"not an image" if kind == "text as jpg" else path.read_bytes()[:600])
        said = "broken.jpg"
    assert said in bad(capsys, tmp_path / "run", f"--config.dataset.path={folder}")


def test_several_splits_need_a_test_split_that_the_seed_draws(bad, capsys, tmp_path, tiles):
    import shutil

    for side in ("train", "val", "test"):
        shutil.copytree(tiles, tmp_path / "tiles" / side)
        for path in (tmp_path / "tiles" / side).glob("*/*.png"):
            Image.fromarray(np.asarray(Image.open(path).convert("RGB")) // (2 + len(side))).save(path)
    line = bad(capsys, tmp_path / "run", f"--config.dataset.path={tmp_path / 'tiles'}", "--config.splits=2")
    assert "splits: " in line and "a test split of its own" in line
    assert not (tmp_path / "run").exists()
