"""How many arms a step computes at once follows from what the compiled step needs."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import compiler
from helpers.small_run import MAPPINGS, arms, learner, training_data

from kdjax.errors import InputError
from kdjax.runtime import memory
from kdjax.training import memory_plan
from kdjax.training.population import Online, Population, population

GB = 10**9


def planned(monkeypatch, free, *, estimate=GB, held=0, compiled=lambda number: None, seeds=(0, 1), arms=4, last=True):
    """The decision for `free` bytes where a student is estimated and a step compiled to need what is given.

    `free` may be a function of the numbers that have been compiled.
    `held` bytes of images and outputs of the teacher lie on the device.

    Returns:
        The decision, the numbers that were compiled, and the lines that were logged.
    """

    class Trained:
        learner = dataclasses.replace(
            learner(Path("folder"), MAPPINGS["one"]()), seeds=seeds, arm_names=tuple(map(str, range(arms)))
        )

        def with_arms_at_once(self, number):
            tried.append(number)
            return dataclasses.make_dataclass("Lowered", ["number"], namespace={"lowered": lambda self: self.number})(
                number
            )

    tried, said = [], []
    monkeypatch.setattr(memory_plan, "free_bytes", lambda devices, room: free(tried) if callable(free) else free)
    monkeypatch.setattr(memory_plan, "_state_bytes", lambda population: 0)
    monkeypatch.setattr(memory_plan, "_student_bytes", lambda population: estimate)
    monkeypatch.setattr(memory_plan, "_example_bytes", lambda population: held)
    monkeypatch.setattr(memory_plan, "program_bytes", compiled)
    return memory_plan.arms_at_once(Trained(), said.append, last=last), tried, said


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_what_surely_fits_is_not_compiled(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert planned(monkeypatch, 100 * GB) == (4, [], [])  # one seed after the other
    assert planned(monkeypatch, 100 * GB, seeds=(0,)) == (None, [], [])


def test_of_several_processes_the_one_with_the_least_memory_decides(monkeypatch):
    alone = planned(monkeypatch, 2 * GB, estimate=GB // 2)
    monkeypatch.setattr(memory_plan, "smallest", lambda number: number // 100)
    assert planned(monkeypatch, 200 * GB, estimate=GB // 2) == alone


def test_what_lies_on_the_device_leaves_less_for_a_step(monkeypatch):
    assert planned(monkeypatch, 100 * GB, held=50 * GB)[:2] == (4, [])
    found, tried, said = planned(monkeypatch, 100 * GB, held=95 * GB)  # a backend that does not count
    assert (found, tried) == (4, [4]) and "needs 99.0 of 100.0 GB" in said[-1]
    found, tried, _ = planned(monkeypatch, 100 * GB, held=98 * GB)
    assert (found, tried) == (2, [2])
    with pytest.raises(InputError, match=r"^run.images: .* outputs take 120.0 GB: .*121.0 GB .* set it to 'host'$"):
        planned(monkeypatch, 100 * GB, held=120 * GB)


def test_images_outputs_and_an_online_teacher_lie_on_the_device(tmp_path, colors):
    images, labels = colors
    data = training_data(colors)
    rest = 4 * len(labels) + 4  # the labels and the data seed
    bytes_of = lambda data: memory_plan._example_bytes(population(learner(tmp_path, MAPPINGS["one"]()), arms(), data))
    assert bytes_of(data) == images.nbytes + 2 * len(labels) * 3 * 4 + rest
    assert bytes_of(dataclasses.replace(data, on_device=False)) == rest
    online = Online(None, {"kernel": np.zeros((5, 7), np.float32)}, size=8)
    assert bytes_of(dataclasses.replace(data, stored=None, online=online)) == images.nbytes + 5 * 7 * 4 + rest


def test_the_compiler_decides_what_lies_near_the_limit(monkeypatch):
    found, tried, said = planned(monkeypatch, 6 * GB, compiled=lambda number: 3 * number * GB)
    assert (found, tried) == (2, [4, 2]) and "2 of 4 arms needs 6.0 of 6.0 GB" in said[-1]
    found, tried, _ = planned(monkeypatch, 6 * GB, seeds=(0,), compiled=lambda number: 3 * (number or 4) * GB)
    assert (found, tried) == (2, [None, 2])


def test_what_the_compiler_leaves_behind_is_no_longer_free(monkeypatch):
    left = lambda tried: (6 - len(tried)) * GB
    found, tried, said = planned(monkeypatch, left, estimate=2 * GB, compiled=lambda number: 2.6 * (number or 4) * GB)
    assert (found, tried) == (1, [4, 2, 1]), said
    assert "needs 5.2 of 4.0 GB" in said[1] and "needs 2.6 of 3.0 GB" in said[2]


def test_a_tpu_computes_one_student_after_the_other(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert planned(monkeypatch, 100 * GB) == (1, [], [])
    assert planned(monkeypatch, 100 * GB, seeds=(0,)) == (1, [], [])
    assert planned(monkeypatch, 100 * GB, seeds=(0,), arms=1) == (None, [], [])


def test_what_cannot_fit_is_not_compiled(monkeypatch):
    found, tried, _ = planned(monkeypatch, 1.2 * GB, compiled=lambda number: number * GB)
    assert (found, tried) == (1, [1])


def test_a_hopeless_mapping_is_not_compiled_where_another_follows(monkeypatch):
    compiled = []
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(InputError):
        planned(monkeypatch, 0.5 * GB, compiled=compiled.append, last=False)
    assert compiled == []
    assert planned(monkeypatch, 0.5 * GB, compiled=lambda number: GB // 2)[:2] == (1, [1])  # the last one is
    assert planned(monkeypatch, GB, compiled=lambda number: GB, last=False)[:2] == (1, [1])  # and one that may fit


def test_one_student_that_does_not_fit_ends_in_a_line(monkeypatch):
    with pytest.raises(InputError, match=r"student.batch_size is 8 at 8 px: .* needs 7.0 GB .* and 2.0 GB are free"):
        planned(monkeypatch, 2 * GB, compiled=lambda number: 7 * GB)


def test_a_program_that_the_compiler_refuses_does_not_fit(monkeypatch):
    """The compiler of a TPU gives no count for what its memory could not hold."""

    def refused(message):
        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

        return type("Lowered", (), {"compile": compile})()

    full = refused("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM")
    fits = {4: math.inf, 2: 5 * GB}
    assert memory.program_bytes(full) == math.inf
    found, tried, said = planned(monkeypatch, 6 * GB, compiled=fits.get)
    assert (found, tried) == (2, [4, 2]) and "4 of 4 arms needs more than all of 6.0 GB" in said[0]
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNIMPLEMENTED"):
        memory.program_bytes(refused("UNIMPLEMENTED: no such operation"))


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_the_step_of_a_run_can_be_asked_before_it_is_made(tmp_path, colors, mapping, host):
    """The program that is asked takes what training gives it, whatever devices and images."""
    trained = population(learner(tmp_path, MAPPINGS[mapping]()), arms(), training_data(colors, host=host))
    held = colors[0].nbytes if not host else 0
    assert memory.program_bytes(trained.lowered()) > held


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_the_step_that_is_asked_is_the_one_that_training_calls(tmp_path, colors, mapping, host, monkeypatch):
    """To the letter: one compiled for arguments that lie elsewhere would be compiled again by the first step."""
    trained = population(learner(tmp_path, MAPPINGS[mapping]()), arms(), training_data(colors, host=host))
    asked, program, called = trained.lowered().as_text(), trained.compiled(), []
    monkeypatch.setattr(Population, "compiled", lambda self: lambda *args: called.append(program.lower(*args)))
    trained.step()(*trained.initial(), trained.feed(0)(0, 1), np.int32(1))
    assert called[0].as_text() == asked


def under_limit(size, megabytes, *arms):
    """A training in a process that may take so much, see `under_limit`."""
    script = Path(__file__).with_name("under_limit.py")
    return subprocess.run(
        [sys.executable, str(script), *map(str, (size, megabytes, *arms))], capture_output=True, text=True, timeout=600,
        env={**os.environ, "XLA_FLAGS": compiler.flags(devices=1)},
    )  # fmt: skip


@pytest.mark.slow
def test_the_plan_holds_under_a_limit_on_memory():
    """Of four arms as many are computed at once as fit; where not all fit, all at once really fail."""
    for size, number in ((32, 4), (128, 2), (192, 1)):
        done = under_limit(size, 1200)  # of which the compiler keeps up to half a gigabyte
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)["arms_at_once"] == number
    # More than the limit in one piece. A little less, and another thread could be the one that gets nothing and aborts.
    assert "Out of memory" in under_limit(192, 1000, 4).stderr


def test_where_memory_is_short_fewer_devices_train(monkeypatch):
    """Each of them needs memory of its own, and has a share."""

    class Trained:
        def __init__(self, devices, number=0):
            self.devices, self.number = devices, number

        def with_arms_at_once(self, number):
            return Trained(self.devices, number)

    def searched(free):
        def arms_at_once(population, log, *, last=True):
            assert last == (population.devices == 1)
            if free < population.devices * GB:
                raise InputError("no room")
            return population.devices

        monkeypatch.setattr(memory_plan, "arms_at_once", arms_at_once)
        found = memory_plan.planned([Trained(4), Trained(2), Trained(1)], print)
        return found.devices, found.number

    assert [searched(free) for free in (9 * GB, 3 * GB, GB)] == [(4, 4), (2, 2), (1, 1)]
    with pytest.raises(InputError, match="no room"):
        searched(0)
