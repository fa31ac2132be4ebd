"""Which bands a network takes, and whose statistics."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdjax.data.bands import Bands
from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError
from kdjax.networks.layers import InputBands
from kdjax.run.other_run import OtherRun
from kdjax.run.taken_bands import NAME, TakenBands, document, taken

MULTI = SimpleNamespace(
    meaning=Meaning((0.0, 10_000.0), bands=Bands(("B02", "B03", "B04", "B08"))),
    statistics=Statistics((0.1, 0.2, 0.3, 0.4), (0.01, 0.02, 0.03, 0.04)),
)
RGB = SimpleNamespace(meaning=Meaning(), statistics=None)


def other(folder: Path, dataset) -> OtherRun:
    if (found := document(dataset)) is not None:
        (folder / NAME).write_text(json.dumps(found))
    return OtherRun("teacher.workdir", folder, "teacher")


def test_bands_are_taken_by_name_with_their_statistics():
    assert taken("student", (), RGB) is None
    assert taken("student", (), MULTI).input.chosen == (0, 1, 2, 3)
    expected = TakenBands(("B08", "B02"), InputBands((0.4, 0.1), (0.04, 0.01), (3, 0)))
    assert taken("student", ("b8", "B02"), MULTI) == expected


def test_a_network_of_another_run_keeps_its_statistics(tmp_path):
    there = SimpleNamespace(
        meaning=Meaning((0.0, 10_000.0), bands=Bands(("B08", "B04"))), statistics=Statistics((0.7, 0.8), (0.1, 0.2))
    )
    found = taken("teacher", (), MULTI, other(tmp_path, there))
    assert found == TakenBands(("B08", "B04"), InputBands((0.7, 0.8), (0.1, 0.2), (3, 2)))


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
        taken("teacher", names, here, other(tmp_path, there) if there else None)
