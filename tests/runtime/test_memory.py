"""Estimates of memory, against what the compiler says, and what follows from them."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import networks
from kdjax.networks import mobilenet_v2
from kdjax.runtime import memory
from kdjax.training import memory_plan, predictor
from kdjax.training.step import eval_step


@pytest.mark.slow
def test_the_memory_of_a_step_is_estimated_within_a_factor_of_two(monkeypatch):
    monkeypatch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2)))  # compiles sooner
    model = networks.create("mobilenet_v2", 5, width=0.35)
    images = jnp.zeros((8, 64, 64, 3))
    variables = model.init(jax.random.key(0), images)

    def loss(params):
        return model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])[0].logits.sum()

    used = jax.jit(jax.grad(loss)).lower(variables["params"]).compile().memory_analysis().temp_size_in_bytes
    shapes = jax.eval_shape(lambda: variables)
    counted = memory_plan.residual_bytes(model, shapes, jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32))
    assert used / 2 < counted < used * 2


@pytest.mark.slow
def test_evaluation_of_a_large_population_takes_smaller_batches(monkeypatch):
    """By the compiler's own count: six students at 64 px, where 64 images at once would take several times as much."""
    monkeypatch.setattr(predictor, "LAYER_BYTES", 1 << 24)
    model = networks.create("mobilenet_v2", 5, width=0.35)
    one = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    population = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, 3, *leaf.shape), leaf.dtype), one)
    batch = predictor.batch_per_device(population, networks.cost(model, 64)["activation_bytes"])
    step = jax.jit(functools.partial(eval_step, network=model, size=64))

    def used(batch):
        images = jax.ShapeDtypeStruct((batch, 64, 64, 3), jnp.uint8)
        return step.lower(population, images).compile().memory_analysis().temp_size_in_bytes

    assert 1 <= batch < predictor.BATCH_PER_DEVICE
    assert used(batch) < 4 * predictor.LAYER_BYTES < used(predictor.BATCH_PER_DEVICE)
    many = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2000, 3, *leaf.shape[2:]), leaf.dtype), population)
    assert predictor.batch_per_device(many, 1 << 20) == 1


def test_a_device_has_memory():
    devices = jax.local_devices()
    total = len(devices) * memory.free_bytes(devices, 1.0)
    assert 2**28 < total < 2**45
    assert len(devices) * memory.free_bytes(devices, 0.5) < total / 2  # what the process holds counts in full
    assert memory.free_bytes(devices[:1], 1.0) == pytest.approx(total, rel=0.1)  # those that are not used take nothing
    assert memory.capacity(devices[:2]) == memory.capacity(devices[:1]) // 2
    assert memory.tree_bytes({"a": jnp.zeros((3, 2), jnp.bfloat16), "b": jnp.zeros(5)}) == pytest.approx(32)


def test_pages_of_mapped_files_do_not_count(tmp_path):
    """A data set that is read through a map fills the process, but takes no memory from others."""
    size = 1 << 28
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(size)
    mapped = np.memmap(tmp_path / "zeros", np.uint8, "r")
    before = memory.free_bytes(jax.devices()[:1], 1.0)
    assert not mapped[::4096].any()
    assert abs(before - memory.free_bytes(jax.devices()[:1], 1.0)) < size / 4


@pytest.mark.parametrize(("backend", "expected"), [("cpu", 100 + 7 + 2 * 30), ("gpu", 100 + 7 + 30), ("tpu", 137)])
def test_working_memory_counts_twice_on_a_cpu_alone(monkeypatch, backend, expected):
    found = SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=10, alias_size_in_bytes=3, temp_size_in_bytes=30
    )
    compiled = SimpleNamespace(memory_analysis=lambda: found)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert memory.program_bytes(SimpleNamespace(compile=lambda: compiled)) == expected
