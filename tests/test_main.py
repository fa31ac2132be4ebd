"""What bad input to the command ends in. `test_finished_run` has what good input ends in."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.finished_run import CLASSES, unchanged_networks, write_tiles
from PIL import Image

pytestmark = pytest.mark.usefixtures("handlers")
ROOT = Path(__file__).parent.parent
CONFIG = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles") / "tiles", dict.fromkeys(CLASSES, 20))


@pytest.fixture(scope="module")
def bad(tiles, tmp_path_factory):
    """Runs the command in this process and returns its one line of complaint."""
    from kdjax import main

    cache, argv = tmp_path_factory.mktemp("cache"), sys.argv

    def run(capsys, workdir, *arguments, config=CONFIG):
        given = [f"--config={config}", f"--config.dataset.path={tiles}", f"--config.run.cache_dir={cache}"]
        sys.argv = ["kdjax", f"--workdir={workdir}", *(given if config else ()), *arguments]
        with pytest.raises(SystemExit) as stop:
            main.run()
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    with pytest.MonkeyPatch.context() as patch:
        unchanged_networks(patch)
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
        ("--config.dataset.storage_size=24", "dataset.storage_size is 24: give a whole number of at least 32 and at "),
        ("--config.dataset.builder=eurosat", "dataset.builder is eurosat, but dataset.source is 'folder'"),
        ("--config.dataset.value_range=('a','b')", "dataset.value_range"),
        ("--config.run.log_seconds=inf", "run.log_seconds"),
        ("--config.run.cache_dir=/dev/null/cache", "run.cache_dir"),
        ("--config.student.weights=None", "--config.student.weights="),
        ("--config.distill.cosine_on=pixels", "distill.cosine_on"),
        ("--config.arms.kl.kl=-1.0", "arms.kl.kl"),
        ("--config.seeds=()", "seeds"),
        ("--config.seeds=(1,1)", "seeds"),
        (
            "--config.seeds=(3000000000,)",
            "seeds is 3000000000: give a whole number of at least 0 and at most 2147483647",
        ),
        ("--config.student.warmup_epochs=99.0", "student.warmup_epochs"),
        ("--config.teacher.weights=/nowhere/vgg.safetensors", "teacher.weights"),
        ("--config.dataset.label_fraction=0.0", "dataset.label_fraction"),
        ("--config.dataset.source=web", "dataset.source"),
        ("--config.distill.logits=('/nowhere',)", "distill.logits: /nowhere is not a folder of teacher logits"),
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
        ("--color=red", "color"),
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
        (["--config.arms.kl.temperature=2"], "--config.arms.kl.temperature: the arm does not set it; give an arm"),
        (["--config.dataset.path=tiles"], "dataset.source is 'demo'"),
        (["--config=/nowhere/config.py"], "/nowhere/config.py"),
        (["--config=/nowhere/config.py", "--config.data_seed=1"], "/nowhere/config.py"),
        ([f"--config={ROOT}/configs/folder.py:abc"], "configs/folder.py, line 14: ValueError: invalid literal"),
        ([f"--config={ROOT}/configs/ablation.py:absent"], "no file"),
        (["--follow", "--stages=evaluate", "--config.splits=2"], "--follow follows one run"),
        (
            [
                "--config.splits=3",
                "--config.dataset.source=folder",
                "--config.dataset.split_by=place",
                "--config.dataset.fold=(0,5)",
            ],
            "splits is 3, and with dataset.split_by 'place' these are the folds",
        ),
        (["--config.splits=3", "--config.dataset.splits=splits.json"], "but dataset.splits belongs to one split"),
    ],
)
def test_bad_flags_without_the_usual_config_end_in_one_line(bad, capsys, tmp_path, flags, said):
    assert said in bad(capsys, tmp_path / "run", *flags, config=None)
    assert not (tmp_path / "run").exists()


def test_a_config_file_without_a_configuration_is_refused(bad, capsys, tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    return {}\n")
    line = bad(capsys, tmp_path / "run", f"--config={tmp_path / 'config.py'}", config=None)
    assert "kdjax.config.base()" in line


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'name': 'mine'})\n",
            "is missing",
        ),
        (
            "def get_config():\n    one = base()\n    one.splits = None\n    return one\n",
            "splits is None: give a whole",
        ),
        ("def get_config():\n    one = base()\n    one.unlock()\n    del one.run\n    return one\n", "run is missing"),
    ],
)
@pytest.mark.parametrize("flag", ["--stages=evaluate,export", "--stages=evaluate"])
def test_a_config_file_whose_fields_are_not_those_of_base_is_refused(bad, capsys, tmp_path, code, said, flag):
    (tmp_path / "config.py").write_text("from kdjax.config import base\n" + code)
    line = bad(capsys, tmp_path / "run", f"--config={tmp_path / 'config.py'}", flag, config=None)
    assert said in line and not (tmp_path / "run").exists()


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
    line = bad(capsys, tmp_path / "run")
    assert f"{tmp_path}/run/config.json " in line and "restore it or choose another workdir" in line


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
    for document in ('{"train": 3}', '{"test": [["water/1.png"]]}'):
        (other / "splits.json").write_text(document, encoding="utf-8")
        assert f"{other}/splits.json is not the record of a run" in bad(capsys, other, *flags)
    (other / "splits.json").unlink()
    line = bad(capsys, other, *flags)
    assert f"{other}/splits.json cannot be read" in line and "restore it or choose another workdir" in line


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


def test_all_splits_are_opened_before_the_first_is_trained(bad, capsys, tmp_path, monkeypatch):
    from kdjax import main
    from kdjax.errors import InputError
    from kdjax.run import opening

    def opened(config, workdir, real=opening.open_for_command, **options):
        if workdir.name == "split-1":
            raise InputError("the second cannot be used")
        return real(config, workdir, **options)

    monkeypatch.setattr(opening, "open_for_command", opened)
    monkeypatch.setattr(main, "_stage", lambda *stage: pytest.fail(f"{stage} ran"))
    assert "the second cannot be used" in bad(capsys, tmp_path / "run", "--config.splits=2")


def test_a_run_that_began_while_another_start_read_its_images_is_left_alone(bad, capsys, tmp_path, monkeypatch):
    """The first start of a large data set decodes for minutes, before it takes the lock."""
    from kdjax import data

    work = tmp_path / "run"

    def load(*args, real=data.load, **options):
        (work / "teacher" / "checkpoints" / "3").mkdir(parents=True)
        (work / "config.json").write_text("of the other run")
        return real(*args, **options)

    monkeypatch.setattr("kdjax.run.run.datasets.load", load)
    line = bad(capsys, work)
    assert line.startswith(f"error: workdir {work}: another run began there") and "repeat the command" in line
    assert (work / "config.json").read_text() == "of the other run" and not (work / "splits.json").exists()


def test_output_that_lacks_characters_does_not_end_a_run(monkeypatch):
    from kdjax import main

    monkeypatch.setattr(main, "main", lambda argv: print("80 ± 2 河"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    main.run()
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"80 \xb1 2 \\u6cb3\n"


def test_a_device_that_has_no_memory_left_is_told_in_one_line(monkeypatch, capsys):
    import jax

    from kdjax import main

    def full(argv):
        raise jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 7 bytes.")

    monkeypatch.setattr(main, "main", full)
    with pytest.raises(SystemExit) as stop:
        main.run()
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(lines) == 1 and "use a smaller batch" in lines[0]


def test_a_connection_that_breaks_on_cpu_is_told_as_a_process_that_is_lost(monkeypatch):
    """JAX raises it as ValueError where the collective is the first of its program."""
    from kdjax import main
    from kdjax.runtime import command

    def broken(argv):
        raise ValueError("UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:43651")

    def end(status, line="", **options):
        raise SystemExit(status, line)

    monkeypatch.setattr(main, "main", broken)
    monkeypatch.setattr(command, "several_processes", lambda: True)
    monkeypatch.setattr(command, "_end", end)
    with pytest.raises(SystemExit, match="another process of this run has ended .*Gloo AllGather failed") as stop:
        main.run()
    assert stop.value.code[0] == 75


def test_other_processes_wait_for_what_the_first_writes_at_the_end_of_a_stage(monkeypatch):
    """Else they look for results.json before it is there, or leave, and JAX aborts all when the first takes minutes."""
    from kdjax import main
    from kdjax.runtime import devices
    from kdjax.stages import describe

    done = []
    monkeypatch.setattr(describe, "describe", lambda run: done.append("describe"))
    monkeypatch.setattr(devices, "barrier", lambda what: done.append(what))
    main._stage("describe", None)
    assert done == ["describe", "describe is written"]
