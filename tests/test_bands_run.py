"""Every stage on tiles of four bands, of which only near infrared tells the classes apart."""

import json

import numpy as np
import pytest
import tifffile
from helpers.finished_run import SMALL, kdjax

from kdjax.deploy.classifier import Classifier
from kdjax.networks import weights_metadata

pytestmark = pytest.mark.slow
BANDS = ("red", "green", "blue", "nir")


def tile(label, rng):
    """Colors of no meaning; near infrared is dark over water and bright over crops, far from all of them."""
    values = rng.normal(800, 150, (40, 40, 4))
    values[..., 3] = rng.normal((300, 3000)[label], 200, (40, 40))
    return np.clip(values, 1, 10_000).astype(np.uint16)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    for label, name in enumerate(("water", "crops")):
        (folder / name).mkdir()
        for number in range(40):
            path = folder / name / f"{number:02d}.tif"
            tifffile.imwrite(path, tile(label, rng), photometric="minisblack", planarconfig="contig")
    return folder


def test_a_student_of_two_bands_learns_from_a_teacher_of_all(tiles, tmp_path):
    workdir = tmp_path / "run"
    flags = (
        *SMALL, f"--workdir={workdir}", f"--config.dataset.path={tiles}",
        f"--config.run.cache_dir={tmp_path / 'cache'}",
        f"--config.dataset.file_bands={BANDS}", "--config.dataset.value_range=(0.0,10000.0)",
        "--config.student.bands=('nir','red')", "--config.teacher.model=vgg16", "--config.teacher.width=0.05",
        "--config.teacher.epochs=6", "--config.teacher.batch_size=16", "--config.student.epochs=6",
        "--config.student.batch_size=16", "--config.seeds=(3,)", "--config.distill.arms=('kl',)",
    )  # fmt: skip
    kdjax(*flags, "--stages=teacher,distill,evaluate,export,report")
    results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    # Nothing but near infrared tells: who learns has seen it, and at its place.
    assert results["teacher"]["test"]["top1"] > 0.9 and results["arms"]["kl"]["test_top1"][0] > 0.9
    parity = json.loads((workdir / "export" / "parity.json").read_text(encoding="utf-8"))
    assert parity["test_images"]["read_from"] == "files"
    assert parity["test_images"]["equal_to_the_stored_ones"] == parity["test_images"]["count"] == 24
    assert all(one["top1"] > 0.9 for one in parity["artifacts"].values())
    classifier = Classifier(workdir / "export" / "student.onnx")
    assert classifier.meaning.names == ("nir", "red") and classifier.meaning.dtype == np.uint16
    own, whole = workdir / "export" / "student.safetensors", json.loads((workdir / "bands.json").read_text("utf-8"))
    assert weights_metadata.band_names(own) == ["nir", "red"] and weights_metadata.value_range(own) == [0, 10_000]
    assert weights_metadata.statistics(own) == tuple(
        [whole[kind][place] for place in (3, 0)] for kind in ("mean", "std")
    )
    assert not (workdir / "export" / "try.html").exists()
    said = (workdir / "report.html").read_text(encoding="utf-8")
    assert "Pictures are in true color and false color" in said
    done = kdjax(*flags, "--stages=export", "--config.run.litert=True", check=False)
    assert done.returncode == 2 and "run.litert: LiteRT files take red, green and blue" in done.stderr
    # Another choice of bands is another run.
    done = kdjax(*flags, "--stages=distill", "--config.student.bands=('red','nir')", check=False)
    assert done.returncode == 2 and "student.bands is" in done.stderr
