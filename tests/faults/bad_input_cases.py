"""The inputs of tests/faults/bad_inputs.py for `main`, and the files that all inputs share."""

import functools
import os
import zipfile
from pathlib import Path

import numpy as np
from faults.bad_inputs import TINY, Case
from helpers import color_model, evaluated_run
from PIL import Image

CLASSES = ("field", "lake", "town")


def write_shared(folder: Path) -> None:
    """Files that are right, which the cases name or spoil a copy of."""
    write_tiles(folder / "tiles")
    color_model.write_model(folder / "model.onnx", 8, list(CLASSES))
    write_raster(folder / "raster.tif")
    answers = {"kl": ([[0, 0, 1, 1]] * 2, "", 0.9), "student_alone": ([[0, 1, 1, 1]] * 2, "", 0.8)}
    evaluated_run.write_run(folder / "run", answers)
    (folder / "text.txt").write_text("not what it should be", encoding="utf-8")
    (folder / "empty").write_bytes(b"")
    (folder / "empty_folder").mkdir()
    (folder / "cut.png").write_bytes((folder / "tiles" / "field" / "0.png").read_bytes()[:60])


def write_tiles(folder: Path, classes: tuple[str, ...] = CLASSES, count: int = 20) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")


def write_raster(
    path: Path, bands: int = 3, dtype: str = "uint8", place: bool = True, names: tuple[str, ...] = ()
) -> None:
    import rasterio
    from rasterio.transform import from_origin

    values = np.random.default_rng(0).integers(0, 250, (bands, 40, 40)).astype(dtype)
    placed = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 1, 1)} if place else {}
    with rasterio.open(path, "w", driver="GTiff", height=40, width=40, count=bands, dtype=dtype, **placed) as file:
        file.write(values)
        file.descriptions = names or (None,) * bands


def cases() -> list[Case]:
    return [*of_flags(), *of_fields(), *of_config_files(), *of_tiles(), *of_files(), *of_workdirs()]


RUN = (f"--config={TINY}", "--config.dataset.path={d}/tiles", "--config.run.cache_dir={w}/cache", "--workdir={w}/run")


def of_flags() -> list[Case]:
    rows = [
        ("--stages=", "--stages"),
        ("--stages=dream", "dream"),
        ("--stages=teacher,,distill", "--stages"),
        ("--stages=evaluate", "checkpoint"),
        ("--stages=export", "checkpoint"),
        ("--stages=report", "--stages=evaluate"),
        ("--stages=distill", "teacher"),
        ("--follow", "--follow"),
        ("--nonsense=1", "nonsense"),
        ("--workdir=/dev/null/run", "/dev/null/run"),
        ("--workdir={d}/text.txt", "text.txt"),
        ("--workdir={w}/a[b]", "a[b]"),
        ("--workdir=/proc/run", "/proc/run"),
        ("stray", "stray"),
        ("--coordinator=node1:8476", "--coordinator"),
        ("--processes=0", "processes"),
        ("--process=-1", "process"),
        ("--processes=two", "processes"),
        ("--config=", "--config"),
        ("--config=/nowhere/config.py", "/nowhere/config.py"),
        ("--config={d}/tiles", "--config"),
        ("--config={d}/text.txt", "text.txt"),
        ("--config={d}/empty", "get_config"),
    ]
    found = [Case("main", "main", (*RUN, flag), word) for flag, word in rows]
    long = Case("main", "main", (*RUN, "--workdir={w}/" + "a" * 300), "File name too long", status=1)
    found.append(long)  # the machine's limit, not ours
    pair = ("--processes=2", "--process=1")
    for address in ("junk", "node1", "node1:99999", ":80", "node1:a"):
        found.append(Case("main", "runtime", (*RUN, f"--coordinator={address}", *pair), "HOST:PORT"))
    found.append(Case("main", "main", (*RUN, "--coordinator=a:1", "--processes=2", "--process=2"), "--process"))
    return found


