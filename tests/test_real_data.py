"""A short run on published weights and real tiles: three classes of UC Merced, 32 px."""

import json
import zipfile
from pathlib import PurePosixPath

import pytest
from helpers.finished_run import ROOT, kdjax

SHARED = ROOT.parent / "shared" / "data"
FILES = ("uc_merced.zip", "vgg16_imagenet_features.safetensors", "mobilenet_v2_imagenet_features.safetensors")
CLASSES = {"agricultural", "forest", "parkinglot"}
CONFIG = """
from kdjax.config import base

def get_config(arg=""):
    config = base()
    config.name = "real"
    config.dataset.image_size, config.dataset.storage_size = 32, 40
    config.teacher.model, config.teacher.epochs, config.teacher.batch_size = "vgg16", 2, 16
    config.student.epochs, config.student.batch_size, config.distill.views = 6, 16, 2
    config.distill.arms = ("kl_cosine",)
    return config
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not all((SHARED / name).is_file() for name in FILES), reason=f"{', '.join(FILES)} are not in {SHARED}"
)
def test_published_weights_and_real_tiles_give_good_networks(tmp_path):
    tiles = tmp_path / "tiles"
    with zipfile.ZipFile(SHARED / "uc_merced.zip") as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if path.parent.name in CLASSES and path.suffix and int(path.stem[-2:]) < 60:
                place = tiles / path.parent.name / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(archive.read(name))
    assert {folder.name: len(list(folder.iterdir())) for folder in tiles.iterdir()} == dict.fromkeys(CLASSES, 60)
    config = tmp_path / "real.py"
    config.write_text(CONFIG, encoding="utf-8")
    done = kdjax(
        f"--workdir={tmp_path / 'run'}", f"--config.dataset.path={tiles}",
        f"--config.run.cache_dir={tmp_path / 'cache'}",
        f"--config.teacher.weights={SHARED / FILES[1]}", f"--config.student.weights={SHARED / FILES[2]}", config=config,
        xla_flags="--xla_backend_optimization_level=1",  # real networks compute more than they compile
    )  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert all(name in done.stdout for name in FILES[1:])
    assert results["teacher"]["test"]["top1"] > 0.9, "from scratch it would be at a third after two epochs"
    assert results["arms"]["kl_cosine"]["mean"] > 0.85
