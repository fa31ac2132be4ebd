"""What a learner keeps in its folder, and says of it."""

import dataclasses
import json
from types import SimpleNamespace

from helpers.small_run import MAPPINGS, learner

from kdjax.training.learner import WEIGHTS


def test_training_from_scratch_forgets_the_weights_of_a_start_that_was_given_up(tmp_path):
    """Until there is a checkpoint a run may change its mind; its results and cards name the file that counted."""
    made = learner(tmp_path, MAPPINGS["one"]())
    (tmp_path / WEIGHTS).write_text(json.dumps({"source": "theirs.safetensors"}))
    started = dataclasses.replace(made, section=SimpleNamespace(**{**vars(made.section), "weights": "theirs"}))
    assert started.weights == {"source": "theirs.safetensors"}
    assert made.weights is None
    made.initial()
    assert not (tmp_path / WEIGHTS).exists()


def test_it_has_ended_when_its_last_step_is_saved(tmp_path):
    made = learner(tmp_path, MAPPINGS["one"](), until=12)
    (tmp_path / "checkpoints" / "11").mkdir(parents=True)
    assert made.has_checkpoints and not made.has_ended
    (tmp_path / "checkpoints" / "12").mkdir()
    assert made.has_ended
