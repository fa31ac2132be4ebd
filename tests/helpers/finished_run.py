"""A run that has learned, through every stage, and what its files say, read without kdjax's stages.

Three classes of tiles that differ in color, with so much noise that about one in twenty is not what it seems: a network
that learns is far above chance, and its best step is not always its last.
"""

import dataclasses
import fcntl
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import learned
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers import compiler
from PIL import Image
from safetensors.numpy import save_file

from kdjax import data, networks
from kdjax.networks import mobilenet_v2, pretrained, vgg16

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parents[1] / "learned.py"
CLASSES = {"field": 90, "forest": 60, "water": 47}
ARMS = ("student_alone", "kl", "kl_cosine", "dist")
SEEDS = (3, 8)
VIEWS = 3
SMALL = (
    "--config.student.model=vgg16", "--config.student.width=0.05", "--config.student.weights=",
    "--config.student.dropout=0.0", "--config.student.ema=0.0", "--config.distill.target=view",
)  # fmt: skip
"""Students that are compiled in seconds."""


def write_tiles(folder, classes=CLASSES):
    """Tiles of odd sizes, so many of each class; among them files of unusual modes.

    Each class has a gray-scale PNG, an RGBA PNG, a TIFF of 16 bits and a CMYK JPEG.
    """
    import tifffile

    rng = np.random.default_rng(0)
    for number, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(40, 60, 2)
            color = rng.normal(90, 25, 3) + 70 * (np.arange(3) == number)
            pixels = np.clip(color + rng.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8)
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


def kdjax(*flags, module="kdjax.main", config=CONFIG, xla_flags=None, check=True):
    """Runs a command in a process of its own, on two virtual devices compiled quickly or as `xla_flags` say."""
    given = [f"--config={config}"] if module == "kdjax.main" else []
    done = subprocess.run(
        [sys.executable, "-m", module, *given, *map(str, flags)],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
        env={**os.environ, "XLA_FLAGS": xla_flags or compiler.flags(devices=2)},
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def write_weights(path):
    """A file of the students' network as torchvision names its tensors, with random values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobilenet_v2, "STAGES", learned.STAGES)
        network = networks.create("mobilenet_v2", 7, width=0.1)  # trained on other classes
        variables = network.init(jax.random.key(77), jnp.zeros((1, 32, 32, 3)))
        rng = np.random.default_rng(1)
        moved = lambda leaf: np.asarray(leaf) * rng.uniform(0.9, 1.1, leaf.shape).astype(np.float32)
        tensors = pretrained.named_tensors("mobilenet_v2", jax.tree.map(moved, dict(variables)), "torchvision")
    save_file(tensors, path)
    return path


def stored(path):
    """An item of a checkpoint as NumPy arrays, whatever devices wrote it."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        options = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=options))


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """The run in a folder of its own, beside its tiles, cache and weights."""

    folder: Path

    @property
    def workdir(self):
        return self.folder / "run"

    @property
    def tiles(self):
        return self.folder / "tiles"

    @property
    def weights(self):
        return self.folder / "student.safetensors"

    @property
    def flags(self):
        """Of the command, without --workdir and --stages."""
        return (
            f"--config.dataset.path={self.tiles}", f"--config.run.cache_dir={self.folder / 'cache'}",
            f"--config.student.weights={self.weights}",
        )  # fmt: skip

    @functools.cached_property
    def config(self):
        """The configuration, as the command had it; leaves the networks as `learned` needs them."""
        config = learned.get_config()
        config.dataset.path, config.run.cache_dir = str(self.tiles), str(self.folder / "cache")
        config.student.weights = str(self.weights)
        return config

    @functools.cached_property
    def data(self):
        found = data.load(self.config.dataset, data_seed=5, cache_dir=self.folder / "cache", log=lambda line: None)
        sides = {name: getattr(found, name) for name in ("train", "validation", "test")}
        held = {name: dataclasses.replace(one, images=np.asarray(one.images)) for name, one in sides.items()}
        return dataclasses.replace(found, **held)

    def json(self, name):
        return json.loads((self.workdir / name).read_text(encoding="utf-8"))

    @functools.cached_property
    def results(self):
        return self.json("results.json")

    @property
    def said(self):
        """What the command printed."""
        return (self.folder / "said.txt").read_text(encoding="utf-8")

    @functools.cached_property
    def logits(self):
        with np.load(self.workdir / "evaluation" / "logits.npz") as file:
            return dict(file)

    def records(self, stage, kind=None):
        """The lines of a stage's metrics.jsonl, of one kind."""
        lines = (self.workdir / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [one for one in map(json.loads, lines) if kind in (None, one["kind"])]

    @functools.cache  # noqa: B019  (one object a session)
    def checkpoint(self, stage, item):
        """An item of the latest checkpoint, leaves (seed, arm, …)."""
        folder = self.workdir / stage / "checkpoints"
        return stored(folder / str(max(int(path.name) for path in folder.iterdir() if path.name.isdigit())) / item)

    def classify(self, section, variables, pixels):
        """Logits of pixels in [0, 1] by a network of this run, in the layout that it was not trained in."""
        fields = self.config[section]
        network = networks.create(fields.model, len(CLASSES), width=fields.width, form="examples_first")
        apply = jax.jit(lambda pixels: network.apply(variables, pixels, train=False).logits)
        return np.asarray(apply(pixels), np.float64)

    def best(self, stage, row=0, column=0):
        """The selected variables of one network."""
        found = self.checkpoint(stage, "best")
        return jax.tree.map(lambda leaf: leaf[row, column], {name: found[name] for name in ("params", "batch_stats")})


def made_once(folder, programs):
    """The run in `folder`, made by the first process that comes with a folder of compiled programs; others wait."""
    folder.mkdir(exist_ok=True)
    run = FinishedRun(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "failed.txt").exists():
            pytest.fail((folder / "failed.txt").read_text(encoding="utf-8"))
        if not (folder / "said.txt").exists():
            _make(run, programs)
    return run


def _make(run, programs):
    write_tiles(run.tiles)
    write_weights(run.weights)
    (run.folder / "cache").mkdir()
    (run.folder / "cache" / "programs").symlink_to(programs)
    stages = "--stages=describe,teacher,distill,evaluate,export,report"
    done = kdjax(f"--workdir={run.workdir}", *run.flags, stages, check=False)
    if done.returncode:
        said = (
            f"the run that many tests look at ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
        (run.folder / "failed.txt").write_text(said, encoding="utf-8")
        pytest.fail(said)
    (run.folder / "said.txt").write_text(done.stdout, encoding="utf-8")


def unchanged_networks(patch):
    """Puts the networks back when `patch` is undone, after `learned` or `tiny` has made them smaller."""
    patch.setattr(vgg16, "BLOCKS", vgg16.BLOCKS)
    patch.setattr(mobilenet_v2, "STAGES", mobilenet_v2.STAGES)
