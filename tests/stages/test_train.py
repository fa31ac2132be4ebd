"""What a stage keeps of its program: for runs that go on, and for those that take its teacher."""

import json
from types import SimpleNamespace

import pytest

from kdjax.errors import InputError
from kdjax.stages.train import _arms_at_once


@pytest.fixture
def decide(tmp_path, monkeypatch):
    monkeypatch.setattr("kdjax.stages.train.arms_at_once", lambda population, log: None)  # all fit

    def call(configured, *, total, resumed):
        run = SimpleNamespace(config=SimpleNamespace(run=SimpleNamespace(arms_at_once=configured)), log=print)
        learner = SimpleNamespace(
            folder=tmp_path / "distill", has_checkpoints=resumed, total_steps=total, seeds=(3, 8),
            arms=(SimpleNamespace(name="alone"), SimpleNamespace(name="kl")), projection=None,
        )  # fmt: skip
        return _arms_at_once(run, SimpleNamespace(learner=learner))

    return call


def test_without_a_checkpoint_the_record_of_another_configuration_is_replaced(decide, tmp_path):
    assert decide(None, total=8, resumed=False) is None
    assert decide(1, total=4, resumed=False) == 1
    assert json.loads((tmp_path / "distill" / "program.json").read_text()) == {
        "arms_at_once": 1, "steps": 4, "seeds": [3, 8], "arms": ["alone", "kl"], "projection": None,
    }  # fmt: skip


def test_a_resumed_run_keeps_what_was_decided_unless_told_otherwise(decide):
    decide(2, total=8, resumed=False)
    assert decide(None, total=8, resumed=True) == 2
    assert decide(1, total=8, resumed=True) == 1
    assert decide(None, total=8, resumed=True) == 1


def test_all_processes_take_the_number_of_the_first(decide, monkeypatch):
    monkeypatch.setattr("kdjax.stages.train.first_process_says", lambda answer: 3 if answer == 0 else answer)
    assert decide(None, total=8, resumed=False) == 3


def test_a_damaged_record_is_named(decide, tmp_path):
    decide(2, total=8, resumed=False)
    (tmp_path / "distill" / "program.json").write_text("{")
    with pytest.raises(InputError, match="program.json .*: remove it"):
        decide(None, total=8, resumed=True)
