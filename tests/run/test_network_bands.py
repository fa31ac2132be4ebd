"""Which bands a network takes, and whose statistics."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from kdjax.config import base
from kdjax.data.bands import Bands
from kdjax.data.dataset import Dataset, Split, Statistics
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError
from kdjax.networks.layers import InputBands
from kdjax.run import run as runs
from kdjax.run.network_bands import (
    NAME,
    NetworkBands,
    bands_of,
    document,
    with_file_statistics,
    with_recorded_statistics,
)
from kdjax.run.other_run import OtherRun

MULTI = SimpleNamespace(
    meaning=Meaning((0.0, 10_000.0), bands=Bands(("B02", "B03", "B04", "B08"))),
    statistics=Statistics((0.1, 0.2, 0.3, 0.4), (0.01, 0.02, 0.03, 0.04)),
    value_range=(0.0, 10_000.0),
)
RGB = SimpleNamespace(meaning=Meaning(), statistics=None, value_range=())


def other(folder: Path, dataset) -> OtherRun:
    if (found := document(dataset)) is not None:
        (folder / NAME).write_text(json.dumps(found))
    return OtherRun("teacher.workdir", folder, "teacher")


def demo(*bands):
    """The configuration of a small run."""
    config = base()
    config.dataset.update(
        source="demo", image_size=32, storage_size=32, demo_train=20, demo_test=10, demo_validation=10, bands=bands
    )
    config.student.update(batch_size=8, weights="")
    config.teacher.update(model="vgg16_bn", width=0.05, batch_size=8, weights="")
    return config


def test_bands_of_a_configuration_that_trained_nothing_are_gone_with_it(tmp_path):
    """Else the run, of plain colors by now, could teach no other."""
    config = demo("red", "nir")
    opened = lambda: runs.open_run(config, tmp_path / "run", tmp_path / "cache", lambda line: None)
    opened()
    assert (tmp_path / "run" / NAME).is_file()
    (tmp_path / "run" / ".lock").unlink()
    config.dataset.bands = ()
    opened()
    assert not (tmp_path / "run" / NAME).exists()


def test_a_run_that_has_begun_keeps_its_statistics(tmp_path):
    """An image that has changed since, or another library, gives others; its networks have learned with these."""
    split = Split(np.zeros((0, 2, 2, 4), np.uint16), np.zeros(0, np.int32), ())
    dataset = Dataset(
        "s", ("a",), split, split, split, fingerprint="", notes=(), members={}, overlap=None,
        meaning=MULTI.meaning, statistics=MULTI.statistics,
    )  # fmt: skip
    assert with_recorded_statistics(tmp_path, dataset) is dataset
    (tmp_path / NAME).write_text(json.dumps({**document(MULTI), "mean": [0.5] * 4}))
    assert with_recorded_statistics(tmp_path, dataset).statistics == Statistics((0.5,) * 4, MULTI.statistics.std)
    for kept in ([], *({**document(MULTI), "names": names} for names in (["B02"], ["B03", "B02", "B04", "B08"]))):
        (tmp_path / NAME).write_text(json.dumps(kept))
        with pytest.raises(InputError, match="bands.json is not of the bands of this run"):
            with_recorded_statistics(tmp_path, dataset)


def test_what_a_run_began_with_stays_however_often_it_is_opened(tmp_path):
    folder, said = tmp_path / "run", []
    opened = lambda: runs.open_run(demo("red", "nir"), folder, tmp_path / "cache", said.append)
    opened()
    (folder / ".lock").unlink()
    (folder / "teacher" / "checkpoints" / "1").mkdir(parents=True)
    bands, splits = (json.loads((folder / name).read_text()) for name in (NAME, "splits.json"))
    (folder / NAME).write_text(json.dumps({**bands, "mean": [0.25, 0.75]}))  # as if the images had been others
    (folder / "splits.json").write_text(json.dumps({**splits, "fingerprint": "another"}))
    for _ in range(2):
        said.clear()
        run = opened()
        (folder / ".lock").unlink()
        assert run.dataset.statistics.mean == run.student.network.bands.mean == (0.25, 0.75)
        assert sum("other versions resize them to other pixels" in line for line in said) == 1
    assert json.loads((folder / NAME).read_text())["mean"] == [0.25, 0.75]


def test_bands_are_taken_by_name_with_their_statistics():
    assert bands_of("student", (), RGB) is None
    assert bands_of("student", (), MULTI).input.chosen == (0, 1, 2, 3)
    expected = NetworkBands(("B08", "B02"), InputBands((0.4, 0.1), (0.04, 0.01), (3, 0)))
    assert bands_of("student", ("b8", "B02"), MULTI) == expected


def test_a_network_of_another_run_keeps_its_statistics(tmp_path):
    there = SimpleNamespace(
        meaning=Meaning((0.0, 10_000.0), bands=Bands(("B08", "B04"))), statistics=Statistics((0.7, 0.8), (0.1, 0.2))
    )
    found = bands_of("teacher", (), MULTI, other(tmp_path, there))
    assert found == NetworkBands(("B08", "B04"), InputBands((0.7, 0.8), (0.1, 0.2), (3, 2)))


@pytest.mark.parametrize(
    ("names", "here", "there", "said"),
    [
        (("B11",), MULTI, None, "teacher.bands: there is no band 'B11' among B02, B03, B04, B08"),
        (("B04",), RGB, None, r"teacher.bands is \('B04',\), but the images are plain red, green and blue"),
        ((), MULTI, RGB, "was trained on plain red, green and blue"),
        ((), RGB, MULTI, "has bands of its own"),
        (
            (),
            MULTI,
            SimpleNamespace(
                meaning=Meaning((1000.0, 11_000.0), bands=MULTI.meaning.bands), statistics=MULTI.statistics
            ),
            r"maps the values \[1000.0, 11000.0\], this run \[0.0, 10000.0\]: set dataset.value_range",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, names, here, there, said):
    with pytest.raises(InputError, match=said):
        bands_of("teacher", names, here, other(tmp_path, there) if there else None)


BANDS = {"bands": '["B08", "B02"]', "value_range": "[0, 10000]", "mean": "[0.7, 0.8]", "std": "[0.1, 0.2]"}


def weights(folder: Path, facts, fit="nothing") -> SimpleNamespace:
    """A teacher's section whose file says this of itself."""
    save_file({"x": np.zeros(1, np.float32)}, folder / "theirs.safetensors", facts)
    return SimpleNamespace(weights=str(folder / "theirs.safetensors"), fit=fit, get=lambda name, default: fit)


