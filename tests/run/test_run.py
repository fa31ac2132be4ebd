"""What is said where the images under a run's names are not the same any more."""

import json
from types import SimpleNamespace

from kdjax.run.run import _check_same_data, _splits


def test_other_pixels_under_the_same_names_are_told_and_taken(tmp_path):
    def dataset(fingerprint):
        return SimpleNamespace(splits_document=lambda: {"train": ["a"], "test": ["b"]}, fingerprint=fingerprint)

    (tmp_path / "splits.json").write_text(json.dumps(_splits(dataset("1"))))
    said = []
    _check_same_data(tmp_path, dataset("1"), said.append)
    assert said == []
    _check_same_data(tmp_path, dataset("2"), said.append)
    assert len(said) == 1 and "not those that this run began with" in said[0]
