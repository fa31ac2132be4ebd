"""What a learner keeps in its folder, and what is read from it."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_run import MAPPINGS, learner
from safetensors.numpy import save_file

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.training import initial_weights
from kdjax.training.learner import WEIGHTS
from kdjax.training.step import empty_averages


def test_the_record_of_weights_counts_where_training_started_from_weights(tmp_path):
    made = learner(tmp_path, MAPPINGS["one"]())
    (tmp_path / WEIGHTS).write_text(json.dumps({"source": "theirs.safetensors"}))
    started = dataclasses.replace(made, section=SimpleNamespace(**{**vars(made.section), "weights": "theirs"}))
    assert started.weights == {"source": "theirs.safetensors"}
    assert made.weights is None
    assert dataclasses.replace(made, read_only=True).weights == started.weights  # of a run that began with them


def test_weights_of_the_same_bands_in_another_order_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "check", lambda *given: None)  # of tensors, which are not looked at here
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "theirs.safetensors", {"bands": '["nir", "red"]'})
    made = learner(tmp_path, MAPPINGS["one"]())
    section = base().student
    section.weights = str(tmp_path / "theirs.safetensors")
    made = dataclasses.replace(made, section=section, bands=("nir", "red"))
    initial_weights.check(made)
    with pytest.raises(InputError, match="student.weights .*: made for the bands nir red, not red nir: set student.ba"):
        initial_weights.check(dataclasses.replace(made, bands=("red", "nir")))


def test_it_has_ended_when_its_last_step_is_saved(tmp_path):
    made = learner(tmp_path, MAPPINGS["one"](), until=12)
    (tmp_path / "checkpoints" / "11").mkdir(parents=True)
    assert made.has_checkpoints and not made.has_ended
    (tmp_path / "checkpoints" / "12").mkdir()
    assert made.has_ended


def test_networks_whose_validation_was_never_finite_are_not_what_training_began_with(tmp_path):
    """Their best step holds the initial weights, which would teach, be exported and be measured as if trained."""
    for total in (2, 1):
        made = learner(tmp_path / str(total), MAPPINGS["one"](), until=total)
        checkpoints, state = made.checkpoints(), dataclasses.replace(made.scratch(), step=np.int32(1))
        checkpoints.save(*made.mapping.place((state, empty_averages(made.rows, ("ce",))), "rows"))
        checkpoints.close()
        if total > 1:  # no validation has come yet
            assert not made.selected().usable.any()
            with pytest.raises(InputError, match="is at step 1 of 2: run"):
                made.finished()
    said = "no step of the student in .* had finite outputs on validation: lower student.learning_rate and train in"
    for look in (made.selected, made.finished):
        with pytest.raises(InputError, match=said):
            look()
