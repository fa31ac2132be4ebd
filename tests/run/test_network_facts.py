"""What the networks of a run cost."""

from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.run import network_facts


@pytest.mark.parametrize(("arm", "networks"), [("", 3), ("kl", 1), ("alone", 2)])
def test_students_that_failed_are_in_no_mean_and_cost_nothing(monkeypatch, arm, networks):
    learner = SimpleNamespace(
        seeds=(0, 1), arm_names=("alone", "kl"),
        cost={"params": 100, "macs": 7, "activation_bytes": 50},
        finished=lambda: SimpleNamespace(usable=np.array([[True, False], [True, True]])),
    )  # fmt: skip
    given = SimpleNamespace(kind="students", title="students of runs/a")
    monkeypatch.setattr(network_facts, "given_teachers", lambda config: (given,))
    monkeypatch.setattr(network_facts.other_run, "borrowed_run", lambda teacher: SimpleNamespace(arm=arm))
    monkeypatch.setattr(network_facts, "other_networks", lambda run, other: learner)
    found = network_facts.teacher_facts(SimpleNamespace(teacher=None, config=None))
    assert found == {
        "model": "students of runs/a", "params": 100 * networks, "macs": 7 * networks, "activation_bytes": 50,
    }  # fmt: skip
