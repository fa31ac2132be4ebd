"""Peak memory of a run whose images lie on disk, at two sizes of the data set: does it grow with the pixels?

    python tests/benchmarks/memory_scale.py --tiles=20000 --side=256 --folder=/tmp/scale --json=scale.json

Tiles are random colors of 16 px, enlarged when they are stored; networks are tiny and read images from the host. Each
stage runs in a process of its own, first for a tenth of the tiles and then for all. The peak is that of anonymous
memory (RssAnon, sampled): pages of mapped files are not in it, as the kernel drops them where memory runs short. The
folder, which is removed at the end, takes tiles x side x side x 3 bytes and a little more. Seconds are of the whole
process, with its start; the first start decodes. Stages that train tell their images a second, without start and
compiling.

This file is also the configuration of these runs, with the number of tiles as argument.
"""

import argparse
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kdjax.config import base
from kdjax.data import sources
from kdjax.data.decode_all import Encoded, Raw
from kdjax.data.ingest import ingest
from kdjax.networks import mobilenet_v2, vgg16

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 4
STAGES = {"first start": "describe", "teacher": "teacher", "logits and distill": "distill", "evaluate": "evaluate"}


def get_config(arg=""):
    """A run over so many tiles, every second one of the training tiles without a label."""
    vgg16.BLOCKS, mobilenet_v2.STAGES = ((16,), (32,)), ((1, 16, 1, 1), (6, 24, 1, 2))

    def read(number):
        label = number % CLASSES
        tile = np.random.default_rng(number).integers(0, 200, (16, 16, 3), np.uint8)
        tile[..., 0] += np.uint8(12 * label)
        out = io.BytesIO()
        Image.fromarray(tile).save(out, "BMP")
        return Raw(f"{number:08d}", label, out.getvalue())

    def load(section, context):
        names = [f"{number:08d}" for number in range(int(arg))]
        taken = ingest(Encoded("tiles", names, names, read, identity=["memory_scale", arg]), section, context)
        return taken.pool("made", tuple("abcd"), sides=[""] * len(taken.names))

    sources.SOURCES["made"] = load
    config = base()
    config.dataset.source = "made"
    config.dataset.image_size, config.dataset.label_fraction = 32, 0.5
    config.teacher.model, config.teacher.width, config.teacher.image_size = "vgg16_bn", 0.25, 32
    config.teacher.weights, config.student.weights = None, None
    for section in (config.teacher, config.student):
        section.epochs, section.batch_size, section.warmup_epochs = 1, 64, 0.0
    config.student.width = 0.1
    config.distill.arms = ("student_alone", "kl_cosine")
    config.run.images = "host"
    return config


def peak_of(command):
    """Runs a command; returns its largest RssAnon in bytes, its seconds, and what it printed."""
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said)
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except (FileNotFoundError, ProcessLookupError):
                break
            if "RssAnon:" in status:
                peak = max(peak, 1024 * int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.02)
        if process.wait():
            raise SystemExit(f"exit status {process.returncode}: {' '.join(command)}")
        seconds = time.monotonic() - began
        said.seek(0)
        return peak, seconds, said.read()


def measured(tiles, side, folder):
    """Figures of each stage for so many tiles."""
    command = [
        sys.executable, "-m", "kdjax.main", f"--config={Path(__file__).resolve()}:{tiles}",
        f"--config.dataset.storage_size={side}", f"--workdir={folder / 'run'}", f"--config.run.cache_dir={folder}",
        "--config.run.log_seconds=1",
    ]  # fmt: skip
    stages = {}
    try:
        for name, stage in STAGES.items():
            peak, seconds, said = peak_of([*command, f"--stages={stage}"])
            rates = [int(rate) for rate in re.findall(r"step .*?([0-9]+) images/s", said)]
            stages[name] = {
                "peak_bytes": peak,
                "seconds": round(seconds, 1),
                **({"images_per_second": statistics.median(rates)} if rates else {}),
            }
            print(f"{tiles} tiles, {name}: " + json.dumps(stages[name]), flush=True)
        disk = sum(path.stat().st_size for path in (folder / "decoded").rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"tiles": tiles, "pixel_bytes": tiles * side * side * 3, "store_bytes": disk, "stages": stages}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=256, help="px at which tiles are stored")
    parser.add_argument("--folder", type=Path, default=Path("memory_scale"), help="where the store and the runs go")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    folder = given.folder.resolve()
    small, large = (measured(count, given.side, folder / str(count)) for count in (given.tiles // 10, given.tiles))
    rows = large["tiles"] - small["tiles"]
    growth = {
        name: (one["peak_bytes"] - small["stages"][name]["peak_bytes"]) / rows for name, one in large["stages"].items()
    }
    print("bytes of memory a tile: " + ", ".join(f"{name} {value:.0f}" for name, value in growth.items()))
    document = {"tenth": small, "all": large, "bytes_a_tile": growth}
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
