"""Checkpoints that were damaged, cut short or could not be written."""

import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers.small_run import MAPPINGS, OPTIMIZER, Linear, train

from kdjax.errors import InputError, Preempted
from kdjax.objective import terms
from kdjax.runtime import devices
from kdjax.training import optimizer
from kdjax.training import state as states
from kdjax.training.checkpoint import Checkpoints, has_begun
from kdjax.training.step import empty_averages

ONE = MAPPINGS["one"]
EMPTY = empty_averages((2, 2), terms.CORE)


def like():
    return jax.eval_shape(
        functools.partial(states.create, states.initializer(Linear(), 8), OPTIMIZER, seeds=(0, 1), arms=2)
    )


def latest(directory, log=print):
    checkpoints = Checkpoints(directory / "checkpoints", ONE(), log=log)
    try:
        return checkpoints.restore(like(), EMPTY)
    finally:
        checkpoints.close()


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_checkpoint_that_goes_while_they_are_listed_is_none_of_them(tmp_path, colors, monkeypatch):
    """Training deletes one with each save, and orbax looks into every one that it has listed."""
    train(tmp_path, colors, mapping=ONE(), until=9)
    manager, gone = ocp.CheckpointManager, iter(range(2))

    def listing(*args, **options):
        if next(gone, None) is not None:
            raise FileNotFoundError(2, "No such file or directory", "checkpoints/6")
        return manager(*args, **options)

    monkeypatch.setattr(ocp, "CheckpointManager", listing)
    checkpoints = Checkpoints(tmp_path / "checkpoints", ONE(), read_only=True)
    assert checkpoints.all_steps()[-1] == 9 and next(gone, None) is None
    checkpoints.close()


@pytest.mark.usefixtures("every_epoch_saved")
@pytest.mark.parametrize("damage", ["one bit", "cut", "missing", "torn sums"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, colors, damage):
    whole, _, _ = train(tmp_path, colors, mapping=ONE(), until=12)
    folder = tmp_path / "checkpoints" / "12"
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        path.unlink()
    else:
        (tmp_path / "checkpoints" / "12.crc32.json").write_text('{"model')
    lines = []
    state, _ = latest(tmp_path, lines.append)
    assert int(state.step) == 9
    (line,) = lines
    assert f"{folder} is damaged" in line and (tmp_path / "checkpoints" / "damaged-12").is_dir()
    # The steps since are trained again, to the same bits.
    again, _, _ = train(tmp_path, colors, mapping=ONE(), until=12)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    largest_file(folder).unlink()  # and the disk does it once more
    state, _ = latest(tmp_path)
    assert int(state.step) == 9 and (tmp_path / "checkpoints" / "damaged-12-2").is_dir()


def test_without_a_whole_checkpoint_nothing_is_trained_anew(tmp_path, colors):
    train(tmp_path, colors, mapping=ONE(), until=6)
    for step in ("3", "6"):
        largest_file(tmp_path / "checkpoints" / step).unlink()
    for _ in range(2):  # also when the same command is given once more, and they lie aside
        with pytest.raises(InputError, match=f"every checkpoint in .* is damaged: remove {tmp_path} to train"):
            latest(tmp_path)
        assert has_begun(tmp_path) and not list((tmp_path / "checkpoints").glob("[0-9]*"))
    shutil.rmtree(tmp_path)
    assert latest(tmp_path) is None and not has_begun(tmp_path)


def test_another_state_of_the_optimizer_is_told(tmp_path, colors, monkeypatch):
    """An earlier version kept the moments of each leaf by themselves. The networks are there for evaluation."""
    monkeypatch.setattr(optimizer, "SMALL", 5)
    train(tmp_path, colors, mapping=ONE(), until=6)
    monkeypatch.undo()
    with pytest.raises(InputError, match="6 has another optimizer state, .*: end this training with that version"):
        latest(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", ONE(), log=print)
    assert checkpoints.restore_best(like())[1]["step"] == 6
    checkpoints.close()


def test_what_an_interrupted_save_leaves_is_not_a_checkpoint(tmp_path, colors):
    train(tmp_path, colors, mapping=ONE(), until=6)
    folder = tmp_path / "checkpoints"
    os.rename(folder / "6", folder / "6.orbax-checkpoint-tmp")  # the name until all is written
    state, _ = latest(tmp_path)
    assert int(state.step) == 3


def test_a_checkpoint_whose_process_died_before_the_sums_is_used(tmp_path, colors):
    train(tmp_path, colors, mapping=ONE(), until=6)
    (tmp_path / "checkpoints" / "6.crc32.json").unlink()
    state, _ = latest(tmp_path)
    assert int(state.step) == 6


@pytest.mark.parametrize("damage", ["cut", "empty", "no optimizer"])
def test_a_checkpoint_that_power_loss_left_is_put_aside(tmp_path, colors, damage):
    """Complete by its name, never sealed, and not readable."""
    whole, _, _ = train(tmp_path, colors, mapping=ONE(), until=12)
    folder = tmp_path / "checkpoints" / "12"
    (tmp_path / "checkpoints" / "12.crc32.json").unlink()
    if damage == "no optimizer":
        shutil.rmtree(folder / "optimizer")
    else:
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if damage == "cut" else 0])
    again, _, _ = train(tmp_path, colors, mapping=ONE(), until=12)
    assert (tmp_path / "checkpoints" / "damaged-12").is_dir()
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_the_latest_whole_step_is_not_a_damaged_one(tmp_path, colors):
    """What a finished stage asks, so that it is not taken for finished."""
    train(tmp_path, colors, mapping=ONE(), until=6)
    checkpoints = Checkpoints(tmp_path / "checkpoints", ONE())
    assert checkpoints.latest_whole_step() == 6
    path = largest_file(tmp_path / "checkpoints" / "6")
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert checkpoints.latest_whole_step() == 3
    checkpoints.close()