def of_fields() -> list[Case]:
    rows = [
        ("config.nonsense=1", "nonsense"),
        ("config.distill.temprature=2", "temprature"),
        ("config.student.epochs=0", "student.epochs"),
        ("config.student.epochs=1.5", "epochs"),
        ("config.student.epochs=abc", "epochs"),
        ("config.student.epochs=1000000000000000000000000000000", "epochs"),
        ("config.student.learning_rate=nan", "student.learning_rate"),
        ("config.student.learning_rate=-1.0", "student.learning_rate"),
        ("config.student.learning_rate=inf", "student.learning_rate"),
        ("config.student.batch_size=4000", "batch_size"),
        ("config.student.batch_size=-16", "batch_size"),
        ("config.student.model=resnet", "student.model"),
        ("config.student.model=", "student.model"),
        ("config.student.width=0.0", "student.width"),
        ("config.student.head=fc", "head"),
        ("config.student.dropout=1.0", "student.dropout"),
        ("config.student.ema=1.0", "student.ema"),
        ("config.student.warmup_epochs=99.0", "warmup_epochs"),
        ("config.student.clip=-1.0", "student.clip"),
        ("config.student.select=worst", "student.select"),
        ("config.teacher.model=vgg17", "teacher.model"),
        ("config.teacher.image_size=31", "image_size"),
        ("config.dataset.image_size=0", "dataset.image_size"),
        ("config.dataset.image_size=100", "storage_size"),
        ("config.dataset.source=web", "dataset.source"),
        ("config.dataset.builder=eurosat", "dataset.builder"),
        ("config.dataset.label_fraction=0.0", "label_fraction"),
        ("config.dataset.label_fraction=2.0", "label_fraction"),
        ("config.dataset.class_weights=('pond=2',)", "pond"),
        ("config.dataset.class_weights=(1,0,1)", "class_weights"),
        ("config.dataset.class_weights=(1,2)", "class_weights"),
        ("config.dataset.sampling=even", "dataset.sampling"),
        ("config.dataset.splits={d}/text.txt", "text.txt"),
        ("config.dataset.splits=/nowhere.json", "/nowhere.json"),
        ("config.dataset.unlabeled_dir=/nowhere", "/nowhere"),
        ("config.dataset.value_range=(5,1)", "value_range"),
        ("config.dataset.value_range=('a','b')", "value_range"),
        ("config.dataset.augmentation.scale=(0.0,2.0)", "scale"),
        ("config.dataset.augmentation.brightness=-1.0", "brightness"),
        ("config.seeds=()", "seeds"),
        ("config.seeds=(1,1)", "seeds"),
        ("config.seeds=(-1,)", "seeds"),
        ("config.seeds=abc", "seeds"),
        ("config.splits=0", "splits"),
        ("config.data_seed=-1", "data_seed"),
        ("config.dtype=float17", "dtype"),
        ("config.distill.arms=()", "distill.arms"),
        ("config.distill.arms=('nobody',)", "nobody"),
        ("config.distill.temperature=0.0", "distill.temperature"),
        ("config.distill.temperature=1e20", "distill.temperature is 1e+20: must be above 0 and at most 1000"),
        ("config.distill.views=-1", "distill.views"),
        ("config.distill.target=best", "distill.target"),
        ("config.distill.mixup=0.2", "distill.views"),
        ("config.distill.logits=('/nowhere',)", "/nowhere"),
        ("config.distill.logits=('{d}/tiles',)", "distill.logits"),
        ("config.distill.logits=(1,)", "distill.logits: 1 names no folder"),
        ("config.dataset.bands=B04,B03,B02", "give ('B04', 'B03', 'B02')"),
        ("config.student.bands=red,green", "give ('red', 'green')"),
        ("config.dataset.block_km=50", "only dataset.split_by='place' reads it"),
        ("config.arms.kl.kl=-1.0", "arms.kl.kl"),
        ("config.run.form=sideways", "run.form"),
        ("config.run.images=tape", "run.images"),
        ("config.run.arms_at_once=0", "run.arms_at_once"),
        ("config.run.profile=(5,2)", "run.profile"),
        ("config.run.cache_dir=/dev/null/cache", "cache"),
        ("config.run.log_seconds=inf", "run.log_seconds"),
        ("config.teacher.workdir=/nowhere", "/nowhere"),
        ("config.teacher.workdir={d}/tiles", "teacher.workdir"),
    ]
    return [Case("main", "run", (*RUN, f"--{field}"), word) for field, word in rows]