@pytest.mark.parametrize("fit", ["nothing", "head"])
def test_a_network_that_stays_as_its_file_has_it_keeps_the_statistics_of_that_file(tmp_path, fit):
    ours = bands_of("teacher", ("B08", "B02"), MULTI)
    found = with_file_statistics(weights(tmp_path, BANDS, fit), tmp_path / "teacher", ours, MULTI)
    assert found == NetworkBands(("B08", "B02"), InputBands((0.7, 0.8), (0.1, 0.2), (3, 0)))


def test_a_network_that_is_trained_and_one_widened_from_red_green_and_blue_take_those_of_the_data(tmp_path):
    ours = bands_of("teacher", ("B08", "B02"), MULTI)
    assert with_file_statistics(weights(tmp_path, BANDS, "all"), tmp_path, ours, MULTI) is ours
    assert with_file_statistics(weights(tmp_path, {"value_range": "[]"}), tmp_path, ours, MULTI) is ours
    assert with_file_statistics(weights(tmp_path, {"value_range": "[0, 5]"}), tmp_path, None, RGB) is None
    assert with_file_statistics(SimpleNamespace(weights="org/name", get=lambda *_: "head"), tmp_path, None, RGB) is None


def test_a_teacher_with_a_checkpoint_keeps_its_statistics_when_the_file_is_gone(tmp_path):
    ours, section = (
        bands_of("teacher", ("B08", "B02"), MULTI),
        SimpleNamespace(weights="gone", get=lambda *_: "nothing"),
    )
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    assert with_file_statistics(section, tmp_path, ours, MULTI) is ours  # it was made before files said so
    said = {"bands": ["B08", "B02"], "mean": [0.7, 0.8], "std": [0.1, 0.2]}
    (tmp_path / "weights.json").write_text(json.dumps(said))
    assert with_file_statistics(section, tmp_path, ours, MULTI).input == InputBands((0.7, 0.8), (0.1, 0.2), (3, 0))
    (tmp_path / "weights.json").write_text(json.dumps({**said, "bands": ["B02", "B08"]}))
    assert with_file_statistics(section, tmp_path, ours, MULTI) is ours


@pytest.mark.parametrize(
    ("facts", "here", "said"),
    [
        ({"mean": "[0.7]"}, MULTI, "teacher.weights .*theirs.* not the mean and std .*: export it again"),
        ({"std": "[0.1, 0]"}, MULTI, "not the mean and std"),
        ({"std": "[0.1, NaN]"}, MULTI, "not the mean and std"),
        ({"mean": "null"}, MULTI, "not the mean and std"),
        (
            {"value_range": "[0, 4000]"},
            MULTI,
            r"made for the values \[0.0, 4000.0\], not \[0.0, 10000.0\]: set dataset",
        ),
        ({"value_range": "[]"}, MULTI, r"made for the values \[\], not \[0.0, 10000.0\]"),
        (
            {"bands": "null", "value_range": "[0, 4000]"},
            SimpleNamespace(meaning=Meaning((0.0, 1.0)), statistics=None, value_range=(0.0, 1.0)),
            r"made for the values \[0.0, 4000.0\], not \[0.0, 1.0\]",
        ),
    ],
)
def test_a_file_of_other_pixels_or_of_unknown_ones_is_refused(tmp_path, facts, here, said):
    ours = bands_of("teacher", ("B08", "B02") if here is MULTI else (), here)
    with pytest.raises(InputError, match=said):
        with_file_statistics(weights(tmp_path, BANDS | facts), tmp_path / "teacher", ours, here)


@pytest.mark.parametrize("fit", ["nothing", "all"])
def test_a_run_gives_its_teacher_the_statistics_of_the_file_where_it_is_not_trained(tmp_path, monkeypatch, fit):
    config = base()
    config.teacher.update(fit=fit, weights=weights(tmp_path, BANDS).weights, bands=("B08", "B02"))
    monkeypatch.setattr(runs, "Learner", lambda **fields: SimpleNamespace(**fields))
    monkeypatch.setattr(runs, "_network", lambda config, section, dataset, bands: bands.input)
    data = SimpleNamespace(**vars(MULTI), train=SimpleNamespace(labeled=lambda: range(100)))
    found = runs._teacher(config, tmp_path / "run", data, print)
    mean, std = ((0.7, 0.8), (0.1, 0.2)) if fit == "nothing" else ((0.4, 0.1), (0.04, 0.01))
    assert found.network == InputBands(mean, std, (3, 0)) and found.folder == tmp_path / "run" / "teacher"
