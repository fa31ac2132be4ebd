"""Where the training images lie: on the devices where they fit and nobody says otherwise."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.objective.outputs import Outputs
from kdjax.run import run as runs
from kdjax.runtime import devices, memory


def run_of(images, how):
    return SimpleNamespace(
        config=SimpleNamespace(run=SimpleNamespace(images=how)),
        dataset=SimpleNamespace(train=SimpleNamespace(images=images)),
        student=SimpleNamespace(rows=(2, 2)),
    )


@pytest.mark.parametrize("share, auto, fits", [(0.2, True, True), (0.3, False, True), (1.1, False, False)])
def test_images_that_cannot_fit_are_not_put_on_a_device(monkeypatch, share, auto, fits):
    images = np.zeros((5, 4, 4, 3), np.uint8)
    monkeypatch.setattr(memory, "capacity", lambda device: images.nbytes / share)
    on_device = {how: runs.Run.on_device(run_of(images, how), images) for how in ("auto", "device", "host")}
    assert on_device == {"auto": auto, "device": True, "host": False}
    for how in ("auto", "host"):
        runs._check_memory(run_of(images, how))
    if fits:
        runs._check_memory(run_of(images, "device"))
    else:
        with pytest.raises(InputError, match="^run.images is 'device', but .* set it to 'auto' or 'host'$"):
            runs._check_memory(run_of(images, "device"))


def test_of_several_processes_the_one_with_the_least_memory_decides(monkeypatch):
    """Where the images lie shapes the program, which all of them run together."""
    images = np.zeros((5, 4, 4, 3), np.uint8)
    monkeypatch.setattr(memory, "capacity", lambda device: 100 * images.nbytes)
    for theirs, fits in ((8, True), (2, False)):
        monkeypatch.setattr(devices, "smallest", lambda number, theirs=theirs: min(number, theirs * images.nbytes))
        assert runs.Run.on_device(run_of(images, "auto"), images) == fits


def test_images_that_fit_once_are_held_whatever_the_number_of_cores(monkeypatch):
    """Several devices of a CPU would each hold them: the memory plan then takes fewer."""
    images = np.zeros((5, 4, 4, 3), np.uint8)
    mappings = [SimpleNamespace(local=jax.local_devices()[:count]) for count in (4, 2, 1)]
    monkeypatch.setattr(devices, "for_population", lambda seeds, arms: mappings)
    monkeypatch.setattr(memory, "capacity", lambda shared: 5 * images.nbytes / len(shared))
    assert runs.Run.on_device(run_of(images, "auto"), images)
    runs._check_memory(run_of(images, "device"))


def test_what_the_teacher_said_of_their_views_needs_its_place_too(monkeypatch):
    """Eight views of 2048 features in two bytes are more than an image of 64 px."""
    images, logits = np.zeros((5, 64, 64, 3), np.uint8), np.zeros((8, 5, 10), np.float32)
    features = np.zeros((8, 5, 2048), np.float16)
    together = 5 * (64 * 64 * 3 + 8 * 10 * 4 + 8 * 2048 * 2)
    for room, fits in ((4 * together, True), (4 * together - 4, False)):
        monkeypatch.setattr(memory, "capacity", lambda device, room=room: room)
        said = runs.Run.on_device(run_of(images, "auto"), images, Outputs(logits, features))
        assert said == fits
        assert runs.Run.on_device(run_of(images, "auto"), images, Outputs(logits))