def of_config_files() -> list[Case]:
    start = "from kdjax.config import base\ndef get_config(arg=''):\n    c = base()\n    c.dataset.source = 'demo'\n"
    rows = [
        ("raise SystemExit(0)", "config.py"),
        ("def get_config(: pass", "config.py"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("x = 1", "get_config"),
        ("get_config = 3", "config.py"),
        ("def get_config(arg=''): return None", "get_config"),
        ("def get_config(arg=''): return {'name': 'a'}", "get_config"),
        ("def get_config(arg=''): return 1 / 0", "division by zero"),
        (start + "    c.student.epcohs = 99\n    return c", "epcohs"),
        (start + "    c.sedes = (0,)\n    return c", "sedes"),
        (start + "    c.distill.temprature = 2.0\n    return c", "temprature"),
        (start + "    c.student = 5\n    return c", "student"),
        (start + "    c.student.epochs = 'many'\n    return c", "epochs"),
        (start + "    del c.student.epochs\n    return c", "config.py"),
        (start + "    c.seeds = None\n    return c", "seeds"),
        (start + "    c.name = '../../elsewhere'\n    return c", "name"),
        (start + "    c.distill.arms = 'kl'\n    return c", "arms"),
        (start + "    c.arms.mine = {'nonsense': 1.0}\n    return c", "nonsense"),
        (
            start + "    c.arms.teacher = {'ce': 1.0, 'kl': 1.0}\n    return c",
            "arms: 'teacher' is the teacher's own name",
        ),
        (
            start + "    c.arms.mine = {'ce': 1.0, 'family': 'teacher'}\n    return c",
            "arms.mine.family: 'teacher' is the",
        ),
        (start + "    c.arms.mine = 3\n    return c", "arms.mine"),
    ]

    def written(text: str) -> functools.partial:
        return functools.partial(lambda text, d, w: (w / "config.py").write_text(text + "\n", encoding="utf-8"), text)

    base = ("--config={w}/config.py", "--config.run.cache_dir={w}/cache")
    # The name of a run leads out of runs/ only where no workdir is given.
    return [
        Case("main", "main", (*base, *(() if word == "name" else ("--workdir={w}/run",))), word, written(text))
        for text, word in rows
    ]


def of_tiles() -> list[Case]:
    def pack(names: tuple[str, ...]):
        def write(d: Path, w: Path) -> None:
            content = (d / "tiles" / "field" / "0.png").read_bytes()
            with zipfile.ZipFile(w / "tiles.zip", "w") as archive:
                for number, name in enumerate(names):
                    archive.writestr(name, content + bytes(number))

        return write

    def spoiled(content: bytes, name: str = "lake/3.png"):
        def write(d: Path, w: Path) -> None:
            write_tiles(w / "tiles")
            (w / "tiles" / name).write_bytes(content)

        return write

    def tiles(*arguments: object, **options: object):
        return lambda d, w: write_tiles(w / "tiles", *arguments, **options)

    def empty_class(d: Path, w: Path) -> None:
        write_tiles(w / "tiles")
        (w / "tiles" / "village").mkdir()

    def contained(d: Path, w: Path) -> None:
        write_tiles(w / "tiles" / "Images")
        write_tiles(w / "tiles", ("figures",))

    def bomb(d: Path, w: Path) -> None:
        write_tiles(w / "tiles")
        Image.new("1", (30_000, 30_000)).save(w / "tiles" / "lake" / "3.png")

    several = tuple(f"{name}/{number}.png" for name in CLASSES for number in range(9))
    rows = [
        ("{d}/nowhere", "nowhere", None),
        ("{d}/empty_folder", "empty_folder", None),
        ("{d}/text.txt", "text.txt", None),
        ("{d}/empty", "empty", None),
        ("{d}/tiles/field", "field", None),
        ("", "dataset.path", None),
        ("{w}/tiles.zip", "class folders", pack(("a.png", "b.png"))),
        ("{w}/tiles.zip", "field/0.png", pack((*several, "field/0.png"))),
        ("{w}/tiles.zip", "field/0.png", pack((*several, "./field/0.png"))),
        ("{w}/tiles.zip", "field", pack((*several, "field\\1.png"))),
        ("{w}/tiles.zip", "tiles.zip", lambda d, w: (w / "tiles.zip").write_bytes(b"PK\x03\x04junk")),
        ("{w}/tiles", "3.png", spoiled(b"")),
        ("{w}/tiles", "3.png", spoiled(b"\x89PNG\r\n\x1a\njunk")),
        ("{w}/tiles", "3.png", spoiled(b"text")),
        ("{w}/tiles", "x.tif", spoiled(b"II*\0junk", "lake/x.tif")),
        ("{w}/tiles", "x.jpg", spoiled(b"\xff\xd8\xff\xe0junk", "lake/x.jpg")),
        ("{w}/pipe", "pipe", lambda d, w: os.mkfifo(w / "pipe")),
        ("{w}/tiles", "3.png", bomb),
        ("{w}/tiles", "class", tiles(("field",))),
        ("{w}/tiles", "1 image", tiles(count=1)),
        ("{w}/tiles", "train", tiles(("train", "val", "other"))),
        ("{w}/tiles", "Images", contained),
    ]  # fmt: skip
    return [
        Case("main", "data", (*RUN, f"--config.dataset.path={path}", "--stages=describe"), word, prepare)
        for path, word, prepare in rows
    ]


def of_files() -> list[Case]:
    def wrong_tensors(d: Path, w: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(3, np.float32)}, w / "weights.safetensors")

    def pickled(d: Path, w: Path) -> None:
        import pickle

        (w / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))

    rows = [
        ("student.weights=None", "student.weights", None),
        ("student.weights=/nowhere/a.safetensors", "/nowhere", None),
        ("student.weights={d}/text.txt", "text.txt", None),
        ("student.weights={d}/empty", "empty", None),
        ("student.weights={d}/tiles", "tiles", None),
        ("student.weights={w}/weights.safetensors", "weights.safetensors", wrong_tensors),
        ("student.weights={w}/weights.safetensors", "weights.safetensors", pickled),
        ("teacher.weights={d}/text.txt", "text.txt", None),
    ]
    found = [Case("main", "networks", (*RUN, f"--config.{field}"), word, prepare) for field, word, prepare in rows]
    rows = [
        ("/nowhere/teacher.onnx", "/nowhere/teacher.onnx", None),
        ("{d}/text.txt", "text.txt", None),
        ("{d}/empty", "empty", None),
        ("{d}/tiles", "tiles", None),
        ("{w}/m.onnx", "m.onnx", lambda d, w: color_model.write_model(w / "m.onnx", 8, ["a", "b", "c"])),
    ]
    found += [Case("main", "teacher", (*RUN, f"--config.teacher.onnx={path}"), word, made) for path, word, made in rows]
    both = ("--config.teacher.onnx={d}/model.onnx", "--config.teacher.workdir={d}/run")
    return [*found, Case("main", "teacher", (*RUN, *both), "teacher.workdir")]


def of_workdirs() -> list[Case]:
    def holds(name: str, content: str):
        def write(d: Path, w: Path) -> None:
            (w / "run" / "teacher" / "checkpoints" / "1").mkdir(parents=True)  # without one a run may change its mind
            (w / "run" / name).write_text(content, encoding="utf-8")

        return write

    rows = [
        holds("config.json", "[]"),
        holds("config.json", "{"),
        holds("config.json", ""),
        holds("config.json", '{"student": 3}'),
    ]
    found = [Case("main", "run", (*RUN, "--stages=teacher"), "config.json", prepare) for prepare in rows]
    several = (*RUN, "--config.splits=2")
    return [*found, Case("main", "main", several, "splits", holds("config.json", "{}"))]
