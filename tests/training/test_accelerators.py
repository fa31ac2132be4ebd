"""The programs of a run can be made for accelerators that this machine lacks, as the benchmark makes them."""

import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny
from benchmarks import accelerator_compile
from benchmarks.accelerator_compile import PROGRAMS, Setting, lowered, mapping, program, topology
from helpers.small_run import MAPPINGS, arms, learner, training_data

from kdjax.inputs.batch import Examples
from kdjax.inputs.tiled import Tiled, to_device_layout
from kdjax.networks import mobilenet_v2, vgg16
from kdjax.runtime import devices
from kdjax.training import population as populations


@pytest.fixture(autouse=True)
def few_layers(monkeypatch):
    monkeypatch.setattr(vgg16, "BLOCKS", tiny.BLOCKS)
    monkeypatch.setattr(mobilenet_v2, "STAGES", tiny.STAGES)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_can_be_lowered_for_other_platforms(name):
    setting = Setting(size=32, side=36, batch=16, teacher_batch=16, examples=64, classes=3, views=2)
    built = program(name, setting, devices.DeviceMapping(jax.devices()[:1]))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), built.arguments)
    traced = built.compiled.trace(*shapes)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert re.search(r"stablehlo\.convolution.*bf16", text)
        # Augmentation gathers rows tap by tap, but on a TPU takes a matrix product in full precision.
        products = re.findall(r"dot_general.*precision = \[HIGHEST, HIGHEST\]", text)
        assert bool(products) == (platform == "tpu")


@pytest.mark.slow
def test_training_from_tiles_gives_the_same_bits(tmp_path, colors, monkeypatch):
    def trained(platform):
        device = SimpleNamespace(platform=platform)
        monkeypatch.setattr(populations, "to_device_layout", lambda images, _: to_device_layout(images, device))
        trained = populations.population(learner(tmp_path, MAPPINGS["one"]()), arms(), training_data(colors))
        plan = trained.feed(0)(0, 3)
        return jax.tree.map(np.asarray, trained.step()(*trained.initial(), plan, np.int32(3)))

    jax.tree.map(np.testing.assert_array_equal, trained("cpu"), trained("tpu"))


def test_training_on_a_tpu_holds_tiles(tmp_path, colors):
    mapping = SimpleNamespace(
        local=(SimpleNamespace(platform="tpu"),), split=lambda tree, axis: tree, layout=lambda tree, kind="whole": tree
    )
    trained = populations.population(learner(tmp_path, mapping), arms(), training_data(colors))
    (examples,) = (one for one in trained.arguments() if isinstance(one, Examples))
    assert isinstance(examples.images, Tiled)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_a_tpu_gathers_from_the_images_where_they_lie(count):
    """At 252 px the compiler would copy an array (examples, side, side, 3) whole, on every call."""
    pytest.importorskip("libtpu")
    setting = Setting(size=32, side=252, batch=16, teacher_batch=16, examples=25200, classes=3, views=2)
    chips = topology("v5e")[:count]
    for name in ("student_4", "teacher_views"):
        mapped = mapping(name, chips)
        built = program(name, setting, mapped)
        compiled = lowered(built, mapped).compile()
        assert re.search(r"u8\[25200,1504,128\]", compiled.as_text())
        assert not re.search(r"= \(?u8\[25200,\S* copy\(", compiled.as_text())
        found = accelerator_compile.measured(compiled, built.images / count, accelerator_compile.CHIPS["v5e"])
        assert found["fits"] and found["temporary_bytes"] < 1e9
