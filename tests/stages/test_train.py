"""What a stage keeps of its program: for runs that go on, and for those that take its teacher."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.stages.train import _arms_at_once

ONE = SimpleNamespace(failed=np.zeros((1, 1)))  # one student: nothing to decide


@pytest.fixture
def decide(tmp_path):
    def call(configured, *, total, resumed):
        run = SimpleNamespace(workdir=tmp_path, config=SimpleNamespace(run=SimpleNamespace(arms_at_once=configured)))
        return _arms_at_once(run, "distill", None, 32, 8, ONE, None, total, resumed)

    return call


def test_without_a_checkpoint_the_record_of_another_configuration_is_replaced(decide, tmp_path):
    assert decide(None, total=8, resumed=False) is None
    assert decide(1, total=4, resumed=False) == 1
    assert json.loads((tmp_path / "distill" / "program.json").read_text()) == {"arms_at_once": 1, "steps": 4}


def test_a_resumed_run_keeps_what_was_decided_unless_told_otherwise(decide):
    decide(2, total=8, resumed=False)
    assert decide(None, total=8, resumed=True) == 2
    assert decide(1, total=8, resumed=True) == 1
    assert decide(None, total=8, resumed=True) == 1
