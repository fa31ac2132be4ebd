"""What a stage keeps of its program: for runs that go on, and for those that take its teacher."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import jax
import pytest
from helpers.small_run import arms, learner, training_data

from kdjax.errors import InputError
from kdjax.runtime.devices import DeviceMapping
from kdjax.stages import train
from kdjax.stages.train import _adopt, _check_same_weights, _initial, _is_done, _plan_program, _trace
from kdjax.training.learner import WEIGHTS
from kdjax.training.population import population


@pytest.fixture
def decide(tmp_path, monkeypatch):
    mappings = [SimpleNamespace(shape=shape) for shape in ((2, 2), (2, 1), None)]
    monkeypatch.setattr("kdjax.stages.train.for_population", lambda seeds, arms: mappings)

    @dataclasses.dataclass
    class Trained:
        learner: SimpleNamespace
        arms_at_once: int | None = None

        @property
        def recipe(self):
            return self

        def on(self, mapping):
            return Trained(SimpleNamespace(**{**vars(self.learner), "mapping": mapping}), self.arms_at_once)

        def with_arms_at_once(self, number):
            return Trained(self.learner, number)

    def call(configured, *, total, resumed, fits=0):
        monkeypatch.setattr("kdjax.stages.train.planned", lambda populations, log: populations[fits])
        run = SimpleNamespace(config=SimpleNamespace(run=SimpleNamespace(arms_at_once=configured)), log=print)
        learner = SimpleNamespace(
            folder=tmp_path / "distill", has_checkpoints=resumed, total_steps=total, seeds=(3, 8), rows=(2, 2),
            arm_names=("alone", "kl"), projection=None, mapping=mappings[0],
        )  # fmt: skip
        decided = _plan_program(run, Trained(learner))
        return decided.learner.mapping.shape, decided.arms_at_once

    return call


def test_without_a_checkpoint_the_record_of_another_configuration_is_replaced(decide, tmp_path):
    assert decide(None, total=8, resumed=False) == ((2, 2), None)
    assert decide(1, total=4, resumed=False) == (None, 1)  # one device: so many are in memory at a time
    assert json.loads((tmp_path / "distill" / "program.json").read_text()) == {
        "devices": None, "arms_at_once": 1, "steps": 4, "seeds": [3, 8], "arms": ["alone", "kl"], "projection": None,
    }  # fmt: skip
    assert decide(None, total=8, resumed=False) == ((2, 2), None)  # what was decided for a start that left nothing


def test_a_resumed_run_keeps_what_was_decided_unless_told_otherwise(decide):
    decide(2, total=8, resumed=False)
    assert decide(None, total=8, resumed=True) == (None, 2)
    assert decide(1, total=8, resumed=True) == (None, 1)
    assert decide(None, total=8, resumed=True) == (None, 1)


def test_a_resumed_run_keeps_its_devices(decide, tmp_path):
    """Memory may be shorter or longer now than when it began; the same program gives the same bits."""
    assert decide(None, total=8, resumed=False, fits=1) == ((2, 1), None)
    assert decide(None, total=8, resumed=True, fits=0) == ((2, 1), None)
    record = tmp_path / "distill" / "program.json"
    document = json.loads(record.read_text())
    record.write_text(json.dumps({**document, "devices": [3, 1]}))  # of another machine
    assert decide(None, total=8, resumed=True, fits=0) == ((2, 2), None)
    del document["devices"]  # of a release that knew one device only
    record.write_text(json.dumps({**document, "arms_at_once": 2}))
    assert decide(None, total=8, resumed=True, fits=0) == (None, 2)


def test_all_processes_take_the_number_of_the_first(decide, monkeypatch):
    # The first process has no checkpoints either, and would take three.
    monkeypatch.setattr("kdjax.stages.train.first_process_says", lambda answer: answer if answer is False else 3)
    assert decide(None, total=8, resumed=False) == ((2, 2), 3)


def test_a_damaged_record_is_named(decide, tmp_path):
    decide(2, total=8, resumed=False)
    (tmp_path / "distill" / "program.json").write_text("{")
    with pytest.raises(InputError, match="program.json .*: remove it"):
        decide(None, total=8, resumed=True)


@pytest.mark.parametrize(("fit", "refuses"), [("nothing", True), ("head", True), ("all", False)])
def test_a_teacher_that_is_its_file_may_not_have_another(tmp_path, fit, refuses):
    """One that was trained has its weights in its checkpoints, whatever became of the file that it began with."""
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"first")
    learner = SimpleNamespace(
        name="teacher", folder=tmp_path, section=SimpleNamespace(fit=fit, weights=str(file)), read_only=False,
        weights={"sha256": hashlib.sha256(b"first").hexdigest()},
    )  # fmt: skip
    _check_same_weights(learner)
    file.write_bytes(b"other")
    if refuses:
        with pytest.raises(InputError, match="teacher.weights: .*weights.safetensors is another file"):
            _check_same_weights(learner)
        _check_same_weights(SimpleNamespace(**{**vars(learner), "read_only": True}))
    else:
        _check_same_weights(learner)
    file.unlink()  # the teacher needs it no more
    _check_same_weights(learner)


@pytest.mark.parametrize(("step", "profiled"), [(0, True), (5, True), (6, False)])
@pytest.mark.parametrize("total", [12, 5])
def test_a_profile_that_no_step_reaches_is_told(tmp_path, step, profiled, total):
    said = []
    run = SimpleNamespace(config=SimpleNamespace(run=SimpleNamespace(profile=(5, 7))), log=said.append)
    learner = SimpleNamespace(folder=tmp_path / "teacher", total_steps=total)
    assert (_trace(run, learner, step) is not None) == (profiled and total == 12)
    if said:
        assert said == [
            f"teacher: run.profile begins at step 5, and this start has the steps {step} to {total - 1}: nothing is "
            "profiled"
        ]
    assert bool(said) != (profiled and total == 12)


def test_training_from_scratch_removes_the_record_of_weights_of_a_start_that_was_given_up(tmp_path, colors):
    """Until there is a checkpoint a run may change its mind; its results and cards name the file that counted."""
    begun = population(learner(tmp_path, DeviceMapping(jax.devices()[:1])), arms(), training_data(colors))
    (tmp_path / WEIGHTS).write_text("{}")
    state, averages = _initial(begun)
    assert not (tmp_path / WEIGHTS).exists()
    assert int(state.step) == 0 and set(averages) == {"ce", "kl", "cosine", "loss", "grad_norm"}


def test_a_stage_whose_last_checkpoint_is_damaged_is_not_done(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    checkpoints = SimpleNamespace(latest_step=9, latest_whole_step=lambda: 6, close=lambda: None)
    learner = SimpleNamespace(folder=tmp_path, total_steps=9, checkpoints=lambda: checkpoints)
    assert not _is_done(learner, SimpleNamespace(log=print))


def test_a_fitted_head_has_the_class_weights(monkeypatch):
    class Fitted(Exception):
        pass

    def fit_head(learner, split, validation, *, selected_by, weights=()):
        raise Fitted(*weights)

    monkeypatch.setattr(train, "fit_head", fit_head)
    monkeypatch.setattr(train, "head_weights", lambda config, dataset: (0.5, 1.5))
    run = SimpleNamespace(config=None, dataset=SimpleNamespace(validation=None), selected_by="top1")
    with pytest.raises(Fitted) as caught:
        _adopt(run, SimpleNamespace(section=SimpleNamespace(fit="head")), None)
    assert caught.value.args == (0.5, 1.5)
