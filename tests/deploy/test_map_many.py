"""The maps of several rasters: what is finished stays, what is bad stops nothing, and several processes do the same."""

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers import squares  # noqa: E402
from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, NORTH_UP, ROOT, SIDE, run, scene, write  # noqa: E402

from kdjax.deploy.classifier import Classifier  # noqa: E402
from kdjax.deploy.landuse_map import mapping, workers  # noqa: E402
from kdjax.deploy.landuse_map.outputs import OUTPUTS  # noqa: E402
from kdjax.runtime import host  # noqa: E402


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def rows(path):
    with path.open(encoding="utf-8") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


@pytest.fixture
def scenes(tmp_path):
    """A folder of three rasters."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number, name in enumerate("abc"):
        write(folder / f"{name}.tif", scene(40 + 8 * number, 56, seed=number))
    return folder


def command(*arguments):
    return [sys.executable, "-m", "kdjax.deploy.landuse_map", *map(str, arguments)]


def test_each_map_of_a_folder_is_that_of_its_raster_alone(artifact, scenes, tmp_path, capsys):
    run(artifact, scenes, "--output", tmp_path / "maps", "--probabilities", "--polygons")
    said = capsys.readouterr()
    assert said.out.count("mapped\n") == 3 and not said.err
    assert sorted(contents(tmp_path / "maps")) == sorted(
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
    alone = [rows(tmp_path / "maps" / f"{name}_areas.csv") for name in "abc"]
    together = rows(tmp_path / "maps" / "areas.csv")
    assert set(together) == set(CLASSES)
    for name, row in together.items():
        parts = [table[name] for table in alone if name in table]
        cells = [int(part["cells"]) for part in parts]
        assert int(row["cells"]) == sum(cells)
        assert float(row["area_ha"]) == pytest.approx(sum(float(part["area_ha"]) for part in parts), abs=1e-3)
        confidences = [float(part["mean_confidence"]) for part in parts]
        assert float(row["mean_confidence"]) == pytest.approx(np.average(confidences, weights=cells), abs=1e-4)
    assert sum(float(row["share"]) for row in together.values()) == pytest.approx(1, abs=1e-5)


CHANGES = {
    "nothing": "",
    "dates": "",
    "name of the model": "",
    "the same tile by hand": "",
    "pixel": "b",
    "place": "b",
    "hole": "b",
    "model": "abc",
    "stride": "abc",
    "answer all": "abc",
    "polygons": "abc",
    "a file is gone": "b",
    "the map is damaged": "b",
    "another map": "b",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
def test_finished_maps_stay_while_what_they_are_made_of_does(artifact, scenes, tmp_path, capsys, kind):
    folder, flags, model = tmp_path / "maps", [], artifact
    pixels, options = scene(48, 56, seed=1), {}
    pixels[0, 0] = 77
    write(scenes / "b.tif", pixels)
    run(artifact, scenes, "--output", folder)
    if kind == "dates":
        for path in scenes.iterdir():
            os.utime(path, (1, 1))
    elif kind == "pixel":
        pixels[47, 55] += 1  # the size and the date do not tell
    elif kind == "place":
        options = {"transform": NORTH_UP @ rasterio.Affine.translation(1, 0)}
    elif kind == "hole":
        options = {"nodata": 77}  # the pixels are the same
    elif kind == "name of the model":
        model = shutil.copy(artifact, tmp_path / "renamed.onnx")
    elif kind == "model":
        model = write_model(tmp_path / "student.onnx", SIDE, CLASSES, tile_px="8")
    elif kind == "a file is gone":
        (folder / "b_legend.png").unlink()
    elif kind == "the map is damaged":
        (folder / "b.tif").write_bytes((folder / "b.tif").read_bytes()[:100])
    elif kind == "another map":
        run(artifact, scenes / "b.tif", folder / "b.tif", "--stride=8")
    if kind in ("pixel", "place", "hole"):
        date = (scenes / "b.tif").stat().st_mtime
        write(scenes / "b.tif", pixels, **options)
        os.utime(scenes / "b.tif", (date, date))
    flags = {
        "stride": ["--stride=8"],
        "answer all": ["--answer-all"],
        "polygons": ["--polygons"],
        "the same tile by hand": [f"--tile={SIDE}"],
    }.get(kind, [])
    capsys.readouterr()
    run(model, scenes, "--output", folder, *flags)
    said = capsys.readouterr().out.splitlines()
    assert [name for name in "abc" if f"{scenes}/{name}.tif: mapped" in said] == list(CHANGES[kind])
    assert [name for name in "abc" if f"{scenes}/{name}.tif: already mapped" in said] == sorted(
        set("abc") - set(CHANGES[kind])
    )
    before = contents(folder)
    shutil.rmtree(folder)
    run(model, scenes, "--output", folder, *flags)
    fresh = contents(folder)
    if kind == "name of the model":  # which is a tag
        assert before.keys() == fresh.keys()
    else:
        assert before == fresh


DAMAGED = {
    "empty areas": ("b_areas.csv", 0),
    "the beginning of areas": ("b_areas.csv", 9),
    "areas without rows": ("b_areas.csv", 48),
    "areas without the last row": ("b_areas.csv", lambda content: content.rindex(b"\n", 0, -1) + 1),
    "areas without the last digit": ("b_areas.csv", -2),
    "empty confidence": ("b_confidence.tif", 0),
    "confidence without its end": ("b_confidence.tif", -40),
    "half of the confidence": ("b_confidence.tif", 300),
    "probabilities without their end": ("b_probabilities.tif", -40),
    "empty polygons": ("b_polygons.geojson", 0),
    "polygons without the last one": ("b_polygons.geojson", -100),
    "empty legend": ("b_legend.png", 0),
    "half of the legend": ("b_legend.png", -1000),
    "empty attribute table": ("b.tif.aux.xml", 0),
    "half of the attribute table": ("b.tif.aux.xml", 200),
    "empty map": ("b.tif", 0),
    "map without its end": ("b.tif", -40),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_maps_that_a_loss_of_power_cut_off_are_made_again(artifact, scenes, tmp_path, capsys, kind):
    """Their names were there, and wrong sums were written of them."""
    folder, arguments = tmp_path / "maps", (artifact, scenes, "--probabilities", "--polygons", "--output")
    run(*arguments, folder)
    before, (name, end) = contents(folder), DAMAGED[kind]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: end(content) if callable(end) else end])
    assert contents(folder) != before
    capsys.readouterr()
    run(*arguments, folder)
    said = capsys.readouterr().out
    assert f"{scenes}/b.tif: mapped" in said and said.count("already mapped") == 2
    assert contents(folder) == before
    hectares = sum(float(row["area_ha"]) for row in rows(folder / "areas.csv").values())
    assert hectares == pytest.approx((40 + 48 + 56) * 56 * 0.25 / 1e4, abs=1e-3)  # pixels of 0.5 m


def test_the_table_of_another_map_is_none_of_this_one(artifact, scenes, tmp_path, capsys):
    folder = tmp_path / "maps"
    run(artifact, scenes, "--output", folder)
    before = contents(folder)
    shutil.copy(folder / "a_areas.csv", folder / "b_areas.csv")
    run(artifact, scenes, "--output", folder)
    assert contents(folder) == before


def test_all_of_a_map_is_on_the_disk_before_its_names_are(artifact, scenes, tmp_path, monkeypatch):
    fsync, replace, synced, moved = os.fsync, Path.replace, set(), []

    def noted(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checked(path, target):
        moved.append((target.name, path.stat().st_ino in synced))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", checked)
    run(artifact, scenes / "a.tif", tmp_path / "map.tif", "--polygons", "--probabilities")
    assert len(moved) == len(OUTPUTS) and all(on_disk for _, on_disk in moved)


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
        assert set(contents(folder)) == held | {".lock", "areas.csv"}
    assert contents(tmp_path / "maps1") == contents(tmp_path / "maps2")
    with pytest.raises(SystemExit):
        run(*arguments, tmp_path / "maps2")
    assert capsys.readouterr().out.count("already mapped") == 3


def test_the_map_of_an_older_raster_stays_and_is_not_called_that_of_this_one(artifact, scenes, tmp_path, capsys):
    folder = tmp_path / "maps"
    run(artifact, scenes, "--output", folder)
    older = (folder / "b.tif").read_bytes()
    write(scenes / "b.tif", scene(4, 4))  # less than a window
    (scenes / "new.tif").write_text("no raster")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(artifact, scenes, "--output", folder)
    assert stop.value.code == 1
    of_b, of_new, last = sorted(capsys.readouterr().err.splitlines(), key=lambda line: "rasters were" in line)
    assert "b.tif: 4 x 4 px is less" in of_b and of_b.endswith(
        f"; {folder / 'b.tif'} is still the map of an earlier call"
    )
    assert "new.tif" in of_new and "earlier call" not in of_new
    assert last == f"error: 2 of 4 rasters were not mapped: {scenes / 'b.tif'}; {scenes / 'new.tif'}"
    assert (folder / "b.tif").read_bytes() == older
    cells = [sum(int(row["cells"]) for row in rows(folder / f"{name}areas.csv").values()) for name in ("", "a_", "c_")]
    assert cells[0] == cells[1] + cells[2]  # without b


def test_a_raster_that_is_no_map_is_not_called_one(artifact, scenes, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    write(tmp_path / "maps" / "b.tif", scene(8, 8), crs=None, transform=None)
    with pytest.raises(SystemExit):
        run(artifact, scenes / "b.tif", "--output", tmp_path / "maps")
    said = capsys.readouterr().err
    assert "is there and is no map of kdjax" in said and "earlier call" not in said


@pytest.mark.parametrize("processes", [1, 2])
def test_the_sums_of_older_maps_are_gone_while_new_ones_are_made(artifact, scenes, tmp_path, monkeypatch, processes):
    """A command that is ended then leaves no table that stands beside maps of which it says nothing."""
    folder = tmp_path / "maps"
    run(artifact, scenes, "--output", folder)
    sums = (folder / "areas.csv").read_bytes()
    for number, name in enumerate("abc"):
        write(scenes / f"{name}.tif", scene(40 + 8 * number, 56, seed=number + 5))

    def ended(*arguments):
        assert not (folder / "areas.csv").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(mapping, "write_map", ended)
        during.setattr(workers, "share", ended)
        with pytest.raises(KeyboardInterrupt):
            run(artifact, scenes, "--output", folder, f"--workers={processes}")
    assert not (folder / "areas.csv").exists()
    run(artifact, scenes, "--output", folder)
    fresh = (folder / "areas.csv").read_bytes()
    assert fresh != sums
    run(artifact, scenes, "--output", folder)  # nothing is new
    assert (folder / "areas.csv").read_bytes() == fresh


def test_a_map_whose_files_are_not_all_in_place_is_none(artifact, scenes, tmp_path, monkeypatch):
    """Where the machine fails between two files no older map stands for the new files."""
    run(artifact, scenes / "a.tif", "--output", tmp_path / "maps")
    replace, moved = Path.replace, []

    def failing(path, target):
        if len(moved) == 3:
            raise OSError("the disk is gone")
        moved.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(SystemExit):
        run(artifact, scenes / "a.tif", "--output", tmp_path / "maps", "--stride=8")
    monkeypatch.undo()
    assert len(moved) == 3 and not (tmp_path / "maps" / "a.tif").exists()


def test_workers_divide_the_cores(artifact, scenes, tmp_path, monkeypatch):
    asked = []

    def alone(begin, jobs, count, done):
        asked.append((begin.args[-1], count))
        for job in jobs:
            done(job, begin()(job))

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
    assert set(contents(folder)) == held | {".lock"}


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
