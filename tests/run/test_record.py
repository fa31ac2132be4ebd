"""Whether a directory still holds the same run: its configuration and its images."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tiles import OPTIONS, picture, sides, write_classes
from PIL import Image

from kdjax import data
from kdjax.config import base
from kdjax.errors import InputError
from kdjax.run import checks, record


def dataset(fingerprint, labels=(0,), classes=("field", "lake")):
    split = lambda *names: SimpleNamespace(names=names, labels=np.array(labels * len(names)))
    return SimpleNamespace(
        train=split("a"), validation=split(), test=split("b"), fingerprint=fingerprint, value_range=(0.0, 3000.0),
        members={"train": ("a",)}, digests={"a": "0" * 64},
        splits_document=lambda: {"train": ["a"], "test": ["b"], "classes": list(classes)},
    )  # fmt: skip


def test_other_pixels_of_the_same_images_are_logged_and_taken(tmp_path):
    """As another version of a library resizes them; where the images are does not matter."""
    (tmp_path / "splits.json").write_text(json.dumps(record.splits_document(dataset("1"))))
    said = []
    record.check_same_data(tmp_path, dataset("1"), "tiles", said.append)
    assert said == []
    written(tmp_path, {"dataset": {"path": "/old/tiles"}})
    record.check_same_data(tmp_path, dataset("2"), "tiles", said.append)
    assert len(said) == 1 and "those that this run began with, but other versions resize them" in said[0]
    assert json.loads((tmp_path / "splits.json").read_text())["value_range"] == [0.0, 3000.0]


def test_changed_images_are_refused_wherever_they_are(tmp_path):
    """The teacher or half of the students may have learned from others, or an evaluation be of others."""
    begun = load(write_classes(tmp_path / "tiles"))
    (tmp_path / "splits.json").write_text(json.dumps(record.splits_document(begun)))
    for changed in ("field/field07.png", "town/town03.png"):
        Image.fromarray(picture(len(changed), 20, 20)).save(tmp_path / "tiles" / changed)
    changed = load(tmp_path / "tiles")
    assert sides(changed) == sides(begun)
    for path in (tmp_path / "tiles", "elsewhere"):
        with pytest.raises(InputError, match="2 of 60 have changed, or are decoded differently, such as field/field07"):
            record.check_same_data(tmp_path, changed, str(path), print)


def load(path):
    return data.load(path=str(path), **OPTIONS)


def older_run(tmp_path):
    """A run whose splits.json has no digests."""
    document = record.splits_document(dataset("1"))
    del document["digests"]
    (tmp_path / "splits.json").write_text(json.dumps(document))
    written(tmp_path, {"dataset": {"path": "/old/tiles"}})


def test_images_of_a_run_without_digests_may_move_but_not_change(tmp_path):
    document = now()
    document["dataset"]["path"] = "/old/tiles"
    older_run(tmp_path)
    written(tmp_path, document)
    record.check_same_config(tmp_path, now())
    said = []
    record.check_same_data(tmp_path, dataset("1"), "/new/tiles", said.append)
    assert said == []
    with pytest.raises(InputError, match="other images of the same names: dataset.path is '/new/tiles', was '/old/til"):
        record.check_same_data(tmp_path, dataset("2"), "/new/tiles", said.append)
    document["dataset"]["source"] = "tfds"
    written(tmp_path, document)
    with pytest.raises(
        InputError, match="dataset.source is 'folder', was 'tfds'; set it back or choose another workdir"
    ):
        record.check_same_config(tmp_path, now())


@pytest.mark.parametrize("stage", ["teacher", "distill"])
def test_a_run_without_digests_trains_on_with_the_same_pixels_alone(tmp_path, stage):
    """Whether the images have changed cannot be told, so that only networks at their end may see them."""
    older_run(tmp_path)
    checkpoints, said = tmp_path / stage / "checkpoints", []
    (checkpoints / "3").mkdir(parents=True)
    for document in (None, {"steps": 6}):
        if document:
            (tmp_path / stage / "program.json").write_text(json.dumps(document))
        record.check_same_data(tmp_path, dataset("1"), "/old/tiles", said.append)
        with pytest.raises(InputError, match="an unfinished training on images that have changed since, or were dec"):
            record.check_same_data(tmp_path, dataset("2"), "/old/tiles", said.append)
    assert said == []
    (checkpoints / "6").mkdir()
    record.check_same_data(tmp_path, dataset("2"), "/old/tiles", said.append)
    assert len(said) == 1 and "not those that this run began with" in said[0]


def test_the_path_of_the_first_process_is_the_one_that_is_compared(tmp_path, monkeypatch):
    """Only that process writes its path; each other one may have its own, and would leave the rest waiting."""
    older_run(tmp_path)
    monkeypatch.setattr(record.devices, "first_process_says", lambda answer: 0)
    record.check_same_data(tmp_path, dataset("2"), "/local/tiles", print)


def test_classes_in_another_order_and_other_labels_are_refused(tmp_path):
    """Both would go on with networks whose answers mean something else."""
    (tmp_path / "splits.json").write_text(json.dumps(record.splits_document(dataset("1"))))
    with pytest.raises(
        InputError, match="classes have another order, field, lake, … in its splits.json, now lake, fie"
    ):
        record.check_same_data(tmp_path, dataset("1", classes=("lake", "field")), "tiles", print)
    with pytest.raises(InputError, match="images with other labels: put the data back"):
        record.check_same_data(tmp_path, dataset("1", labels=(1,)), "tiles", print)
    older = record.splits_document(dataset("1"))
    del older["labels"]
    (tmp_path / "splits.json").write_text(json.dumps(older))
    record.check_same_data(tmp_path, dataset("1", labels=(1,)), "tiles", print)  # of a run that did not write them down


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_labels_of_each_side_are_those_of_the_run(tmp_path, side):
    data = dataset("1")
    data.validation = SimpleNamespace(names=("c",), labels=np.array([0]))
    (tmp_path / "splits.json").write_text(json.dumps(record.splits_document(data)))
    record.check_same_data(tmp_path, data, "tiles", print)
    getattr(data, side).labels = np.array([1])
    with pytest.raises(InputError, match="images with other labels"):
        record.check_same_data(tmp_path, data, "tiles", print)


def now(**fields):
    return {**json.loads(base().to_json()), **fields}


def written(tmp_path, document):
    (tmp_path / "config.json").write_text(json.dumps(document))


def test_a_run_of_an_earlier_version_goes_on_where_its_fields_meant_the_same(tmp_path):
    before = now()
    before["student"] |= {"depthwise": "conv"}
    before["teacher"] |= {"convolution": "winograd"}
    before["distill"] |= {"cosine_on": "logits"}
    before["dataset"]["unlabelled"] = before["dataset"].pop("unlabeled")
    before["dataset"]["unlabelled_dir"] = before["dataset"].pop("unlabeled_dir")
    del before["dataset"]["augmentation"], before["student"]["head"], before["run"]["form"]
    del before["arms"]["cosine_probabilities"]  # an arm that it could not have trained
    written(tmp_path, before)
    record.check_same_config(tmp_path, now())
    before["distill"]["cosine_on"] = "probabilities"
    written(tmp_path, before)
    with pytest.raises(InputError, match="distill.cosine_on is None, was 'probabilities'"):
        record.check_same_config(tmp_path, now())
    before["distill"]["cosine_on"], before["dataset"]["unlabelled"] = "logits", "drop"
    written(tmp_path, before)
    with pytest.raises(InputError, match="dataset.unlabeled is 'keep', was 'drop'"):
        record.check_same_config(tmp_path, now())


def test_the_first_field_that_differs_is_named_and_the_section_run_is_free(tmp_path):
    written(tmp_path, now())
    document = now()
    document["run"]["log_seconds"] = 3.0
    record.check_same_config(tmp_path, document)
    document["arms"]["kl"]["kl"] = 2.0
    with pytest.raises(InputError, match="arms.kl.kl is 2.0, was 1.0"):
        record.check_same_config(tmp_path, document)


def test_every_other_field_but_where_the_images_lie_decides(tmp_path):
    written(tmp_path, now())
    free = []
    for section in ("dataset", "teacher", "student", "distill"):
        for field in now()[section]:
            changed = now()
            changed[section][field] = "something else"
            try:
                record.check_same_config(tmp_path, changed)
                free.append((section, field))
            except InputError:
                pass
    assert free == [("dataset", "path")]


@pytest.mark.parametrize("field", ["splits", "places", "unlabeled_dir"])
def test_what_splits_the_images_may_move_but_neither_come_nor_go(tmp_path, field):
    """Their names, sides and digests are compared."""
    before, after = now(), now()
    before["dataset"][field], after["dataset"][field] = "old/place", "new/place"
    written(tmp_path, before)
    record.check_same_config(tmp_path, after)
    with pytest.raises(InputError, match=f"dataset.{field} is None, was 'old/place'"):
        record.check_same_config(tmp_path, now())


@pytest.mark.parametrize(("section", "stage"), [("teacher", "teacher"), ("student", "distill")])
def test_weights_that_training_started_from_may_move_or_go(tmp_path, section, stage):
    old, new, other = (tmp_path / f"{name}.safetensors" for name in ("old", "new", "other"))
    new.write_bytes(b"weights")
    other.write_bytes(b"others")
    started, moved = now(), now()
    started[section]["weights"], moved[section]["weights"] = str(old), str(new)
    written(tmp_path, started)
    (tmp_path / stage / "checkpoints" / "3").mkdir(parents=True)
    record.check_same_config(tmp_path, started)  # the file is gone
    with pytest.raises(InputError, match=f"{section}.weights is '.*new.safetensors', was '.*old.safetensors'"):
        record.check_same_config(tmp_path, moved)  # nothing says what the file was
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / stage / "weights.json").write_text(json.dumps({"sha256": digest}))
    record.check_same_config(tmp_path, moved)
    for path in (str(other), str(tmp_path / "none.safetensors"), ""):
        changed = now()
        changed[section]["weights"] = path
        with pytest.raises(InputError, match=f"{section}.weights is '{path}', was"):
            record.check_same_config(tmp_path, changed)
    (tmp_path / stage / "checkpoints" / "3").rmdir()  # it is still to be read: one at another path is another choice
    with pytest.raises(InputError, match=f"{section}.weights is"):
        record.check_same_config(tmp_path, moved)


def test_networks_with_checkpoints_need_no_file_of_weights(tmp_path):
    config = base()
    config.teacher.weights, config.student.weights = "none.safetensors", "nothing.safetensors"
    assert record.begun_sections(tmp_path) == []
    with pytest.raises(InputError, match="teacher.weights: no file none.safetensors"):
        checks.validate(config)
    (tmp_path / "teacher" / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match="student.weights: no file nothing.safetensors"):
        checks.validate(config, record.begun_sections(tmp_path))
    (tmp_path / "distill" / "checkpoints" / "3").mkdir(parents=True)
    checks.validate(config, record.begun_sections(tmp_path))


@pytest.mark.parametrize("stage", ["teacher", "distill"])
def test_a_run_has_begun_with_the_first_checkpoint_of_any_stage(tmp_path, stage):
    (tmp_path / stage / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)  # killed during its first save
    assert not record.has_begun(tmp_path)
    (tmp_path / stage / "checkpoints" / "5").mkdir()
    assert record.has_begun(tmp_path)
    (tmp_path / stage / "checkpoints" / "5").rename(tmp_path / stage / "checkpoints" / "damaged-5")
    assert record.has_begun(tmp_path)


def test_the_baseline_decides_where_it_was_trained_though_no_field_names_it(tmp_path):
    document = now()
    del document["arms"]["labeled_alone"]  # the default is then taken
    written(tmp_path, document)
    other = now()
    record.check_same_config(tmp_path, other)
    other["arms"]["labeled_alone"] |= {"learning_rate": 0.1}
    record.check_same_config(tmp_path, other)
    (tmp_path / "distill").mkdir()
    program = tmp_path / "distill" / "program.json"
    program.write_text(json.dumps({"arms": ["student_alone", "kl"]}))
    record.check_same_config(tmp_path, other)
    program.write_text(json.dumps({"arms": ["student_alone", "kl", "labeled_alone"]}))
    record.check_same_config(tmp_path, now())
    with pytest.raises(InputError, match="arms.labeled_alone.learning_rate is 0.1, was None"):
        record.check_same_config(tmp_path, other)
    program.write_text("{")
    with pytest.raises(InputError, match="program.json is not readable JSON .*: remove it"):
        record.check_same_config(tmp_path, now())


@pytest.mark.parametrize("content", ["{", "[]", "\x00", '{"student": 3}', '{"distill": 3, "arms": []}', "{}"])
def test_a_record_that_is_none_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="config.json"):
        record.check_same_config(tmp_path, now())


def test_other_values_of_black_and_white_are_refused(tmp_path):
    """A range that was chosen from the images is another one where these have changed."""
    (tmp_path / "splits.json").write_text(json.dumps(record.splits_document(dataset("1"))))
    other = dataset("2")
    other.value_range = (134.0, 9027.0)
    with pytest.raises(InputError, match=r"the values \[0.0, 3000.0\] became black and white, now \[134.0, 9027.0\]"):
        record.check_same_data(tmp_path, other, "tiles", print)
