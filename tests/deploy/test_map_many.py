"""The maps of several rasters: what is bad stops nothing, and several processes do the same."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers import squares  # noqa: E402
from helpers.maps import CLASSES, ROOT, areas, digests, run, scene, write  # noqa: E402

from kdjax.deploy.classifier import Classifier  # noqa: E402
from kdjax.deploy.landuse_map import mapping, workers  # noqa: E402
from kdjax.deploy.landuse_map.outputs import OUTPUTS  # noqa: E402
from kdjax.runtime import host  # noqa: E402


def command(*arguments):
    return [sys.executable, "-m", "kdjax.deploy.landuse_map", *map(str, arguments)]


def test_each_map_of_a_folder_is_that_of_its_raster_alone(artifact, scenes, tmp_path, capsys):
    run(artifact, scenes, "--output", tmp_path / "maps", "--probabilities", "--polygons")
    said = capsys.readouterr()
    assert said.out.count("mapped\n") == 3 and not said.err
    assert sorted(digests(tmp_path / "maps")) == sorted(
        [".lock", "areas.csv"] + [one.name(scenes / f"{name}.tif") for one in OUTPUTS for name in "abc"]
    )
    run(artifact, scenes / "b.tif", tmp_path / "b.tif", "--probabilities", "--polygons")
    for one in OUTPUTS:
        alone, among = tmp_path / one.name(scenes / "b.tif"), tmp_path / "maps" / one.name(scenes / "b.tif")
        if one.raster:
            with rasterio.open(alone) as file, rasterio.open(among) as other:
                np.testing.assert_array_equal(file.read(), other.read())
        else:
            assert alone.read_bytes() == among.read_bytes()
    alone = [areas(tmp_path / "maps" / f"{name}_areas.csv") for name in "abc"]
    together = areas(tmp_path / "maps" / "areas.csv")
    assert set(together) == set(CLASSES)
    for name, row in together.items():
        parts = [table[name] for table in alone if name in table]
        cells = [int(part["cells"]) for part in parts]
        assert int(row["cells"]) == sum(cells)
        assert float(row["area_ha"]) == pytest.approx(sum(float(part["area_ha"]) for part in parts), abs=1e-3)
        confidences = [float(part["mean_confidence"]) for part in parts]
        assert float(row["mean_confidence"]) == pytest.approx(np.average(confidences, weights=cells), abs=1e-4)
    assert sum(float(row["share"]) for row in together.values()) == pytest.approx(1, abs=1e-5)


def test_a_bad_raster_is_one_line_and_the_others_are_mapped_alike_by_several_processes(
    artifact, scenes, tmp_path, capsys
):
    (scenes / "bad.tif").write_text("no raster")
    write(scenes / "small.tif", scene(4, 4))
    arguments = (artifact, scenes, tmp_path / "missing.tif", "--probabilities", "--polygons", "--output")
    for workers_given in (1, 2):
        folder = tmp_path / f"maps{workers_given}"
        (folder / ".gone.tif-abc.kdjax.tmp").mkdir(parents=True)  # of a process that was killed
        (folder / ".gone.tif-abc.kdjax.tmp.lock").touch()
        with pytest.raises(SystemExit) as stop:
            run(*arguments, folder, f"--workers={workers_given}")
        said = capsys.readouterr()
        assert stop.value.code == 1
        lines = said.err.splitlines()
        assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)
        for words in (("missing.tif", "no file"), ("bad.tif", "GDAL"), ("small.tif", "--tile")):
            assert sum(all(word in line for word in words) for line in lines[:3]) == 1
        bad = [str(scenes / "bad.tif"), str(scenes / "small.tif"), str(tmp_path / "missing.tif")]
        assert lines[3] == f"error: 3 of 6 rasters were not mapped: {'; '.join(bad)}"
        assert said.out.count(": mapped") == 3
        held = {one.name(scenes / f"{name}.tif") for one in OUTPUTS for name in "abc"}
        assert set(digests(folder)) == held | {".lock", "areas.csv"}
    assert digests(tmp_path / "maps1") == digests(tmp_path / "maps2")
    with pytest.raises(SystemExit):
        run(*arguments, tmp_path / "maps2")
    assert capsys.readouterr().out.count("already mapped") == 3


def test_workers_divide_the_cores(artifact, scenes, tmp_path, monkeypatch):
    asked = []

    def alone(make_worker, jobs, count, report):
        asked.append((make_worker.args[-1], count))
        for job in jobs:
            report(job, make_worker()(job))

    monkeypatch.setattr(workers, "share", alone)
    monkeypatch.setattr(host, "cores", lambda: 7)
    for given in (2, 3, 8):
        run(artifact, scenes, "--output", tmp_path / "maps", f"--workers={given}")
    assert asked == [(3, 2), (2, 3), (2, 3)]  # there are three rasters
    given, real = [], onnxruntime.InferenceSession

    def noted(path, options, **named):
        given.append(options.intra_op_num_threads)
        return real(path, options, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    Classifier(artifact, 3)
    assert given == [3]


def test_a_worker_that_is_killed_costs_its_job_alone():
    found = {}
    workers.share(squares.begin, [1, 2, 3, 4, 5], 2, lambda job, result: found.update({job: result}))
    assert found.pop(3) is None
    assert {job: square for job, (square, _) in found.items()} == {1: 1, 2: 4, 4: 16, 5: 25}
    assert os.getpid() not in {process for _, process in found.values()}


@pytest.mark.parametrize(
    "number, status, processes",
    [
        (signal.SIGTERM, 75, 2),
        (signal.SIGINT, 130, 2),
        pytest.param(signal.SIGTERM, 75, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_all_processes_and_leaves_nothing_half(artifact, tmp_path, number, status, processes):
    """The group gets Ctrl-C, as from a terminal; the first process alone the others."""
    folder, rasters = tmp_path / "maps", [write(tmp_path / "small.tif", scene(16, 16))]
    rasters += [write(tmp_path / f"large{k}.tif", scene(400, 400, k)) for k in range(3)]
    flags = ("--stride=1", "--batch=8", f"--workers={processes}", "--output", folder)
    mapping = subprocess.Popen(
        command(artifact, *rasters, *flags), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    with mapping:
        waited = time.monotonic()
        while not ((folder / "small.tif").exists() and len(list(folder.glob(".large*-*/*.rows"))) >= 2 * processes):
            assert mapping.poll() is None and time.monotonic() < waited + 60
            time.sleep(0.02)
        if number == signal.SIGINT:
            os.killpg(mapping.pid, number)
        else:
            mapping.send_signal(number)
        said = mapping.communicate(timeout=60)
    assert mapping.returncode == status and "Traceback" not in "".join(said)
    ended = time.monotonic()
    while number == signal.SIGKILL and list(folder.glob(".large*")):  # the workers see it themselves
        assert time.monotonic() < ended + 30
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < ended + 30:
            os.killpg(mapping.pid, 0)
            time.sleep(0.05)
    held = {one.name(rasters[0]) for one in OUTPUTS if one.option is None}
    assert set(digests(folder)) == held | {".lock"}


@pytest.mark.parametrize("error", [rasterio.errors.CRSError, rasterio.errors.WarpOperationError])
def test_what_gdal_cannot_map_is_one_line_and_the_others_are_mapped(
    artifact, scenes, tmp_path, capsys, error, monkeypatch
):
    real = mapping.write_map

    def failing(classifier, raster, *arguments):
        if raster.path.endswith("b.tif"):
            raise error("no such projection")
        return real(classifier, raster, *arguments)

    monkeypatch.setattr(mapping, "write_map", failing)
    with pytest.raises(SystemExit):
        run(artifact, scenes, "--output", tmp_path / "maps")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: raster {scenes / 'b.tif'}: GDAL cannot map it (no such projection)" and len(lines) == 2
    assert {path.name for path in (tmp_path / "maps").glob("?.tif")} == {"a.tif", "c.tif"}
