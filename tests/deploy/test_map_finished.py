"""Which maps are finished and stay, and which are made anew: cut off, of other inputs, of older rasters."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import write_model  # noqa: E402
from helpers.maps import CLASSES, NORTH_UP, SIDE, areas, digests, run, scene, write  # noqa: E402

from kdjax.deploy.landuse_map import mapping, workers  # noqa: E402
from kdjax.deploy.landuse_map.outputs import OUTPUTS  # noqa: E402
from kdjax.errors import InputError  # noqa: E402

CHANGES = {
    "nothing": "",
    "dates": "",
    "name of the model": "",
    "the same tile by hand": "",
    "batch": "",
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
        "batch": ["--batch=5"],
    }.get(kind, [])
    capsys.readouterr()
    run(model, scenes, "--output", folder, *flags)
    said = capsys.readouterr().out.splitlines()
    assert [name for name in "abc" if f"{scenes}/{name}.tif: mapped" in said] == list(CHANGES[kind])
    assert [name for name in "abc" if f"{scenes}/{name}.tif: already mapped" in said] == sorted(
        set("abc") - set(CHANGES[kind])
    )
    before = digests(folder)
    shutil.rmtree(folder)
    run(model, scenes, "--output", folder, *flags)
    fresh = digests(folder)
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
    before, (name, end) = digests(folder), DAMAGED[kind]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: end(content) if callable(end) else end])
    assert digests(folder) != before
    capsys.readouterr()
    run(*arguments, folder)
    said = capsys.readouterr().out
    assert f"{scenes}/b.tif: mapped" in said and said.count("already mapped") == 2
    assert digests(folder) == before
    hectares = sum(float(row["area_ha"]) for row in areas(folder / "areas.csv").values())
    assert hectares == pytest.approx((40 + 48 + 56) * 56 * 0.25 / 1e4, abs=1e-3)  # pixels of 0.5 m


def test_the_table_of_another_map_is_none_of_this_one(artifact, scenes, tmp_path, capsys):
    folder = tmp_path / "maps"
    run(artifact, scenes, "--output", folder)
    before = digests(folder)
    shutil.copy(folder / "a_areas.csv", folder / "b_areas.csv")
    run(artifact, scenes, "--output", folder)
    assert digests(folder) == before


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
    cells = [sum(int(row["cells"]) for row in areas(folder / f"{name}areas.csv").values()) for name in ("", "a_", "c_")]
    assert cells[0] == cells[1] + cells[2]  # without b


def test_a_raster_that_is_no_map_is_not_called_one(artifact, scenes, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    write(tmp_path / "maps" / "b.tif", scene(8, 8), crs=None, transform=None)
    with pytest.raises(SystemExit):
        run(artifact, scenes / "b.tif", "--output", tmp_path / "maps")
    said = capsys.readouterr().err
    assert "exists and is not a kdjax map" in said and "earlier call" not in said


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


@pytest.mark.parametrize("second", ["map.tif", "map.tiff"])
def test_a_map_has_no_files_of_another_command(artifact, scenes, tmp_path, monkeypatch, second):
    """One that ends between the last two files of this one."""
    replace = Path.replace
    for name in ("alone", "both"):
        (tmp_path / name).mkdir()
    run(artifact, scenes / "a.tif", tmp_path / "alone" / "map.tif")

    def meanwhile(path, target):
        if target.name == "map.tif":
            monkeypatch.setattr(Path, "replace", replace)
            with pytest.raises(InputError, match="another command writes this map; wait for it"):
                run(artifact, scenes / "b.tif", tmp_path / "both" / second, "--stride=8", "--polygons")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    run(artifact, scenes / "a.tif", tmp_path / "both" / "map.tif")
    assert digests(tmp_path / "both") == digests(tmp_path / "alone")
    run(artifact, scenes / "b.tif", tmp_path / "both" / second, "--stride=8")
