"""The inputs of tests/faults/bad_inputs.py for exports: the stage `export`, and the command by itself.

They spoil copies of one finished run, which is trained when the first of them is prepared.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from faults.bad_input_cases import CLASSES, write_tiles
from faults.bad_inputs import ROOT, TINY, Case

Prepare = Callable[[Path, Path], None]
RUN = (
    f"--config={TINY}", "--config.run.cache_dir={d}/finished/cache", "--config.seeds=(0,)",
    "--config.distill.arms=('student_alone',)", "--config.student.epochs=1", "--config.student.warmup_epochs=0.1",
)  # fmt: skip
TILES = "--config.dataset.path={d}/tiles"


def cases() -> list[Case]:
    return [*of_the_stage(), *of_the_command()]


@functools.cache
def finished(d: Path) -> Path:
    """The run; its student has learned nothing, which no case looks at."""
    flags = [flag.replace("{d}", str(d)) for flag in (*RUN, TILES, "--workdir={d}/finished/run", "--stages=distill")]
    subprocess.run([sys.executable, "-m", "kdjax.main", *flags], cwd=ROOT, check=True, capture_output=True)
    return d / "finished" / "run"


def whole(d: Path, w: Path) -> None:
    shutil.copytree(finished(d), w / "run")


def without(name: str) -> Prepare:
    """A run without one of its folders or files."""

    def prepare(d: Path, w: Path) -> None:
        whole(d, w)
        place = w / "run" / name
        (shutil.rmtree if place.is_dir() else os.unlink)(place)

    return prepare


def spoiled(name: str, content: bytes) -> Prepare:
    """A run with a file of other content."""

    def prepare(d: Path, w: Path) -> None:
        whole(d, w)
        (w / "run" / name).write_bytes(content)

    return prepare


def of_other_names(d: Path, w: Path) -> None:
    whole(d, w)
    document = json.loads((w / "run" / "splits.json").read_bytes())
    document["test"][0] = "field/none.png"
    (w / "run" / "splits.json").write_text(json.dumps(document), encoding="utf-8")


def own_tiles(change: Callable[[Path], None]) -> Prepare:
    """The run, and tiles as it was trained on, with a change."""

    def prepare(d: Path, w: Path) -> None:
        whole(d, w)
        config = w / "run" / "config.json"
        config.write_text(config.read_text(encoding="utf-8").replace(str(d / "tiles"), str(w / "tiles")))
        write_tiles(w / "tiles")
        change(w / "tiles")

    return prepare


def with_bands(d: Path, w: Path) -> None:
    """Tiles that have other bands than red, green and blue, and no run."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (w / "bands" / name).mkdir(parents=True)
        for number in range(20):
            path, values = w / "bands" / name / f"{number}.tif", rng.integers(0, 3000, (36, 36, 4), dtype=np.uint16)
            tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")


def of_the_stage() -> list[Case]:
    own, elsewhere = (TILES, "--workdir={w}/run"), ("--config.dataset.path={w}/tiles", "--workdir={w}/run")
    banded = (
        "--config.dataset.path={w}/bands", "--config.dataset.file_bands=('red','green','blue','nir')",
        "--config.dataset.value_range=(0.0,3000.0)", "--workdir={w}/run",
    )  # fmt: skip
    rows = [
        ((*own, "--stages=export"), "checkpoint", None),
        ((*own, "--stages=Export"), "--stages", whole),
        ((*own, "--stages=export,exprot"), "--stages", whole),
        ((*own, "--stages=export", "--follow"), "--follow", whole),
        ((*own, "--stages=export", "--arm=student_alone"), "arm", whole),
        ((*own, "--stages=export", "--config.run.litert=maybe"), "run.litert", whole),
        ((*own, "--stages=export", "--config.run.litert=nan"), "run.litert", whole),
        ((*own, "--stages=export", "--config.run.litrt"), "litrt", whole),
        ((*own, "--stages=export", "--config.splits=2"), "splits", whole),
        ((*own, "--stages=export", "--config.student.epochs=9"), "student.epochs", whole),
        ((*own, "--stages=export", "--config.seeds=(0,1)"), "seeds", whole),
        ((*own, "--stages=export", "--config.data_seed=5"), "data_seed", whole),
        ((*own, "--stages=export", "--workdir={d}/text.txt"), "text.txt", None),
        ((*own, "--stages=export"), "config.json", without("config.json")),
        ((*own, "--stages=export"), "config.json", spoiled("config.json", b"{")),
        ((*own, "--stages=export"), "config.json", spoiled("config.json", b'{"student": 3}')),
        ((*own, "--stages=export"), "splits.json", without("splits.json")),
        ((*own, "--stages=export"), "splits.json", spoiled("splits.json", b"\xff")),
        ((*own, "--stages=export"), "splits.json", of_other_names),
        ((*own, "--stages=export"), "checkpoint", without("distill/checkpoints")),
        ((*elsewhere, "--stages=export"), "dataset.path", whole),
        ((*elsewhere, "--stages=export"), "/tiles", own_tiles(lambda tiles: shutil.rmtree(tiles))),
        ((*elsewhere, "--stages=export"), "0.png", own_tiles(lambda tiles: (tiles / "lake" / "0.png").unlink())),
        ((*elsewhere, "--stages=export"), "0.png", own_tiles(lambda tiles: os.truncate(tiles / "lake" / "0.png", 50))),
        ((*elsewhere, "--stages=export"), "99.png",
         own_tiles(lambda tiles: shutil.copy(tiles / "lake" / "0.png", tiles / "lake" / "99.png"))),
        ((*banded, "--stages=distill,export", "--config.run.litert"), "run.litert", with_bands),
    ]  # fmt: skip
    return [Case("main", "export", (*RUN, *arguments), word, prepare) for arguments, word, prepare in rows]


def of_the_command() -> list[Case]:
    def unreadable(content: str) -> Prepare:
        def write(d: Path, w: Path) -> None:
            (w / "run").mkdir()
            (w / "run" / "config.json").write_text(content, encoding="utf-8")

        return write

    own = ("--workdir={w}/run",)
    rows = [
        ((), "--workdir", None),
        (("--workdir=",), "--workdir", None),
        (("--workdir=/nowhere",), "/nowhere", None),
        (("--workdir={d}/tiles",), "tiles", None),
        (("--workdir={d}/text.txt",), "text.txt", None),
        (("--workdir={w}/no\nrun",), "run", None),
        (("--workdir={d}/run",), "config.json", None),
        (("--workdir={d}/run", "--seed=x"), "--seed", None),
        (("--workdir={d}/run", "--seed=0.5"), "--seed", None),
        (("--workdir={d}/run", "--litert=yes"), "--litert", None),
        (("--workdir={d}/run", "{d}/tiles"), "tiles", None),
        (own, "config.json", unreadable("{")),
        (own, "config.json", unreadable("[]")),
        (own, "config.json", unreadable("{}")),
        (own, "config.json", unreadable('{"student": 3}')),
        (own, "checkpoint", without("distill/checkpoints")),
        ((*own, "--arm=nobody"), "--arm", whole),
        ((*own, "--arm="), "--arm", whole),
        ((*own, "--seed=9"), "--seed", whole),
        ((*own, "--seed=-1"), "--seed", whole),
        (own, "splits.json", spoiled("splits.json", b"")),
    ]
    return [Case("export", "export", arguments, word, prepare) for arguments, word, prepare in rows]
