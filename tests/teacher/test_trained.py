"""A network of kdjax's as teacher sees what the students see."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.views import IMAGES, SIZE, pixels

from kdjax import networks
from kdjax.data.rows import Rows
from kdjax.networks import vgg16
from kdjax.objective.outputs import Outputs
from kdjax.runtime import heap
from kdjax.runtime.devices import DeviceMapping
from kdjax.teacher import trained
from kdjax.teacher.teacher import ViewSettings
from kdjax.teacher.trained import Mean, from_network


@pytest.mark.slow
@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_network_sees_the_views_of_the_students(on_device, devices, monkeypatch):
    monkeypatch.setattr(vgg16, "BLOCKS", ((64,), (128,)))  # compiles sooner
    model = networks.create("vgg16", 3, width=0.05, form="examples_last")
    variables = jax.tree.map(np.asarray, dict(model.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))))
    teacher = from_network(
        "vgg16", model, variables, ViewSettings(SIZE, data_seed=5), dtype="float32", on_device=on_device,
        mapping=DeviceMapping(jax.devices()[:devices]),
    )  # fmt: skip
    chosen, forward = np.array([3, 9, 0]), jax.jit(model.apply)
    expected, said = forward(variables, pixels(view=2)[chosen]), teacher.views(IMAGES, chosen, 2)
    np.testing.assert_allclose(said.logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(said.features, expected.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(teacher.clean(IMAGES), forward(variables, pixels()).logits, rtol=1e-4, atol=1e-5)
    # Images on the devices are known by the identity of those they are copies of: no others may come to have it.
    passing = Rows.of(255 - IMAGES)
    alive = weakref.ref(passing)
    teacher.views(passing, chosen, 2)
    del passing
    gc.collect()
    assert alive() is not None or not on_device
    assert teacher.parts["model"] == "vgg16" and len(teacher.parts["teacher"]) == 64


def test_what_a_training_has_left_on_the_heap_is_handed_back_before_the_views(monkeypatch):
    """A VGG16 at 224 px keeps 7 GB of its training, and its views take 2; `Trim` would let them grow to twice the 7."""
    events = []
    monkeypatch.setattr(heap, "hand_back", lambda: events.append("handed back"))
    monkeypatch.setattr(heap, "Trim", lambda: lambda: events.append("batch"))
    monkeypatch.setattr(
        trained, "compiled_view_step", lambda *_: lambda _, everything, share: Outputs(share.views, share.views)
    )
    network = networks.create("mobilenet_v2", 3, width=0.05)
    teacher = from_network(
        "mobilenet_v2", network, {"params": np.ones(1)}, ViewSettings(SIZE, data_seed=5), dtype="float32",
        on_device=False, mapping=DeviceMapping(jax.devices()[:1]),
    )  # fmt: skip
    for view in range(2):
        np.testing.assert_array_equal(teacher.views(IMAGES, np.array([3, 9, 0]), view).logits, [view] * 3)
    assert events == ["handed back", "batch", "batch"]


@pytest.mark.slow
def test_the_mean_of_several_networks_is_a_teacher(monkeypatch):
    monkeypatch.setattr(vgg16, "BLOCKS", ((64,), (128,)))  # compiles sooner
    model = networks.create("vgg16_bn", 3, width=0.05, form="examples_last")
    first = jnp.zeros((1, SIZE, SIZE, 3))
    each = [jax.tree.map(np.asarray, dict(model.init(jax.random.key(seed), first))) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    teacher = from_network(
        "mean", Mean(model, 3), {kind: {"network": leaves} for kind, leaves in stacked.items()},
        ViewSettings(SIZE, data_seed=5), dtype="float32", on_device=True, mapping=DeviceMapping(jax.devices()[:1]),
    )  # fmt: skip
    forward = jax.jit(lambda variables, images: model.apply(variables, images).logits)
    for found, images in (
        (teacher.views(IMAGES, np.arange(4), 2).logits, pixels(view=2)[:4]),
        (teacher.clean(IMAGES), pixels()),
    ):
        expected = np.mean([forward(variables, images) for variables in each], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert teacher.views(IMAGES, np.arange(4), 2).features is None


@pytest.mark.parametrize(("side", "batch"), [(224, 2**30 // (4 * 2 * 64 * 224 * 224)), (64, 64)])
def test_views_are_shown_in_batches_whose_layers_have_room(monkeypatch, side, batch):
    """The largest layer of a VGG16 is its second: 64 channels of its images' size in and out, as floats."""
    shown = []

    def step(variables, examples, plan):
        shown.append(len(plan.examples))
        return Outputs(np.zeros((len(plan.examples), 3), np.float32))

    monkeypatch.setattr(trained, "compiled_view_step", lambda *args: step)
    teacher = from_network(
        "vgg16", networks.create("vgg16", 3), {"params": np.zeros(1)}, ViewSettings(side, data_seed=5), dtype="float32",
        on_device=True, mapping=DeviceMapping(jax.devices()[:1]),
    )  # fmt: skip
    said = teacher.views(IMAGES, np.zeros(100, np.int32), 0)
    assert shown == [batch] * -(-100 // batch) and len(said.logits) == 100