@pytest.mark.slow
def test_a_disk_that_is_full_ends_in_one_line_and_keeps_the_last_checkpoint(tmp_path, colors, monkeypatch):
    whole, _, _ = train(tmp_path / "whole", colors, mapping=ONE(), until=12)
    train(tmp_path / "full", colors, mapping=ONE(), until=6)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        said = r"checkpoints/9 could not be written: .* 0 MB are free.* that of step 6;"
        with pytest.raises(InputError, match=said) as full:
            train(tmp_path / "full", colors, mapping=ONE(), until=12)
    assert full.value.__cause__.errno == errno.ENOSPC  # for the exit status
    resumed, _, _ = train(tmp_path / "full", colors, mapping=ONE(), until=12)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
import test_checkpoint as t
checkpoints = t.Checkpoints(t.Path({directory!r}), t.ONE())
state, averages = checkpoints.restore(t.like(), t.EMPTY)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # no file may grow beyond 200 bytes
try:
    checkpoints.save(state.replace(step=t.jax.numpy.int32(7)), averages)
except t.InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_disk_that_fills_during_a_save_is_told_in_one_line(tmp_path, colors):
    whole, _, _ = train(tmp_path / "whole", colors, mapping=ONE(), until=12)
    train(tmp_path / "full", colors, mapping=ONE(), until=6)
    code = FULL.format(tests=str(Path(__file__).parent), directory=str(tmp_path / "full" / "checkpoints"))
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    (line,) = done.stdout.strip().splitlines()
    assert "checkpoints/7 could not be written: " in line and "that of step 6;" in line and "File too large" in line
    resumed, _, _ = train(tmp_path / "full", colors, mapping=ONE(), until=12)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_a_reader_changes_nothing(tmp_path, colors):
    train(tmp_path, colors, mapping=ONE(), until=6)
    largest_file(tmp_path / "checkpoints" / "6").unlink()
    before = sorted(path for path in (tmp_path / "checkpoints").rglob("*"))
    checkpoints = Checkpoints(tmp_path / "checkpoints", ONE(), read_only=True)
    _, model = checkpoints.restore_best(like())
    checkpoints.close()
    assert int(model["step"]) == 3 and before == sorted(path for path in (tmp_path / "checkpoints").rglob("*"))


@pytest.mark.slow
@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("at", [1, 2, 3, 7])
def test_sigterm_saves_the_step_and_the_rest_is_the_same(tmp_path, colors, at):
    from kdjax.runtime import preemption

    whole, records, _ = train(tmp_path / "whole", colors, mapping=ONE(), until=12, longest=1)
    preemption.install()

    def terminate(line):
        if f"step {at}/" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(Preempted, match="is saved"), preemption.deferrable():
            train(tmp_path / "parts", colors, mapping=ONE(), until=12, longest=1, log=terminate)
    finally:
        preemption._Signal.received = False
    saved, _ = latest(tmp_path / "parts")
    assert at <= int(saved.step) <= at + 2
    resumed, again, _ = train(tmp_path / "parts", colors, mapping=ONE(), until=12, longest=1)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert again == records


@pytest.mark.usefixtures("handlers")
def test_sigterm_before_the_first_step_ends_at_once_and_saves_nothing(tmp_path, colors, monkeypatch):
    from kdjax.runtime import preemption

    preemption.install()
    monkeypatch.setattr(preemption, "requested", lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(Preempted, match="^ended by SIGTERM$"), preemption.deferrable():
            train(tmp_path, colors, mapping=ONE(), until=12)
    finally:
        preemption._Signal.received = False
    assert latest(tmp_path) is None


@pytest.mark.usefixtures("handlers")
def test_sigterm_that_a_loop_has_no_time_for_ends_the_run_behind_it():
    """During the last save nothing asks any more."""
    from kdjax.runtime import preemption

    preemption.install()
    try:
        with pytest.raises(Preempted), preemption.deferrable():
            preemption.defer()
            os.kill(os.getpid(), signal.SIGTERM)
            assert preemption.requested()
    finally:
        preemption._Signal.received = False


@pytest.mark.usefixtures("handlers")
def test_sigterm_outside_a_loop_ends_at_once():
    from kdjax.runtime import preemption

    preemption.install()
    try:
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        preemption._Signal.received = False


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Preempted)])
def test_a_signal_that_a_library_swallows_ends_the_run_behind_the_stage(number, error):
    from kdjax.runtime import preemption

    preemption.install()
    preemption.check_lost()
    try:
        with pytest.raises(error):
            try:
                os.kill(os.getpid(), number)
            except error:
                pass
            preemption.check_lost()
    finally:
        preemption._Signal.interrupted = preemption._Signal.received = False


@pytest.mark.slow
def test_another_number_of_devices_goes_on_from_the_same_checkpoint(tmp_path, colors):
    whole, _, _ = train(tmp_path / "whole", colors, mapping=ONE(), until=12)
    train(tmp_path / "parts", colors, mapping=devices.DeviceMapping(), until=6)
    resumed, _, _ = train(tmp_path / "parts", colors, mapping=MAPPINGS["rows"](), until=12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), resumed, whole)
